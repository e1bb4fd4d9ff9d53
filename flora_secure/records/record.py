"""What happened in a round: a line of `rounds.jsonl`, and all that an auditor recomputes every client's budget from.

The format is described in docs/run-folder.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flora_secure.errors import PlainError
from flora_secure.plain import finite_or_none, from_plain
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import MaskingPlan
from flora_secure.privacy.events import RoundEvent, event_fields
from flora_secure.privacy.noise_plan import NoisePlan

SCHEMA = "flora-secure/round/3"
MECHANISM = "rounded-gaussian"
PARTS = ("training", "noise", "masking", "evaluation")  # of a round, of which `seconds` tells


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round as it happened. Byte counts are totals over all clients; seconds are wall-clock.

    Attributes:
        round: from 1.
        mechanism: of the noise; `rounded-gaussian`.
        unit: whom the budget protects, `client` or `example`.
        clients: N, in the whole federation.
        participants: the cohort, in order: who was asked for an upload. All of them are charged for the round.
        exhausted: clients that had to sit out because the round might have passed their budget.
        survivors: whose uploads are in the released sum. Of a round that was aborted, those who had been told so:
            others may have that sum, so it counts as released; empty where nobody had.
        dropped: participants without an upload.
        recovered: how many of these had pairwise masks that had to be removed from the sum.
        aborted: the reason when the round ended without a sum; uploads may have been sent, see `exposed`.
        lost: the round was in flight when the run was killed. Its sum may have been released, so it counts as if it
            was, with the fewest `survivors` that it was authorised for; who they were is not known, the first of the
            cohort stand for them, and nobody is said to have dropped out.
        model_hash: SHA-256, hex, of model and broadcast adapter.
        noise_multiplier: z of the released sum as claimed; `None` where none was released.
        sigma_local, scale, clip_norm, dimension, colluders, sampling_rate, population, count_scale: as in
            `RoundEvent`; `dimension` is that of an upload, with the rotation's
            padding and the count's coordinates.
        values: d, coordinates of an update.
        rotated: whether uploads are rotated updates.
        bits: b, uploads are integers modulo 2^b.
        honest_minimum: fewest honest survivors of a round of this cohort.
        neighbours, threshold: of the masking; `None` without masking, or when no session began.
        target_epsilon: the budget; `None` is infinity.
        epsilon: spent so far by the worst client, as claimed, for one who sees every sum and who took part; `None`
            without noise.
        delta: of the budget.
        accuracy: on the test images, after the round.
        contributions: updates (unit `client`) or gradients (unit `example`) in the uploads, and
        clipped: how many of them were clipped; both are known in a simulation only and not covered by the budget, and
            so is
        overflowed: how many coordinates of the sum wrapped; `None` when aborted.
        noise_ratio: standard deviation of what the released sum has beyond the plain sum of the clipped contributions,
            over that of the noise which is claimed; known in a simulation only, `None` elsewhere and without a sum.
        payload_bytes: broadcasts and uploads, and
        broadcast_bytes: the broadcasts among them.
        server_step: what the server multiplies the momentum of the mean by.
        divisor: what the server divides the released sum by, about the contributions in it; `None` without a sum.
        released_count: adaptive clipping's noisy count of updates within the clip norm; `None` without it, or a sum.
        sum_hash: SHA-256, hex, of the file in `sums/` that holds the released sum; `None` where it is not kept.
        transcript_hash: SHA-256, hex, of the file in `transcript/` that holds the round's messages; `None` where they
            are not kept, or nobody was invited.
    """

    round: int
    mechanism: str
    unit: str
    clients: int
    participants: list[int]
    exhausted: list[int]
    survivors: list[int]
    dropped: list[int]
    recovered: int
    aborted: str | None
    model_hash: str
    noise_multiplier: float | None
    sigma_local: float
    scale: float
    clip_norm: float
    dimension: int
    values: int
    rotated: bool
    bits: int
    colluders: int
    honest_minimum: int
    sampling_rate: float
    population: int | None
    count_scale: float
    neighbours: int | None
    threshold: int | None
    target_epsilon: float | None
    epsilon: float | None
    delta: float
    accuracy: float
    contributions: int
    clipped: int
    overflowed: int | None
    noise_ratio: float | None
    upload_bytes: int
    download_bytes: int
    payload_bytes: int
    broadcast_bytes: int
    server_step: float
    divisor: float | None
    released_count: float | None
    sum_hash: str | None
    transcript_hash: str | None
    seconds: dict[str, float]
    lost: bool = False

    @property
    def line(self) -> str:
        """A line for people that says in a few words what became of the round."""
        spent = "no noise" if self.epsilon is None else f"ε {self.epsilon:.2f}"
        who = f"{len(self.survivors)} of {len(self.participants)} clients"
        what = f"aborted ({self.aborted})" if self.aborted else who
        if self.lost:
            what = "lost in a crash: it may have been released, and counts"
        return f"accuracy {self.accuracy:.2%}, {spent}, {what}"

    def event(self) -> RoundEvent:
        """What the round released, as ledger and accountants want it.

        Raises `ValueError` for a round that released nothing, and for impossible numbers.
        """
        if not self.released:
            raise ValueError(f"round {self.round} was aborted: it released nothing and is no event")
        return self._event(len(self.survivors), self.population)

    @property
    def uploaded(self) -> int:
        """How many participants did not drop out, whether or not there was a sum."""
        return len(set(self.participants) - set(self.dropped))

    @property
    def summed(self) -> bool:
        """Whether the round's sum is in the adapter."""
        return self.aborted is None and not self.lost

    @property
    def released(self) -> bool:
        """Whether the round counts as released: its sum is known, or may be to others."""
        return self.aborted is None or bool(self.survivors)

    @property
    def announced(self) -> bool:
        """Whether the round was aborted after its survivors had been told."""
        return self.aborted is not None and bool(self.survivors)

    @property
    def exposed(self) -> bool:
        """Whether the round was aborted after uploads had been sent, and before its survivors were told."""
        return not self.released and self.uploaded > 0

    def exposed_event(self) -> RoundEvent:
        """What an aborted round was authorised for: the noise of its uploads is the same. Raises as `event`."""
        if not self.exposed:
            raise ValueError(f"round {self.round} was not aborted between uploads and survivors")
        return self._event(self.honest_minimum + self.colluders, None)

    def _event(self, survivors: int, population: int | None) -> RoundEvent:
        # all of them: not named one by one, so that a ledger's histories stay one
        named = None if len(self.participants) == self.clients else frozenset(self.participants)
        given = {"survivors": survivors, "participants": named, "population": population}
        return RoundEvent(**{**event_fields(self), **given})

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for JSON, `schema` first; a line of the log is this and the hash before it."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> RoundRecord:
        """The inverse of `to_dict`. Raises `flora_secure.errors.PlainError` unless schema, keys and types
        are exactly those that it writes."""
        values = dict(table)
        if (schema := values.pop("schema", None)) != SCHEMA:
            raise PlainError(f"schema must be {SCHEMA!r}, got {schema!r:.60}")
        return from_plain(cls, values)


