"""The clients' positions of a simulated session, spread over worker processes: the simulation's transport.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flora_protocols import (
    ClientAdvertise,
    ClientAgree,
    ClientCollect,
    ClientUnmask,
    Floors,
    Kind,
    PeerError,
    RoundParams,
    SessionParams,
    TooFewSurvivors,
)
from flora_protocols.round_params import start_bytes
from flora_secure.boundary.processes import fresh_python, surroundings
from flora_secure.engine.shared_secrets import SharedSecrets
from flora_secure.errors import WorkerError

Vectors = Mapping[int, NDArray[np.uint32]]
Replies = dict[int, bytes]
_START = bytes((Kind.START,))


class Positions:
    """The positions of some clients, moved together; `clock` gives CPU seconds."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self._positions: dict[int, Any] = {}
        self._vectors: Vectors = {}
        self._params: Any = None
        self._start: tuple[bytes, RoundParams] | None = None  # the last one, as it was told and read
        self._secrets = SharedSecrets(clock)

    def timed(self, method: str, *arguments: Any) -> tuple[Replies, float]:
        """What `begin`, `give` or `answer` replies, and the CPU seconds that it takes clients who share no process."""
        before = self._clock() + self._secrets.spared_seconds
        replies: Replies = getattr(self, method)(*arguments)
        return replies, self._clock() + self._secrets.spared_seconds - before

    def begin(self, params: SessionParams, floors: Floors, identities: Mapping[int, bytes | None]) -> Replies:
        """Begin a session: a position for every client in `identities`, whose first message is the reply."""
        self._params = params
        self._positions = {
            index: ClientAdvertise(params, index, floors=floors, identity=identity, exchange=self._secrets.exchange)
            for index, identity in identities.items()
        }
        return self._move(dict.fromkeys(identities, b""))

    def give(self, vectors: Vectors) -> Replies:
        """What the clients upload in the next round; those that have none vanish in its first trip. No replies."""
        self._vectors = vectors
        return {}

    def answer(self, mail: Mapping[int, bytes]) -> Replies:
        """Each client in `mail` makes its next transition with its message; those left out are silent."""
        return self._move({index: message for index, message in mail.items() if index in self._positions})

    def _move(self, mail: Mapping[int, bytes]) -> Replies:
        replies: Replies = {}
        try:
            for index, message in mail.items():
                try:
                    position = self._positions[index]
                    if message[4:5] == _START:
                        if index in self._vectors:
                            self._positions[index], replies[index] = self._masked(index, position, message)
                    elif isinstance(position, ClientAdvertise):
                        self._positions[index], replies[index] = position.advertise()
                    else:
                        move = getattr(position, position.trip.name.lower())
                        self._positions[index], replies[index] = move(message)
                except (TooFewSurvivors, PeerError):
                    continue  # a client that cannot go on is silent; the server counts who is left
        finally:
            self._secrets.forget()
        return replies

    def _masked(self, index: int, position: Any, message: bytes) -> tuple[Any, bytes]:
        """The client's upload. `message`: START, and the inbox where the client has none yet."""
        size = start_bytes(self._params)
        if isinstance(position, ClientAgree | ClientUnmask):  # it was silent in the round before, or that was aborted
            position = position.leave()
        if isinstance(position, ClientCollect):
            position = position.collect(message[size:])
        if self._start is None or self._start[0] != message[:size]:  # all are told the same
            self._start = message[:size], RoundParams.from_bytes(self._params, position.session, message[:size])
        masked: tuple[Any, bytes] = position.mask(self._start[1], self._vectors[index])
        return masked


