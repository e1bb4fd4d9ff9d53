"""Tables as text: a slip that would make other labels, clients or rows of them is refused with its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import write

from flora_secure.data.federation import load_federation
from flora_secure.data.files.delimited import read_delimited
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.planning.sections import DataConfig


def usable(names: object) -> bool:
    return {"path", "label"} <= {*names}  # type: ignore[misc]


def rows(path: Path) -> list[dict[str, str]]:
    return list(read_delimited(path, usable, pytest.fail)[1])


def table(folder: Path, text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset("table", path)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"table {str(path)!r}")


# fields


def test_more_fields_than_the_header_are_refused(tmp_path: Path) -> None:
    """The label "red, plain" made a client "plain"."""
    path = table(tmp_path, "path,label,client\na.jpg,red,anna\nb.jpg,red, plain,bert\n")
    assert refused(path) == (
        ", line 3 has 4 fields, and the header 3: b.jpg,red, plain,bert; hold a field with commas in it in quotes"
    )
    path = table(tmp_path, "path,caption\na.jpg,a red, plain dress\n")
    assert refused(path).startswith(", line 2 has 3 fields, and the header 2: a.jpg,a red, plain dress;")


def test_fewer_fields_than_the_header_are_refused(tmp_path: Path) -> None:
    assert refused(table(tmp_path, "path,label,client\na.jpg,red,anna\n\n  \nb.jpg,red\n")) == (
        ", line 5 has 2 fields, and the header 3: b.jpg,red; a field or what separates it is missing"
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,label,label", " has two columns called 'label': path,label,label"),
        ("path,label, path", " has two columns called 'path': path,label, path"),
        ("path,label,x,x", " has two columns called 'x': path,label,x,x"),
        ("path,label,", " has a column without a name: path,label,"),
        (",,path,label", " has a column without a name"),
        ("file;name", " lacks the column 'path'; it has file;name"),
        ("\n", " lacks the column 'path'; it has a.jpg, 1, 2, 3"),
        ('path,"label', " lacks the column 'path'"),
    ],
)
def test_headers_that_cannot_be(tmp_path: Path, header: str, message: str) -> None:
    assert refused(table(tmp_path, header + "\na.jpg,1,2,3\n")).startswith(message)


def test_the_numbers_of_rows_that_pandas_writes(tmp_path: Path) -> None:
    path = table(tmp_path, ",path,label\n0,a.jpg,cat\n1,b.jpg,dog\n")
    assert [row["label"] for row in rows(path)] == ["cat", "dog"]


# quotes


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('path,label\na.jpg,red\nb.jpg,"red\nc.jpg,red\n', 3),  # never closed
        ('path,label\nb.jpg,"red\nc.jpg,blue\nd.jpg,red"\n', 2),  # closed rows later
        ('path,caption\na.jpg,x\nb.jpg,"red\nc.jpg,blue\nd.jpg,"a red, plain one"\n', 3),  # closed by the next quote
        ('path,caption\nb.jpg,"red\nc.jpg,blue"\n', 2),
        ('path,caption,x\nb.jpg,"a\nc.jpg,blue,y\nd.jpg,red",y\n', 2),
        ('path,label\n"a.jpg,red\nb.jpg,red\n', 2),
        ('path,label\n"a.jpg,red\nb.jpg",red\n', 2),
        ('path,label,client\na.jpg,red,"anna\nbert"\n', 2),
        ('\n\npath,label\na.jpg,red\n\nb.jpg,"red\n', 6),
    ],
)
def test_a_quote_that_is_not_closed_is_refused(tmp_path: Path, text: str, line: int) -> None:
    """114 of 120 rows went into one label."""
    assert refused(table(tmp_path, text)) == (
        f", line {line}: a quote opens there that is not closed before the next row; close it, or leave it out"
    )


def test_a_quote_that_swallows_rows_without_suffixes(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"")
    assert ", line 2: a quote opens" in refused(table(tmp_path, 'path,caption\nb,"red\nc,blue\nd,"\n'))


def test_text_behind_a_closed_quote_is_refused(tmp_path: Path) -> None:
    message = refused(table(tmp_path, 'path,label\na.jpg,"5" screen"\n'))
    assert message == ", line 2: ',' expected after '\"'; within quotes a quote is written twice"


def test_fields_of_more_than_csv_reads_are_refused(tmp_path: Path) -> None:
    assert refused(table(tmp_path, f"path,label\na.jpg,{'x' * 140_000}\n")).startswith(", line 2: field larger than")


def test_quotes_as_they_should_be(tmp_path: Path) -> None:
    text = 'path,label,more\na.jpg,"red, plain","say ""x"""\nb.jpg,5" screen,"two\nlines, and a comma"\n"c.jpg","",\n'
    assert rows(table(tmp_path, text)) == [
        {"path": "a.jpg", "label": "red, plain", "more": 'say "x"'},
        {"path": "b.jpg", "label": '5" screen', "more": "two\nlines, and a comma"},
        {"path": "c.jpg", "label": "", "more": ""},
    ]


CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(',;"\t|'), max_size=6)


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=5), st.sampled_from([",", ";", "\t", "|"]), st.booleans())
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, ...]], separator: str, mark: bool
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator)
    writer.writerows([("path", "label", "x"), *cells])
    path = tmp_path_factory.getbasetemp() / "t.csv"
    path.write_bytes(stream.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    told: list[str] = []
    names, found = read_delimited(path, usable, told.append)
    assert [tuple(row[name] for name in names) for row in found] == cells
    assert len(told) == (separator != ",")


# separators and bytes


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_found_and_told(tmp_path: Path, separator: str, word: str) -> None:
    for i in range(10):
        write(tmp_path / f"{i}.jpg", i)
    lines = ["path,label", *(f'{i}.jpg,"{["cat", "dog, big"][i % 2]}"' for i in range(10))]
    text = "\n".join(line.replace(",", separator, 1) for line in lines)
    data = load_dataset("table", table(tmp_path, text, encoding="utf-8-sig"))
    assert data.class_names == ("cat", "dog, big")
    assert data.warnings == (f"the table has {word} between its columns, not commas",)


def test_commas_in_a_tsv(tmp_path: Path) -> None:
    told: list[str] = []
    names, found = read_delimited(table(tmp_path, "path,label\na,b\n", "t.tsv"), usable, told.append)
    assert (names, list(found)) == (["path", "label"], [{"path": "a", "label": "b"}])
    assert told == ["the table has commas between its columns, not tabs"]
    assert rows(table(tmp_path, "path\tlabel\na,b\tc;d\n", "u.tsv")) == [{"path": "a,b", "label": "c;d"}]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("path,label\n".encode("utf-16"), "it is UTF-16 text: save it as UTF-8"),
        (b"path,label\na.jpg,\xe9\n", r"it is not UTF-8 text (line 2): save it as UTF-8"),
        (b"PK\3\4 an .xlsx", "it is compressed (ZIP): unpack it"),
        (b"path,label\na\0.jpg,b\n", "it holds NUL bytes, and so is no text"),
    ],
)
def test_tables_that_are_no_text(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(raw)
    assert refused(tmp_path / "t.csv") == f" cannot be read: {message}"


def test_line_ends_of_every_kind(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        text = end.join(["path,label", "a\u2028b,c\x0cd", "e,f"])
        assert [row["label"] for row in rows(table(tmp_path, text))] == ["c\x0cd", "f"]


def test_rows_are_counted_beside_images(tmp_path: Path) -> None:
    for i in range(10):
        write(tmp_path / f"{i}.jpg", i)
    text = "path,label\n" + "".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(12))
    config = DataConfig(dataset="table", data_root=str(table(tmp_path, text)), clients=2, partition="iid")
    shown = load_federation(config, 0).lines
    assert shown[0].startswith("data table: 8 private, 0 public, 2 test images")
    assert shown[1] == "read 12 rows of the table"