def announcement(
    config: RunConfig,
    number: int,
    plan: NoisePlan,
    cohort: Sequence[int],
    exhausted: Collection[int],
    model_hash: bytes,
    masking: MaskingPlan | None,
    server_step: float,
) -> RoundRecord:
    """All that is known of round `number` before anybody uploads, as if it was lost then: with the fewest survivors.

    `plan`: for this cohort and the round's clip norm; `model_hash`: of model and broadcast.
    """
    return RoundRecord(
        round=number,
        mechanism=MECHANISM,
        unit=config.privacy.unit,
        clients=config.clients,
        participants=list(cohort),
        exhausted=sorted(exhausted),
        survivors=sorted(cohort)[: plan.survivors_minimum],
        dropped=[],
        recovered=0,
        aborted=None,
        model_hash=model_hash.hex(),
        noise_multiplier=None,
        **{**event_fields(plan), "dimension": plan.length},
        values=plan.dimension,
        rotated=plan.rotated,
        bits=plan.bits,
        honest_minimum=plan.honest_minimum,
        population=None,  # who survived is not known: nothing is claimed for outsiders
        neighbours=None if masking is None else masking.neighbours,
        threshold=None if masking is None else masking.threshold,
        target_epsilon=finite_or_none(plan.epsilon),
        epsilon=None,
        delta=plan.delta,
        accuracy=0.0,
        contributions=0,
        clipped=0,
        overflowed=None,
        noise_ratio=None,
        upload_bytes=0,
        download_bytes=0,
        payload_bytes=0,
        broadcast_bytes=0,
        server_step=server_step,
        divisor=None,
        released_count=None,
        sum_hash=None,
        transcript_hash=None,
        seconds=dict.fromkeys((*PARTS, "client_mean", "server"), 0.0),
        lost=True,
    )
