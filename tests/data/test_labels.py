"""Labels that are whole numbers wherever they come from, and class lists: read in one way, told, or refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import encoded, write
from listings import lines, pairs, skipped, write_classes, write_shard

from flora_secure.data.class_names import CIFAR_TEMPLATES, FLOWERS_CLASSES, odd_names
from flora_secure.data.dataset import Dataset
from flora_secure.data.fixed import FASHION_CLASSES
from flora_secure.data.labels import alike, client_named, likeness, ordered, said, whole
from flora_secure.data.passed.own import OwnData
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError


def table(root: Path, labels: list[str], count: int = 5) -> Path:
    """`count` images a label; an image's number by turns belongs to `labels`."""
    rows = []
    for place in range(count * len(labels)):
        write(root / f"{place}.jpg", place)
        rows.append(f"{place}.jpg,{labels[place % len(labels)]}")
    return lines(root / "table.csv", "path,label", *rows)


def named(data: Dataset, labels: list[str]) -> dict[str, str]:
    """What each label of `table` was called."""
    found = pairs(data, data.private) | pairs(data, data.test)
    return {labels[int(name.removesuffix(".jpg")) % len(labels)]: called for name, called in found}


# whole numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", "3"), ("03", "3"), ("3.0", "3"), ("3.", "3"), ("3.000", "3"), ("+3", "3"), ("-1", "-1"), ("-0", "0"),
        ("000", "0"), ("0.0", "0"), ("3.000000000000000000e+00", "3"), ("1.200000e+01", "12"), ("1.2e0", None),
        ("120.0e-1", "12"), ("0.3e1", "3"), ("5.e-1", None), ("1.5", None), ("12e5", None), ("", None), ("cat", None),
        (".5", None), ("²", None), ("٣", None), ("1_000", None), ("0x3", None), ("nan", None), ("inf", None),
        ("1.0.0", None), ("3 ", None),
    ],
)  # fmt: skip
def test_whole_numbers(text: str, number: str | None) -> None:
    assert whole(text) == number


