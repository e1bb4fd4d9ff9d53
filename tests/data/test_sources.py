"""The shipped pack and the other data sets: contents, splits that never overlap, and what bad folders say."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from flora_secure.data import fixed
from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.embedded.packed import pack_piece, read_pack
from flora_secure.data.files.idx import read_idx
from flora_secure.data.fixed import CLOTHES_FOLDER, DEBIAN_FOLDER
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError

MANIFEST = json.loads((CLOTHES_FOLDER / "manifest.json").read_text(encoding="utf-8"))
needs_originals = pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist")


@pytest.fixture(scope="module")
def clothes() -> Dataset:
    return load_dataset("clothes")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


def test_shipped_files_keep_to_their_size_and_say_where_they_are_from() -> None:
    files = [path for path in CLOTHES_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 14_000_000
    assert {path.name for path in files} == {"LICENSE", "manifest.json", "private.xz", "public.xz", "test.xz"}
    assert "MIT" in (CLOTHES_FOLDER / "LICENSE").read_text(encoding="utf-8")
    for entry in MANIFEST["pieces"].values():
        assert hashlib.sha256((CLOTHES_FOLDER / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


def test_clothes_counts_types_and_classes(clothes: Dataset) -> None:
    assert [len(s) for s in (clothes.private, clothes.public, clothes.test)] == [20_000, 10_000, 4_000]
    for name, split in (("private", clothes.private), ("public", clothes.public), ("test", clothes.test)):
        assert split.images.shape == (len(split), 28, 28)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        counts = np.bincount(split.labels, minlength=10)
        assert counts.tolist() == MANIFEST["pieces"][name]["classes"]
        assert counts.min() > 0.09 * len(split)
        assert 60 < split.images.mean() < 85


@pytest.mark.parametrize("name", ["clothes", "digits"])
def test_no_image_is_on_two_sides_of_a_split(name: str) -> None:
    data = load_dataset(name)
    digests = [split.digests() for split in (data.private, data.public, data.test)]
    assert [len(d) for d in digests] == [len(data.private), len(data.public), len(data.test)]
    assert len(set.union(*digests)) == sum(map(len, digests))
    places = [(s.origin, i) for s in (data.private, data.public, data.test) for i in s.indices]
    assert len(set(places)) == len(places)


def test_digests_see_a_shared_image() -> None:
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2)
    one = Split(images[:2], np.zeros(2, np.int64), "a", np.arange(2))
    other = Split(images[1:], np.zeros(2, np.int64), "b", np.arange(2))
    assert len(one.digests() & other.digests()) == 1


@needs_originals
def test_clothes_images_are_the_originals_at_their_indices(clothes: Dataset) -> None:
    full = load_dataset("fashion-mnist")
    assert [len(s) for s in (full.private, full.public, full.test)] == [50_000, 10_000, 10_000]
    train = np.concatenate([full.private.images, full.public.images])
    labels = np.concatenate([full.private.labels, full.public.labels])
    for split in (clothes.private, clothes.public):
        assert np.array_equal(split.images, train[split.indices])
        assert np.array_equal(split.labels, labels[split.indices])
    assert np.array_equal(clothes.test.images, full.test.images[clothes.test.indices])
    assert np.array_equal(clothes.test.labels, full.test.labels[clothes.test.indices])
    assert clothes.private.indices.max() < 50_000 <= clothes.public.indices.min()
    assert full.data_hash != clothes.data_hash


@needs_originals
@pytest.mark.slow
def test_script_repeats_the_pack_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pack_fashion_mnist import main

    monkeypatch.setattr("sys.argv", ["pack", "--out", str(tmp_path)])
    main()
    for name in ("manifest.json", "private.xz", "public.xz", "test.xz"):
        assert (tmp_path / name).read_bytes() == (CLOTHES_FOLDER / name).read_bytes()


def test_pack_round_trip_and_damage(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 5, 4), np.uint8), rng.integers(0, 10, 7)
    packed = pack_piece(images, labels)
    entry = {"file": "a.xz", "origin": "train", "range": [3, 10], "shape": [5, 4]}
    entry["sha256"] = hashlib.sha256(packed).hexdigest()
    (tmp_path / "a.xz").write_bytes(packed)
    (tmp_path / "manifest.json").write_text(json.dumps({"pieces": {"a": entry}}), encoding="utf-8")
    piece = read_pack(tmp_path)["a"]
    assert np.array_equal(piece.images, images)
    assert np.array_equal(piece.labels, labels)
    assert piece.indices.tolist() == list(range(3, 10))
    (tmp_path / "a.xz").write_bytes(packed[:-1] + bytes([packed[-1] ^ 1]))
    with pytest.raises(DataError, match="damaged"):
        read_pack(tmp_path)
    (tmp_path / "a.xz").unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.xz"):
        read_pack(tmp_path)


def test_digits_fit_the_same_mould() -> None:
    data = load_dataset("digits")
    assert data.class_names[3] == "digit 3"
    assert data.private.images.shape[1:] == (8, 8)
    assert data.private.images.max() == 255
    assert len(data.private) > 3 * len(data.test) > 600
    assert data.data_hash == load_dataset("digits").data_hash


def test_data_hash_sees_a_label_and_a_pixel() -> None:
    def dataset(pixel: int, label: int) -> Dataset:
        images = np.full((2, 3, 3), pixel, np.uint8)
        split = Split(images, np.array([0, label], np.int64), "x", np.arange(2))
        return Dataset("x", split, split, split, ("a", "b"), ("{}",), False)

    hashes = {dataset(pixel, label).data_hash for pixel in (0, 1) for label in (0, 1)}
    assert len(hashes) == 4
    assert dataset(0, 0).data_hash in hashes


def write_fashion(folder: Path, compress: bool, images: int = 60_000, size: int = 28) -> None:
    """Files of the right names and shapes, all black."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", images), ("t10k", 10_000)):
        for kind, array in (
            ("images-idx3", np.zeros((count, size, size), np.uint8)),
            ("labels-idx1", np.zeros(count, np.uint8)),
        ):
            raw = idx_bytes(array)
            path = folder / f"{part}-{kind}-ubyte{'.gz' if compress else ''}"
            path.write_bytes(gzip.compress(raw, 1) if compress else raw)


