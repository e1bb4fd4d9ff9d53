"""Tables of images, CSV and Parquet: clients, splits, class lists, and rows that cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from images import write
from listings import lines, pairs, skipped

from flora_secure.data.federation import load_federation
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.planning.sections import DataConfig

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
    data = load_dataset("table", table, class_names=lines(tmp_path / "names", "cat", "dog"), label_base=0)
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


# rows that repeat or contradict another, and clients


def test_rows_that_repeat_another_are_left_out_and_counted(tmp_path: Path) -> None:
    again = [ROWS[0], ("./a/0.jpg", "cat", "anna", "train"), ("a//1.jpg", "dog", "anna", "TRAIN")]
    data = load_dataset("table", write_table(tmp_path, [*ROWS, *again]))
    assert len(data.private) == 3
    assert skipped(data) == {"row that repeats an earlier one": (3, ("row 5", "row 6", "row 7"))}
    captions = [("a/0.jpg", "x"), ("a/0.jpg", "y"), ("a/0.jpg", "x"), *((row[0], "x") for row in ROWS[1:])]
    write(tmp_path / "c.jpg", 9)
    captions.append(("c.jpg", "x"))
    data = load_dataset("table", write_table(tmp_path, captions, "path,caption"))
    assert skipped(data) == {"row that repeats an earlier one": (1, ("row 3",))}


def test_rows_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    odd = [
        ("a/0.jpg", "dog", "anna", "train"),
        ("a/./0.jpg", "cat", "bert", "train"),
        ("b/2.jpg", "cat", "bert", "test"),
    ]
    data = load_dataset("table", write_table(tmp_path, [*ROWS, *odd]))
    assert (len(data.private), len(data.test)) == (5, 2)
    assert data.warnings == tuple(
        f"rows of the table that give an image another {what} than an earlier row of its path: 1, such as rows {one} "
        f"and {other}; each of them counts"
        for what, one, other in (("label", 1, 5), ("client", 1, 6), ("split", 3, 7))
    )


def test_a_number_in_two_spellings_is_no_contradiction(tmp_path: Path) -> None:
    rows = [(path, {"cat": "0", "dog": "1.0"}[label], client, split) for path, label, client, split in ROWS]
    data = load_dataset("table", write_table(tmp_path, [*rows, ("a/1.jpg", "01", "anna", "train")]))
    assert skipped(data) == {"row that repeats an earlier one": (1, ("row 5",))}


def test_clients_that_are_numbers_are_one_client_in_every_spelling(tmp_path: Path) -> None:
    rows = [("a/0.jpg", "cat", "7.0", "train"), ("a/1.jpg", "dog", "7", "train"), ("b/2.jpg", "cat", "8.00", "train")]
    data = load_dataset("table", write_table(tmp_path, [*rows, ROWS[3]]))
    assert data.owners is not None
    assert data.owners.names == ("7", "8")
    assert data.owners.of.tolist() == [0, 0, 1]


def test_clients_that_look_like_one_are_told(tmp_path: Path) -> None:
    clients = ("Ward 1", "ward_1", "ward 2")
    rows = [(path, label, client, split) for client, (path, label, _, split) in zip(clients, ROWS[:3], strict=True)]
    data = load_dataset("table", write_table(tmp_path, [*rows, ROWS[3]]))
    assert data.warnings == (
        "1 of 3 clients are named like another but for case, spaces, _, - or zeros before a number, and count as "
        "clients of their own",
    )


# Parquet of every type


def parquet_of(tmp_path: Path, **columns: object) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for number, row in enumerate(ROWS):
        write(tmp_path / row[0], number)
    whole = {"path": [row[0] for row in ROWS], "label": [row[1] for row in ROWS], "split": [row[3] for row in ROWS]}
    parquet.write_table(pyarrow.table({**whole, **columns}), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": [b"a"] * 4}, "column 'path' must hold text, and holds binary"),
        ({"path": [1] * 4}, "column 'path' must hold text, and holds int64"),
        ({"path": [["a"]] * 4}, "column 'path' must hold text, and holds list<"),
        ({"path": [{"bytes": b"", "path": "a"}] * 4}, "column 'path' must hold text, and holds struct<"),
        ({"label": [b"a"] * 4}, "column 'label' must hold text or whole numbers, and holds binary"),
        ({"label": [[1, 2]] * 4}, "column 'label' must hold text or whole numbers, and holds list<"),
        ({"label": [True] * 4}, "column 'label' must hold text or whole numbers, and holds bool"),
        ({"client": [{"a": 1}] * 4}, "column 'client' must hold text or whole numbers, and holds struct<"),
        ({"split": [0] * 4}, "column 'split' must hold text, and holds int64"),
    ],
)
def test_parquet_of_other_types_is_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset("table", parquet_of(tmp_path, **columns))


def test_parquet_with_gaps_numbers_and_dictionaries(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path = pyarrow.array([row[0] for row in ROWS]).dictionary_encode()
    client = pyarrow.array([1.0, float("nan"), 2.0, None])
    data = load_dataset("table", parquet_of(tmp_path, path=path, client=client, label=[3, 10, 3, 10]))
    assert data.class_names == ("3", "10")
    path = pyarrow.array([*(row[0] for row in ROWS[:3]), None], pyarrow.large_string())
    with pytest.raises(DataError, match=r"no usable test image .* skipped 1: row without a path or a label \(row 4"):
        load_dataset("table", parquet_of(tmp_path, path=path))
    data = load_dataset("table", parquet_of(tmp_path, label=[3.0, 1.5, float("nan"), 1.0]))
    assert skipped(data) == {
        "row with a cell that is neither text nor a whole number": (1, ("row 2",)),
        "row without a path or a label": (1, ("row 3",)),
    }


def test_huge_and_broken_cells_of_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    labels = ["cat", "dog", "x" * 200_000, "dog"]
    data = load_dataset("table", parquet_of(tmp_path, label=labels))
    assert skipped(data) == {"row with a cell of more than 131,072 characters": (1, ("row 3",))}
    broken = pyarrow.array([b"cat", b"\xff", b"cat", b"dog"]).view(pyarrow.string())
    with pytest.raises(DataError, match="cannot be read: 'utf-8' codec can't decode"):
        load_dataset("table", parquet_of(tmp_path, label=broken))
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["path", "label", "label"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="has two columns called 'label'"):
        load_dataset("table", tmp_path / "t.parquet")