@given(st.integers(-(10**30), 10**30), st.integers(0, 3), st.sampled_from(["", ".", ".0", ".000"]))
def test_every_spelling_of_a_whole_number(number: int, zeros: int, behind: str) -> None:
    sign = "-" if number < 0 else ""
    assert whole(f"{sign}{'0' * zeros}{abs(number)}{behind}") == str(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_whole_where_python_says_so(value: float) -> None:
    text = f"{value:.17e}"
    if abs(value) < 1e20:
        assert (whole(text) is not None) == (Decimal(text) == int(Decimal(text)))


@given(st.lists(st.integers(-(10**9), 10**9), unique=True))
def test_whole_numbers_are_ordered_by_value(numbers: list[int]) -> None:
    assert ordered(map(str, numbers)) == tuple(map(str, sorted(numbers)))


def test_other_labels_are_ordered_by_the_alphabet() -> None:
    assert ordered(["b", "10", "2", "a"]) == ("10", "2", "a", "b")
    assert ordered(["9" * 5000, "12", "3"]) == ("3", "12", "9" * 5000)


def test_values_as_texts() -> None:
    values = [3, 3.0, Decimal("3.00"), " 3 ", "03", None, float("nan"), 1.5, float("inf"), True, [3], {"a": 3}, b"3"]
    assert [said(value) for value in values] == ["3", "3", "3", "3", "03", "", ""] + [None] * 6
    clients = ["7.0", 7.0, "07", "a.0", "7.5"]
    assert [client_named(value) for value in clients] == ["7", "7", "07", "a.0", "7.5"]


@pytest.mark.parametrize("spelling", ["{}", "{:02d}", "{}.0", "{:.18e}"])
def test_numbers_name_classes_by_value(tmp_path: Path, spelling: str) -> None:
    """Labels 0.0 … 11.0 were names, and "10.0" came before "2.0"."""
    labels = [(spelling.format(float(i)) if "e" in spelling else spelling.format(i)) for i in range(12)]
    names = [f"thing {chr(ord('z') - i)}" for i in range(12)]
    data = load_dataset("table", table(tmp_path, labels), class_names=lines(tmp_path / "names", *names))
    assert named(data, labels) == dict(zip(labels, names, strict=True))
    assert data.warnings == ()


def test_numbers_are_the_same_from_every_source(tmp_path: Path) -> None:
    names = lines(tmp_path / "names", *(f"thing {chr(ord('z') - i)}" for i in range(12)))
    cls, about, wanted = [], [], []
    for i in range(60):
        key = f"{i:02d}"
        cls += [(f"{key}.jpg", encoded(i)), (f"{key}.cls", f"{i % 12}.0\n".encode())]
        about += [(f"{key}.jpg", encoded(i)), (f"{key}.json", json.dumps({"label": float(i % 12)}).encode())]
        write(tmp_path / "folder" / f"{i % 12:03d}" / f"{key}.jpg", i)
        wanted.append(f"thing {chr(ord('z') - i % 12)}")
    sets = [
        load_dataset("webdataset", write_shard(tmp_path / "cls.tar", cls), class_names=names),
        load_dataset("webdataset", write_shard(tmp_path / "json.tar", about), class_names=names),
        load_dataset("folder", tmp_path / "folder", class_names=names),
    ]
    for data in sets:
        found = pairs(data, data.private) | pairs(data, data.test)
        assert {(int(Path(name).stem), called) for name, called in found} == set(enumerate(wanted))


def test_parquet_numbers(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [(f"{i}.jpg", None if i == 5 else float(i % 12)) for i in range(60)]
    for i in range(60):
        write(tmp_path / f"{i}.jpg", i)
    paths, labels = zip(*rows, strict=True)
    parquet.write_table(pyarrow.table({"path": paths, "label": labels}), tmp_path / "t.parquet")
    names = lines(tmp_path / "names", *(f"thing {chr(ord('z') - i)}" for i in range(12)))
    data = load_dataset("table", tmp_path / "t.parquet", class_names=names)
    assert skipped(data) == {"row without a path or a label": (1, ("row 6",))}
    found = pairs(data, data.private) | pairs(data, data.test)
    assert all(called == f"thing {chr(ord('z') - int(Path(name).stem) % 12)}" for name, called in found)


def test_two_spellings_of_one_number_are_one_class_and_told(tmp_path: Path) -> None:
    data = load_dataset("table", table(tmp_path, ["1", "7", "07", "007", "10", "7.0"]))
    assert data.class_names == ("1", "7", "10")
    assert data.warnings[0] == "labels '007', '07', '7' are one whole number, and so one class"


# what a list names: the rows of the table in docs/data.md


def listed(tmp_path: Path, labels: list[str], names: list[str], base: int | None = None) -> Dataset:
    return load_dataset(
        "table", table(tmp_path, labels), class_names=lines(tmp_path / "names", *names), label_base=base
    )


def test_each_label_is_a_line(tmp_path: Path) -> None:
    data = listed(tmp_path, ["cat", "dog"], ["dog", "yak", "cat"])
    assert data.class_names == ("dog", "yak", "cat")
    assert named(data, ["cat", "dog"]) == {"cat": "cat", "dog": "dog"}
    assert data.warnings == ()


def test_labels_are_found_by_likeness_and_told(tmp_path: Path) -> None:
    """They were named in alphabetical order, so that every one was wrong."""
    labels = ["Ankle_boot", "SHIRT", "t-shirt", "bag"]
    data = listed(tmp_path, labels, ["T-Shirt", "bag", "shirt", "ankle boot"])
    assert named(data, labels) == dict(zip(labels, ["ankle boot", "shirt", "T-Shirt", "bag"], strict=True))
    assert data.warnings == (
        "labels were found in `data.class_names` by likeness: 'Ankle_boot' as 'ankle boot', 'SHIRT' as 'shirt', "
        "'t-shirt' as 'T-Shirt'",
    )


def test_labels_without_a_line_are_left_out_and_told(tmp_path: Path) -> None:
    data = listed(tmp_path, ["cat", "dog", "emu"], ["emu", "cat"])
    assert data.class_names == ("emu", "cat")
    assert skipped(data)["label outside the class list"][0] == 5
    assert data.warnings == ("1 of 3 labels, 'dog', have no line in `data.class_names`: their images are left out",)


def test_numbers_from_0(tmp_path: Path) -> None:
    labels = ["0", "1", "3"]
    data = listed(tmp_path, labels, ["dog", "cat", "emu", "asp"])
    assert named(data, labels) == {"0": "dog", "1": "cat", "3": "asp"}
    assert data.warnings == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", "2", "3"], r"label 0 \(label 3 has no name\): data.label_base 0; .* label 1 \(label 0 does not occur\)"),
        (["0", "1", "3"], r"label 0 \(label 3 has no name\): data.label_base 0; .* label 1 \(label 0 has no name\)"),
        (["1", "2"], r"label 0 \(label 3 does not occur\): data.label_base 0; .* label 1 \(label 0 does not occur\)"),
        (["2", "1", "-1", "255"], r"whole numbers from -1 to 255\. Line 1, 'dog', names label 0 \(label 3 does not"),
    ],
)
def test_numbers_with_two_readings_are_refused(tmp_path: Path, labels: list[str], message: str) -> None:
    """Labels 1 … n were all named by the line after theirs, and the last was left out."""
    with pytest.raises(DataError, match="data.class_names can be read in two ways: it has 3 lines, .*" + message):
        listed(tmp_path, labels, ["dog", "cat", "emu"])


