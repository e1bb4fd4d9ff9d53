"""The clients of a simulated round, spread over worker processes.

A worker holds the protocol positions of its clients and answers trip by trip: messages in, messages out. It is the
transport of the simulation and nothing more; what travels to the server are the protocol's own bytes. Workers are fresh
interpreters that import `flora_protocols` and nothing heavier; pickled frames go over their pipes.

Each worker has an arc of the graph's circle, so that nearly all neighbours live together: what a pair agrees on is
computed once (`shared_secrets`). It counts in the CPU seconds of both, as each would spend them by itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flora_protocols import ClientAdvertise, Floors, SessionParams, TooFewSurvivors
from flora_secure.engine.shared_secrets import SharedSecrets

Vectors = Mapping[int, NDArray[np.uint32]]
Replies = dict[int, bytes]


class Clients:
    """The positions of some clients, moved together. ``clock``: CPU seconds."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self._positions: dict[int, Any] = {}
        self._secrets = SharedSecrets(clock)

    def timed(self, method: str, *arguments: Any) -> tuple[Replies, float]:
        """What ``begin`` or ``answer`` replies, and the CPU seconds that it takes clients who share no process."""
        before = self._clock() + self._secrets.spared_seconds
        replies: Replies = getattr(self, method)(*arguments)
        return replies, self._clock() + self._secrets.spared_seconds - before

    def begin(self, params: SessionParams, floors: Floors, identities: Mapping[int, bytes | None]) -> Replies:
        """Start a round: a position for every client in ``identities``, whose first message is the reply."""
        self._positions = {
            index: ClientAdvertise(params, index, floors=floors, identity=identity, exchange=self._secrets.exchange)
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
        try:
            for index, arguments in inputs.items():
                try:
                    moved[index], replies[index] = getattr(self._positions[index], transition)(*arguments)
                except TooFewSurvivors:
                    continue  # a client that sees too few others leaves; the server counts who is left
        finally:
            self._secrets.forget()
        self._positions = moved
        return replies


class Cohort:
    """All clients of a run. ``workers = 0`` keeps them in this process; the messages are the same."""

    def __init__(self, workers: int = 0) -> None:
        self._local = Clients()
        self._workers = [_start_worker() for _ in range(workers)]
        self._parts: list[Sequence[int]] = []  # whose positions each worker holds, in the order in which they move
        self.cpu_seconds = 0.0  # of all clients so far

    def begin(self, params: SessionParams, floors: Floors, identities: Mapping[int, bytes | None]) -> Replies:
        circle, count = params.graph.circle, max(len(self._workers), 1)
        cuts = [number * len(circle) // count for number in range(count + 1)]
        self._parts = [circle[first:last] for first, last in pairwise(cuts)]
        return self._call("begin", identities, lambda part: (params, floors, part))

    def answer(self, transition: str, mail: Mapping[int, bytes], vectors: Vectors | None = None) -> Replies:
        def arguments(part: dict[int, bytes]) -> tuple[Any, ...]:
            return transition, part, None if vectors is None else {index: vectors[index] for index in part}

        return self._call("answer", mail, arguments)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            # after Ctrl-C it may wait for somebody to read its answer, for ever; it holds nothing to keep
            worker.kill()
            with contextlib.suppress(BrokenPipeError):  # what was being sent
                _pipe(worker.stdin).close()
            worker.wait()
            _pipe(worker.stdout).close()
        self._workers = []

    def _call(self, method: str, mail: Mapping[int, Any], arguments: Any) -> Replies:
        mails = [{index: mail[index] for index in part if index in mail} for part in self._parts]
        gathered: Replies = {}
        if not self._workers:
            gathered, seconds = self._local.timed(method, *arguments(mails[0]))
            self.cpu_seconds += seconds
        for worker, part in zip(self._workers, mails, strict=False):
            _send(_pipe(worker.stdin), (method, arguments(part)))
        # all of them, before any error is raised: what is left in a pipe would be taken for the next trip's
        outcomes = [pickle.load(_pipe(worker.stdout)) for worker in self._workers]  # noqa: S301  (our own children)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            replies, seconds = outcome
            self.cpu_seconds += seconds
            gathered.update(replies)
        return {index: gathered[index] for index in mail if index in gathered}


def default_workers(clients: int) -> int:
    """One worker a core where there is work enough to pay for starting them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8) if cores > 1 and clients >= 32 else 0


def _start_worker() -> subprocess.Popen[bytes]:
    # the parent's module path, so that the worker finds the same code however the parent was started
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "flora_secure.engine.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
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
        outcome: object
        try:
            outcome = clients.timed(method, *arguments)
        except Exception as error:
            outcome = error
        _send(replies, outcome)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the pipe
    _serve(sys.stdin.buffer, sys.stdout.buffer)
