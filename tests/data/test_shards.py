"""Shards of webdataset: labels of every kind, and samples and shards that cannot be used."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from images import encoded
from listings import lines, names, skipped, write_shard

from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError


def labelled(start: int, count: int, kind: str = "cls") -> list[tuple[str, bytes]]:
    members = []
    for i in range(start, start + count):
        about = {"cls": str(i % 2).encode(), "json": json.dumps({"label": i % 2, "client": f"c{i % 3}"}).encode(),
                 "txt": [b"cat", b"dog"][i % 2]}  # fmt: skip
        members += [(f"{i:04d}.jpg", encoded(i)), (f"{i:04d}.{kind}", about[kind])]
    return members


@pytest.mark.parametrize("kind", ["cls", "json", "txt"])
def test_shards(tmp_path: Path, kind: str) -> None:
    write_shard(tmp_path / "train-000000.tar", labelled(0, 6, kind))
    write_shard(tmp_path / "train-000001.tar", labelled(6, 6, kind))
    write_shard(tmp_path / "test-000000.tar", labelled(12, 4, kind))
    lines(tmp_path / "classnames.txt", "cat", "dog")  # where CLIP_benchmark puts it
    lines(tmp_path / "zeroshot_classification_templates.txt", "one {c}")
    data = load_dataset("webdataset", tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.templates == ("one {}",)
    assert names(data.test) == [f"test-000000.tar/{i:04d}.jpg" for i in range(12, 16)]
    assert data.private.labels.tolist() == [0, 1] * 6
    # read inside the tar, byte for byte
    assert [file.read() for file in data.private.images.files] == [encoded(i) for i in range(12)]
    assert (data.owners is not None) == (kind == "json")


def test_samples_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    odd = [("x.cls", b"1"), ("y.jpg", encoded(50)), ("z.jpg", b"bad"), ("z.cls", b"1"), ("w.jpg", encoded(51)),
           ("w.json", b"{"), ("../up.jpg", encoded(52)), ("../up.cls", b"0")]  # fmt: skip
    path = write_shard(tmp_path / "data.tar", [*labelled(0, 10), *odd])
    data = load_dataset("webdataset", path)
    assert len(data.private) + len(data.test) == 11
    assert skipped(data) == {
        "sample without an image": (1, ("data.tar/x",)),
        "sample whose texts cannot be read": (
            1,
            ("data.tar/w.json: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",),
        ),
        "sample without a label": (1, ("data.tar/y",)),
        "no image": (1, ("data.tar/z.jpg",)),
    }


def test_a_shard_that_is_cut_short_gives_what_it_holds(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "data.tar", labelled(0, 24))
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[36]  # the image of sample 18
    for end in (last.offset, last.offset + 100, last.offset_data, last.offset_data + 100):
        path.write_bytes(whole[:end])
        data = load_dataset("webdataset", path)
        assert len(data.private) + len(data.test) == 18
        assert skipped(data)["shard cut short"] == (1, ("data.tar",))


def test_shards_that_are_none(tmp_path: Path) -> None:
    write_shard(tmp_path / "data.tar", labelled(0, 4), "w:gz")
    with pytest.raises(DataError, match="is no uncompressed tar file"):
        load_dataset("webdataset", tmp_path)


def test_texts_that_cannot_be_read_leave_their_samples_out(tmp_path: Path) -> None:
    odd = [
        ("cls", b"caf\xe9", ".cls: it is not UTF-8 text (line 1): save it as UTF-8"),
        ("cls", "cat".encode("utf-16"), ".cls: it is UTF-16 text: save it as UTF-8"),
        ("cls", b"12\0", ".cls: it holds NUL bytes, and so is no text"),
        ("cls", b"1" * (1 << 20) + b"1", ".cls: more than 1,048,576 bytes"),
        ("cls", b"1\n2\n", ": a label of several lines"),
        ("json", b'{"label": 1, "label": 0}', ".json: key 'label' occurs 2 times in one object"),
        ("json", b'{"label": 1, "score": NaN}', ".json: NaN is not JSON"),
        ("json", b"[1]", ".json: it is no object"),
        ("json", b'{"label": [1]}', ".json: a label or client that is neither text nor a whole number"),
        ("json", b'{"label": 1, "client": {}}', ".json: a label or client that is neither text nor a whole number"),
        ("json", b'{"caption": [7]}', ".json: a caption that is no text"),
    ]
    members = labelled(0, 10)
    for i, (kind, raw, _) in enumerate(odd, 50):
        members += [(f"{i}.jpg", encoded(i)), (f"{i}.{kind}", raw)]
    members += [("70.jpg", encoded(70)), ("70.cls", b"\xef\xbb\xbf1.0\r\n")]
    data = load_dataset("webdataset", write_shard(tmp_path / "data.tar", members))
    assert skipped(data) == {
        "sample whose texts cannot be read": (11, tuple(f"data.tar/{i}{why}" for i, (_, _, why) in enumerate(odd, 50)))
    }
    assert data.class_names == ("0", "1")
    assert len(data.private) + len(data.test) == 11
    assert data.read == "22 samples of 1 shard"


def test_captions_keep_what_is_no_line_end(tmp_path: Path) -> None:
    text = "a\u2028b\r\nc\x0cd\re\x85f\n".encode("utf-8-sig")
    members = [item for i in range(10) for item in ((f"{i}.jpg", encoded(i)), (f"{i}.txt", text))]
    data = load_dataset("webdataset", write_shard(tmp_path / "data.tar", members))
    assert set(data.private.captions or ()) == {"a\u2028b", "c\x0cd", "e\x85f"}


def test_a_member_that_comes_twice_is_counted(tmp_path: Path) -> None:
    twice = [("a.jpg", encoded(50)), ("a.jpg", encoded(51)), ("a.cls", b"0"), ("a.cls", b"1"), ("a.png", encoded(52))]
    data = load_dataset("webdataset", write_shard(tmp_path / "data.tar", [*labelled(0, 10), *twice]))
    assert skipped(data) == {
        "member of a shard that comes again later, which counts": (2, ("data.tar/a.jpg", "data.tar/a.cls")),
        "further image of a sample": (1, ("data.tar/a.png",)),
    }


def test_a_key_that_comes_twice_is_told(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", labelled(0, 6))
    write_shard(tmp_path / "train-1.tar", [*labelled(4, 6), *labelled(20, 2), *labelled(9, 1)])
    write_shard(tmp_path / "test-0.tar", labelled(0, 4))
    data = load_dataset("webdataset", tmp_path)
    assert data.warnings[0] == "keys of shards that stand for more than one sample of a split: 3; each of them counts"
    assert len(data.private) == 15
    assert data.read == "19 samples of 3 shards"


def test_members_that_are_no_part_of_a_sample_are_counted(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "data.tar", [*labelled(0, 10), ("._0001.jpg", b"x"), ("README", b"x")])
    with tarfile.open(path, "a") as tar:
        for name, kind in (("x.jpg", tarfile.SYMTYPE), ("y.jpg", tarfile.LNKTYPE), ("z.jpg", tarfile.FIFOTYPE),
                           ("folder.x", tarfile.DIRTYPE)):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "0001.jpg"
            tar.addfile(member)
    assert skipped(load_dataset("webdataset", path)) == {
        "hidden member of a shard": (1, ("data.tar/._0001.jpg",)),
        "member of a shard without a suffix": (1, ("data.tar/README",)),
        "member of a shard that is a link, or no plain file": (
            3,
            ("data.tar/x.jpg", "data.tar/y.jpg", "data.tar/z.jpg"),
        ),
    }


def test_compressed_shards_are_told(tmp_path: Path) -> None:
    for number, kind in enumerate(("gz", "bz2", "xz")):
        write_shard(tmp_path / "packed" / f"train-{number}.tar.{kind}", labelled(0, 4), f"w:{kind}")
    (tmp_path / "packed" / "0.tgz").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no \.tar, but 4 compressed ones, such as 0\.tgz: unpack them to \.tar"):
        load_dataset("webdataset", tmp_path / "packed")
    write_shard(tmp_path / "packed" / "test.tar", labelled(0, 10))
    write_shard(tmp_path / "packed" / "train.tar", labelled(10, 10))
    told = skipped(load_dataset("webdataset", tmp_path / "packed"))
    assert told["compressed shard: unpack it to .tar"][0] == 4
    for kind, word in (("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")):
        write_shard(tmp_path / "alone" / "data.tar", labelled(0, 4), f"w:{kind}")
        for root in (tmp_path / "alone", tmp_path / "alone" / "data.tar"):
            with pytest.raises(DataError, match=rf"is no uncompressed tar file: it is compressed \({word}\), un"):
                load_dataset("webdataset", root)


@pytest.mark.parametrize("headers", [{"GNU.sparse.map": "x,y"}, {"GNU.sparse.size": "x"}, {"size": "9" * 23}])
def test_headers_that_no_tar_has_are_a_line(tmp_path: Path, headers: dict[str, str]) -> None:
    with tarfile.open(tmp_path / "odd.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = headers
        tar.addfile(member)
    with pytest.raises(DataError):
        load_dataset("webdataset", tmp_path / "odd.tar")
