"""The record of a round that is about to begin, as it counts if it is lost; what became of it replaces the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flora_secure.aggregation import MaskingPlan
from flora_secure.config import RunConfig
from flora_secure.privacy.plan import NoisePlan
from flora_secure.records import MECHANISM, PARTS, RoundRecord
from flora_secure.report import finite_or_none


def intent(
    config: RunConfig,
    number: int,
    plan: NoisePlan,
    cohort: Sequence[int],
    exhausted: Collection[int],
    model_hash: bytes,
    masking: MaskingPlan | None,
) -> RoundRecord:
    """All that is known of round ``number`` before anybody uploads, as if it was lost then: with the fewest survivors.

    ``plan``: for this cohort and the round's clip norm; ``model_hash``: of model and broadcast.
    """
    return RoundRecord(
        round=number,
        mechanism=MECHANISM,
        unit=config.privacy.unit,
        clients=config.data.clients,
        participants=list(cohort),
        exhausted=sorted(exhausted),
        survivors=sorted(cohort)[: plan.survivors_minimum],
        dropped=[],
        recovered=0,
        aborted=None,
        model_hash=model_hash.hex(),
        noise_multiplier=None,
        sigma_local=plan.sigma_local,
        scale=plan.scale,
        clip_norm=plan.clip_norm,
        dimension=plan.length,
        bits=plan.bits,
        colluders=plan.colluders,
        honest_minimum=plan.honest_minimum,
        sampling_rate=plan.sampling_rate,
        population=None,  # who survived is not known: nothing is claimed for outsiders
        count_scale=plan.count_scale,
        neighbours=None if masking is None else masking.neighbours,
        threshold=None if masking is None else masking.threshold,
        target_epsilon=finite_or_none(plan.epsilon),
        epsilon=None,
        delta=plan.delta,
        accuracy=0.0,
        contributions=0,
        clipped=0,
        overflowed=None,
        upload_bytes=0,
        download_bytes=0,
        payload_bytes=0,
        seconds=dict.fromkeys((*PARTS, "client_mean", "server"), 0.0),
        lost=True,
    )
