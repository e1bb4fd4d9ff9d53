"""What other ways to make integer noise would cost at the same budget, beside the default."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from flora_bench.lattice_noise import DiscreteGaussian, Skellam
from flora_bench.lattice_plan import lattice_plan
from flora_secure.errors import ConfigError, InfeasibleError
from flora_secure.privacy.noise_plan import NoisePlan

BITS = (8, 10, 12, 14, 16, 18, 20)


@dataclass(frozen=True, kw_only=True)
class MechanismCost:
    """What one mechanism costs at one setting.

    `error_ratio`: error of the released sum ÷ that of central Gaussian noise; None where nothing works.
    """

    mechanism: str
    bits: int
    error_ratio: float | None


def compare_mechanisms(plan: NoisePlan) -> list[MechanismCost]:
    """The default's own bits and error, then discrete Gaussian and Skellam at several moduli.

    Sources: 2102.06387 and 2110.04995, with their own accounting. Raises ConfigError for plans that they cannot follow:
    without noise, or with sampled clients or examples.
    """
    if not plan.noisy or plan.sampling_rate < 1 or plan.participations < plan.rounds:
        raise ConfigError("mechanisms are compared for runs with noise in which every client takes part in every round")
    costs = [MechanismCost(mechanism="rounded Gaussian", bits=plan.bits, error_ratio=plan.error_ratio)]
    for mechanism in (DiscreteGaussian, Skellam):
        for bits in BITS:
            try:
                other = lattice_plan(
                    mechanism,
                    clients=plan.clients,
                    dimension=plan.dimension,
                    rounds=plan.rounds,
                    epsilon=plan.epsilon,
                    delta=plan.delta,
                    clip_norm=plan.clip_norm,
                    bits=bits,
                    dropout_tolerance=plan.dropout_tolerance,
                    colluders=plan.colluders,
                )
                ratio = other.error_ratio
            except InfeasibleError:
                ratio = None
            costs.append(MechanismCost(mechanism=mechanism.name, bits=bits, error_ratio=ratio))
    return costs


def cost_rows(costs: list[MechanismCost]) -> list[tuple[str, str]]:
    """Rows of the table that people see: a mechanism, and its errors by modulus."""
    rows: dict[str, list[str]] = {}
    for cost in costs:
        figure = "nothing fits" if cost.error_ratio is None else f"{cost.error_ratio:.3f} ×"
        rows.setdefault(cost.mechanism, []).append(f"{cost.bits} bits {figure}")
    return [("  " + name, ", ".join(figures)) for name, figures in rows.items()]


def to_dicts(costs: list[MechanismCost]) -> list[dict[str, object]]:
    """The costs as plain data for JSON, one dictionary a mechanism."""
    return [dataclasses.asdict(cost) for cost in costs]
