"""CIFAR's pickles: read as torchvision leaves them, and nothing in them runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flora_secure.data.files.cifar import _batch, read_pickle
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes bytes as Python 2's strings, the way the published files have keys, pixels and names."""

    def save_string(self, text: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string}  # type: ignore[attr-defined]  # noqa: RUF012


def dump(path: Path, content: object, protocol: int | None = None) -> None:
    """`protocol`: of Python 3's pickles; `None` for Python 2's protocol 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    if protocol is None:
        Python2Pickler(stream, 2).dump(content)
    else:
        pickle.dump(content, stream, protocol)
    # NumPy 2 calls this module numpy._core, the published files do not
    path.write_bytes(
        stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        if protocol in (None, 0, 2)
        else stream.getvalue()
    )


def batch(seed: int, count: int, key: bytes, classes: int) -> dict[bytes, object]:
    rng = np.random.default_rng(seed)
    return {b"data": rng.integers(0, 256, (count, 3072), np.uint8), key: rng.integers(0, classes, count).tolist()}


def write_cifar10(root: Path, protocol: int | None = None) -> list[dict[bytes, object]]:
    folder = root / "cifar-10-batches-py"
    batches = [batch(i, 20, b"labels", 10) for i in range(6)]
    for number, content in enumerate(batches[:5], 1):
        dump(folder / f"data_batch_{number}", content, protocol)
    dump(folder / "test_batch", batches[5], protocol)
    dump(folder / "batches.meta", {b"label_names": [name.encode() for name in NAMES10]}, protocol)
    return batches


@pytest.mark.parametrize("protocol", [None, 0, 2, 5])
def test_cifar10(tmp_path: Path, protocol: int | None) -> None:
    batches = write_cifar10(tmp_path, protocol)
    data = load_dataset("cifar10", tmp_path)
    assert [len(s) for s in (data.private, data.public, data.test)] == [80, 20, 20]
    assert data.class_names == tuple(NAMES10)
    assert data.private.images.shape == (80, 32, 32, 3)
    # 1024 bytes of red row by row, then green, then blue
    red = np.asarray(batches[0][b"data"])[3, :1024].reshape(32, 32)
    assert np.array_equal(data.private.images[3, :, :, 0], red)
    assert data.private.labels[:20].tolist() == batches[0][b"labels"]
    assert data.public.labels.tolist() == batches[4][b"labels"]
    assert data.test.labels.tolist() == batches[5][b"labels"]
    assert load_dataset("cifar10", tmp_path / "cifar-10-batches-py").data_hash == data.data_hash


def test_cifar10_is_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    write_cifar10(tmp_path)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs, ours = CIFAR10(str(tmp_path), train=False), load_dataset("cifar10", tmp_path)
    assert np.array_equal(theirs.data, ours.test.images)
    assert theirs.targets == ours.test.labels.tolist()
    assert tuple(theirs.classes) == ours.class_names


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    train, test = (batch(i, 50, b"fine_labels", 100) for i in range(2))
    for name, content in (("train", train), ("test", test)):
        dump(folder / name, {**content, b"coarse_labels": [0] * 50})
    names = [b"aquarium_fish", *(f"class_{i}".encode() for i in range(1, 100))]
    dump(folder / "meta", {b"fine_label_names": names, b"coarse_label_names": [b"fish"]})
    data = load_dataset("cifar100", tmp_path)
    assert data.class_names[:2] == ("aquarium fish", "class 1")
    assert [len(s) for s in (data.private, data.public, data.test)] == [40, 10, 50]
    assert data.test.labels.tolist() == test[b"fine_labels"]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, protocol: int) -> None:
    write_cifar10(tmp_path)
    dump(tmp_path / "cifar-10-batches-py" / "data_batch_2", {b"data": Evil(tmp_path / "ran")}, protocol)
    with pytest.raises(DataError, match=r"data_batch_2 is no CIFAR file: it asks for posix.mkdir"):
        load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds a list"),
        ({b"labels": [1]}, "no images of 3 × 32 × 32"),
        ({b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]}, "other things than whole numbers"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "2 images and 1 labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}, "labels 1 to 10, the 10 classes end at 9"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, content: object, message: str) -> None:
    write_cifar10(tmp_path)
    dump(tmp_path / "cifar-10-batches-py" / "data_batch_3", content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("cifar10", tmp_path)
    assert "data_batch_3" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"\x80\x02", b"hello\nworld", b"cos\nsystem\n(S'true'\ntR."])
def test_damaged_pickles(tmp_path: Path, raw: bytes) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(raw)
    with pytest.raises(DataError, match="test_batch is no CIFAR file") as caught:
        load_dataset("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def reads_in_another_process(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` with `path`, the file to read, beside it; a crash is its exit status."""
    command = [sys.executable, "-c", f"import sys; path = sys.argv[1]\n{code}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


READ = """
from pathlib import Path
from flora_secure.data.files.cifar import _batch
from flora_secure.errors import DataError
try:
    print(_batch(Path(path), b"labels", 10)[1].tolist())
except DataError as error:
    print("refused:", error)
"""

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


def array_of(kind: bytes, shape: bytes, raw: bytes, of: bytes = b"<") -> bytes:
    """What rebuilds an array of NumPy's in a pickle of protocol 0."""
    state = b"(I3\nS'" + of + b"'\nNNNI-1\nI-1\nI0\ntb"
    dtype = b"cnumpy\ndtype\n(S'" + kind + b"'\nI0\nI1\ntR" + state
    return ARRAY + b"(I1\n(" + shape + b"t" + dtype + b"I00\nS'" + raw + b"'\ntb"


LABELS = b"S'labels'\n(lp9\nI1\nas"
MEMORY = b"\\x41" * 3072
IMAGE = array_of(b"u1", b"I1\nI3072\n", MEMORY)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        # objects at addresses that the file says: a crash, or memory of the process read as objects
        (b"(dS'data'\n" + array_of(b"O8", b"I1\nI384\n", MEMORY, b"|") + b"s" + LABELS + b".", "other things"),
        (b"(dS'data'\n" + array_of(b"V16", b"I1\nI192\n", MEMORY, b"|") + b"s" + LABELS + b".", "other things"),
        # a shape that the bytes do not fill
        (b"(dS'data'\n" + array_of(b"u1", b"I9\nI3072\n", MEMORY) + b"s" + LABELS + b".", "not those of its shape"),
        (b"(dS'data'\n" + array_of(b"u1", b"I-1\nI3072\n", MEMORY) + b"s" + LABELS + b".", "of no shape"),
        # a name that is given another meaning, and names as classes
        (b"cnumpy\nndarray\n(dS'shape'\nI9\nsb.", "another meaning"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "is no CIFAR file"),
        (b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.", "asks for"),
        (b"c_codecs\nencode\n(Vx\nVhex\ntR.", "another encoding"),
        # room for as many memos, and zeros, as the file says
        (b"\x80\x02}r\xff\xff\xff\xff.", "holds no images|no CIFAR file"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "is no CIFAR file"),
        # keys whose hash takes two to the power of sixty steps
        (b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s.", "keys are no strings"),
        # lists that hold themselves twice, sixty times
        (b"(dS'data'\n" + IMAGE + b"sS'labels'\n]" + b"(2l" * 60 + b"s.", "no CIFAR"),
        (b"(dS'data'\n" + IMAGE + b"sS'labels'\n(lI" + b"9" * 999 + b"\nas.", "ends? at 9"),
        (b"\x80\x02\x82\x01.", "is no CIFAR file"),
        (b"\x80\x02Pno\n.", "is no CIFAR file"),
    ],
)  # fmt: skip
def test_attacks_by_pickles_are_refused_in_one_line(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "batch").write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        _batch(tmp_path / "batch", b"labels", 10)
    assert "\n" not in str(caught.value)


def test_objects_over_bytes_of_the_file_do_not_crash_the_process(tmp_path: Path) -> None:
    objects = b"cnumpy\nndarray\n((I384\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS'" + MEMORY + b"'\ntR"
    (tmp_path / "batch").write_bytes(b"(dS'data'\nI1\nsS'labels'\n" + objects + b"s.")
    ran = reads_in_another_process(tmp_path / "batch", READ)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("refused:")


FUZZ = """
import random, tempfile
from pathlib import Path
from flora_secure.data.files import cifar
from flora_secure.errors import DataError
raw = Path(path).read_bytes()
rng = random.Random(0)
heads = [0, len(raw) - 600]  # the pixels in between are all alike
counts = {"read": 0, "refused": 0}
for number in range(4000):
    wrong = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.choice(heads) + rng.randrange(600)
        kind = rng.randrange(4)
        if kind == 0:
            wrong[place % len(wrong)] = rng.randrange(256)
        elif kind == 1:
            wrong[place % len(wrong)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del wrong[place : place + rng.randrange(20)]
        else:
            wrong[place:place] = bytes(wrong[(p := rng.randrange(600)) : p + rng.randrange(20)])
    cifar.read_bytes = lambda *_: bytes(wrong)
    try:
        images, labels = cifar._batch(Path("x"), b"labels", 10)
        assert images.shape[1:] == (32, 32, 3) and len(images) == len(labels)
        counts["read"] += 1
    except DataError as error:
        assert "\\n" not in str(error)
        counts["refused"] += 1
print(counts["read"] > 50, counts["refused"] > 1000, counts)
"""


@pytest.mark.parametrize("protocol", [None, 0, 2, 5])
def test_no_mutation_of_a_file_does_more_than_be_read_or_refused(tmp_path: Path, protocol: int | None) -> None:
    content = {b"batch_label": b"testing", **batch(0, 2, b"labels", 10)}
    content[b"data"] = np.full((2, 3072), 65, np.uint8)
    dump(tmp_path / "batch", content, protocol)
    ran = reads_in_another_process(tmp_path / "batch", FUZZ)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("True True"), ran.stdout


def test_a_folder_without_the_batches(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks cifar-10-batches-py/test_batch: unpack the python version"):
        load_dataset("cifar10", tmp_path)
    with pytest.raises(DataError, match=r"needs data\.data_root"):
        load_dataset("cifar100")


@pytest.mark.parametrize("filler", [b"\x94", b"}", b"]", b"N"])
def test_a_pickle_of_many_instructions_is_refused_before_it_fills_the_memory(tmp_path: Path, filler: bytes) -> None:
    path = tmp_path / "many"
    path.write_bytes(b"\x80\x04N" + filler * 3_000_000 + b".")
    with pytest.raises(DataError, match="it has more than 2,000,000 instructions"):
        read_pickle(path)
