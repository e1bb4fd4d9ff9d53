"""Files and texts of others: what is read is what was written, and whatever else they hold is refused in one line."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_secure.boundary.foreign import (
    MOST_DEPTH,
    json_of,
    packed,
    printable,
    read_bytes,
    read_text,
    text_of,
    toml_of,
)
from flora_secure.errors import ForeignError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and words of Linux")


def refused(message: str) -> Any:
    return pytest.raises(ForeignError, match=message)


# files


def test_the_whole_of_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\r\nx")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "empty").write_bytes(b"")
    assert read_bytes(tmp_path / "a") == read_bytes(tmp_path / "link") == b"\x00\r\nx"
    assert read_bytes(tmp_path / "a", 4) == b"\x00\r\nx"
    assert read_bytes(tmp_path / "empty", 0) == b""


@LINUX
def test_files_that_are_none_do_not_keep_anybody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        errors: list[str] = []

        def read() -> None:
            for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), Path("/dev/null"), tmp_path,
                         tmp_path / "absent", tmp_path / "absent" / "a", Path("a\0b")):  # fmt: skip
                try:
                    read_bytes(path)
                except ForeignError as error:
                    errors.append(str(error))

        waiting = threading.Thread(target=read, daemon=True)
        waiting.start()
        waiting.join(5)
    assert errors == [
        "it is no regular file",
        "No such device or address",
        "it is no regular file",
        "it is no regular file",
        "it is a folder",
        "No such file or directory",
        "No such file or directory",
        "no file can have such a name",
    ]


@LINUX
def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(10))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "large"):
            with pytest.raises(ForeignError):
                read_bytes(path, 9)
    assert len(os.listdir("/proc/self/fd")) == before


@LINUX
def test_more_bytes_than_expected_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(20 << 30)
    with refused(r"^it has 21,474,836,480 bytes, and 67,108,864 are the most that are read$"):
        read_bytes(tmp_path / "sparse")
    (tmp_path / "a").write_bytes(b"abc")
    with refused("it has 3 bytes, and 2 are the most"):
        read_text(tmp_path / "a", 2)
    with refused("it grows beyond the 10 bytes"):  # its size is said to be 0
        read_bytes(Path("/proc/self/status"), 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="everything may be read by root")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "a").chmod(0)
    with refused("Permission denied"):
        read_bytes(tmp_path / "a")


# text


def test_text_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    assert text_of("é\r\na\rb\n".encode()) == "é\na\nb\n"
    assert text_of("é\u2028a\x0cb\x85".encode("utf-8-sig")) == "é\u2028a\x0cb\x85"
    assert text_of(b"") == text_of(b"\xef\xbb\xbf") == ""
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfcat\r\n")
    assert read_text(tmp_path / "a") == "cat\n"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("cat".encode("utf-16"), "^it is UTF-16 text: save it as UTF-8$"),
        ("cat".encode("utf-16-le"), "^it looks like UTF-16 text: save it as UTF-8$"),
        ("cat".encode("utf-16-be"), "^it looks like UTF-16 text: save it as UTF-8$"),
        (b"\xfe\xff\0c", "^it is UTF-16 text"),
        ("cat".encode("utf-32"), "^it is UTF-32 text"),
        (b"\0\0\xfe\xff\0\0\0c", "^it is UTF-32 text"),
        ("a\nb\né".encode("latin-1"), r"^it is not UTF-8 text \(line 3\): save it as UTF-8$"),
        (b"\xed\xa0\x80", r"not UTF-8 text \(line 1\)"),  # half a character
        (b"\xc0\xaf", r"not UTF-8 text"),  # a slash, too long
        (b"cat\0dog", "^it holds NUL bytes, and so is no text$"),
        (b"\0", "NUL bytes"),
    ],
)
def test_other_bytes_are_refused_by_name(raw: bytes, message: str) -> None:
    with refused(message):
        text_of(raw)


def test_what_is_compressed_is_refused_by_name() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", "text")
    for raw, kind in ((gzip.compress(b"a,b\n"), "gzip"), (stream.getvalue(), "ZIP"), (b"BZh91AY", "bzip2")):
        assert packed(raw) == kind
        with refused(rf"^it is compressed \({kind}\): unpack it$"):
            text_of(raw)
    assert packed(b"PK") is packed(b"") is packed(b"path,label") is None


@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_refused(raw: bytes) -> None:
    try:
        text = text_of(raw)
    except ForeignError:
        return
    assert not {"\0", "\r"} & {*text}
    assert text == raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


# JSON

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**38), 10**38)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('abc"\\\n', max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN, st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=60)
def test_plain_json_is_read_as_python_reads_it(value: Any, indent: int | None, escaped: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    found = json_of(text)
    assert found == json.loads(text) == value
    assert json.dumps(found) == json.dumps(value)  # 1, 1.0 and true differ here


@given(st.text('[]{}",:0123456789.eE+-truefalsn \\ud8', max_size=30))
def test_any_text_is_json_or_refused(text: str) -> None:
    try:
        found = json_of(text)
    except ForeignError:
        return
    assert found == json.loads(text)
    json.dumps(found, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^not JSON: Expecting value"),
        ("{", "^not JSON"),
        ("[1] 2", "^not JSON: Extra data"),
        ("\ufeff1", "^not JSON"),
        ("NaN", "^NaN is not JSON$"),
        ("[-Infinity]", "^-Infinity is not JSON$"),
        ("1e400", "^the number 1e400 is too large$"),
        ("-1e400", "^the number -1e400 is too large$"),
        ("1." + "0" * 50 + "e999", r"^the number 1\.0{18} is too large$"),
        ("9" * 41, "^a whole number of 41 digits$"),
        ("-" + "9" * 100_000, "^a whole number of 100,001 digits$"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "^key 'c' occurs 2 times in one object$"),
        ('{"a": 1, "\\u0061": 2, "a": 3}', "^key 'a' occurs 3 times in one object$"),
        ('{"\\u001b[31m": 1, "\\u001b[31m": 2}', r"^key '\\x1b\[31m' occurs 2 times"),
        ('["\\ud800"]', "^a text that holds half a character$"),
        ('{"\\udfff": 1}', "^a text that holds half a character$"),
        ("[" * 100_000, "^it is nested deeper than 64 levels$"),
        ("[" * 100_000 + "]" * 100_000, "^it is nested deeper than 64 levels$"),
        ('{"a":' * 65 + "1" + "}" * 65, "^it is nested deeper than 64 levels$"),
        ('["\x01"]', "^not JSON: Invalid control character"),
    ],
)
def test_json_that_readers_differ_in_or_break_at(text: str, message: str) -> None:
    with refused(message):
        json_of(text)


def test_json_up_to_the_bounds() -> None:
    deep = "[" * (MOST_DEPTH - 1) + "1" + "]" * (MOST_DEPTH - 1)
    assert json_of(deep) == json.loads(deep)
    assert json_of("9" * 40) == 10**40 - 1
    assert json_of('"\\ud83d\\ude00"') == "\U0001f600"
    assert json_of("1e308") == 1e308
    assert json_of(" \n[]\t") == []


# TOML


def test_toml() -> None:
    assert toml_of('a = 1\n[b]\nc = "é"\n') == {"a": 1, "b": {"c": "é"}}
    for text, message in (
        ("a = ", "^not TOML: "),
        ("a = 1\na = 2", "^not TOML: "),
        ("a = \x1b[31m", "^not TOML: "),
        ("a = " + "[" * 100_000, "nested too deeply|not TOML"),
        ("a = " + "9" * 100_000, "^a number in it has too many digits$|^not TOML: "),
    ):
        with refused(message) as caught:
            toml_of(text)
        assert str(caught.value).isprintable()


# for people


def test_printable() -> None:
    assert printable("plain é 犬 \U0001f600") == "plain é 犬 \U0001f600"
    assert printable("a\nb\r\t\0") == r"a\nb\r\t\x00"
    assert printable("\x1b[2J\x9b1m") == r"\x1b[2J\x9b1m"  # clears a screen; the same in one byte
    assert printable("\u202eexe.gpj") == r"\u202eexe.gpj"  # runs from right to left
    assert printable("\u2028\u200b\ufeff\ud800") == r"\u2028\u200b\ufeff\ud800"
    assert printable("\U000e0001") == r"\U000e0001"


@given(st.text())
def test_anything_can_be_printed(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert printable(shown) == shown


def test_a_key_of_many_parts_takes_no_time() -> None:
    began = time.perf_counter()
    for text in (".".join(["a"] * 100_000) + " = 1", "x = {" + ".".join(["a"] * 100_000) + " = 1}",
                 "[" + ".".join(["a"] * 100_000) + "]",
                 'x = {y = """\n""", ' + ".".join(["a"] * 100_000) + ' = 1, z = """\n"""}'):  # fmt: skip
        with pytest.raises(ForeignError, match="a line has more than 64 dots"):
            toml_of(text)
    for quotes in ('"' + '\\"' * 200_000, '"' + '\\"' * 200_000 + "\\", "'" * 200_001, '"""' * 200_001):
        with pytest.raises(ForeignError):
            toml_of("." * 65 + quotes)
    assert time.perf_counter() - began < 5
    dots = "." * 200
    assert toml_of(f'a = """\n{dots}\n"""') == {"a": dots + "\n"}
    assert toml_of(f"a = '{dots}' # {dots}\n# {dots}\nb = \"{dots}\"") == {"a": dots, "b": dots}
