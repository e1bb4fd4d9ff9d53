"""A lock that one process holds at a time, and that ends with it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from command import ENVIRONMENT

import flora_secure.records.lock as locking
from flora_secure.records.lock import lock

HOLD = """
import sys
from pathlib import Path
from flora_secure.records.lock import lock
try:
    lock(Path(sys.argv[1]))
    print("held", flush=True)
except BlockingIOError:
    print("refused", flush=True)
sys.stdin.read()
"""


def another_process(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path) -> None:
    path = tmp_path / "lock"
    with another_process(path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="is held by another process"):
            lock(path)
        holder.kill()
    handle = lock(path)
    with another_process(path) as late:
        assert late.communicate("")[0] == "refused\n"
    os.close(handle)
    with another_process(path) as later:
        assert later.communicate("")[0] == "held\n"


def test_a_lock_in_a_folder_that_is_not_there_is_an_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        lock(tmp_path / "absent" / "lock")


def on_windows(monkeypatch: pytest.MonkeyPatch, msvcrt: object) -> ModuleType:
    """The module as Windows imports it."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "fcntl", None)  # type: ignore[arg-type]
    spec = importlib.util.spec_from_file_location("lock_on_windows", locking.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_windows_locks_the_first_byte_and_does_not_wait(tmp_path, monkeypatch) -> None:
    """What the C runtime is asked for; the lock itself is Windows'."""
    held: list[tuple[int, int, int]] = []

    def locking_(handle: int, mode: int, count: int) -> None:
        if held:
            raise PermissionError(13, "Permission denied")
        held.append((os.lseek(handle, 0, os.SEEK_CUR), mode, count))

    module = on_windows(monkeypatch, SimpleNamespace(locking=locking_, LK_NBLCK=2))
    module.lock(tmp_path / "lock")
    assert held == [(0, 2, 1)]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BlockingIOError):
        module.lock(tmp_path / "lock")
    assert len(os.listdir("/proc/self/fd")) == before
