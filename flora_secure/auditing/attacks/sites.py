"""Site inference: naming whose data something was trained on, knowing other images of every site.

Each client's images are halved. One half trains; the other half is what the attacker knows of the site, and what it
would have sent is compared with what was seen. One client's update or upload is given to the site that is most like it
(cosine, the mean of all sites taken off). A sum, or the change of an adapter, which a random half of the sites took
part in, is explained by all sites at once (ridge regression), and the half of them that weighs most is named. Beside
each figure stands its permutation null.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.attacked import BOUNDED, CONTROL, HIDDEN, SHOWN, SITES, Outcome
from flora_secure.auditing.attacks.seen import FirstRound, Rows, change_of, repeatable, with_clients
from flora_secure.auditing.attacks.shadows import Coined
from flora_secure.auditing.attacks.statistics import Allowed, proportion
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig

PERMUTATIONS = 10_000
FEDERATIONS = 16  # of half of the sites
_RIDGE = 0.1  # of the mean squared length of what sites are known to send
CLEAN, SHARE, MASKED = "clean update", "one noise share", "masked upload"
SUM, ADAPTER = "sum", "released adapter"


def infer_sites(
    config: RunConfig, task: Task, allowed: Allowed, seed: int, say: Callable[[str], None]
) -> list[Outcome]:
    """Attack the first round's uploads, and sums and adapters of federations that half of the sites take part in."""
    rng = np.random.default_rng([seed, 5])
    first = FirstRound(config, task, seed)
    say("site inference: every site's images are halved …")
    halves = [np.array_split(rng.permutation(part), 2) for part in task.federation.clients]
    train = with_clients(task, [half[0] for half in halves])
    other = with_clients(task, [half[1] if len(half[1]) else half[0] for half in halves])
    seen = first.seen(train)
    # who has one image has no other half
    rows = np.array([row for row, client in enumerate(seen.members) if len(halves[client][1])])
    references = first.clean(other, seen.members)[rows]
    known = _apart(references)
    objects = {CLEAN: seen.clean, SHARE: seen.share} | ({} if seen.masked is None else {MASKED: seen.masked})
    outcomes = [_one_site(what, _apart(vectors)[rows] @ known.T, rng) for what, vectors in objects.items()]
    noisy = config.privacy.epsilon < math.inf
    for noise in (False, True) if noisy else (False,):
        said = f"ε {config.privacy.epsilon:g}" if noise else "no noise"
        say(f"site inference, {said}: federations of half of the sites …")
        scores, coins = _halved(first, config, train, seen.members, rows, references, rng, noise=noise)
        for what in (SUM, ADAPTER):
            outcomes.append(_half_of_sites(config, allowed, what, said, scores[what], coins, rng, noise=noise))
    return outcomes


def _apart(vectors: Rows) -> Rows:
    """Rows less their mean, of unit length: what one has that all do not have."""
    rows = vectors - vectors.mean(axis=0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def _one_site(what: str, scores: Rows, rng: np.random.Generator) -> Outcome:
    """Whose each of m uploads is, among m sites: `scores` (m, m)."""
    named = scores.argmax(axis=1)
    sites = np.arange(len(scores))
    hits = int((named == sites).sum())
    null = np.array([(named == rng.permutation(sites)).sum() for _ in range(PERMUTATIONS)])
    right = scores[sites, sites][:, None]
    role = {CLEAN: CONTROL, MASKED: HIDDEN}.get(what, SHOWN)
    rank = float(np.median(1 + (scores > right).sum(axis=1)))
    return _outcome("one site of all", what, hits, len(sites), 1 / len(sites), role, None, null, len(sites), rank)


def _halved(
    first: FirstRound,
    config: RunConfig,
    train: Task,
    members: tuple[int, ...],
    rows: NDArray[np.int64],
    references: Rows,
    rng: np.random.Generator,
    *,
    noise: bool,
) -> tuple[dict[str, Rows], NDArray[np.bool_]]:
    """Scores (FEDERATIONS, sites) of sums and adapters, and which sites took part in each federation."""
    scores: dict[str, list[Rows]] = {SUM: [], ADAPTER: []}
    coins = []
    clean = first.clean(train, members)
    products = references @ references.T
    weigher = np.linalg.solve(products + _RIDGE * np.trace(products) / len(rows) * np.eye(len(rows)), references)
    for draw in range(FEDERATIONS):
        inside = np.zeros(config.clients, bool)
        inside[rng.permutation(config.clients)[: config.clients // 2]] = True
        coins.append(inside[np.array(members)[rows]])
        held = clean * inside[list(members)][:, None]
        scores[SUM].append(weigher @ (first.sum(held, draw + 1) if noise else held.sum(axis=0)))
        simulation = Simulation(repeatable(config, first.seed + draw + 1, noise=noise), train)
        simulation.trainer = Coined(simulation.trainer, inside)
        list(simulation.rounds())
        scores[ADAPTER].append(weigher @ change_of(simulation))
    return {what: np.array(found) for what, found in scores.items()}, np.array(coins)


def _half_of_sites(
    config: RunConfig,
    allowed: Allowed,
    what: str,
    said: str,
    scores: Rows,
    coins: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    noise: bool,
) -> Outcome:
    """Which sites took part: `scores` and `coins` are (federations, sites)."""
    places = (-scores).argsort(axis=1).argsort(axis=1)
    named = places < coins.sum(axis=1, keepdims=True)
    hits = int((named == coins).sum())
    # of k sites named among m, of which k took part, a permutation leaves a hypergeometric number of them right
    null, sites = np.zeros(PERMUTATIONS), coins.shape[1]
    for took_part in coins.sum(axis=1).tolist():
        null += sites - 2 * took_part + 2 * rng.hypergeometric(took_part, sites - took_part, took_part, PERMUTATIONS)
    # guessing right of one site by its coin, in or out: the mean of true positives and true negatives
    best = max((1 + allowed.true(x) - x) / 2 for x in np.linspace(0, 1, 1001).tolist())
    promised = noise and config.privacy.unit == "client"
    role = BOUNDED if promised else SHOWN if noise else CONTROL
    target = f"in or out, {said}"
    bound = best if promised else None
    return _outcome(target, what, hits, coins.size, 0.5, role, bound, null, None, None)


def _outcome(
    target: str,
    what: str,
    hits: int,
    trials: int,
    chance: float,
    role: str,
    allowed: float | None,
    null: NDArray[np.float64],
    candidates: int | None,
    rank: float | None,
) -> Outcome:
    low, high = proportion(hits, trials)
    return Outcome(
        attack=SITES,
        target=target,
        object=what,
        measure="sites named rightly",
        value=hits / trials,
        low=low,
        high=high,
        chance=chance,
        allowed=allowed,
        role=role,
        trials=trials,
        candidates=candidates,
        rank=rank,
        rank_by_chance=None if candidates is None else candidates / 2,
        p=float((1 + (null >= hits).sum()) / (1 + PERMUTATIONS)),
    )
