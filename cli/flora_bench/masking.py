"""`bench masking`: clients, server and memory of the masking protocol, beside Flower's SecAgg+ and beside limits.

Rings of 32 bits, because Flower's has 32, unless the row says otherwise. Flower's side is in `flower_peer`, what our
side is measured with in `our_client` and `our_server`; rows of whole sessions are in `sessions`.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from statistics import median

import numpy as np

from flora_bench import answers, flower_peer, sessions
from flora_bench.keystream_limit import adding_trials, keystream_seconds, trials
from flora_bench.measure import Row, Scale, Trial, installed, medians
from flora_bench.our_client import OurClient, forget
from flora_bench.our_server import StandIns, prepare, serve
from flora_protocols import SessionParams, Trip, find_parameters, keys, lane, shamir
from flora_protocols.keystream import apply_masks

MISSING = "peer not installed"
_BITS = 32
_PLANNED_BITS = 8  # of `flora-secure plan` for 100 clients


def rows(scale: Scale) -> Iterator[Row]:
    """Yields every row of the subject as soon as it is measured."""
    yield from mask_rate(scale)
    yield from client_stage(scale)
    yield from client_round(scale)
    yield from answers.rows(scale)
    yield from shamir_share(scale)
    yield from server_unmask(scale)
    yield from server_limit(scale)
    yield from server_growth(scale)
    yield from server_memory(scale)
    yield from sessions.rows(scale)


def mask_rate(scale: Scale) -> Iterator[Row]:
    """Yields what adding masks costs beside the keystream alone."""
    quick = scale is Scale.QUICK
    for dimension in (5_000,) if quick else (100_000, 1_000_000):
        for streams in (4,) if quick else (32, 100):
            values = np.zeros(dimension, np.uint32)
            secrets = [os.urandom(keys.KEY) for _ in range(streams)]

            def masks(values: np.ndarray = values, secrets: list[bytes] = secrets) -> Callable[[], object]:
                return lambda: apply_masks(values, secrets[::2], secrets[1::2])

            repeats = 2 if quick else 25 if dimension <= 100_000 else 9
            ours, *limits = medians(repeats, masks, *trials(values.nbytes * streams))
            yield Row(
                figure="masks added to a vector",
                setting=f"d={dimension:,} k={streams}",
                ours=ours,
                other=min(limits),
                against="AES-256 keystream alone",
                at_least=0.65,
                note=f"{values.nbytes * streams / ours / 1e9:.1f} GB/s of mask",
            )


def client_stage(scale: Scale) -> Iterator[Row]:
    """A client's masking stage: in a ring as large as Flower's, and in the one that plans choose for 100 clients, which
    is how our system ships. The note says what AES-256 and the additions alone would take there."""
    quick = scale is Scale.QUICK
    for neighbours, bits in ((4, _BITS),) if quick else product((10, 32, 100), (_BITS, _PLANNED_BITS)):
        for dimension in (500,) if quick else (2_000, 10_000, 100_000, 1_000_000):
            params = replace(_complete(neighbours + 1, dimension), bits=bits)
            ours = OurClient(params).mask
            repeats = 2 if quick else 7 if dimension <= 100_000 else 5
            setting = f"d={dimension:,} k={neighbours} b={bits}"
            if installed("flwr") is None:
                own = medians(repeats, ours)[0]
                yield Row(figure="client, masking stage", setting=setting, ours=own, note=MISSING, at_least=10)
                continue
            peer = flower_peer.FlowerClient(neighbours, params.threshold, dimension)
            bounds = adding_trials(params.payload_bytes, neighbours + 1, lane(bits))
            stages: list[Trial] = [lambda p=peer: p.mask, lambda p=peer: p.quantise]  # type: ignore[misc]
            own, whole, other, *limits = medians(repeats, ours, *stages, *bounds)
            bound = min(limits)
            yield Row(
                figure="client, masking stage",
                setting=setting,
                ours=own,
                other=whole - other,
                against="Flower",
                at_least=10,
                note=f"Flower's stage less its quantising, {other * 1e3:.3g} ms; AES-256 and the additions alone take "
                f"{bound * 1e3:.3g} ms, {(whole - other) / bound:.3g} times less than Flower",
            )


def client_round(scale: Scale) -> Iterator[Row]:
    """A client's whole round, from its keys to its last message."""
    quick = scale is Scale.QUICK
    settings = (
        [(_complete(5, 500), 4, None)]
        if quick
        else [(_complete(100, 100_000), 99, 90.0), (_harary(100, 32, 2_000), 32, 40.0)]
    )
    repeats = 2 if quick else 5
    for params, neighbours, target in settings:
        ours = OurClient(params).whole_round
        setting = f"n={params.clients} k={neighbours} d={params.dimension:,}"
        other, note = None, MISSING
        alone, exchanges = medians(2 if quick else 41, ours, sessions.exchanges(2 * neighbours + 2))
        own = alone
        if installed("flwr") is not None:
            peer = flower_peer.FlowerClient(neighbours, params.threshold, params.dimension)
            own, other = medians(repeats, ours, lambda p=peer: p.whole_round)  # type: ignore[misc]
            note = ""
        yield Row(
            figure="client, whole round",
            setting=setting,
            ours=own,
            other=other,
            against="Flower",
            at_least=target,
            note=note,
        )
        if neighbours <= 32:
            yield Row(
                figure="client, whole round",
                setting=setting,
                ours=alone,
                other=exchanges,
                against=f"{2 * neighbours + 2} X25519 operations",
                at_most=1.5,
                note=f"as many as on wire 1; this one makes {neighbours + 1}. From bytes to bytes, nothing derived",
            )


