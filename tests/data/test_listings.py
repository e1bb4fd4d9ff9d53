"""Folders, tables and shards of files as people have them: what is found, split, owned, named and skipped."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from images import encoded, write

from flora_secure.config import DataConfig
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.errors import DataError
from flora_secure.data.federation import load_federation
from flora_secure.data.sources import load_dataset


def names(split: Split) -> list[str]:
    return [file.name for file in split.images.files]  # type: ignore[union-attr]


def pairs(data: Dataset, split: Split) -> set[tuple[str, str]]:
    return {(name, data.class_names[label]) for name, label in zip(names(split), split.labels, strict=True)}


def skipped(data: Dataset) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {one.reason: (one.count, one.names) for one in data.skipped}


def write_classes(root: Path, count: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    for number, label in enumerate(classes):
        for i in range(count):
            write(root / label / f"{i}.jpg", 1000 * number + i + len(root.name) * 31)


# folders


def test_folder_with_train_val_and_test(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        write_classes(tmp_path / part, count)
    data = load_dataset("folder", tmp_path)
    assert [len(s) for s in (data.private, data.public, data.test)] == [10, 6, 4]
    assert data.class_names == ("cat", "dog")
    assert pairs(data, data.test) == {(f"test/{c}/{i}.jpg", c) for c in ("cat", "dog") for i in range(2)}
    assert data.owners is None
    assert data.skipped == ()


def test_folder_with_train_and_val_tests_on_val(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 5)
    write_classes(tmp_path / "val", 3)
    write_classes(tmp_path / "public", 1)
    (tmp_path / "notes").mkdir()
    data = load_dataset("folder", tmp_path)
    assert [len(s) for s in (data.private, data.public, data.test)] == [10, 2, 6]
    assert skipped(data) == {"folder beside train/ that is no split": (1, ("notes",))}


def test_folder_without_splits_keeps_the_only_image_of_a_class_for_training(tmp_path: Path) -> None:
    write_classes(tmp_path, 11)
    write(tmp_path / "test" / "lonely.png", 7, "PNG")  # a class called "test", not a split: there is no train/
    data = load_dataset("folder", tmp_path)
    assert data.class_names == ("cat", "dog", "test")
    assert np.bincount(data.test.labels, minlength=3).tolist() == [2, 2, 0]
    assert np.bincount(data.private.labels).tolist() == [9, 9, 1]
    assert names(load_dataset("folder", tmp_path).test) == names(data.test)


def test_natural_folders_are_clients(tmp_path: Path) -> None:
    for number, client in enumerate(("anna", "bert", "carl")):
        write_classes(tmp_path / "train" / client, number + 1, ("cat", "dog") if number else ("dog",))
    write_classes(tmp_path / "test", 2)
    (tmp_path / "train" / "dora" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "emil" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "emil" / "cat" / "0.jpg").write_bytes(b"")
    config = DataConfig(dataset="folder", data_root=str(tmp_path), clients=3, partition="natural")
    federation = load_federation(config, 0)
    data = federation.dataset
    assert data.owners is not None
    assert data.owners.names == ("anna", "bert", "carl")
    held = [{names(data.private)[i].split("/")[1] for i in part} for part in federation.clients]
    assert held == [{"anna"}, {"bert"}, {"carl"}]
    assert [len(part) for part in federation.clients] == [1, 4, 6]
    assert skipped(data) == {
        "empty file": (1, ("train/emil/cat/0.jpg",)),
        "client without a usable private image": (1, ("emil",)),
    }
    assert federation.lines[0].endswith(
        "1 / 4 / 6 images a client (min, median, max), 1.7 classes each, label distance 0.18"
    )
    assert len(data.test) == 4

    with pytest.raises(DataError, match="4 clients, but the data set has 3 of its own: use --clients 3"):
        load_federation(DataConfig(dataset="folder", data_root=str(tmp_path), clients=4, partition="natural"), 0)


def test_fewer_natural_clients_than_there_are_leave_the_others_out(tmp_path: Path) -> None:
    for number in range(6):
        write_classes(tmp_path / f"client{number}", 5)
    config = DataConfig(dataset="folder", data_root=str(tmp_path), clients=2, partition="natural")
    federations = [load_federation(config, seed) for seed in range(8)]
    for federation in federations:
        private = federation.dataset.private
        assert len(private) == 16  # of ten images each, two are test images
        assert np.array_equal(np.sort(np.concatenate(federation.clients)), np.arange(16))
        assert all(len({names(private)[i].split("/")[0] for i in part}) == 1 for part in federation.clients)
        assert all(name.split("/")[1] == federation.dataset.class_names[label]
                   for name, label in zip(names(private), private.labels, strict=True))  # fmt: skip
    assert len({tuple(names(federation.dataset.private)) for federation in federations}) > 1


def test_natural_needs_clients(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="natural needs a data set with clients of its own"):
        load_federation(DataConfig(partition="natural"), 0)


def test_bad_images_are_counted_by_reason_and_named(tmp_path: Path) -> None:
    write_classes(tmp_path, 10)
    for i in range(7):
        (tmp_path / "cat" / f"empty{i}.jpg").write_bytes(b"")
    (tmp_path / "dog" / "cut.jpg").write_bytes(encoded(3)[:300])
    (tmp_path / "dog" / "text.png").write_text("no image", encoding="utf-8")
    (tmp_path / "dog" / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "dog" / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "ghost").mkdir()
    (tmp_path / "ghost" / "bad.jpg").write_bytes(b"bad")
    data = load_dataset("folder", tmp_path)
    assert len(data.private) + len(data.test) == 20
    assert data.class_names == ("cat", "dog")
    assert skipped(data) == {
        "file that is no image by its name": (1, ("dog/notes.txt",)),
        "empty file": (7, tuple(f"cat/empty{i}.jpg" for i in range(5))),
        "corrupt or cut short": (1, ("dog/cut.jpg",)),
        "no image": (2, ("dog/text.png", "ghost/bad.jpg")),
        "class without a usable image": (1, ("ghost",)),
    }
    assert "skipped 7: empty file (cat/empty0.jpg, " in data.skipped[1].line
    assert data.skipped[1].line.endswith("cat/empty4.jpg, …)")


def test_the_cache_remembers_verdicts_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path / "images", 10)
    (tmp_path / "images" / "dog" / "cut.jpg").write_bytes(encoded(3)[:300])
    cache = ArrayCache(tmp_path / "cache", lambda line: pytest.fail(line))
    plain, first = (load_dataset("folder", tmp_path / "images", cache=c) for c in (None, cache))
    monkeypatch.setattr("flora_secure.data.samples.damage", lambda file: pytest.fail("decoded again"))
    second = load_dataset("folder", tmp_path / "images", cache=cache)
    assert plain.data_hash == first.data_hash == second.data_hash
    assert plain.skipped == first.skipped == second.skipped
    monkeypatch.undo()
    (tmp_path / "images" / "dog" / "cut.jpg").write_bytes(encoded(3))  # mended
    assert load_dataset("folder", tmp_path / "images", cache=cache).skipped == ()


def test_the_data_hash_sees_contents_labels_and_nothing_else(tmp_path: Path) -> None:
    write_classes(tmp_path / "a", 6)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "cat").rename(tmp_path / "b" / "cat")
    (tmp_path / "a" / "dog").rename(tmp_path / "b" / "dog")
    before = load_dataset("folder", tmp_path / "b").data_hash
    (tmp_path / "b").rename(tmp_path / "c")
    assert load_dataset("folder", tmp_path / "c").data_hash == before
    write(tmp_path / "c" / "cat" / "0.jpg", 12345)
    assert load_dataset("folder", tmp_path / "c").data_hash != before


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no image was found"),
        (lambda root: write_classes(root, 6, ("cat",)), r"has 1 class\(es\) with a usable image: at least 2"),
        (lambda root: write_classes(root, 3), "no usable test image left"),
        (lambda root: (write_classes(root / "train", 3), write_classes(root / "test", 0)), "no usable test image left"),
    ],
)
def test_folders_without_enough(tmp_path: Path, prepare, message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(DataError, match=message):
        load_dataset("folder", tmp_path)


# class names and templates


def lines(path: Path, *text: str) -> Path:
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_a_list_of_labels_admits_those_alone(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", 5, ("cat", "dog", "emu"))
    data = load_dataset("folder", tmp_path / "images", class_names=lines(tmp_path / "names", "emu", "cat", "yak"))
    assert data.class_names == ("emu", "cat", "yak")
    assert {label for _, label in pairs(data, data.private)} == {"emu", "cat"}
    assert skipped(data)["label outside the class list"] == (5, tuple(f"dog/{i}.jpg: dog" for i in range(5)))


def test_names_in_the_order_of_the_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", 5, ("n01", "n02"))
    data = load_dataset("folder", tmp_path / "images", class_names=lines(tmp_path / "names", "tench", "goldfish"))
    assert data.class_names == ("tench", "goldfish")
    assert all(("n01" in name) == (label == "tench") for name, label in pairs(data, data.private))
    with pytest.raises(DataError, match="none of the 2 labels, such as 'n01', is among the 3 class names"):
        load_dataset("folder", tmp_path / "images", class_names=lines(tmp_path / "names", "a", "b", "c"))


def test_names_and_templates_of_a_data_set_that_ships(tmp_path: Path) -> None:
    ten = lines(tmp_path / "names", *(f"number {i}" for i in range(10)))
    data = load_dataset("digits", class_names=ten, templates=lines(tmp_path / "t", "the {}", "a {c}."))
    assert data.class_names[3] == "number 3"
    assert data.templates == ("the {}", "a {}.")
    with pytest.raises(DataError, match="2 lines, data set 'digits' has 10 classes"):
        load_dataset("digits", class_names=lines(tmp_path / "names", "a", "b"))


@pytest.mark.parametrize("text", ["no place", "{} and {}", "{0}", "{name}", "{} {", "{}{!r}"])
def test_templates_need_one_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"needs one \{\} for the class's name"):
        load_dataset("digits", templates=lines(tmp_path / "t", text))


@pytest.mark.parametrize(
    ("raw", "message"), [(b"", "is empty"), (b"a\nb\na\n", "lists 'a' twice"), (b"\xff\xfe", "not UTF-8")]
)
def test_bad_lists(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "names").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        load_dataset("digits", class_names=tmp_path / "names")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_dataset("digits", class_names=tmp_path / "absent")


# tables

ROWS = [("a/0.jpg", "cat", "anna", "train"), ("a/1.jpg", "dog", "anna", "train"), ("b/2.jpg", "cat", "bert", "train"),
        ("b/3.jpg", "dog", "", "test")]  # fmt: skip


def write_table(folder: Path, rows: list[tuple[str, ...]], header: str = "path,label,client,split") -> Path:
    for number, row in enumerate(ROWS):
        write(folder / row[0], number)
    return lines(folder / "table.csv", header, *(",".join(row) for row in rows))


def test_csv_with_clients_and_splits(tmp_path: Path) -> None:
    path = write_table(tmp_path, ROWS)
    config = DataConfig(dataset="table", data_root=str(path), clients=2, partition="natural")
    federation = load_federation(config, 0)
    data = federation.dataset
    assert data.class_names == ("cat", "dog")
    assert pairs(data, data.private) == {("a/0.jpg", "cat"), ("a/1.jpg", "dog"), ("b/2.jpg", "cat")}
    assert pairs(data, data.test) == {("b/3.jpg", "dog")}
    assert [part.tolist() for part in federation.clients] == [[0, 1], [2]]


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    bad = [("", "cat", "x", "train"), ("a/0.jpg", "", "x", "train"), ("a/0.jpg", "cat", "x", "later"),
           ("absent.jpg", "cat", "x", "train")]  # fmt: skip
    data = load_dataset("table", write_table(tmp_path, [*bad, *ROWS]))
    assert len(data.private) == 3
    assert skipped(data) == {
        "row without a path or a label": (2, ("row 1", "row 2")),
        "split that is none of train, test, val, public": (1, ("row 3: later",)),
        "cannot be read: No such file or directory": (1, ("absent.jpg",)),
        "client without a usable private image": (1, ("x",)),
    }


def test_labels_as_numbers_of_a_class_list(tmp_path: Path) -> None:
    rows = [(path, {"cat": "0", "dog": "1"}[label], client, split) for path, label, client, split in ROWS]
    table = write_table(tmp_path, [*rows, ("a/0.jpg", "2", "anna", "train")])
    data = load_dataset("table", table, class_names=lines(tmp_path / "names", "cat", "dog"))
    assert pairs(data, data.test) == {("b/3.jpg", "dog")}
    assert skipped(data) == {"label outside the class list": (1, ("a/0.jpg: 2",))}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,label", "lacks the column 'path'; it has file, label"),
        ("path,client", r"lacks the column 'label' \(or 'caption'\); it has path, client"),
    ],
)
def test_tables_without_a_column(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset("table", write_table(tmp_path, [row[:2] for row in ROWS], header))


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no file: data set 'table' reads"):
        load_dataset("table", tmp_path)
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff,\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        load_dataset("table", tmp_path / "t.csv")


def test_parquet_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"needs pyarrow: pip install 'flora-secure\[parquet\]', or use CSV"):
        load_dataset("table", tmp_path / "t.parquet")


def test_parquet_is_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    csv = load_dataset("table", write_table(tmp_path, ROWS))
    columns = dict(zip(("path", "label", "client", "split"), zip(*ROWS, strict=True), strict=True))
    parquet.write_table(pyarrow.table({**columns, "more": [1, 2, 3, 4]}), tmp_path / "t.parquet")
    data = load_dataset("table", tmp_path / "t.parquet")
    assert data.data_hash == csv.data_hash
    (tmp_path / "t.parquet").write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_dataset("table", tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)


# shards


def write_shard(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, raw in members:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


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
        "sample without a label": (2, ("data.tar/y", "data.tar/w")),
        "JSON of a sample that cannot be read": (1, ("data.tar/w",)),
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
