"""The clients of a simulated round, spread over worker processes.

A worker holds the protocol positions of its clients and answers trip by trip: messages in, messages out. It is the
transport of the simulation and nothing more; what travels to the server are the protocol's own bytes. Workers are fresh
interpreters that import `flora_protocols` and nothing heavier; pickled frames go over their pipes.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flora_protocols import ClientAdvertise, Floors, SessionParams, TooFewSurvivors

Vectors = Mapping[int, NDArray[np.uint32]]
Replies = dict[int, bytes]


class Clients:
    """The positions of some clients, moved together."""

    def __init__(self) -> None:
        self._positions: dict[int, Any] = {}

    def begin(self, params: SessionParams, floors: Floors, identities: Mapping[int, bytes | None]) -> Replies:
        """Start a round: a position for every client in ``identities``, whose first message is the reply."""
        self._positions = {
            index: ClientAdvertise(params, index, floors=floors, identity=identity)
            for index, identity in identities.items()
        }
        return self._move("advertise", dict.fromkeys(identities, ()))

    def answer(self, transition: str, mail: Mapping[int, bytes], vectors: Vectors | None = None) -> Replies:
        """Each client in ``mail`` makes ``transition`` with its message (and its vector); those left out are gone."""
        inputs: dict[int, tuple[Any, ...]] = {
            index: (message,) if vectors is None else (message, vectors[index]) for index, message in mail.items()
        }
        return self._move(transition, inputs)

    def _move(self, transition: str, inputs: Mapping[int, tuple[Any, ...]]) -> Replies:
        moved, replies = {}, {}
        for index, arguments in inputs.items():
            try:
                moved[index], replies[index] = getattr(self._positions[index], transition)(*arguments)
            except TooFewSurvivors:
                continue  # a client that sees too few others leaves; the server counts who is left
        self._positions = moved
        return replies


class Cohort:
    """All clients of a run. ``workers = 0`` keeps them in this process; the messages are the same."""

    def __init__(self, workers: int = 0) -> None:
        self._local = Clients()
        self._workers = [_start_worker() for _ in range(workers)]
        self.cpu_seconds = 0.0  # of all clients so far

    def begin(self, params: SessionParams, floors: Floors, identities: Mapping[int, bytes | None]) -> Replies:
        return self._call("begin", identities, lambda part: (params, floors, part))

    def answer(self, transition: str, mail: Mapping[int, bytes], vectors: Vectors | None = None) -> Replies:
        def arguments(part: dict[int, bytes]) -> tuple[Any, ...]:
            return transition, part, None if vectors is None else {index: vectors[index] for index in part}

        return self._call("answer", mail, arguments)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            _pipe(worker.stdin).close()
            worker.wait()
            _pipe(worker.stdout).close()
        self._workers = []

    def _call(self, method: str, mail: Mapping[int, Any], arguments: Any) -> Replies:
        if not self._workers:
            before = time.process_time()
            replies: Replies = getattr(self._local, method)(*arguments(dict(mail)))
            self.cpu_seconds += time.process_time() - before
            return replies
        count = len(self._workers)
        for number, worker in enumerate(self._workers):
            # a client stays with its worker for the whole round: its position lives there
            part = {index: message for index, message in mail.items() if index % count == number}
            _send(_pipe(worker.stdin), (method, arguments(part)))
        gathered: Replies = {}
        for worker in self._workers:
            outcome, seconds = pickle.load(_pipe(worker.stdout))  # noqa: S301  (our own child)
            self.cpu_seconds += seconds
            if isinstance(outcome, Exception):
                raise outcome
            gathered.update(outcome)
        return {index: gathered[index] for index in mail if index in gathered}


def default_workers(clients: int) -> int:
    """One worker a core where there is work enough to pay for starting them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8) if cores > 1 and clients >= 32 else 0


def _start_worker() -> subprocess.Popen[bytes]:
    # the parent's module path, so that the worker finds the same code however the parent was started
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "flora_secure.cohort"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )


def _pipe(stream: Any) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[no-any-return]


def _send(pipe: BinaryIO, value: object) -> None:
    pickle.dump(value, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """A worker's life: requests until the parent closes the pipe."""
    clients = Clients()
    while True:
        try:
            method, arguments = pickle.load(requests)  # noqa: S301  (our own parent)
        except EOFError:
            return
        before = time.process_time()
        outcome: object
        try:
            outcome = getattr(clients, method)(*arguments)
        except Exception as error:
            outcome = error
        _send(replies, (outcome, time.process_time() - before))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the pipe
    _serve(sys.stdin.buffer, sys.stdout.buffer)
