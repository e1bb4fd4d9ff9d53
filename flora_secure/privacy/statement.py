"""The privacy statement of a run, in words that need no reader of code.

Its order follows NIST SP 800-226: the guarantee first, then what it rests on, then what it does not cover.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from .accounting import gaussian_epsilon
from .cross_check import CLOSED_FORM, accountant_versions
from .ledger import Ledger
from .plan import NoisePlan

Profile = Literal["off", "semi-honest", "malicious-server"]

_SERVER = (
    "Against whom. The server, which sees every released sum, every model and which clients survived each round; and "
    "therefore everybody who sees less. No amplification by sampling is claimed: the server knows who takes part."
)
_TRUST = {
    "semi-honest": "Trust. The server follows the protocol, but keeps and studies everything it receives. Secure "
    "aggregation shows it the sum of the uploads and none of them singly. A server that forges clients or lies about "
    "who dropped out is NOT covered by this profile.",
    "malicious-server": "Trust. The server may deviate from the protocol. Clients check each other's signatures "
    "against a roster that they trust, so the server sees the sum of the uploads and none of them singly, and forged "
    "clients are not counted.",
    "off": "Trust. Secure aggregation was SWITCHED OFF: the server received every upload singly and is trusted to add "
    "them up and forget them.",
}
_SUMS_ONLY = (
    "Against whom. Those who see only the released sums and models. The server itself received every upload singly; "
    "against it the guarantee above does NOT hold, only epsilon_local below does."
)
_REPRODUCIBLE = (
    "SIMULATED NOISE. The noise keys follow from the run's seed and are therefore not secret: whoever knows the seed "
    "can subtract the noise. The figures say what the run would promise with secret keys; real data need those."
)
_FROM_OS = "Noise keys. They came from the operating system's random source and follow from no seed."
_NO_PRIVACY = (
    "NO DIFFERENTIAL PRIVACY. This run added no noise (epsilon = inf). The sums and the model may reveal what a single "
    "client contributed; do not present this run as private."
)
_NOT_COVERED = (
    "Not covered. Forged clients unless the malicious-server profile holds; side channels such as timing, and access "
    "to a client's device; which clients took part and which dropped out; the initial weights and whatever they were "
    "trained on; hyper-parameters chosen by looking at the clients' data; accuracy, clip and overflow rates where they "
    "were measured on private data; anything that the same clients release elsewhere."
)


def statement(
    plan: NoisePlan,
    ledger: Ledger,
    *,
    cross_check: Mapping[str, float],
    profile: Profile,
    secret_noise: bool,
    aborted_rounds: int = 0,
    clip_rate: float | None = None,
    overflow_rate: float | None = None,
) -> str:
    """What this run promises, to whom, on which assumptions.

    Args:
        plan: the noise that was planned.
        ledger: the rounds that were released.
        cross_check: result of `cross_check.cross_check` for the ledger's events; may be empty.
        profile: of the secure aggregation.
        secret_noise: True if the noise keys came from the operating system; False if a seed reproduces them.
        aborted_rounds: rounds that began and released nothing.
        clip_rate: fraction of uploads whose update was clipped, if measured.
        overflow_rate: fraction of the sums' coordinates that may have wrapped (`encoding.overflow_rate`), if measured.

    Returns:
        Paragraphs, each of one line, separated by empty lines.

    Raises:
        ValueError: unknown profile, or plan and ledger belong to different budgets.
    """
    if profile not in _TRUST:
        raise ValueError(f"profile must be one of {', '.join(_TRUST)}, got {profile!r}")
    if (plan.epsilon, plan.delta) != (ledger.target_epsilon, ledger.delta):
        raise ValueError(
            f"the plan's budget is epsilon {plan.epsilon:g}, delta {plan.delta:g}, but the ledger's is "
            f"{ledger.target_epsilon:g}, {ledger.delta:g}"
        )
    rounds = (
        f"Rounds. All {len(ledger.events)} released sums are counted together, out of {plan.rounds} planned; "
        f"{aborted_rounds} further rounds were aborted and released nothing."
    )
    rates = _rates(plan, clip_rate, overflow_rate)
    if not plan.noisy:
        return "\n\n".join((_NO_PRIVACY, _TRUST[profile], rounds, rates))
    if not ledger.events:
        return f"Guarantee. Nothing was released, so nothing of epsilon = {plan.epsilon:g} was spent.\n\n{rounds}"
    paragraphs = (
        _guarantee(ledger),
        _unit(ledger),
        _SUMS_ONLY if profile == "off" else _SERVER,
        _TRUST[profile],
        _assumption(plan, ledger),
        rounds,
        _mechanism(plan, ledger),
        _accountants(ledger, cross_check),
        f"One upload alone. If the server and all other clients collude, or the masks fail, a client is protected by "
        f"its own share of the noise only: epsilon_local = {ledger.epsilon_local:.4g} at delta = {ledger.delta:g}.",
        rates,
        _NOT_COVERED,
    )
    return "\n\n".join((*paragraphs[:-1], _FROM_OS, paragraphs[-1]) if secret_noise else (_REPRODUCIBLE, *paragraphs))


def _guarantee(ledger: Ledger) -> str:
    verdict = "within" if ledger.epsilon <= ledger.target_epsilon else "ABOVE"
    factor = f"{math.exp(ledger.epsilon):.4g}" if ledger.epsilon < 700 else "more than 1e300"
    return (
        f"Guarantee. Differential privacy with epsilon = {ledger.epsilon:.4f} and delta = {ledger.delta:g}, {verdict} "
        f"the budget of epsilon = {ledger.target_epsilon:g}; as Gaussian differential privacy, mu = {ledger.mu:.4f}. "
        f"In words: whatever an observer does with all that was released, the probability of any conclusion about a "
        f"client is at most e^epsilon = {factor} times what it would be had that client contributed nothing, "
        f"plus {ledger.delta:g}."
    )


def _unit(ledger: Ledger) -> str:
    # Replacing an update moves the clipped sum by up to 2c, twice as far as zeroing it.
    replace_one = gaussian_epsilon(2 * ledger.mu, ledger.delta, ledger.aliasing_slack)
    return (
        f"Unit. Protected is one client's whole contribution over the whole run, all its data together. Neighbouring "
        f"means that this contribution is replaced by zero (zero-out). For its replacement by any other contribution "
        f"(replace-one) the same run reads epsilon = {replace_one:.4g} at the same delta."
    )


def _assumption(plan: NoisePlan, ledger: Ledger) -> str:
    survivors = [e.survivors for e in ledger.events]
    return (
        f"Honest minimum. The noise is sized for h_min = {plan.honest_minimum} honest clients that survive a round: "
        f"{plan.clients} clients less {plan.dropouts} that may drop out less {plan.colluders} that may collude with "
        f"the server. A round with fewer is aborted. In fact {min(survivors)} to {max(survivors)} survived, and "
        f"epsilon is computed from them, taking who survived to be public and to say nothing about the data. If more "
        f"clients collude or leave out their noise, the guarantee weakens accordingly."
    )


def _mechanism(plan: NoisePlan, ledger: Ledger) -> str:
    multipliers = [e.noise_multiplier for e in ledger.events]
    return (
        f"Mechanism. Every update is clipped to L2 norm {plan.clip_norm:g}, scaled by {plan.scale:.6g}, given exact "
        f"Gaussian noise of standard deviation {plan.sigma_local:.6g}, rounded once and sent modulo 2^{plan.bits}. The "
        f"noise in a sum was {min(multipliers):.6g} to {max(multipliers):.6g} times the clip norm. The slack for "
        f"rounding before summing, {ledger.aliasing_slack:.3g}, is included in epsilon."
    )


def _accountants(ledger: Ledger, cross_check: Mapping[str, float]) -> str:
    versions = ", ".join(
        f"{name} {version}" for name, version in accountant_versions([CLOSED_FORM, *cross_check]).items()
    )
    others = "; ".join(f"{name} {epsilon:.4f}" for name, epsilon in cross_check.items() if name != CLOSED_FORM)
    return (
        f"Accounting. The exact composition of Gaussian mechanisms gives epsilon = {ledger.epsilon:.4f}. Cross-checks: "
        f"{others or 'none made'}. Software: {versions}."
    )


def _rates(plan: NoisePlan, clip_rate: float | None, overflow_rate: float | None) -> str:
    clipped = "not measured" if clip_rate is None else f"{clip_rate:.2%} of the uploads"
    wrapped = "not measured" if overflow_rate is None else f"at most {overflow_rate:.3g} of the coordinates"
    premise = "" if plan.peak_fraction == 1 else f", if no coordinate of a sum passes {plan.peak_fraction:g}·n·c"
    return (
        f"Accuracy. Clipped: {clipped}. Wrapped around in the ring: {wrapped}; predicted probability of any in the "
        f"whole run: {plan.overflow_probability:.2g}{premise}. Neither changes the guarantee."
    )
