"""Tables of image files: a row an image (or a caption of one), in CSV, TSV or Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flora_secure.data.files.delimited import read_delimited
from flora_secure.data.files.samples import Sample, split_named
from flora_secure.data.images import EncodedFile
from flora_secure.data.labels import client_named, said, whole
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError, first_line
from flora_secure.planning.names import proposed

_COLUMNS = ("path", "label", "client", "split", "caption")
_MOST_TEXT = 1 << 17  # characters of a cell, as Python's own reader of CSV has it


def list_table(path: Path, *, notes: Notes) -> list[Sample]:
    """The rows of a .csv, .tsv or .parquet file; paths are relative to the table's folder.

    A table with a column "label" gives labels, one without it captions: a caption a row, or more where Parquet holds
    lists. Rows without a path or a label (a caption), rows that repeat another, and splits of no known name are left
    out and counted; rows of one path that contradict each other are told. Raises DataError for a table that cannot be
    read or lacks a column.
    """
    if not path.is_file():
        raise DataError(
            f"`data.data_root` {str(path)!r} is no file: data set 'table' reads a .csv, .tsv or .parquet file; "
            + proposed(path, "table")
        )
    if path.suffix.lower() == ".parquet":
        columns, rows = _parquet(path)
    else:
        columns, rows = read_delimited(path, lambda names: _lacking(names) is None, notes.warn)
    if (lacking := _lacking(columns)) is not None:
        raise DataError(f"table {str(path)!r} lacks the column {lacking}; it has {', '.join(columns) or 'none'}")
    by_row = list(_samples(path.parent, "label" if "label" in columns else "caption", rows, notes))
    return _once(by_row, notes)


def _lacking(columns: Sequence[str]) -> str | None:
    if "path" not in columns:
        return "'path'"
    return None if {"label", "caption"} & {*columns} else "'label' (or 'caption')"


def _samples(folder: Path, column: str, rows: Iterable[dict[str, Any]], notes: Notes) -> Iterator[tuple[int, Sample]]:
    """The samples with the numbers of their rows, from 1."""
    number = 0
    for number, row in enumerate(rows, 1):
        where, shown = f"row {number}", row[column]
        path, client, given = said(row["path"]), client_named(row.get("client")), said(row.get("split"))
        texts = [said(one) for one in (shown if isinstance(shown, list) and column == "caption" else [shown])]
        if path is None or client is None or given is None or None in texts:
            notes.skip("row with a cell that is neither text nor a whole number", where)
        elif not path or not any(texts):
            notes.skip(f"row without a path or a {column}", where)
        elif given and split_named(given) is None:
            notes.skip("split that is none of train, test, val, public", f"{where}: {given[:100]}")
        elif max(map(len, filter(None, (path, client, *texts)))) > _MOST_TEXT:
            notes.skip(f"row with a cell of more than {_MOST_TEXT:,} characters", where)
        else:
            file, split = EncodedFile(path, folder / path), split_named(given)
            for text in filter(None, texts):
                label, caption = (text, "") if column == "label" else ("", text)
                yield number, Sample(file, label, client or None, split, caption)
    notes.read = f"{number:,} rows of the table"


def _once(rows: Iterable[tuple[int, Sample]], notes: Notes) -> list[Sample]:
    """The samples without those that repeat another; tells of those that contradict another of their path."""
    kept: list[Sample] = []
    seen: set[tuple[object, ...]] = set()
    first: dict[str, tuple[int, tuple[str | None, ...]]] = {}
    differing: dict[str, list[tuple[int, int]]] = {}
    for number, sample in rows:
        path = os.path.normpath(sample.file.name)
        facts = (whole(sample.label) or sample.label, sample.client, sample.split)
        if (path, facts, sample.caption) in seen:
            notes.skip("row that repeats an earlier one", f"row {number}")
            continue
        seen.add((path, facts, sample.caption))
        kept.append(sample)
        before, told = first.setdefault(path, (number, facts))
        for what, one, other in zip(("label", "client", "split"), told, facts, strict=True):
            if one != other:
                differing.setdefault(what, []).append((before, number))
    for what, pairs in differing.items():
        notes.warn(
            f"rows of the table that give an image another {what} than an earlier row of its path: {len(pairs):,}, "
            f"such as rows {pairs[0][0]} and {pairs[0][1]}; each of them counts"
        )
    return kept


def _parquet(path: Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"table {str(path)!r} needs pyarrow: pip install 'flora-secure[parquet]', or use CSV") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = file.schema_arrow
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"table {str(path)!r} cannot be read: {first_line(error)}") from None
    columns = list(map(str, schema.names))
    wanted = [name for name in _COLUMNS if name in columns]
    for name in wanted:
        if columns.count(name) > 1:
            raise DataError(f"table {str(path)!r} has two columns called {name!r}")
        if not _is_plain(schema.field(name).type, name):
            kind = "text" if name in {"path", "split", "caption"} else "text or whole numbers"
            raise DataError(
                f"table {str(path)!r}: column {name!r} must hold {kind}, and holds {schema.field(name).type}"
            )

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in file.iter_batches(1024, columns=wanted):
                yield from batch.to_pylist()
        except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"table {str(path)!r} cannot be read: {first_line(error)}") from None

    return columns, rows()


def _is_plain(kind: Any, column: str) -> bool:
    """Whether a column of this Arrow type may hold what it should."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if column == "caption" and (types.is_list(kind) or types.is_large_list(kind)):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind) or str(kind) == "string_view":
        return True
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return number and column in {"label", "client", "caption"}
