"""The cache gives back what it was given, or nothing and a warning; it never unpickles and never fails a run."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest

from flora_secure.data.cache import ArrayCache, cache_key, default_folder

KEY = cache_key("a", 1)
ARRAY = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, warnings: list[str]) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", warnings.append)


def signed(array: np.ndarray, **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue() + hashlib.sha256(stream.getvalue()).digest()


def test_round_trip(cache: ArrayCache, warnings: list[str]) -> None:
    assert cache.get(KEY, 4, "f4") is None
    cache.put(KEY, ARRAY)
    assert np.array_equal(cache.get(KEY, 4, "f4"), ARRAY)
    texts = np.array(["", "empty file", "größer"])
    cache.put(cache_key("b"), texts)
    assert np.array_equal(cache.get(cache_key("b"), 3, "U"), texts)
    assert [path.suffix for path in cache.folder.iterdir()] == [".npy", ".npy"]
    assert np.array_equal(np.load(cache.folder / f"{KEY}.npy"), ARRAY)
    assert warnings == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw[:140] + bytes([raw[140] ^ 1]) + raw[141:],
        lambda raw: signed(ARRAY[:3]),
        lambda raw: signed(ARRAY.astype(np.float64)),
        lambda raw: signed(np.array([{}] * 4, object), allow_pickle=True),
    ],
    ids=["empty", "cut", "bit", "shape", "dtype", "pickle"],
)
def test_damaged_files_are_told_and_not_used(damage, cache: ArrayCache, warnings: list[str]) -> None:
    cache.put(KEY, ARRAY)
    path = cache.folder / f"{KEY}.npy"
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY, 4, "f4") is None
    assert len(warnings) == 1
    assert f"{KEY}.npy is damaged" in warnings[0]
    assert "\n" not in warnings[0]
    cache.put(KEY, ARRAY)
    assert np.array_equal(cache.get(KEY, 4, "f4"), ARRAY)


def test_a_folder_that_takes_nothing_is_a_warning(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "file").write_text("x")
    cache = ArrayCache(tmp_path / "file", warnings.append)
    cache.put(KEY, ARRAY)
    assert len(warnings) == 1
    assert "nothing was cached" in warnings[0]
    assert cache.get(KEY, 4, "f4") is None


def test_keys_tell_parts_apart() -> None:
    assert len({cache_key("a", "b"), cache_key("ab"), cache_key("a", "b", ""), cache_key("b", "a")}) == 4


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/flora-secure")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, the specification says
    assert default_folder() == Path.home() / ".cache" / "flora-secure"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_folder_that_others_may_list_is_told_of_once(tmp_path: Path) -> None:
    """Names are hashes over images: whoever lists them can tell whether a set that he has was used."""
    for mode, lines in ((0o700, 0), (0o755, 1)):
        folder, told = tmp_path / oct(mode), list[str]()
        folder.mkdir()
        folder.chmod(mode)
        cache = ArrayCache(folder, told.append)
        for key in ("a", "b"):
            cache.put(key, np.zeros(3, np.float32))
        assert len(told) == lines
        assert all("chmod 700" in line for line in told)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_the_cache_is_not_waited_for(tmp_path: Path) -> None:
    told = list[str]()
    os.mkfifo(tmp_path / "a.npy")
    assert ArrayCache(tmp_path, told.append).get("a", 3, "f4") is None
    assert "cannot be read: it is no regular file" in told[-1]