@pytest.mark.parametrize("base", [0, 1])
def test_the_setting_decides(tmp_path: Path, base: int) -> None:
    labels, names = ["1", "2", "3"], ["dog", "cat", "emu"]
    data = listed(tmp_path, labels, names, base)
    left = labels if base else labels[:2]
    assert named(data, labels) == {label: names[int(label) - base] for label in left}
    assert len(data.warnings) == 1 - base
    if not base:
        assert data.warnings[0].startswith("1 of 3 labels, '3', have no line")
        assert skipped(data)["label outside the class list"][0] == 5


def test_a_number_that_no_reading_takes_is_left_out_and_told(tmp_path: Path) -> None:
    labels = ["0", "1", "255", "-1"]
    data = listed(tmp_path, labels, ["dog", "cat"])
    assert named(data, labels) == {"0": "dog", "1": "cat"}
    assert data.warnings == (
        "2 of 4 labels, '-1', '255', have no line in `data.class_names`: their images are left out",
    )


def test_lines_that_are_some_of_the_numbers(tmp_path: Path) -> None:
    months = [str(i) for i in range(1, 5)]
    with pytest.raises(DataError, match=r"read in two ways: .* it lists '1', '2', '3' and not '0'; or line 1 names"):
        listed(tmp_path, ["0", "1", "2", "3"], months)
    assert named(listed(tmp_path, ["0", "1", "2", "3"], months, 0), ["0", "1", "2", "3"])["0"] == "1"
    data = listed(tmp_path, ["0", "1", "2", "3"], ["3", "1"])  # every line is a label
    assert data.class_names == ("3", "1")
    assert data.warnings[0].startswith("2 of 4 labels, '0', '2', have no line")


def test_as_many_names_as_other_labels_are_told(tmp_path: Path) -> None:
    data = listed(tmp_path, ["n02", "n01"], ["tench", "goldfish"])
    assert named(data, ["n02", "n01"]) == {"n01": "tench", "n02": "goldfish"}
    assert data.warnings == (
        "`data.class_names` lists no label, so its lines name the labels in alphabetical order: 'n01' is 'tench', "
        "'n02' is 'goldfish'; if that is wrong, put the lines in that order",
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["c2", "c10"], "'c10' comes before 'c2' letter by letter, and after it by number"),
        (["apple", "Zebra"], "'Zebra' comes before 'apple' letter by letter, and after it case aside"),
        (["10", "2", "other"], "'10' comes before '2' letter by letter, and after it by number"),
    ],
)
def test_other_labels_whose_order_is_not_clear_are_refused(tmp_path: Path, labels: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        listed(tmp_path, labels, [f"name {i}" for i in range(len(labels))])


def test_a_list_that_was_found_is_named_as_such(tmp_path: Path) -> None:
    lines(tmp_path / "classnames.txt", "dog", "cat")
    with pytest.raises(DataError, match=r"classnames\.txt beside the data can be read in two ways"):
        load_dataset("table", table(tmp_path, ["1", "2"]))
    data = load_dataset("table", tmp_path / "table.csv", label_base=1)
    assert named(data, ["1", "2"]) == {"1": "dog", "2": "cat"}
    assert data.read == "10 rows of the table, class names of classnames.txt"


def test_names_that_fit_no_label_are_refused(tmp_path: Path) -> None:
    for labels in (["x", "y"], ["7", "8"]):
        with pytest.raises(DataError, match=r"none of the 2 labels, such as '[x7]', is among the 3 class names"):
            listed(tmp_path, labels, ["a", "b", "c"])
    with pytest.raises(DataError, match="none of the 2 labels, such as '7'"):
        listed(tmp_path, ["7", "8"], ["a", "b", "c"], 1)


def test_the_setting_where_it_has_no_effect_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "images")
    tries: list[tuple[Callable[[], Dataset], str]] = [
        (lambda: listed(tmp_path, ["0", "cat"], ["a", "b"], 1), "1 is for labels that are whole numbers, and 'cat' is"),
        (lambda: load_dataset("folder", tmp_path / "images", label_base=0), "there are none: give them by data.class_"),
        (lambda: load_dataset("digits", label_base=1), "'digits' has class names of its own, in order: leave out"),
        (
            lambda: load_dataset("table", lines(tmp_path / "c.csv", "path,caption", "0.jpg,a"), label_base=1),
            r"has captions, which are used as they are: leave out data.label_base$",
        ),
    ]
    for attempt, message in tries:
        with pytest.raises(DataError, match=message):
            attempt()