@pytest.mark.parametrize(("layout", "compress"), [(".", False), ("FashionMNIST/raw", True)])
def test_full_set_from_a_folder(tmp_path: Path, layout: str, compress: bool) -> None:
    write_fashion(tmp_path / layout, compress)
    data = load_dataset("fashion-mnist", str(tmp_path))
    assert [len(s) for s in (data.private, data.public, data.test)] == [50_000, 10_000, 10_000]
    assert data.public.indices[0] == 50_000


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, r"lacks train-images-idx3-ubyte\[\.gz\].*put the four"),
        (
            lambda root: (write_fashion(root, False), (root / "t10k-labels-idx1-ubyte").unlink()),
            r"lacks t10k-labels-idx1",
        ),
        (lambda root: write_fashion(root, False, images=100), r"train images \(100, 28, 28\)"),
        (lambda root: write_fashion(root, False, size=8), r"\(60000, 8, 8\)"),
    ],
)
def test_folder_that_lacks_the_files(tmp_path: Path, prepare: object, message: str) -> None:
    prepare(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("fashion-mnist", tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_unknown_name_and_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"unknown data.dataset 'cifar': use one of icons, clothes, fashion-mnist"):
        load_dataset("cifar")
    with pytest.raises(DataError, match="is no folder"):
        load_dataset("fashion-mnist", tmp_path / "absent")
    monkeypatch.setattr(fixed, "DEBIAN_FOLDER", tmp_path / "absent")
    with pytest.raises(DataError, match="data_root"):
        load_dataset("fashion-mnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x00\x08", "cut short"),
        (struct.pack(">II", 0x00000801, 4) + b"abcd", "cut short|no IDX file"),
        (struct.pack(">IIII", 0x00000D03, 1, 1, 1) + b"a", "magic 0x00000d03, not 0x00000803"),
        (struct.pack(">IIII", 0x00000803, 2, 2, 2) + b"a" * 7, r"7 bytes of data.*8"),
        (struct.pack(">IIII", 0x00000803, 2, 2, 2) + b"a" * 9, r"more bytes of data.*8"),
        (gzip.compress(struct.pack(">IIII", 0x00000803, 2, 2, 2) + b"a" * 8, mtime=0)[:-9], "cannot read"),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert re.match(r"[^\n]+$", str(caught.value))


@pytest.mark.parametrize("promised", [(2, 2, 2), (4096, 1024, 1024)])
def test_no_more_is_unpacked_than_the_header_promises_and_no_more_than_256_mib(
    tmp_path: Path, promised: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three megabytes may hold three gigabytes."""
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(struct.pack(">IIII", 0x00000803, *promised) + bytes(20_000_000), 1))
    unpacked = []
    read = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int = -1) -> bytes:
        unpacked.append(read(self, size))
        return unpacked[-1]

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    monkeypatch.setattr(gzip, "decompress", lambda *_: pytest.fail("unpacked without a bound"))
    with pytest.raises(DataError, match=r"more bytes of data, its header promises 8|promises 4,294,967,296 bytes"):
        read_idx(path, 3)
    assert sum(map(len, unpacked)) < 100
    with path.open("wb") as stream:
        stream.truncate(20 << 30)
    with pytest.raises(DataError, match=r"cannot read .*268,435,456 are the most that are read"):
        read_idx(path, 3)


def test_an_array_that_there_cannot_be_is_a_line(tmp_path) -> None:
    path = tmp_path / "none-idx3-ubyte"
    path.write_bytes(struct.pack(">I3I", 0x803, 0, 2**32 - 1, 2**32 - 1))
    with pytest.raises(DataError, match="which there cannot be"):
        read_idx(path, 3)
