"""The rows of `bench masking` that are of sessions: trips, a client's rounds and its set-up, the set-up's memory."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import product
from statistics import median

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from flora_bench import our_session
from flora_bench.measure import Row, Scale, Trial, medians
from flora_bench.our_client import forget
from flora_bench.our_server import StandIns, prepare
from flora_protocols import Floors, Profile, SessionParams, Suite, identity_public, run_round

# What a client of wire 1 took for a round with 16 neighbours of 100, as measured: docs/benchmarks.md.
WIRE_1_EXCHANGES = 54.0
_NAMES = {Suite.X25519: "X25519", Suite.X25519_MLKEM768: "hybrid"}
_REACH = {Suite.X25519: 0.2, Suite.X25519_MLKEM768: 0.25}


def rows(scale: Scale) -> Iterator[Row]:
    """Yields every row of the subject as soon as it is measured."""
    yield from trips()
    yield from client_session(scale)
    yield from setup_memory(scale)
    yield from simulated_round(scale)


def trips() -> Iterator[Row]:
    """How often a client answers, once a session and in each of its rounds: counted as the loop is run."""
    clients = 6
    for suite in _suites():
        for profile, most in ((Profile.SEMI_HONEST, 2), (Profile.MALICIOUS_SERVER, 3)):
            secrets = [os.urandom(32) for _ in range(clients)] if profile is Profile.MALICIOUS_SERVER else []
            params = SessionParams(
                clients=clients,
                neighbours=clients - 1,
                threshold=4,
                bits=8,
                dimension=10,
                profile=profile,
                suite=suite,
                slots=2,
                identities=tuple(map(identity_public, secrets)),
            )
            found = our_session.run(params, tuple(secrets))
            setting = f"{_NAMES[suite]}, {profile.value}"
            for figure, counted, reach in (
                ("trips of a set-up", found.set_up, 3 if suite.hybrid else 2),
                ("trips of a prepared round", found.trips, most),
            ):
                yield Row(
                    figure=figure,
                    setting=setting,
                    ours=len(counted),
                    other=reach,
                    against="the design",
                    unit="",
                    at_most=1.0,
                    note=", ".join(trip.name for trip in counted),
                )


def client_session(scale: Scale) -> Iterator[Row]:
    """A client's round, its share of the set-up included, beside what it took on wire 1."""
    quick = scale is Scale.QUICK
    clients, neighbours, threshold, dimension, slots = (8, 4, 3, 100, 2) if quick else (100, 16, 6, 1_920, 20)
    kinds = list(product(_suites(), (slots, 1)))
    sessions = [_session(clients, neighbours, threshold, dimension, suite, count) for suite, count in kinds]
    taken: list[list[float]] = [[] for _ in kinds]
    exchanged = []
    for turn in range(2 if quick else 6):
        found = [our_session.run(params).seconds / params.slots for params in sessions]
        exchange = medians(1, exchanges(20 if quick else 1000))[0] / (20 if quick else 1000)
        if turn:  # one unseen
            exchanged.append(exchange)
            for seconds, own in zip(taken, found, strict=True):
                seconds.append(own)
    wire_1 = WIRE_1_EXCHANGES * median(exchanged)
    for (suite, count), seconds in zip(kinds, taken, strict=True):
        yield Row(
            figure="client, a round with its share of the set-up",
            setting=f"n={clients} k={neighbours} d={dimension:,} B={count} {_NAMES[suite]}",
            ours=median(seconds),
            other=wire_1,
            against=f"wire 1, {WIRE_1_EXCHANGES:g} X25519 operations",
            at_most=_REACH[suite] if count > 1 else None,
        )


def setup_memory(scale: Scale) -> Iterator[Row]:
    """What the server holds at most while a session is set up, messages arriving one by one, and what it keeps."""
    clients, neighbours, threshold, slots = (20, 6, 4, 3) if scale is Scale.QUICK else (1000, 40, 19, 30)
    for suite in _suites():
        params = _session(clients, neighbours, threshold, 1_000, suite, slots)
        stand_ins = StandIns(params, 0)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            prepared = prepare(params, stand_ins)[0]
            kept, peak = (size - before for size in tracemalloc.get_traced_memory())
        finally:
            tracemalloc.stop()
        yield Row(
            figure="server, peak memory of a set-up",
            setting=f"n={prepared.params.clients:,} k={neighbours} B={slots} {_NAMES[suite]}",
            ours=peak,
            other=300e6,
            against="300 MB",
            unit="B",
            at_most=1.0,
            note=f"{kept / 1e6:.3g} MB are kept, of which the inboxes go with the first round",
        )


def simulated_round(scale: Scale) -> Iterator[Row]:
    """What a simulation pays for masking: every client and the server in one process."""
    quick = scale is Scale.QUICK
    clients, dimension, bits = (10, 500, 11) if quick else (100, 1_920, 11)
    vector = np.random.default_rng(0).integers(0, 1 << bits, dimension, np.uint32)
    harary = (4, 2) if quick else (16, 6)
    floors = Floors(clients=clients, threshold=2, survivors=clients, suite=Suite.X25519)
    for neighbours, threshold in ((clients - 1, clients // 2 + 1), harary):
        params = SessionParams(
            clients=clients, neighbours=neighbours, threshold=threshold, bits=bits, dimension=dimension
        )

        def trial(params: SessionParams = params) -> Callable[[], object]:
            forget()
            return lambda: run_round(params, [vector] * params.clients, floors=floors)

        own = medians(1 if quick else 3, trial)[0]
        yield Row(
            figure="simulation, masking of a round",
            setting=f"n={clients} k={neighbours} d={dimension:,} b={bits}",
            ours=own,
            note="all clients and the server in one process",
        )


def exchanges(count: int) -> Trial:
    """So many X25519 operations, from bytes to bytes as RFC 7748 defines the function."""
    private = X25519PrivateKey.generate()
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()

    def act() -> None:
        for _ in range(count):
            private.exchange(X25519PublicKey.from_public_bytes(public))

    return lambda: act


def _suites() -> list[Suite]:
    """Those that this installation has."""
    return [suite for suite in Suite if suite.available]


def _session(clients: int, neighbours: int, threshold: int, dimension: int, suite: Suite, slots: int) -> SessionParams:
    return SessionParams(
        clients=clients,
        neighbours=neighbours,
        threshold=threshold,
        bits=8,
        dimension=dimension,
        suite=suite,
        slots=slots,
        corrupt=threshold - 1,
    )
