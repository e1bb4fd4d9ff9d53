"""Every client's ε from the raw numbers of the log, by definitions written out here, and accountants of others.

z = σ_loc·√h ÷ hypot(s·c, count_scale/2) and κ = 5·d·Σ_{k<h} exp(−2π²σ_loc²·k/(k+1)) with h = survivors − colluders
(docs/privacy/accounting.md): nothing that the log or the ledger has worked out is used.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flora_secure.auditing.rederivation.planned import Planned
from flora_secure.planning.config import RunConfig
from flora_secure.planning.protection import MOST_EPSILON
from flora_secure.privacy.accounting import gaussian_epsilon
from flora_secure.privacy.amplification import CALIBRATION_CELL, REPORT_CELL, poisson_epsilon
from flora_secure.privacy.events import RoundEvent
from flora_secure.records.reading import Break
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Report

CLOSED, CELLS = 1e-6, 0.02  # tolerance in ε: of the closed form, of accountants that count in cells
TWICE = 16  # histories, the costliest, that are counted by two accountants
COUNTED = 2 * MOST_EPSILON  # larger ε are no budget's, and accountants that count in cells take long for them


@dataclass(frozen=True)
class Released:
    """A round that released a sum, or whose uploads were sent, worked out from its raw numbers.

    `z` is 0 where nobody's noise is left in the sum.
    """

    record: RoundRecord
    honest: int
    z: float
    z_local: float
    slack: float

    @classmethod
    def of(cls, record: RoundRecord) -> Released:
        """Works z and the aliasing slack out of a record; impossible numbers give z = 0, which costs an infinite ε."""
        honest = len(set(record.survivors)) - record.colluders
        moved = math.sqrt((record.scale * record.clip_norm) ** 2 + (record.count_scale / 2) ** 2)
        sigma = record.sigma_local
        if not (moved > 0 and 0 < sigma < math.inf):
            return cls(record, honest, 0.0, 0.0, 0.0)
        if honest < 1:
            return cls(record, honest, 0.0, sigma / moved, 0.0)
        return cls(
            record, honest, sigma * math.sqrt(honest) / moved, sigma / moved, record.dimension * _eta(sigma, honest)
        )

    def event(self) -> RoundEvent:
        """The event that accountants count. Raises `ValueError` for impossible numbers."""
        r = self.record
        everybody = len(r.participants) == r.clients
        return RoundEvent(
            round=r.round,
            survivors=len(set(r.survivors)),
            colluders=r.colluders,
            sigma_local=r.sigma_local,
            scale=r.scale,
            clip_norm=r.clip_norm,
            dimension=r.dimension,
            participants=None if everybody else frozenset(r.participants),
            sampling_rate=r.sampling_rate,
            population=r.population,
            count_scale=r.count_scale,
        )


@functools.lru_cache(maxsize=4096)
def _eta(sigma: float, honest: int) -> float:
    terms = [math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, honest)]
    if terms and math.exp(-(math.pi**2) * sigma**2) > 0.2:  # the theorem needs it
        return math.inf
    return 5 * math.fsum(terms)


def epsilon(rounds: Sequence[Released], delta: float, *, cell: float = REPORT_CELL, local: bool = False) -> float:
    """ε at `delta` of these rounds together; `local` for one client's uploads by themselves, without slack."""
    if not rounds:
        return 0.0
    zs = [(r.z_local if local else r.z, r.record.sampling_rate) for r in rounds]
    slack = 0.0 if local else math.fsum(r.slack for r in rounds)
    if any(z == 0 or not 0 < q <= 1 for z, q in zs) or slack == math.inf:
        return math.inf
    if all(q == 1 for _, q in zs):
        return gaussian_epsilon(math.sqrt(math.fsum(z**-2 for z, _ in zs)), delta, slack)
    return poisson_epsilon(Counter(zs), delta * math.exp(-slack), cell) + 2 * slack


def weight(rounds: Iterable[Released]) -> float:
    """Orders histories by what they cost: Σ q²·(e^{1/z²} − 1), μ² of the central limit (Bu et al. 1911.11607)."""
    return math.fsum(
        math.inf if r.z == 0 else r.record.sampling_rate**2 * math.expm1(min(r.z**-2, 700.0)) for r in rounds
    )


def exact_weight(rounds: Iterable[Released]) -> float:
    """Orders histories without sampled rounds by what they cost: Σ 1/z²."""
    return math.fsum(math.inf if r.z == 0 else r.z**-2 for r in rounds)


def weight_local(rounds: Iterable[Released]) -> float:
    """Orders histories by what one client's uploads alone cost; where nothing was sampled, exactly: Σ 1/z²."""
    qs = [(r.z_local, r.record.sampling_rate) for r in rounds]
    if any(z == 0 for z, _ in qs):
        return math.inf
    return math.fsum(z**-2 if q == 1 else q * q * math.expm1(min(z**-2, 700.0)) for z, q in qs)