# names for classes that a data set has


def test_names_in_another_order_than_the_data_sets_are_refused(tmp_path: Path) -> None:
    swapped = [f"digit {i}" for i in (1, 0, *range(2, 10))]
    with pytest.raises(DataError, match="line 1: 'digit 1' would name 'digit 0', and is class 2 of data set 'digits'"):
        load_dataset("digits", class_names=lines(tmp_path / "names", *swapped))
    same = load_dataset("digits", class_names=lines(tmp_path / "names", *(f"Digit_{i}" for i in range(10))))
    assert same.class_names[3] == "Digit_3"
    for number, name in enumerate(("Forest", "River")):
        write(tmp_path / "eurosat" / "2750" / name / "0.jpg", number)
    (tmp_path / "eurosat" / "2750" / "AnnualCrop").mkdir()
    ten = ["forest", *(f"x{i}" for i in range(9))]
    with pytest.raises(DataError, match="'forest' would name 'annual crop land', and is class 2 of data set 'eurosat'"):
        load_dataset("eurosat", tmp_path, class_names=lines(tmp_path / "names", *ten))


# names that a text tower does not know


@pytest.mark.parametrize(
    "code",
    ["0", "12", "-1", "1.5", "a", "B", "n01440764", "class_01", "Class 1", "label-3", "c0", "id7", "3f2a91bc",
     "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "nan", "None", "n/a", "True", "cat.jpg", r"animals\cat", "a\u200bb"],
)  # fmt: skip
def test_codes_are_warned_of(code: str) -> None:
    (line,) = odd_names([code, "dog", "emu"])
    assert line.startswith(f"1 of 3 class names, {code!r}, say nothing to a text tower")
    assert "data.class_names" in line


def test_names_that_people_use_are_not() -> None:
    for names in (FASHION_CLASSES, FLOWERS_CLASSES, ["t-shirt/top", "st. bernard", "a320", "7-up", "F-16", "747-400"],
                  ["犬", "cat", "facade", "deadbeef", "decade", "MD-11", "iPod"[1:]], CIFAR_TEMPLATES):  # fmt: skip
        assert odd_names(names) == []


def test_words_run_together_and_names_alike_are_warned_of() -> None:
    joined, twins = odd_names(["ankle_boot", "SeaLake", "forest", "Cat", "cat", "sea lake"])
    assert joined.startswith("2 of 6 class names, 'ankle_boot', 'SeaLake', are no words as a text tower knows them")
    assert twins == "class names 'Cat' and 'cat' are two classes, and look like one"
    assert alike(["a b", "A_b", "a-B", "ab"]) == [("a b", "A_b"), ("a b", "a-B")]
    assert likeness("cafe\u0301") == likeness("Caf\u00e9")
    assert likeness("\ufeffcat") == likeness("cat")


def test_integer_classes_are_warned_of_wherever_they_come_from(tmp_path: Path) -> None:
    write_classes(tmp_path / "folder", 5, ("0", "1"))
    members = [item for i in range(10) for item in ((f"{i}.jpg", encoded(i)), (f"{i}.cls", str(i % 2).encode()))]
    ten = lines(tmp_path / "ten", *map(str, range(10)))
    own = OwnData([(picture, 0) for picture in _pictures(2)], [(_pictures(1)[0], 1)], ["0", "1"])
    for data in (
        load_dataset("folder", tmp_path / "folder"),
        load_dataset("webdataset", write_shard(tmp_path / "data.tar", members)),
        load_dataset("digits", class_names=ten),
        own.load(),
    ):
        assert data.warnings[0].startswith(f"{len(data.class_names)} of {len(data.class_names)} class names, '0', '1'")
        assert '"a photo of a 0": give words by `data.class_names`' in data.warnings[0]


def _pictures(count: int) -> list[object]:
    from images import picture

    return [picture(i) for i in range(count)]


def test_long_labels_and_many_columns_take_no_time(tmp_path) -> None:
    began = time.perf_counter()
    assert whole("0" * 100_000 + "x") is None
    assert whole("0" * 100_000 + "7") == "7"
    path = tmp_path / "wide.csv"
    path.write_text(",".join(["path", "label", *map(str, range(30_000))]) + "\n")
    with pytest.raises(DataError):
        load_dataset("table", path)
    assert time.perf_counter() - began < 5
