"""Many encoded images to pixels, in worker processes where there are enough to pay for them.

Workers are fresh interpreters (no fork of a process that may hold threads) which import this module and Pillow alone.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from flora_secure.boundary.processes import safely_started
from flora_secure.data.files.pixels import Shape, fitted, open_rgb
from flora_secure.data.files.values import UnreadableImageError
from flora_secure.data.images import EncodedImages, ImageFile
from flora_secure.data.rendering import Rendering
from flora_secure.errors import DataError

_FEW = 128  # that many are done in this process: starting workers takes longer
_PIECE = 16  # a task: few enough that Ctrl-C waits for little
_T = TypeVar("_T")
_R = TypeVar("_R")


def digest(file: ImageFile) -> bytes | None:
    """SHA-256 of the file's bytes; `None` where it cannot be read."""
    try:
        return hashlib.sha256(file.read()).digest()
    except OSError:
        return None


def pixels(item: tuple[ImageFile, bytes], shape: Shape, rendering: Rendering) -> np.ndarray | str:
    """The pixels, uint8 (height, width, 3), of a file whose SHA-256 is given, or a line that says it has changed."""
    file, wanted = item
    try:
        raw = file.read()
        if hashlib.sha256(raw).digest() == wanted:
            return np.asarray(fitted(open_rgb(raw, rendering), shape))
    except (OSError, UnreadableImageError):
        pass
    return f"image {file.name!r} has changed since it was checked; start the run again"


def decode(images: EncodedImages, shape: Shape, chunk: int) -> Iterator[np.ndarray]:
    """The pixels in order, uint8 (at most `chunk`, height, width, 3) at a time.

    Raises DataError for a file that is not what it was when it was checked.
    """
    items = ((file, row.tobytes()) for file, row in zip(images.files, images.hashes, strict=True))
    with mapper(len(images)) as over:
        decoded = over(partial(pixels, shape=shape, rendering=images.rendering), items)
        while batch := list(islice(decoded, chunk)):
            for image in batch:
                if isinstance(image, str):
                    raise DataError(image)
            yield np.stack(batch)


class _Process(SpawnProcess):
    """A worker that does not run its caller's script once more, as a fresh interpreter otherwise does: nothing that it
    is sent comes from there, and a script need not be written for it."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name that multiprocessing looks for
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            with safely_started():
                return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _Context(SpawnContext):
    Process = _Process


Mapper = Callable[[Callable[[Any], Any], Iterator[Any]], Iterator[Any]]


@contextmanager
def mapper(count: int) -> Iterator[Mapper]:
    """A lazy `map` in order, over worker processes where `count` items pay for them; few results wait at a time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or count <= _FEW:
        yield lambda function, items: map(function, items)
        return
    # Ctrl-C reaches the whole group; it is this process that ends the workers
    with safely_started():  # a queue starts a process of multiprocessing's own
        pool = ProcessPoolExecutor(
            min(cores, 16), mp_context=_Context(), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
        )

    def over(function: Callable[[_T], _R], items: Iterator[_T]) -> Iterator[_R]:
        waiting: deque[Any] = deque()
        while True:
            piece = list(islice(items, _PIECE))
            if piece:
                try:
                    waiting.append(pool.submit(_each, function, piece))
                except OSError as error:  # of starting the workers; what they do comes back as their results
                    raise DataError(_ended(f": {error.strerror or error}")) from None
                except ValueError as error:  # the pipes of a pool that broke in this moment are closed, or others' now
                    raise DataError(_ended(f": {error}")) from None
            if not waiting:
                return
            if not piece or len(waiting) > 2 * cores:
                yield from waiting.popleft().result()

    try:
        yield over
    except BrokenProcessPool:
        raise DataError(_ended(", most likely for want of memory")) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _ended(why: str) -> str:
    return f"a worker that decodes images was ended{why}; start the run again"


def _each(function: Callable[[_T], _R], items: list[_T]) -> list[_R]:
    return [function(item) for item in items]
