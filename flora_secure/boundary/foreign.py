"""Files and texts of others: hostile until read here.

Every file that a person names, or that comes from another machine, is read by these functions. They take regular files
alone (a pipe would wait for ever, a device never ends), no more bytes than the caller expects, UTF-8 alone, and JSON
that every reader reads alike. What is printed of such a file goes through `printable`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Any

from flora_secure.errors import ForeignError, first_line

MOST_TEXT = 64 << 20  # bytes; a log of a long run stays far below
MOST_DEPTH = 64  # of lists and objects in each other; ours have six
_MOST_DIGITS = 40  # of a whole number; ours have twenty
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\3\4": "ZIP",
}
# every part ends somewhere, so that nothing is looked through twice
_QUOTED = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""|\\?\Z)'
    r"|'''.*?(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.)*(?:"|(?=\n)|\\?\Z)'
    r"|'[^'\n]*(?:'|(?=\n)|\Z)"
    r"|#[^\n]*",
    re.DOTALL,
)
_WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32"}


def printable(text: str) -> str:
    """`text` in one line that any terminal, and any file in UTF-8, can take: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def open_regular(path: Path, most: int | None) -> BufferedReader:
    """A regular file of at most `most` bytes, of any size where that is None, opened for reading; links are followed.
    Raises as `read_bytes`."""
    try:
        # without O_NONBLOCK, opening a pipe waits for somebody to write
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ForeignError(str(error.strerror or error)) from None
    except ValueError:  # the path holds a NUL
        raise ForeignError("no file can have such a name") from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise ForeignError("it is a folder" if stat.S_ISDIR(facts.st_mode) else "it is no regular file")
    if most is not None and facts.st_size > most:
        os.close(descriptor)
        raise ForeignError(f"it has {facts.st_size:,} bytes, and {most:,} are the most that are read")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int = MOST_TEXT, *, start: int = 0, length: int | None = None) -> bytes:
    """The whole of a regular file of at most `most` bytes, or `length` bytes (fewer at its end) of one of any size from
    `start`; links are followed.

    Raises ForeignError, whose text says what the matter is and does not name the file.
    """
    with open_regular(path, most if length is None else None) as stream:
        try:
            stream.seek(start)
            raw = stream.read(most + 1 if length is None else min(length, most))
        except OSError as error:
            raise ForeignError(str(error.strerror or error)) from None
        except OverflowError:
            raise ForeignError(f"no file has a byte {start:,}") from None
    if len(raw) > most:
        raise ForeignError(f"it grows beyond the {most:,} bytes that are read")
    return raw


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a regular file of any size; links are followed. Raises ForeignError as `read_bytes`."""
    return read_bytes(path, count, length=count)


def packed(raw: bytes) -> str | None:
    """What the bytes are compressed with, by the mark that they begin with: "gzip", "ZIP", …; `None` for none."""
    return next((kind for mark, kind in _PACKED.items() if raw.startswith(mark)), None)


def text_of(raw: bytes) -> str:
    """UTF-8 bytes as text, without the byte order mark that some editors write; line ends become "\\n".

    Raises ForeignError for other encodings and for what is compressed, by name where they show themselves, and for NUL.
    """
    if kind := packed(raw):
        raise ForeignError(f"it is compressed ({kind}): unpack it")
    if wide := _WIDE.get(raw[:4]) or _WIDE.get(raw[:2]):
        raise ForeignError(f"it is {wide} text: save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ForeignError(f"it is not UTF-8 text (line {line}): save it as UTF-8") from None
    if "\0" in text:
        if len(raw) > 1 and not (raw[::2].strip(b"\0") and raw[1::2].strip(b"\0")):  # no byte order mark
            raise ForeignError("it looks like UTF-16 text: save it as UTF-8")
        raise ForeignError("it holds NUL bytes, and so is no text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text in a file, as `text_of` has it. Raises ForeignError as `read_bytes` and `text_of`."""
    return text_of(read_bytes(path, most))


def json_of(text: str) -> Any:
    """The value of a JSON text. Raises ForeignError where readers may differ or break.

    Refused: what is no JSON, NaN and infinities, a key twice in one object, more than `MOST_DEPTH` levels, whole
    numbers of more than forty digits, and half characters (lone surrogates), which no file can hold.
    """

    def refuse(name: str) -> None:
        raise ForeignError(f"{name} is not JSON")

    def whole(digits: str) -> int:
        if len(digits) > _MOST_DIGITS:
            raise ForeignError(f"a whole number of {len(digits):,} digits")
        return int(digits)

    def number(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            raise ForeignError(f"the number {digits[:20]} is too large")
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # readers differ in which of two values they take, so that one file would say two things
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ForeignError(f"key {key!r:.60} occurs {count} times in one object")
        return dict(pairs)

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=whole, parse_float=number, object_pairs_hook=once)
    except RecursionError:
        raise ForeignError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    except ValueError as error:
        raise ForeignError(f"not JSON: {first_line(error)}") from None
    _require_plain(value)
    return value


def _require_plain(value: Any) -> None:
    """ForeignError for too many levels and for half characters."""
    layer, depth = [value], 0
    while layer:
        if (depth := depth + 1) > MOST_DEPTH:
            raise ForeignError(f"it is nested deeper than {MOST_DEPTH} levels")
        below: list[Any] = []
        for one in layer:
            texts = [one] if isinstance(one, str) else [*one] if isinstance(one, dict) else []
            if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
                raise ForeignError("a text that holds half a character")
            below += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
        layer = below


def toml_of(text: str) -> dict[str, Any]:
    """The table of a TOML text. Raises ForeignError for what is none."""
    # tomllib takes a time that grows with the square of a key's parts
    if any(line.count(".") > MOST_DEPTH for line in _QUOTED.sub("", text).split("\n")):
        raise ForeignError(f"not TOML that is read: a line has more than {MOST_DEPTH} dots outside of quotes")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ForeignError(f"not TOML: {first_line(error)}") from None
    except RecursionError:
        raise ForeignError("it is nested too deeply") from None
    except ValueError:  # Python's bound of some thousand digits, which tomllib passes on
        raise ForeignError("a number in it has too many digits") from None
