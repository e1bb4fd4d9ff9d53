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