class Workers:
    """The positions of all clients of a session. `workers = 0` keeps them in this process; messages are the same."""

    def __init__(self, workers: int = 0) -> None:
        self._local = Positions()
        self._workers = [_start_worker() for _ in range(workers)]
        self._parts: list[Sequence[int]] = []  # whose positions each worker holds, in the order in which they move
        self._begin: tuple[Any, ...] | None = None  # of the session that no message has been carried in yet
        self.cpu_seconds = 0.0  # of all clients so far

    def open(self, params: SessionParams, floors: Floors, identities: Mapping[int, bytes | None]) -> None:
        """Get ready for a session, whose first exchange is the next; the arguments are those of `Positions.begin`."""
        circle, count = params.graph.circle, max(len(self._workers), 1)
        cuts = [number * len(circle) // count for number in range(count + 1)]
        self._parts = [circle[first:last] for first, last in pairwise(cuts)]
        self._begin = params, floors, identities

    def give(self, vectors: Vectors) -> None:
        """What the clients upload in the next round; those that have none are silent in it."""
        self._call("give", [_part(vectors, part) for part in self._parts])

    def exchange(self, outbox: Mapping[int, bytes], patience: float | None = None) -> Iterator[tuple[int, bytes]]:
        """Deliver each client its message, and give the replies, see `exchange.Transport`. Nobody here is slow."""
        if self._begin is None:
            replies = self._call("answer", [_part(outbox, part) for part in self._parts])
        else:
            params, floors, identities = self._begin
            self._begin = None
            replies = self._call(
                "begin", *zip(*((params, floors, _part(identities, part)) for part in self._parts), strict=True)
            )
        yield from ((index, replies[index]) for index in outbox if index in replies)

    def close(self) -> None:
        """End the workers, and wait until they have ended."""
        for worker in self._workers:
            # after Ctrl-C it may wait for somebody to read its answer, for ever; it holds nothing to keep
            worker.kill()
            with contextlib.suppress(BrokenPipeError):  # what was being sent
                _pipe(worker.stdin).close()
            worker.wait()
            _pipe(worker.stdout).close()
        self._workers = []

    def _call(self, method: str, *arguments: Sequence[Any]) -> Replies:
        """`method` of every worker, each with its own of the arguments."""
        calls = list(zip(*arguments, strict=True))
        gathered: Replies = {}
        if not self._workers:
            gathered, seconds = self._local.timed(method, *calls[0])
            self.cpu_seconds += seconds
        try:
            for worker, call in zip(self._workers, calls, strict=False):
                _send(_pipe(worker.stdin), (method, call))
            # all of them, before any error is raised: what is left in a pipe would be taken for the next trip's
            outcomes = [pickle.load(_pipe(worker.stdout)) for worker in self._workers]  # noqa: S301  (our own children)
        except (OSError, EOFError, pickle.UnpicklingError):  # a pipe has no other end, or half an answer in it
            raise WorkerError(
                "a worker process of the run was ended from outside, most likely for want of memory: free some, then "
                "go on with `resume`"
            ) from None
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            replies, seconds = outcome
            self.cpu_seconds += seconds
            gathered.update(replies)
        return gathered


def default_workers(clients: int) -> int:
    """One worker a core where there is work enough to pay for starting them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8) if cores > 1 and clients >= 32 else 0


def _part(mail: Mapping[int, Any], part: Sequence[int]) -> dict[int, Any]:
    return {index: mail[index] for index in part if index in mail}


def _start_worker() -> subprocess.Popen[bytes]:
    command = fresh_python("-m", "flora_secure.engine.workers")
    environment = surroundings(OPENBLAS_NUM_THREADS="1")
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # noqa: S603


def _pipe(stream: Any) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[no-any-return]


def _send(pipe: BinaryIO, value: object) -> None:
    pickle.dump(value, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """A worker's life: requests until the parent closes the pipe."""
    positions = Positions()
    while True:
        try:
            method, arguments = pickle.load(requests)  # noqa: S301  (our own parent)
        except EOFError:
            return
        outcome: object
        try:
            outcome = positions.timed(method, *arguments)
        except Exception as error:
            outcome = error
        _send(replies, outcome)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the pipe
    _serve(sys.stdin.buffer, sys.stdout.buffer)
