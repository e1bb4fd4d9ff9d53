"""CSV and Parquet tables of image paths and labels: columns path, label [, client] [, split]."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flora_secure.data.errors import DataError
from flora_secure.data.images import EncodedFile
from flora_secure.data.samples import Sample, split_named
from flora_secure.data.skipped import SkipList

CAPTIONS = "captions without labels are not trained on: give every image a label"


def list_table(path: Path, *, skips: SkipList) -> Iterator[Sample]:
    """The rows of a .csv, .tsv or .parquet file; paths are relative to the table's folder.

    Rows without a path or label, and splits of no known name, are left out and counted. Raises DataError for a table
    that cannot be read or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"data root {str(path)!r} is no file: data set 'table' reads a .csv, .tsv or .parquet file")
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    for number, row in enumerate(rows, 1):
        if number == 1:
            _require_columns(path, row)
        where = f"row {number}"
        name, label = _text(row.get("path")), _text(row.get("label"))
        if not name or not label:
            skips.add("row without a path or a label", where)
            continue
        given = _text(row.get("split"))
        split = split_named(given) if given else None
        if given and split is None:
            skips.add("split that is none of train, test, val, public", f"{where}: {given}")
            continue
        yield Sample(EncodedFile(name, path.parent / name), label, _text(row.get("client")) or None, split)


def _require_columns(path: Path, row: dict[str, Any]) -> None:
    if "path" in row and "label" not in row and "caption" in row:
        raise DataError(f"table {str(path)!r} has captions and no column 'label': {CAPTIONS}")
    for column in ("path", "label"):
        if column not in row:
            have = ", ".join(str(key) for key in row if key is not None)
            raise DataError(f"table {str(path)!r} lacks the column {column!r}; it has {have}")


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
