"""Folders that can be read in two ways, roots that are not what they should be, links, and files that are no images."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from images import write
from listings import names, skipped, write_shard

from flora_secure.data.federation import Federation, load_federation
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.model.trained.images import listed
from flora_secure.planning.sections import DataConfig


def tree(root: Path, *folders: str, count: int = 5) -> Path:
    """`count` different images in each of `folders`."""
    for place, folder in enumerate(folders):
        for i in range(count):
            write(root / folder / f"{i}.png", 1000 * place + i, "PNG")
    return root


def federation(root: Path, **settings: object) -> Federation:
    return load_federation(DataConfig(**{"dataset": "folder", "data_root": str(root), **settings}), 0)  # type: ignore[arg-type]


HOSPITALS = ("north/ill", "north/well", "south/ill", "south/well", "west/ill")


@pytest.mark.parametrize("top", ["", "train/"])
def test_clients_or_classes_is_asked_and_each_answer_taken(tmp_path: Path, top: str) -> None:
    tree(tmp_path, *(top + name for name in HOSPITALS))
    if top:
        for i in range(4):
            write(tmp_path / "test" / ("ill" if i % 2 else "well") / f"{i}.png", 90_000 + i, "PNG")
    with pytest.raises(DataError) as caught:
        federation(tmp_path, clients=2)
    assert re.search(
        r"can be read in two ways, .* of (it|train): data\.layout clients takes the 3 folders north, south, west for "
        r"clients, and the 2 folders ill, well for classes; data\.layout classes takes the 3 folders north, south, "
        r"west for classes; choose one$",
        str(caught.value),
    )
    if not top:
        as_classes = federation(tmp_path, layout="classes", clients=2)
        assert as_classes.dataset.class_names == ("north", "south", "west")
        assert as_classes.dataset.warnings == ()
    for settings in ({"layout": "clients"}, {"partition": "natural"}):
        natural = federation(tmp_path, **settings)
        assert natural.dataset.class_names == ("ill", "well")
        assert (len(natural.clients), natural.partition) == (3, "natural")
        assert re.search(r"2 classes \(ill \d+, well \d+\); ", natural.lines[0])
    anew = federation(tmp_path, layout="clients", partition="iid", clients=4)
    assert anew.dataset.class_names == ("ill", "well")
    assert anew.dataset.warnings == (
        "the 3 clients that the data set has are ignored, since partition iid deals the images anew; partition natural "
        "keeps them",
    )


def test_a_client_in_the_list_that_lacks_classes_or_has_a_stray_image_changes_nothing(tmp_path: Path) -> None:
    tree(tmp_path, *(f"c{client}/k{k}" for client in range(6) for k in range(4) if (client + k) % 3), count=1)
    write(tmp_path / "c0" / "preview.png", 9, "PNG")
    with pytest.raises(DataError, match=r"6 folders c0, c1, c2, … for clients, and the 4 folders k0, k1, k2, … for"):
        federation(tmp_path)


def test_splits_below_classes_are_recognised(tmp_path: Path) -> None:
    tree(tmp_path, "cat/train", "cat/test", "dog/train", "dog/test")
    with pytest.raises(DataError, match=r"splits lie above the classes: ROOT/train/CLASS, ROOT/test/CLASS$"):
        federation(tmp_path)


def test_folders_inside_classes_that_are_no_classes_are_said(tmp_path: Path) -> None:
    tree(tmp_path, "cat/patient-1", "cat/patient-2", "dog/patient-3", "dog/patient-4")
    (line,) = federation(tmp_path, clients=2).dataset.warnings
    assert line.startswith("2 class folders hold 4 folders of images, which all count as the outer folder's class: ")
    assert federation(tmp_path, clients=2, layout="classes").dataset.warnings == ()


def test_a_long_list_of_classes_is_cut_with_a_count(tmp_path: Path) -> None:
    tree(tmp_path, *(f"k{i:02}" for i in range(23)))
    line = federation(tmp_path, clients=2).lines[0]
    assert "23 classes (k00 4, k01 4, " in line
    assert "k19 4 and 3 more)" in line


def test_roots_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    tree(tmp_path / "one", "images")
    tree(tmp_path / "flat", "")
    tree(tmp_path / "high", "set/cat", "set/dog")
    tree(tmp_path / "splits", "set/train/cat", "set/train/dog", "set/test/cat")
    tree(tmp_path / "low", "cat", "dog")
    (tmp_path / "packed").mkdir()
    write_shard(tmp_path / "packed" / "a.tar", [("0.jpg", b"")])
    said = {
        "empty": "holds 0 folders: no image was found; expected ROOT/CLASS/IMAGE; see docs/data.md",
        "one": "holds images of one class alone, 'images' (5 images): expected ROOT/CLASS/IMAGE, two classes or more",
        "flat": "holds 5 images in no folder of a class: expected ROOT/CLASS/IMAGE",
        "low/cat": f"as a class of its folder: data.data_root '{tmp_path / 'low'}'",
        "high": f"for the 2 folders cat, dog inside it, data.data_root '{tmp_path / 'high' / 'set'}'",
        "splits": f"for the 2 folders test, train inside it, data.data_root '{tmp_path / 'splits' / 'set'}'",
        "packed": "no image was found among 1 .tar; expected ROOT/CLASS/IMAGE; shards in .tar files are data.dat",
    }
    for name, line in said.items():
        with pytest.raises(DataError) as caught:
            federation(tmp_path / name)
        assert line in str(caught.value), name
    with pytest.raises(DataError, match=r"2 folders cat, dog with 10 images and no folders inside: expected ROOT/CLI"):
        federation(tmp_path / "low", partition="natural")
    with pytest.raises(DataError, match=r"data set 'webdataset' reads; folders of images are data\.dataset folder"):
        federation(tmp_path / "low", dataset="webdataset")
    with pytest.raises(DataError, match=r"is no file: .*; folders of images are data\.dataset folder"):
        federation(tmp_path / "low", dataset="table")


def test_the_folder_of_one_split_beside_others_is_said(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    (line,) = federation(tmp_path / "train", clients=2).dataset.warnings
    assert line.startswith("the data root is the folder train alone, and test lies beside it, unused")
    assert federation(tmp_path, clients=2).dataset.warnings == ()


def test_links_that_leave_the_root_are_counted_and_not_followed(tmp_path: Path) -> None:
    root, elsewhere = tree(tmp_path / "root", "cat", "dog"), tree(tmp_path / "elsewhere", "owl")
    (root / "owl").symlink_to(elsewhere / "owl")
    (root / "cat" / "out.png").symlink_to(elsewhere / "owl" / "0.png")
    (root / "cat" / "twin.png").symlink_to(root / "dog" / "0.png")
    (root / "dog" / "loop").symlink_to(root)
    (root / "classnames.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("cat\na line of a file elsewhere")
    data = load_dataset("folder", root)
    assert data.class_names == ("cat", "dog")
    assert "cat/twin.png" in {*names(data.private), *names(data.test)}
    assert skipped(data) == {
        "link that leaves the data root": (3, ("cat/out.png", "classnames.txt", "owl")),
        "link to a folder": (1, ("dog/loop",)),
    }
    found = listed(root)
    assert {one.reason: one.count for one in found.left_out} == {
        "link that leaves the data root": 3,
        "link to a folder": 1,
    }
    shards = tmp_path / "shards"
    shards.mkdir()
    members = [(f"{i}.{kind}", b"") for i in range(2) for kind in ("jpg", "cls")]
    write_shard(elsewhere / "a.tar", members)
    (shards / "a.tar").symlink_to(elsewhere / "a.tar")
    with pytest.raises(DataError, match=r"skipped 1: link that leaves the data root \(a.tar\)"):
        load_dataset("webdataset", shards)


def test_a_table_that_leads_out_of_its_folder_says_so(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "cat", "dog")
    (tmp_path / "t").mkdir()
    rows = [f"{tmp_path}/elsewhere/cat/{i}.png,cat\n../elsewhere/dog/{i}.png,dog\n" for i in range(5)]
    table = tmp_path / "t" / "table.csv"
    table.write_text("path,label\n" + "".join(rows) + "../../../../../etc/passwd,cat\n")
    data = load_dataset("table", table)
    assert len(data.private) + len(data.test) == 10
    assert data.warnings == ("11 of 11 paths of the table lead out of its folder; they are read all the same",)


def test_files_that_are_no_images_are_counted_by_what_they_are(tmp_path: Path) -> None:
    tree(tmp_path, "cat", "dog")
    for name in ("a.CR2", "b.jxl", "d.svg", "e.npy", "f.mp4", "g.zip", "h.nii.gz", "notes.txt", "README"):
        (tmp_path / "cat" / name).touch()
    for name in (".DS_Store", "cat/._0.png", "train.zip", "README.md"):
        (tmp_path / name).touch()
    (tmp_path / ".git" / "inner").mkdir(parents=True)
    found = {one.reason: one.names for one in load_dataset("folder", tmp_path).skipped}
    assert found.pop("file that is no image by its name") == ("cat/README", "cat/notes.txt")
    assert found.pop("hidden file") == (".DS_Store", "cat/._0.png")
    assert found.pop("hidden folder") == (".git",)
    assert found.pop("packed archive: unpack it") == ("train.zip", "cat/g.zip")
    assert {reason.partition(":")[0]: name for reason, (name,) in found.items()} == {
        "raw photograph of a camera": "cat/a.CR2",
        "JPEG 2000 or JPEG XL image": "cat/b.jxl",
        "drawing of lines": "cat/d.svg",
        "array of numbers": "cat/e.npy",
        "film": "cat/f.mp4",
        "medical volume": "cat/h.nii.gz",
    }
    assert all(": " in reason for reason in found)  # what to do


def test_folders_that_cannot_be_read_or_never_end_are_counted(tmp_path: Path) -> None:
    tree(tmp_path, "cat", "dog")
    deep = tmp_path / "dog" / "/".join("d" * 70)
    deep.mkdir(parents=True)
    write(deep / "0.png", 5, "PNG")
    (tmp_path / "cat" / "locked").mkdir(mode=0)
    reasons = {one.reason for one in load_dataset("folder", tmp_path, layout="classes").skipped}
    assert "folder more than 64 deep" in reasons
    assert os.geteuid() == 0 or "folder that cannot be read: Permission denied" in reasons
