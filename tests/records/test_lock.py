"""A lock that one process holds at a time, and that ends with it."""

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from command import ENVIRONMENT

from flora_secure.errors import RunFolderError
from flora_secure.planning.config import RunConfig
from flora_secure.records import lock as locking
from flora_secure.records.checkpoints import Checkpoint
from flora_secure.records.lock import UnlockableError, lock, lock_alone
from flora_secure.records.run_folder import RunFolder
from flora_secure.rounds.optimiser import ServerState

START = Checkpoint(
    round=0,
    server=ServerState.initial(np.zeros(2, np.float32)),
    clip_norm=0.15,
    last_round={},
    session="",
    invitation_bytes=0,
    model_hash="",
    data_hash="",
    compare=(),
)

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


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EIO])
def test_a_file_system_without_locks_is_not_another_process(tmp_path, monkeypatch, code: int) -> None:
    def lockf(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locking.fcntl, "lockf", lockf)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnlockableError, match=os.strerror(code)) as caught:
        lock(tmp_path / "lock")
    assert not isinstance(caught.value, BlockingIOError)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(RunFolderError) as told:
        RunFolder(tmp_path / "run", RunConfig(), START)
    says = f"{tmp_path / 'run'} cannot be locked: {os.strerror(code)}; a run needs a file system with locks"
    assert str(told.value).startswith(says)
    assert "another process" not in str(told.value)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EAGAIN])
def test_either_error_that_posix_allows_means_held(tmp_path, monkeypatch, code: int) -> None:
    def lockf(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locking.fcntl, "lockf", lockf)
    with pytest.raises(BlockingIOError, match="is held by another process"):
        lock(tmp_path / "lock")
    with pytest.raises(RunFolderError, match="is being written by another process: wait until that ends"):
        RunFolder(tmp_path / "run", RunConfig(), START)


def test_windows_tells_a_held_lock_from_one_that_cannot_be_had(tmp_path, monkeypatch) -> None:
    def locking_(handle: int, mode: int, count: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    module = on_windows(monkeypatch, SimpleNamespace(locking=locking_, LK_NBLCK=2))
    with pytest.raises(module.UnlockableError, match="Invalid argument"):
        module.lock(tmp_path / "lock")


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


def test_threads_of_one_process_do_not_share_a_lock_that_is_alone(tmp_path: Path) -> None:
    """A site answers on several threads; two of them in one position would upload two vectors under one mask."""
    handle = lock_alone(tmp_path / "lock")
    for _ in range(2):  # and the refused one has not let go of it
        with pytest.raises(BlockingIOError):
            lock_alone(tmp_path / "lock")
    os.close(handle)
    os.close(lock_alone(tmp_path / "lock"))