@dataclass(frozen=True)
class Case:
    """One run as the checks see it: what was read of its folder, and what follows from the numbers of its log.

    `no_report`: why there is no report; `unread`: a line for each file that could not be read; `config_unread`: whether
    `config` stands in for one that could not; `cut`: whether lines follow `records` that could not be read.
    """

    path: Path
    config: RunConfig
    records: list[RoundRecord]
    report: Report | None
    breaks: list[Break]
    no_report: str = "report.json is missing"
    unread: tuple[str, ...] = ()
    config_unread: bool = False
    cut: bool = False

    @functools.cached_property
    def released(self) -> list[Released]:
        """The rounds that count as released, lost ones and those aborted late too, in their order."""
        return [Released.of(record) for record in self.records if record.released]

    @property
    def noisy(self) -> bool:
        """Whether the run claims any privacy."""
        return self.config.privacy.epsilon != math.inf

    @property
    def masked(self) -> bool:
        """Whether the server sees sums alone, by the configuration."""
        return self.config.aggregation.secagg != "off"

    @property
    def sampled(self) -> bool:
        """Whether examples were drawn with a secret coin in any round, so that no closed form counts them."""
        return any(r.record.sampling_rate != 1 for r in self.sent)

    @property
    def everybody(self) -> bool:
        """Whether the configuration asks every client in every round."""
        return self.config.participation.rate == 1

    @property
    def delta(self) -> float:
        """The log's δ; the checks compare it with the report's and the configuration's."""
        return self.records[0].delta

    @property
    def tolerance(self) -> float:
        """How far a claimed ε may be from the derived one: the closed form repeats, accountants count in cells."""
        return CELLS if self.sampled else CLOSED

    @functools.cached_property
    def histories(self) -> dict[tuple[int, ...], list[int]]:
        """Positions in `released` → the clients that these rounds charge: named as participant or as survivor."""
        of: dict[int, list[int]] = {client: [] for client in range(self.config.clients)}
        for position, r in enumerate(self.released):
            for client in {*r.record.participants, *r.record.survivors}:
                of.setdefault(client, []).append(position)
        grouped: dict[tuple[int, ...], list[int]] = {}
        for client, positions in sorted(of.items()):
            grouped.setdefault(tuple(positions), []).append(client)
        return dict(sorted(grouped.items(), key=lambda item: -weight(self.rounds_of(item[0]))))

    def rounds_of(self, positions: Iterable[int]) -> list[Released]:
        """The released rounds at these positions of `released`, in the order given."""
        return [self.released[position] for position in positions]

    @functools.cached_property
    def spent(self) -> dict[tuple[int, ...], tuple[float | None, float | None]]:
        """ε of every history, costliest first, by two accountants; see `ClientBudget`.

        The second is dp-accounting's PLD for Gaussian rounds, and PLD in cells ten times as wide for sampled ones; None
        beyond `COUNTED`.
        Sampled histories beyond the costliest `TWICE` are not counted, and None.
        """
        found: dict[tuple[int, ...], tuple[float | None, float | None]] = {}
        for number, positions in enumerate(self.histories):
            rounds = self.rounds_of(positions)
            if number >= TWICE:
                found[positions] = (None if self.sampled else epsilon(rounds, self.delta)), None
                continue
            first = epsilon(rounds, self.delta)
            found[positions] = (
                first,
                self._second(rounds) if 0 < first <= COUNTED else None if first < math.inf else first,
            )
        return found

    def _second(self, rounds: Sequence[Released]) -> float:
        slack = math.fsum(r.slack for r in rounds)
        counts = Counter((r.z, r.record.sampling_rate) for r in rounds)
        return poisson_epsilon(counts, self.delta * math.exp(-slack), CALIBRATION_CELL) + 2 * slack

    @functools.cached_property
    def worst(self) -> list[Released]:
        """The rounds of the client that lost most in the server's view of the sums."""
        if not self.released:
            return []
        return self.rounds_of(max(self.spent.items(), key=lambda item: item[1][0] or 0.0)[0])

    @functools.cached_property
    def server(self) -> float:
        """ε of the worst client for one who sees every sum."""
        return epsilon(self.worst, self.delta)

    @functools.cached_property
    def sent(self) -> list[Released]:
        """Rounds in which uploads left clients, whether or not they became a sum."""
        return [Released.of(record) for record in self.records if record.released or record.exposed]

    @functools.cached_property
    def worst_local(self) -> list[Released]:
        """The rounds of the client whose uploads by themselves give away most."""
        of: dict[int, list[int]] = {client: [] for client in range(self.config.clients)}
        for position, r in enumerate(self.sent):
            for client in {*r.record.participants, *r.record.survivors}:
                of.setdefault(client, []).append(position)
        histories = ([self.sent[i] for i in positions] for positions in {tuple(held) for held in of.values()})
        return max(histories, key=weight_local)

    @functools.cached_property
    def local(self) -> float:
        """ε of one client's uploads by themselves: of the worst client."""
        return epsilon(self.worst_local, self.delta, local=True, cell=CALIBRATION_CELL)

    @property
    def headline(self) -> float:
        """ε against the server, who sees single uploads where nothing is masked."""
        return self.server if self.masked else self.local

    @property
    def repeats(self) -> bool:
        """Whether cohorts and who vanishes follow from the published seed, as in a simulation they do."""
        return self.simulated and (self.config.privacy.simulation_noise or not self.noisy)

    @property
    def simulated(self) -> bool:
        """Whether all clients were in one process, so that bytes, contributions and wraps are known exactly."""
        return any(record.overflowed is not None for record in self.records)

    @functools.cached_property
    def planned(self) -> Planned:
        """What the configuration asks for, planned again."""
        return Planned(self.config, self.report, self.no_report)
