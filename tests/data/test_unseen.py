"""Unseen classes: nothing of them is left where anything trains, and their test images stand apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import write
from listings import lines, names
from test_captioned import captioned_table

from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.federation import load_federation, set_apart
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.planning.sections import DataConfig


def of_labels(private: list[int], public: list[int], test: list[int], classes: int) -> Dataset:
    """Images that tell their split and place."""

    def split(labels: list[int], number: int) -> Split:
        places = np.arange(len(labels))
        images = np.stack([np.full(len(labels), number), places], 1).astype(np.uint8).reshape(-1, 1, 2)
        return Split(images, np.array(labels, np.int64), f"split{number}", places)

    splits = [split(labels, number) for number, labels in enumerate((private, public, test))]
    return Dataset("toy", *splits, tuple(f"class {i}" for i in range(classes)), ("a {}",), False)


def named(split: Split, class_names: tuple[str, ...]) -> list[tuple[list[int], str, int]]:
    """Image, class name and place of each, whatever the numbers of the classes."""
    pixels = [image.ravel().tolist() for image in np.asarray(split.images)]
    return list(zip(pixels, [class_names[i] for i in split.labels], split.indices.tolist(), strict=True))


def left_out(data: Dataset) -> dict[str, int]:
    return {one.reason: one.count for one in data.skipped}


@st.composite
def cases(draw):
    classes = draw(st.integers(3, 6))
    label = st.lists(st.integers(0, classes - 1), max_size=20)
    every = list(range(classes))
    private, public, test = draw(label) + every, draw(label), draw(label) + every
    apart = draw(st.sets(st.integers(0, classes - 1), min_size=1, max_size=classes - 2))
    order = draw(st.permutations(sorted(apart)))
    return of_labels(private, public, test, classes), [f"class {i}" for i in order]


@given(cases())
@settings(max_examples=100)
def test_every_image_goes_where_its_class_goes_and_keeps_its_name(case) -> None:
    data, unseen = case
    found = set_apart(data, unseen)
    assert found.unseen is not None
    assert found.class_names == tuple(name for name in data.class_names if name not in unseen)
    assert found.unseen.class_names == tuple(name for name in data.class_names if name in unseen)
    for which in ("private", "public", "test"):
        whole = named(getattr(data, which), data.class_names)
        assert named(getattr(found, which), found.class_names) == [one for one in whole if one[1] not in unseen]
        gone = [one for one in whole if one[1] in unseen]
        if which == "test":
            assert named(found.unseen.test, found.unseen.class_names) == gone
    trained = [*named(data.private, data.class_names), *named(data.public, data.class_names)]
    assert left_out(found) == {"image of an unseen class": sum(name in unseen for _, name, _ in trained)}
    assert [len(found.class_names), len(found.unseen.class_names)] == [len(data.class_names) - len(unseen), len(unseen)]


def test_the_hash_is_the_old_one_without_them_and_its_own_with_them() -> None:
    """The digest of a data set without unseen classes is part of checkpoints that exist."""
    data = of_labels([0, 1, 2], [], [0, 1, 2], 3)
    assert data.data_hash == "af38404bd332eb29f95faaed402f364277583d85a941dcdb4f84f71538def10e"
    apart = [set_apart(data, [name]) for name in data.class_names]
    stripped = [replace(one, unseen=None) for one in apart]
    assert len({one.data_hash for one in (data, *apart, *stripped)}) == 7
    unseen = apart[0].unseen
    assert unseen is not None
    brighter = replace(unseen.test, images=unseen.test.images + 1)
    assert replace(apart[0], unseen=replace(unseen, test=brighter)).data_hash != apart[0].data_hash
    assert replace(apart[0], unseen=replace(unseen, class_names=("other",))).data_hash != apart[0].data_hash


@pytest.mark.parametrize(
    ("unseen", "says"),
    [
        (
            ["class 1", "klass 2"],
            r"unseen_classes 'klass 2' is none of data set 'toy'; known: class 0, class 1, class 2, ",
        ),
        (["class 0", "class 1", "class 2"], "unseen_classes leave 1 of 4 classes to train: at least 2 are needed"),
        (["class 0", "class 1", "class 2", "class 3"], "unseen_classes leave 0 of 4 classes to train"),
        (["class 3"], "unseen_classes class 3: data set 'toy' has no test image of them"),
        (["class 0"], "unseen_classes class 0: data set 'toy' has no test image of any other class"),
        (["class 1", "class 2"], "unseen_classes class 1, class 2: data set 'toy' has no private image of any other"),
    ],
)
def test_what_cannot_be_set_apart_is_said_in_a_line(unseen: list[str], says: str) -> None:
    test = [0, 0] if unseen == ["class 0"] else [0, 1, 2]
    private = [1, 2] if unseen == ["class 1", "class 2"] else [0, 1, 2, 3]
    with pytest.raises(DataError, match=says) as caught:
        set_apart(of_labels(private, [], test, 4), unseen)
    assert "\n" not in str(caught.value)


def test_of_many_class_names_some_are_listed() -> None:
    every = list(range(150))
    with pytest.raises(DataError, match=r"class 99 and 50 more$"):
        set_apart(of_labels(every, [], every, 150), ["cat"])


def test_captions_have_no_classes(tmp_path: Path) -> None:
    config = DataConfig(dataset="table", data_root=str(captioned_table(tmp_path)), clients=2, partition="iid")
    with pytest.raises(DataError, match=r"'table' has captions and no classes: leave out data\.unseen_classes"):
        load_federation(replace(config, unseen_classes=("a",)), 0)


def test_clients_of_unseen_classes_alone_have_nothing_to_train_on(tmp_path: Path) -> None:
    rows = []
    for i in range(18):
        write(tmp_path / f"{i}.jpg", i)
        label = ("cat", "dog", "emu")[i % 3]
        client = "zoe" if label == "emu" and i < 12 else ("anna", "bert")[i // 3 % 2]
        rows.append(f"{i}.jpg,{label},{client},{'test' if i >= 15 else 'train'}")
    table = lines(tmp_path / "t.csv", "path,label,client,split", *rows)
    config = DataConfig(dataset="table", data_root=str(table), clients=2, partition="natural", unseen_classes=("emu",))
    federation = load_federation(config, 0)
    data = federation.dataset
    assert data.class_names == ("cat", "dog")
    assert [names(data.private.at(part)) for part in federation.clients] == [
        [f"{i}.jpg" for i in range(15) if i % 3 < 2 and i // 3 % 2 == client] for client in (0, 1)
    ]
    assert data.unseen is not None
    assert names(data.unseen.test) == ["17.jpg"]
    assert left_out(data) == {"image of an unseen class": 5, "client with images of unseen classes alone": 1}
    assert data.skipped[-1].names == ("zoe",)
    with pytest.raises(DataError, match=r"data\.clients 3, but the data set has 2 of its own"):
        load_federation(replace(config, clients=3), 0)


def test_names_are_those_that_prompts_use(tmp_path: Path) -> None:
    """Of a class name file, where one is given; the log says what stands apart."""
    file = lines(tmp_path / "names", *(f"number {i}" for i in range(10)))
    config = DataConfig(dataset="digits", class_names=str(file), clients=5, unseen_classes=("number 3", "number 1"))
    federation = load_federation(config, 0)
    unseen, whole = federation.dataset.unseen, load_dataset("digits")
    assert unseen is not None
    assert unseen.class_names == ("number 1", "number 3")
    assert f"unseen classes number 1, number 3: {len(unseen.test)} test images apart" in federation.lines
    assert len(unseen.test) == int(np.isin(whole.test.labels, [1, 3]).sum())
    assert federation.image_counts[2] == len(whole.test) - len(unseen.test)
    with pytest.raises(DataError, match="unseen_classes 'digit 3' is none of data set 'digits'"):
        load_federation(replace(config, unseen_classes=("digit 3",)), 0)
