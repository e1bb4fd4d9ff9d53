"""Reconstruction: which images is this update of? All private images are ranked by how well each explains it.

What one image alone would have given is worked out for every candidate, by the run's own trainer from the same
broadcast; the best candidate is the one whose update points the same way as the update that was seen (cosine; clipping
changes no direction). A client's few images share one mean, in which each of them still stands out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.attacked import BOUNDED, CONTROL, HIDDEN, RECONSTRUCTION, SHOWN, Outcome
from flora_secure.auditing.attacks.seen import DRAWS, FirstRound, Parts, Rows, Seen, released, repeatable, with_clients
from flora_secure.auditing.attacks.statistics import Allowed, proportion
from flora_secure.client.closed_form import ClosedForm
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig

SIZES = (1, 2, 4, 10)  # images of the clients that are attacked
CLEAN, SHARE, MASKED, SUM, ADAPTER = "clean update", "one noise share", "masked upload", "sum", "released adapter"
_MOST_VALUES = 1 << 26  # of all candidates' updates: half a gigabyte
_MOST_TRAINED = 1000  # candidates where training has no closed form
_TOGETHER = 2048  # candidates that train in one batch


@dataclass(frozen=True, eq=False)
class Trial:
    """One client of few images, and what was found of them.

    Attributes:
        images: its places among the private images.
        found: object → the candidate that explains it best, a place among the private images.
        ranks: object → the rank of the best of its images, from 1.
    """

    images: NDArray[np.int64]
    found: dict[str, int]
    ranks: dict[str, int]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What reconstruction came to: `outcomes`, among how many `candidates`, `trials` by a client's images."""

    outcomes: list[Outcome]
    candidates: int
    trials: dict[int, list[Trial]]


def reconstruct(
    config: RunConfig, task: Task, allowed: Allowed, seed: int, say: Callable[[str], None]
) -> Reconstruction:
    """Attack every client of a federation whose clients hold 1, 2, 4 or 10 of their images, by turns.

    `allowed`: what the run's budget allows; `seed`: of the draws.
    """
    rng = np.random.default_rng([seed, 1])
    first = FirstRound(config, task, seed)
    say("reconstruction: what few images at each client would send …")
    few = _few(task.federation.clients, rng)
    thin = with_clients(task, few)
    seen = first.seen(thin)
    adapters = np.array([released(Simulation(repeatable(config, seed + k), thin)) for k in range(1, DRAWS + 1)])
    say("reconstruction: what each private image alone would send …")
    candidates = _candidates(task, seen, few, rng)
    known = _alone(first, task, candidates)
    trials = _trials(seen, adapters, few, candidates, known)
    outcomes = [
        _outcome(config, allowed, size, what, trials[size], len(candidates))
        for what in (CLEAN, SHARE, MASKED, SUM, ADAPTER)
        if what != MASKED or seen.masked is not None
        for size in SIZES
        if trials[size]
    ]
    return Reconstruction(outcomes, len(candidates), trials)


def _few(clients: Parts, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Each client's images for the attack: so many as its turn says, or as there are of the smaller sizes."""
    few: list[NDArray[np.int64]] = [part[:0] for part in clients]
    for turn, client in enumerate(rng.permutation(len(clients)).tolist()):
        size = SIZES[turn % len(SIZES)]
        fits = max(s for s in SIZES if s <= min(size, len(clients[client])))
        few[client] = rng.choice(clients[client], fits, replace=False)
    return few


def _candidates(task: Task, seen: Seen, few: Parts, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of the images that are ranked: all private ones, or as many as memory and time allow, the right ones among
    them."""
    total = len(task.federation.dataset.private)
    most = _MOST_VALUES // seen.clean.shape[1]
    if not isinstance(task.learner, ClosedForm):
        most = min(most, _MOST_TRAINED)
    if total <= most:
        return np.arange(total)
    right = np.unique(np.concatenate([few[client] for client in seen.members]))
    others = np.setdiff1d(np.arange(total), right)
    extra = rng.choice(others, min(len(others), max(0, most - len(right))), replace=False)
    return np.sort(np.concatenate([right, extra]))


def _alone(first: FirstRound, task: Task, candidates: NDArray[np.int64]) -> Rows:
    """What each candidate alone at a client would give, of unit length: (candidates, d)."""

    def parts() -> Iterator[Rows]:
        for start in range(0, len(candidates), _TOGETHER):
            some = candidates[start : start + _TOGETHER]
            alone = with_clients(task, [np.array([place]) for place in some.tolist()])
            yield first.clean(alone, range(len(some)))

    rows = np.concatenate(list(parts()))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def _trials(
    seen: Seen, adapters: Rows, few: Parts, candidates: NDArray[np.int64], known: Rows
) -> dict[int, list[Trial]]:
    rows = len(seen.members)
    turns = np.arange(rows) % DRAWS
    objects = {CLEAN: seen.clean, SHARE: seen.share, SUM: seen.sums[turns], ADAPTER: adapters[turns]}
    if seen.masked is not None:
        objects[MASKED] = seen.masked
    scores = {what: vectors @ known.T for what, vectors in objects.items()}
    trials: dict[int, list[Trial]] = {size: [] for size in SIZES}
    for row, client in enumerate(seen.members):
        images = few[client]
        right = np.searchsorted(candidates, images)
        found = {what: int(candidates[score[row].argmax()]) for what, score in scores.items()}
        ranks = {what: 1 + int((score[row] > score[row][right].max()).sum()) for what, score in scores.items()}
        trials[len(images)].append(Trial(images, found, ranks))
    return trials


def _outcome(
    config: RunConfig, allowed: Allowed, size: int, what: str, trials: list[Trial], candidates: int
) -> Outcome:
    hits = sum(trial.found[what] in trial.images for trial in trials)
    low, high = proportion(hits, len(trials))
    chance = min(1.0, size / candidates)
    # without the client (of unit example: without its one image) the attack could but guess
    promised = config.privacy.unit == "client" or size == 1
    bounded = what in (SUM, ADAPTER) and promised and config.privacy.epsilon < np.inf
    role = {CLEAN: CONTROL, MASKED: HIDDEN}.get(what, BOUNDED if bounded else SHOWN)
    return Outcome(
        attack=RECONSTRUCTION,
        target=f"clients of {size} image{'s' if size > 1 else ''}",
        object=what,
        measure="right image first",
        value=hits / len(trials),
        low=low,
        high=high,
        chance=chance,
        allowed=allowed.true(chance) if role == BOUNDED else None,
        role=role,
        trials=len(trials),
        candidates=candidates,
        rank=float(np.median([trial.ranks[what] for trial in trials])),
        rank_by_chance=candidates * (1 - 0.5 ** (1 / size)),  # of the best of so many uniform ranks
        p=None,
    )
