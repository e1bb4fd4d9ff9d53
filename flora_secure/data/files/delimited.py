"""Tables as text, a header line above: fields between commas, or what else separates them.

What is most likely a slip of whoever wrote the table is refused with its line, since a row that is read otherwise than
meant names a wrong label or client.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flora_secure.boundary.foreign import printable, read_text
from flora_secure.data.files.samples import IMAGE_SUFFIXES
from flora_secure.errors import DataError, ForeignError, first_line

MOST_TABLE = 1 << 30  # bytes
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_ONE_LINE = frozenset({"path", "label", "client", "split"})  # a caption may have several
_SEEN = 80  # characters of a line in a message


def read_delimited(
    path: Path, usable: Callable[[Sequence[str]], bool], warn: Callable[[str], None]
) -> tuple[list[str], Iterator[dict[str, str]]]:
    """The names of the columns, and the rows, blank lines left out. `usable`: whether columns of these names would do,
    by which the separator is found where it is not the usual one of the file; then `warn` is told.

    Raises DataError, naming the line, for a row of more or fewer fields than the header, a quote that is not closed or
    closes lines later, and column names that are empty or come twice.
    """
    where = f"table {str(path)!r}"
    try:
        text = read_text(path, MOST_TABLE)
    except ForeignError as error:
        raise DataError(f"{where} cannot be read: {error}") from None
    before = len(text) - len(text.lstrip("\n"))
    head = text[before:].partition("\n")[0]
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    columns = {separator: _columns(head, separator) for separator in (usual, *SEPARATORS)}
    separator = next((one for one, names in columns.items() if usable(names)), usual)
    names = columns[separator]
    if separator != usual:
        warn(f"the table has {SEPARATORS[separator]} between its columns, not {SEPARATORS[usual]}")
    # pandas writes the numbers of its rows into a column without a name, before all others
    seen = Counter(names)
    twice = next((name for place, name in enumerate(names) if seen[name] > 1 or (place and not name)), None)
    if twice is not None and usable(names):
        what = f"two columns called {twice!r}" if twice else "a column without a name"
        raise DataError(f"{where} has {what}: {_seen(head)}")
    return names, _rows(path, text, before + 1, names, separator)


def _columns(head: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([head], delimiter=separator, strict=True), [])]
    except csv.Error:
        return []


def _rows(path: Path, text: str, head: int, names: list[str], separator: str) -> Iterator[dict[str, str]]:
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1
        where = f"table {str(path)!r}, line {line}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            if reader.line_num > line or "unexpected end" in str(error):
                raise _unclosed(where) from None
            remedy = "; within quotes a quote is written twice" if "expected" in str(error) else ""
            raise DataError(f"{where}: {first_line(error)}{remedy}") from None
        if row is None:
            return
        if line <= head or (not "".join(row).strip() and len(row) < 2):
            continue
        if reader.line_num > line and _swallowed(path.parent, dict(zip(names, row, strict=False)), names, separator):
            raise _unclosed(where)
        if len(row) != len(names):
            much = f"hold a field with {SEPARATORS[separator]} in it in quotes"
            raise DataError(
                f"{where} has {len(row)} fields, and the header {len(names)}: {_seen(separator.join(row))}; "
                f"{much if len(row) > len(names) else 'a field or what separates it is missing'}"
            )
        yield dict(zip(names, row, strict=True))


def _swallowed(folder: Path, row: dict[str, str], names: list[str], separator: str) -> bool:
    """Whether a field of several lines is one that a quote made of whole rows."""
    for name, field in row.items():
        for inner in field.split("\n")[1:]:
            parts = inner.split(separator)
            if name in _ONE_LINE:
                return True
            if len(parts) == len(names):
                image = parts[names.index("path")].strip()
                if Path(image).suffix.lower() in IMAGE_SUFFIXES or os.path.isfile(folder / image):
                    return True
    return False


def _unclosed(where: str) -> DataError:
    return DataError(f"{where}: a quote opens there that is not closed before the next row; close it, or leave it out")


def _seen(line: str) -> str:
    return printable(line[:_SEEN]) + "…" * (len(line) > _SEEN)
