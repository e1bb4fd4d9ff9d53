"""Shards of webdataset: labels of every kind, and samples and shards that cannot be used."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from images import encoded
from listings import lines, names, skipped, write_shard

from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError


def labelled(start: int, count: int, kind: str = "cls") -> list[tuple[str, bytes]]:
    members = []
    for i in range(start, start + count):
        about = {"cls": str(i % 2).encode(), "json": json.dumps({"label": i % 2, "client": f"c{i % 3}"}).encode(),
                 "txt": [b"cat", b"dog"][i % 2]}  # fmt: skip
        members += [(f"{i:04d}.jpg", encoded(i)), (f"{i:04d}.{kind}", about[kind])]
    return members


@pytest.mark.parametrize("kind", ["cls", "json", "txt"])
def test_shards(tmp_path: Path, kind: str) -> None:
    write_shard(tmp_path / "train-000000.tar", labelled(0, 6, kind))
    write_shard(tmp_path / "train-000001.tar", labelled(6, 6, kind))
    write_shard(tmp_path / "test-000000.tar", labelled(12, 4, kind))
    lines(tmp_path / "classnames.txt", "cat", "dog")  # where CLIP_benchmark puts it
    lines(tmp_path / "zeroshot_classification_templates.txt", "one {c}")
    data = load_dataset("webdataset", tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.templates == ("one {}",)
    assert names(data.test) == [f"test-000000.tar/{i:04d}.jpg" for i in range(12, 16)]
    assert data.private.labels.tolist() == [0, 1] * 6
    # read inside the tar, byte for byte
    assert [file.read() for file in data.private.images.files] == [encoded(i) for i in range(12)]
    assert (data.owners is not None) == (kind == "json")


def test_samples_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    odd = [("x.cls", b"1"), ("y.jpg", encoded(50)), ("z.jpg", b"bad"), ("z.cls", b"1"), ("w.jpg", encoded(51)),
           ("w.json", b"{"), ("../up.jpg", encoded(52)), ("../up.cls", b"0")]  # fmt: skip
    path = write_shard(tmp_path / "data.tar", [*labelled(0, 10), *odd])
    data = load_dataset("webdataset", path)
    assert len(data.private) + len(data.test) == 11
    assert skipped(data) == {
        "sample without an image": (1, ("data.tar/x",)),
        "sample whose texts cannot be read": (
            1,
            ("data.tar/w.json: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",),
        ),
        "sample without a label": (1, ("data.tar/y",)),
        "no image": (1, ("data.tar/z.jpg",)),
    }


def test_a_shard_that_is_cut_short_gives_what_it_holds(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "data.tar", labelled(0, 24))
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[36]  # the image of sample 18
    for end in (last.offset, last.offset + 100, last.offset_data, last.offset_data + 100):
        path.write_bytes(whole[:end])
        data = load_dataset("webdataset", path)
        assert len(data.private) + len(data.test) == 18
        assert skipped(data)["shard cut short"] == (1, ("data.tar",))


def test_shards_that_are_none(tmp_path: Path) -> None:
    write_shard(tmp_path / "data.tar", labelled(0, 4), "w:gz")
    with pytest.raises(DataError, match="is no uncompressed tar file"):
        load_dataset("webdataset", tmp_path)
