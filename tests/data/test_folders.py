"""Folders of images as people have them: what is found, split, owned, named and skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from images import encoded, write
from listings import names, pairs, skipped, write_classes

from flora_secure.data.cache import ArrayCache
from flora_secure.data.federation import load_federation
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.planning.sections import DataConfig


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
        "class folder without a file": (1, ("train/dora/cat",)),
        "empty file": (1, ("train/emil/cat/0.jpg",)),
        "client without a usable private image": (1, ("emil",)),
    }
    assert federation.lines[0].endswith(
        "1 / 4 / 6 images a client (min, median, max), 1.7 classes each, label distance 0.18"
    )
    assert len(data.test) == 4

    with pytest.raises(DataError, match=r"data\.clients 4, but the data set has 3 of its own: use 3"):
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
        load_federation(DataConfig(dataset="digits", partition="natural"), 0)


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
        "hidden file": (1, ("dog/.hidden.jpg",)),
        "file that is no image by its name": (1, ("dog/notes.txt",)),
        "empty file": (7, tuple(f"cat/empty{i}.jpg" for i in range(7))),
        "corrupt or cut short": (1, ("dog/cut.jpg",)),
        "no image": (2, ("dog/text.png", "ghost/bad.jpg")),
        "class without a usable image": (1, ("ghost",)),
    }
    assert "skipped 7: empty file (cat/empty0.jpg, " in data.skipped[2].line
    assert data.skipped[2].line.endswith("cat/empty4.jpg, …)")


def test_the_cache_remembers_verdicts_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path / "images", 10)
    (tmp_path / "images" / "dog" / "cut.jpg").write_bytes(encoded(3)[:300])
    cache = ArrayCache(tmp_path / "cache", lambda line: pytest.fail(line))
    plain, first = (load_dataset("folder", tmp_path / "images", cache=c) for c in (None, cache))
    monkeypatch.setattr("flora_secure.data.files.samples.check", lambda *_, **__: pytest.fail("decoded again"))
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
        (
            lambda root: write_classes(root, 6, ("cat",)),
            r"images of one class alone, 'cat' \(6 images\): expected ROOT",
        ),
        (lambda root: write_classes(root, 3), "no usable test image left"),
        (lambda root: (write_classes(root / "train", 3), write_classes(root / "test", 0)), "no usable test image left"),
    ],
)
def test_folders_without_enough(tmp_path: Path, prepare, message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(DataError, match=message):
        load_dataset("folder", tmp_path)
