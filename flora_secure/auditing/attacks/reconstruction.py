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
from flora_secure.auditing.attacks.statistics import Allowed, at_least, proportion
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
        decoys: the same of as many other images of the client, which nobody trained on: what guessing reaches.
    """

    images: NDArray[np.int64]
    found: dict[str, int]
    ranks: dict[str, int]
    decoys: dict[str, int]


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
    decoys = [_others(part, own, rng) for part, own in zip(task.federation.clients, few, strict=True)]
    candidates = _candidates(task, [(few[client], decoys[client]) for client in seen.members], seen.clean.shape[1], rng)
    known = _alone(first, task, candidates)
    trials = _trials(seen, adapters, few, decoys, candidates, known)
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


def _others(part: NDArray[np.int64], own: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many images of a client as it has for the attack, others where it has enough of them."""
    left = np.setdiff1d(part, own)
    return rng.choice(left if len(left) >= len(own) else part, len(own), replace=False)


def _candidates(
    task: Task, needed: list[tuple[NDArray[np.int64], NDArray[np.int64]]], width: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places of the images that are ranked: all private ones, or as many as memory and time allow, those that are
    `needed` among them. `width`: values of an update."""
    total = len(task.federation.dataset.private)
    most = _MOST_VALUES // width
    if not isinstance(task.learner, ClosedForm):
        most = min(most, _MOST_TRAINED)
    if total <= most:
        return np.arange(total)
    right = np.unique(np.concatenate([part for pair in needed for part in pair]))
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
    seen: Seen, adapters: Rows, few: Parts, decoys: Parts, candidates: NDArray[np.int64], known: Rows
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
        found = {what: int(candidates[score[row].argmax()]) for what, score in scores.items()}
        ranks, others = (
            {what: _rank(score[row], np.searchsorted(candidates, places)) for what, score in scores.items()}
            for places in (images, decoys[client])
        )
        trials[len(images)].append(Trial(images, found, ranks, others))
    return trials


def _rank(scores: Rows, places: NDArray[np.int64]) -> int:
    """The rank of the best of the candidates at these places, from 1."""
    return 1 + int((scores > scores[places].max()).sum())


def _outcome(
    config: RunConfig, allowed: Allowed, size: int, what: str, trials: list[Trial], candidates: int
) -> Outcome:
    hits = sum(trial.found[what] in trial.images for trial in trials)
    low, high = proportion(hits, len(trials))
    chance = min(1.0, size / candidates)
    ranks, decoys = (np.array([getattr(t, name)[what] for t in trials]) for name in ("ranks", "decoys"))
    better, apart = int((ranks < decoys).sum()), int((ranks != decoys).sum())
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
        rank=float(np.median(ranks)),
        rank_by_chance=float(np.median(decoys)),
        p=at_least(better, apart),
    )