def shamir_share(scale: Scale) -> Iterator[Row]:
    """Yields what sharing both secrets of one client costs, on both sides."""
    clients, threshold = (8, 5) if scale is Scale.QUICK else (100, 66)
    given, others = tuple(range(1, threshold)), tuple(range(threshold, clients + 1))
    secrets, limbs = os.urandom(2 * keys.SECRET), 2 * shamir.LIMBS

    def share() -> object:
        values = shamir.uniform(limbs, [os.urandom] * len(given))
        return shamir.encode(values.reshape(len(given), 2, -1)), shamir.split(secrets, given, values, others)

    def ours() -> Callable[[], object]:
        forget()
        return share

    own, other, note = medians(15, ours)[0], None, MISSING
    if installed("flwr") is not None:
        other = medians(3, lambda: lambda: flower_peer.share_secrets(threshold, clients))[0]
        note = "Flower shares 48 and 320 bytes (a seed and a key in PEM, padded), we share 16 and 16"
    yield Row(
        figure="Shamir, both secrets shared",
        setting=f"n={clients} t={threshold}",
        ours=own,
        other=other,
        against="Flower",
        at_least=1000,
        note=note,
    )


def server_unmask(scale: Scale) -> Iterator[Row]:
    """Yields what the server's way from shares to the sum costs: secrets reconstructed, masks removed."""
    quick = scale is Scale.QUICK
    clients, threshold, dimension = (10, 6, 500) if quick else (100, 66, 100_000)
    params = _complete(clients, dimension, threshold)
    for dropped in (0, clients // 10, 3 * clients // 10):
        stand_ins = StandIns(params, dropped)
        own = median(serve(prepare(params, stand_ins)[0], stand_ins)[1][Trip.UNMASK] for _ in range(2 if quick else 5))
        other, note = None, MISSING
        if installed("flwr") is not None:
            peer = flower_peer.FlowerServer(clients, threshold, dropped, dimension)
            if scale is Scale.FULL:
                owners = (*peer.survivors, *peer.dropped)
                other, note = medians(1, lambda p=peer, o=owners: p.unmask(o))[0], ""  # type: ignore[misc]
            else:
                other, note = _flower_by_parts(peer, 2 if quick else 4)
        yield Row(
            figure="server, unmasking",
            setting=f"n={clients} complete d={dimension:,} {dropped} dropped",
            ours=own,
            other=other,
            against="Flower",
            at_least=500,
            note=note,
        )


def _flower_by_parts(peer: flower_peer.FlowerServer, part: int) -> tuple[float, str]:
    """Flower's stage goes client by client: measure a few survivors and one dropped client, and scale up."""
    survivors = medians(1, lambda: peer.unmask(peer.survivors[:part]))[0]
    seconds = survivors / part * len(peer.survivors)
    note = f"Flower's figure EXTRAPOLATED from {part} of {len(peer.survivors)} survivors"
    if peer.dropped:
        seconds += medians(1, lambda: peer.unmask(peer.dropped[:1]))[0] * len(peer.dropped)
        note += f" and 1 of {len(peer.dropped)} dropped"
    return seconds, note + "; --full measures all"


def server_limit(scale: Scale) -> Iterator[Row]:
    """The server's round beside the keystream that it cannot do without: prepared, and as the only one of its session,
    whose whole set-up counts then."""
    quick = scale is Scale.QUICK
    clients, neighbours, threshold, dimension = (20, 6, 3, 500) if quick else (1000, 60, 30, 100_000)
    params = _harary(clients, neighbours, dimension, threshold)
    stand_ins = StandIns(params, clients // 10)
    setups, rounds, limits = [], [], []
    for _ in range(1 if quick else 5):
        setup, own = _served(params, stand_ins)
        setups.append(setup)
        rounds.append(own)
        limits.append(keystream_seconds(stand_ins.masks * 4 * dimension, 1))
    setting = f"n={clients:,} k={neighbours} d={dimension:,} {len(stand_ins.dropped)} dropped"
    for figure, seconds, reach in (
        ("server, prepared round", median(rounds), 1.9),
        ("server, set-up and one round", median(rounds) + median(setups), None),
    ):
        yield Row(
            figure=figure,
            setting=setting,
            ours=seconds,
            other=median(limits),
            against="AES-256 keystream of the masks it removes",
            at_most=reach,
            note=f"{stand_ins.masks:,} masks",
        )


def server_growth(scale: Scale) -> Iterator[Row]:
    """The server's cost per client as the cohort grows and k with its logarithm: session of one round, all counted."""
    sizes, dimension = ((20, 40), 500) if scale is Scale.QUICK else ((100, 1_000, 10_000), 10_000)
    for dropout in (0.0, 0.1):
        first: tuple[float, float] | None = None
        for clients in sizes:
            # k and t as planned for 5 % corrupt and 10 % dropped clients, whether or not any drop
            neighbours, threshold = find_parameters(clients, 0.05, 0.1)
            params = _harary(clients, neighbours, dimension, threshold)
            stand_ins = StandIns(params, round(dropout * clients))
            repeats = 9 if clients <= 100 else 3
            own = median(sum(_served(params, stand_ins)) for _ in range(repeats))
            found = own / clients, own / stand_ins.masks
            for name, seconds, before, reach in zip(
                ("client", "mask"), found, first or (None, None), (1.5, 1.0), strict=True
            ):
                yield Row(
                    figure=f"server, set-up and one round per {name}",
                    setting=f"n={clients:,} k={neighbours} d={dimension:,} {len(stand_ins.dropped):,} dropped",
                    ours=seconds,
                    other=before,
                    against="" if before is None else f"the same at n={sizes[0]}",
                    at_most=None if before is None or (name == "mask" and not dropout) else reach,
                    note=f"{stand_ins.masks:,} masks" if name == "mask" else "",
                )
            first = first or found


def _served(params: SessionParams, stand_ins: StandIns) -> tuple[float, float]:
    """CPU seconds of the server in a set-up, and in the round after it."""
    prepared, setup = prepare(params, stand_ins)
    return sum(setup.values()), sum(serve(prepared, stand_ins)[1].values())


def server_memory(scale: Scale) -> Iterator[Row]:
    """What the server holds at most, uploads arriving one by one."""
    clients, neighbours, dimension = (20, 6, 5_000) if scale is Scale.QUICK else (1000, 40, 1_000_000)
    params = _harary(clients, neighbours, dimension)
    stand_ins = StandIns(params, 0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _served(params, stand_ins)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    smallest = clients * neighbours * 50 + 4 * dimension
    yield Row(
        figure="server, peak memory",
        setting=f"n={clients:,} k={neighbours} d={dimension:,}",
        ours=peak,
        other=smallest,
        against="n·k sealed boxes of 50 B and one sum of 4·d B",
        unit="B",
        at_most=10.0,
        note=f"one upload at a time; all uploads together are {4 * dimension * clients / 1e6:,.0f} MB",
    )


def _complete(clients: int, dimension: int, threshold: int | None = None) -> SessionParams:
    return _harary(clients, clients - 1, dimension, threshold)


def _harary(clients: int, neighbours: int, dimension: int, threshold: int | None = None) -> SessionParams:
    """A session; two thirds of the holders as threshold if none is given."""
    return SessionParams(
        clients=clients,
        neighbours=neighbours,
        threshold=threshold or max(2, 2 * neighbours // 3),
        bits=_BITS,
        dimension=dimension,
    )
