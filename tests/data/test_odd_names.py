"""Labels, names and layouts that nobody plans for: the same data set every time, and nothing goes without a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENVIRONMENT
from images import encoded, write
from listings import lines, skipped, write_classes, write_shard

from flora_secure.data.class_names import read_lines
from flora_secure.data.federation import load_federation
from flora_secure.data.images import EncodedFile
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.planning.sections import DataConfig


def table(root: Path, labels: list[str], count: int = 5) -> Path:
    rows = []
    for place in range(count * len(labels)):
        write(root / f"{place}.jpg", place)
        rows.append(f"{place}.jpg,{labels[place % len(labels)]}")
    return lines(root / "table.csv", "path,label", *rows)


def test_labels_of_one_value_have_one_order_whatever_python_hashes(tmp_path: Path) -> None:
    path = table(tmp_path, ["1", "7", "A", "a", "Å", "10"])
    code = "import sys, pathlib; from flora_secure.data.sources import load_dataset as load; "
    code += "print(load('table', pathlib.Path(sys.argv[1])).class_names)"
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={**ENVIRONMENT, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        ).stdout
        for seed in "1234"
    }
    assert found == {"('1', '10', '7', 'A', 'a', 'Å')\n"}


def test_labels_of_more_digits_than_python_reads(tmp_path: Path) -> None:
    data = load_dataset("table", table(tmp_path, ["9" * 5000, "12", "3"]))
    assert data.class_names == ("3", "12", "9" * 5000)


@pytest.mark.skipif(sys.platform == "darwin", reason="names are Unicode there")
def test_names_that_are_no_text_are_told_in_text(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "cat" / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"")
    (tmp_path / "cat" / "a\nb.png").write_bytes(b"")
    (tmp_path / "cat" / "\x1b[31mred.png").write_bytes(b"")
    write(tmp_path / os.fsdecode(b"\xe9\xe8") / "0.jpg", 5)
    data = load_dataset("folder", tmp_path)
    assert data.class_names == ("cat", "dog")
    assert skipped(data) == {
        "label, client or caption that is no Unicode": (1, (r"\udce9\udce8/0.jpg",)),
        "empty file": (3, (r"cat/\x1b[31mred.png", r"cat/a\nb.png", r"cat/\udcff\udcfe.png")),
    }
    for one in data.skipped:
        one.line.encode()
        assert one.line.isprintable()
    assert len(data.data_hash) == 64


def test_half_a_character_in_a_shard(tmp_path: Path) -> None:
    members = []
    for i in range(12):
        label = "\\ud800" if i == 3 else "ab"[i % 2]
        members += [(f"{i:02d}.jpg", encoded(i)), (f"{i:02d}.json", f'{{"label": "{label}"}}'.encode())]
    data = load_dataset("webdataset", write_shard(tmp_path / "data.tar", members))
    assert data.class_names == ("a", "b")
    assert skipped(data) == {
        "sample whose texts cannot be read": (1, ("data.tar/03.json: a text that holds half a character",))
    }


def test_labels_in_json_that_are_no_text(tmp_path: Path) -> None:
    odd: list[object] = [None, True, 1.5, ["a"], {"a": 1}]
    members = []
    for i in range(15):
        label = odd[i - 10] if i >= 10 else i % 2
        members += [
            (f"{i:02d}.jpg", encoded(i)),
            (f"{i:02d}.json", json.dumps({"label": label, "client": None}).encode()),
        ]
    members += [("15.jpg", encoded(15)), ("15.json", b"[" * 200_000)]
    data = load_dataset("webdataset", write_shard(tmp_path / "data.tar", members))
    assert data.class_names == ("0", "1")
    assert skipped(data)["sample without a label"] == (1, ("data.tar/10",))
    count, told = skipped(data)["sample whose texts cannot be read"]
    assert count == 5
    assert told[0] == "data.tar/11.json: a label or client that is neither text nor a whole number"
    assert told[4] == "data.tar/15.json: it is nested deeper than 64 levels"
    assert data.owners is None


def test_captions_beside_an_empty_label(tmp_path: Path) -> None:
    members = []
    for i in range(10):
        about = json.dumps({"label": None, "caption": f"picture {i}"}).encode()
        members += [(f"{i}.jpg", encoded(i)), (f"{i}.json", about)]
    assert load_dataset("webdataset", write_shard(tmp_path / "data.tar", members)).captioned


def test_a_pipe_with_the_name_of_an_image_is_not_waited_for(tmp_path: Path) -> None:
    write_classes(tmp_path)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    data = load_dataset("folder", tmp_path)
    assert skipped(data) == {"cannot be read: it is no regular file": (1, ("cat/pipe.png",))}


def test_paths_with_a_nul(tmp_path: Path) -> None:
    path = table(tmp_path, ["a", "b"])
    with path.open("a") as file:
        file.write("no\0.jpg,a\n")
    with pytest.raises(DataError, match="it holds NUL bytes"):
        load_dataset("table", path)
    with pytest.raises(OSError, match="no file can have such a name"):
        EncodedFile("x", Path("a\0b")).read()
    with pytest.raises(DataError, match="cannot be read: no file can have such a name"):
        read_lines(Path("a\0b"), "class names")


def test_where_nothing_is_left_the_message_says_why(tmp_path: Path) -> None:
    path = lines(tmp_path / "wrong.csv", "path,label", "images/0.png,a", "images/1.png,b")
    with pytest.raises(
        DataError,
        match=r"has 0 class\(es\) with a usable image: at least 2 are needed; skipped 2: cannot be read: No such file "
        r"or directory \(images/0.png, images/1.png\); skipped 2: class without",
    ):
        load_dataset("table", path)
    members = [(f"{i}.{kind}", encoded(i) if kind == "jpg" else b"") for i in range(3) for kind in ("jpg", "cls")]
    with pytest.raises(
        DataError, match=r"no image was found that .*; skipped 3: sample without a label \(data.tar/0, "
    ):
        load_dataset("webdataset", write_shard(tmp_path / "data.tar", members))


def test_images_beside_the_class_folders_are_counted(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write(tmp_path / "stray.jpg", 3)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "none").mkdir()
    assert skipped(load_dataset("folder", tmp_path)) == {
        "image outside a class folder": (1, ("stray.jpg",)),
        "class folder without a file": (1, ("none",)),
    }


def test_clients_without_classes_are_counted(tmp_path: Path) -> None:
    for client in ("anna", "bert"):
        write_classes(tmp_path / "train" / client, 3)
    write(tmp_path / "train" / "flat" / "0.jpg", 8)
    (tmp_path / "train" / "empty").mkdir()
    write_classes(tmp_path / "test", 2)
    config = DataConfig(dataset="folder", data_root=str(tmp_path), clients=2, partition="natural")
    assert skipped(load_federation(config, 0).dataset) == {
        "image outside a class folder": (1, ("train/flat/0.jpg",)),
        "client folder without a class folder": (2, ("train/empty", "train/flat")),
    }


def test_test_images_below_class_folders_are_not_of_clients(tmp_path: Path) -> None:
    """CLASS/session/IMAGE looks like CLIENT/CLASS/IMAGE; the classes of train/ tell them apart."""
    for client in ("anna", "bert"):
        write_classes(tmp_path / "train" / client, 3)
    for label in ("cat", "dog"):
        write(tmp_path / "test" / label / "session0" / "0.jpg", 9 + len(label))
    config = DataConfig(dataset="folder", data_root=str(tmp_path), clients=2, partition="natural")
    data = load_federation(config, 0).dataset
    assert data.class_names == ("cat", "dog")
    assert data.test.labels.tolist() == [0, 1]
