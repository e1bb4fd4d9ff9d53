"""Tables of image files: a row an image (or a caption of one), in CSV, TSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flora_secure.data.files.samples import Sample, split_named
from flora_secure.data.images import EncodedFile
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError
from flora_secure.planning.names import proposed


def list_table(path: Path, *, notes: Notes) -> Iterator[Sample]:
    """The rows of a .csv, .tsv or .parquet file; paths are relative to the table's folder.

    A table with a column "label" gives labels, one without it captions: a caption a row, or more where Parquet holds
    lists. Rows without a path or a label (a caption), and splits of no known name, are left out and counted. Raises
    DataError for a table that cannot be read or lacks a column.
    """
    if not path.is_file():
        raise DataError(
            f"`data.data_root` {str(path)!r} is no file: data set 'table' reads a .csv, .tsv or .parquet file; "
            + proposed(path, "table")
        )
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    column = ""
    for number, row in enumerate(rows, 1):
        column = column or _described_by(path, row)
        where = f"row {number}"
        name, value = _text(row.get("path")), row.get(column)
        texts = [text for one in (value if isinstance(value, list) else [value]) if (text := _text(one))]
        if not name or not texts:
            notes.skip(f"row without a path or a {column}", where)
            continue
        given = _text(row.get("split"))
        split = split_named(given) if given else None
        if given and split is None:
            notes.skip("split that is none of train, test, val, public", f"{where}: {given}")
            continue
        file, client = EncodedFile(name, path.parent / name), _text(row.get("client")) or None
        if column == "label":
            yield Sample(file, _text(value), client, split)
        else:
            for text in texts:
                yield Sample(file, "", client, split, text)


def _described_by(path: Path, row: dict[str, Any]) -> str:
    """The column that says what an image shows: "label" or, without that, "caption"."""
    found = next((column for column in ("label", "caption") if column in row), None)
    if "path" in row and found is not None:
        return found
    have = ", ".join(str(key) for key in row if key is not None)
    lacks = "'path'" if "path" not in row else "'label' (or 'caption')"
    raise DataError(f"table {str(path)!r} lacks the column {lacks}; it has {have}")


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what a column of whole numbers with a gap becomes
    return "" if value is None else str(value).strip()


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.DictReader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    except UnicodeDecodeError:
        raise DataError(f"table {str(path)!r} cannot be read: it is not UTF-8 text") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"table {str(path)!r} cannot be read: {error}") from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"table {str(path)!r} needs pyarrow: pip install 'flora-secure[parquet]', or use CSV") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        wanted = [name for name in file.schema_arrow.names if name in {"path", "label", "client", "split", "caption"}]
        for batch in file.iter_batches(columns=wanted):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"table {str(path)!r} cannot be read: {str(error).splitlines()[0]}") from None
