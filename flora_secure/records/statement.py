"""The privacy statement of a run, in words that need no reader of code.

Its order follows NIST SP 800-226: the guarantee first, then what it rests on, then what it does not cover.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from flora_secure.planning.protection import SuiteName
from flora_secure.privacy.accounting import epsilon_of, gaussian_epsilon
from flora_secure.privacy.cross_check import CLOSED_FORM, accountant_versions, headline_accountant
from flora_secure.privacy.ledger import Ledger, worst_rounds
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.records.disclosure import COMPARED, NAMED

Profile = Literal["off", "semi-honest", "malicious-server"]
Unit = Literal["client", "example"]

_SERVER = (
    "Against whom. The server, which sees every released sum, every model and which clients survived each round; and "
    "therefore everybody who sees less. No amplification by sampling of clients is claimed: the server knows who takes "
    "part."
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
_CHANNELS: dict[SuiteName, str] = {
    "x25519": "Channels. What clients send each other through the server rests on X25519 alone. Whoever records the "
    "messages of a masking session, as the server may, and has a quantum computer later takes off all masks of its "
    "rounds and sees every upload singly",
    "x25519-mlkem768": "Channels. What clients send each other through the server rests on X25519 and ML-KEM-768 "
    "together. Whoever records the messages of a masking session, as the server may, and has a quantum computer later "
    "must break ML-KEM-768 as well; only who breaks both takes off all masks of its rounds and sees every upload "
    "singly",
}
_SUMS_ONLY = (
    "Against whom. Those who see only the released sums and models. The server itself received every upload singly; "
    "against it the guarantee above does NOT hold, only epsilon_local below does."
)
SENT = (
    "What clients are sent. The adapter, or the released sums, with which they take the server's steps themselves. It "
    "is the same information: of a round's sum and the states before and after it, each follows from the others and "
    "public numbers. The guarantee is of the sums, and covers whatever follows from them (post-processing)."
)
_REPRODUCIBLE = (
    "SIMULATED NOISE. The noise keys follow from the run's seed and are therefore not secret: whoever knows the seed "
    "can subtract the noise. The figures say what the run would promise with secret keys; real data need those."
)
_COUNTED = (
    "MASKING COUNTED, NOT RUN. Nothing was masked: the simulation added the uploads up in the clear and counted the "
    "messages of secure aggregation by their sizes. The figures, and what is said of secure aggregation, are those of "
    "a run that executes it; real data need that."
)
_FROM_OS = "Noise keys. They came from the operating system's random source and follow from no seed."
_NO_PRIVACY = (
    "NO DIFFERENTIAL PRIVACY. This run added no noise (epsilon = inf). The sums and the model may reveal what a single "
    "client contributed; do not present this run as private."
)
_UNIT = {
    "client": "Unit. Protected is one client's whole contribution over the whole run, all its data together. "
    "Neighbouring means that this contribution is replaced by zero (zero-out).",
    "example": "Unit. Protected is ONE EXAMPLE of one client, in all rounds together, and not a client: what all "
    "examples of a client have in common is not hidden. Neighbouring means that the example's clipped gradient is "
    "replaced by zero (zero-out).",
}
_ARTICLE = {"client": "a client", "example": "an example"}
_NOT_COVERED = (
    "Not covered. Forged clients unless the malicious-server profile holds; side channels such as timing, and access "
    "to a client's device; the initial weights and whatever they were trained on; hyper-parameters chosen by looking "
    "at the clients' data; anything that the same clients release elsewhere."
)
BESIDE = (
    "Beside the budget. Report, log and adapter folder hold figures that follow from the clients' data without noise, "
    f"and that no epsilon covers: {'; '.join(NAMED)}. They are meant for whoever ran it: of all these, and of "
    "what is in the adapter's folder beside the trained factor, publish what the clients agree to. The folders local/ "
    "and state/ are for nobody else."
)


def statement(
    plan: NoisePlan,
    ledger: Ledger,
    *,
    cross_check: Mapping[str, float],
    profile: Profile,
    secret_noise: bool,
    unit: Unit = "client",
    population: int | None = None,
    aborted_rounds: int = 0,
    lost_rounds: Collection[int] = (),
    announced_rounds: int = 0,
    clip_rate: float | None = None,
    overflow_rate: float | None = None,
    corrupt: int = 0,
    counted: bool = False,
    suite: SuiteName | None,
    canaries: int = 0,
    compared: Collection[str] = (),
    sent: str = SENT,
    beside: str = BESIDE,
) -> str:
    """What this run promises, to whom, on which assumptions.

    Args:
        plan: the noise that was planned.
        ledger: the rounds that were released.
        cross_check: result of `cross_check.cross_check` for the ledger's `worst_events`; may be empty.
        profile: of the secure aggregation.
        secret_noise: True if the noise keys came from the operating system; False if a seed reproduces them.
        unit: whose contribution is protected.
        population: how many such units there are, to judge δ by; None for the clients that plan and ledger know of.
        aborted_rounds: rounds that began and released no sum.
        lost_rounds: numbers of the ledger's rounds that were in flight when the run was killed.
        announced_rounds: rounds of the ledger that were aborted after their survivors had been told.
        clip_rate: fraction of uploads whose update was clipped, if measured.
        overflow_rate: fraction of the sums' coordinates that may have wrapped (`overflow_rate`), if measured.
        corrupt: how many of all clients may be corrupt; a server that deviates may invite them to every round.
        counted: whether secure aggregation was counted by the sizes of its messages, and not run.
        suite: what the channels of secure aggregation rest on; None without it.
        canaries: how many of the clients hold no data, and are there for audits.
        compared: the competitors in the report that are computed from the clients' data, of `disclosure.COMPARED`.
        sent: the paragraph on what clients are sent.
        beside: the paragraph on what leaves the clients and no epsilon covers.

    Returns:
        Paragraphs, each of one line, separated by empty lines.

    Raises:
        ValueError: unknown profile or unit, a profile without its suite, unit `client` with sampled examples, or plan
            and ledger belong to different budgets.
    """
    if profile not in _TRUST:
        raise ValueError(f"profile must be one of {', '.join(_TRUST)}, got {profile!r}")
    if (profile == "off") != (suite is None):
        raise ValueError(f"profile {profile} and suite {suite}")
    if unit not in _UNIT:
        raise ValueError(f"unit must be one of {', '.join(_UNIT)}, got {unit!r}")
    if unit == "client" and plan.sampling_rate < 1:
        raise ValueError(f"examples were sampled at rate {plan.sampling_rate:g}: the unit is then 'example'")
    if (plan.epsilon, plan.delta) != (ledger.target_epsilon, ledger.delta):
        raise ValueError(
            f"the plan's budget is epsilon {plan.epsilon:g}, delta {plan.delta:g}, but the ledger's is "
            f"{ledger.target_epsilon:g}, {ledger.delta:g}"
        )
    rounds = (
        f"Rounds. All {len(ledger.events)} released sums are counted together, out of {plan.rounds} planned; "
        f"{aborted_rounds} further rounds were aborted and released no sum."
    )
    if lost_rounds:
        rounds += (
            f" {len(lost_rounds)} of the sums are counted although they are not in the model: the run was killed while "
            f"they were in flight, and may have released them; they count with the fewest survivors."
        )
    if announced_rounds:
        rounds += (
            f" {announced_rounds} of the sums are counted although the server never had them: these rounds were "
            f"aborted after their survivors had been told, and who answered or colludes may have the sum."
        )
    rates = _rates(plan, unit, clip_rate, overflow_rate)
    first = [_COUNTED] if counted else []
    last = [_competitors(compared), beside] if compared else [beside]
    trust = [_TRUST[profile]]
    if suite is not None:
        trust.append(_CHANNELS[suite] + ("; against that only epsilon_local below holds." if plan.noisy else "."))
    if not plan.noisy:
        return "\n\n".join((*first, _NO_PRIVACY, *trust, rounds, rates, *last))
    upload = (
        f"One upload alone. If the server and all other clients collude, or the masks fail, a client is protected by "
        f"its own share of the noise only: epsilon_local = {ledger.epsilon_local:.4g} at delta = {ledger.delta:g}, "
        f"uploads of aborted rounds included."
    )
    if not ledger.events:
        unspent = f"Guarantee. No sum was released, so nothing of epsilon = {plan.epsilon:g} was spent."
        seen = [_SUMS_ONLY] if profile == "off" else []
        uploaded = [*seen, *trust, upload] if ledger.epsilon_local > 0 else []
        return "\n\n".join((*first, unspent, rounds, *uploaded, *last))
    units = max(plan.clients, len(ledger.clients)) if population is None else population
    paragraphs = [
        *first,
        None if secret_noise else _REPRODUCIBLE,
        _delta(ledger.delta, units, unit) if ledger.delta >= 1 / units else None,
        _guarantee(ledger, unit, units),
        _unit(plan, ledger, unit),
        _SUMS_ONLY if profile == "off" else _SERVER,
        sent,
        _participation(plan, ledger),
        canaries_told(canaries) if canaries else None,
        *trust,
        _draw(ledger, corrupt) if profile == "malicious-server" and ledger.clients else None,
        _assumption(plan, ledger, lost_rounds),
        rounds,
        _mechanism(plan, ledger),
        _accountants(ledger, cross_check),
        upload,
        rates,
        _FROM_OS if secret_noise else None,
        _NOT_COVERED,
        *last,
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph is not None)


def _delta(delta: float, units: int, unit: Unit) -> str:
    return (
        f"WEAK DELTA. delta = {delta:g} is not below 1/{units}, one over the number of {unit}s: a mechanism that gives "
        f"one {unit} away entirely, chosen at random, would satisfy it."
    )


def _guarantee(ledger: Ledger, unit: Unit, units: int) -> str:
    spent = ledger.epsilon
    verdict = "within" if spent <= ledger.target_epsilon else "ABOVE"
    factor = f"{math.exp(spent):.4g}" if spent < 700 else "more than 1e300"
    sampled = any(e.sampling_rate < 1 for e in ledger.worst_events)
    gaussian = "of the Gaussian mechanism with this epsilon, mu" if sampled else "as Gaussian differential privacy, mu"
    return (
        f"Guarantee. Differential privacy with epsilon = {spent:.4f} and delta = {ledger.delta:g}, {verdict} "
        f"the budget of epsilon = {ledger.target_epsilon:g}; {gaussian} = {ledger.mu:.4f}. "
        f"In words: whatever an observer does with all that was released, the probability of any conclusion about "
        f"{_ARTICLE[unit]} is at most e^epsilon = {factor} times what it would be had that {unit} contributed nothing, "
        f"plus {ledger.delta:g}; one over the number of {unit}s is {1 / units:.3g}."
    )


def _unit(plan: NoisePlan, ledger: Ledger, unit: Unit) -> str:
    if plan.sampling_rate < 1:
        return (
            f"{_UNIT[unit]} Every round each client draws each of its examples with probability "
            f"{plan.sampling_rate:g}, by coins that nobody else sees; epsilon takes that into account, against the "
            f"server too."
        )
    # Replacing a contribution moves the clipped sum by up to 2c, twice as far as zeroing it.
    replace_one = gaussian_epsilon(2 * ledger.mu, ledger.delta, ledger.aliasing_slack)
    return (
        f"{_UNIT[unit]} For its replacement by any other contribution "
        f"(replace-one) the same run reads epsilon = {replace_one:.4g} at the same delta."
    )


def _participation(plan: NoisePlan, ledger: Ledger) -> str:
    if not ledger.clients:
        return "Participation. Every client took part in every round or dropped out, and is charged for all of them."
    counts = [len(ledger.events_of(client)) for client in ledger.clients]
    outsider = (
        f"epsilon = {ledger.epsilon_outsider:.4f} for them"
        if any(e.population is not None for e in ledger.events)
        else "no smaller epsilon is claimed for them, as cohorts are not drawn uniformly and apart from earlier ones, "
        "such as where clients sit out once their budget is used up"
    )
    return (
        f"Participation. {len(ledger.clients)} clients took part, in {min(counts)} to {max(counts)} rounds each, at "
        f"most {plan.participations} planned for. Each is charged for its own rounds, and the guarantee above is the "
        f"worst one's. Outsiders, who see only released models and not who took part: {outsider}."
    )


def _assumption(plan: NoisePlan, ledger: Ledger, lost_rounds: Collection[int]) -> str:
    survivors = [e.survivors for e in ledger.events if e.round not in lost_rounds]
    seen = "How many survived is not known, and epsilon is computed from the fewest"
    if survivors:
        where = ", where it is known" if lost_rounds else ""
        seen = f"In fact {min(survivors)} to {max(survivors)} survived{where}, and epsilon is computed from them"
    colluding = (
        f"{plan.colluders} clients may be corrupt: they tell the server their noise, and none of it is counted."
        if plan.colluders
        else "No client is assumed to tell the server its noise."
    )
    return (
        f"Honest minimum. The noise of a round is sized for the honest clients that survive it at the least, "
        f"h_min = {plan.honest_minimum} of {plan.clients}: {plan.dropouts} may drop out. {colluding} A round with "
        f"fewer is aborted. {seen}, taking who survived to be public and to say nothing about the data. If more "
        f"clients collude or leave out their noise, the guarantee weakens accordingly."
    )


def canaries_told(count: int) -> str:
    """The paragraph on canaries."""
    return (
        f"Canaries. {count} of the clients, the last ones, hold no data: a secret coin decides whether one contributes "
        "a long vector in secret directions or zeros, so that whoever has the coins can measure the noise. They are "
        "clipped, given noise, masked, counted and protected as all others, and they are in every number of clients "
        "here; the mean of the updates is diluted by them, which costs accuracy."
    )


def _mechanism(plan: NoisePlan, ledger: Ledger) -> str:
    multipliers = [e.noise_multiplier for e in ledger.events]
    norms = _range(e.clip_norm for e in ledger.events)
    scales = _range(e.scale for e in ledger.events)
    noise = _range(e.sigma_local for e in ledger.events)
    long = f", a whole upload to {plan.upload_norm:g}" if plan.upload_norm != plan.clip_norm else ""
    turned = (
        ", rotated by a public Hadamard matrix with random signs (which changes no distance)" if plan.rotated else ""
    )
    counted = (
        " The clip norm follows a private count of the clients within it, one more Gaussian release a round, included "
        "in epsilon."
        if plan.count_scale
        else ""
    )
    return (
        f"Mechanism. Distributed rounded Gaussian. Every contribution is clipped to L2 norm {norms}{long}{turned}, "
        f"scaled by {scales}, given exact Gaussian noise of standard deviation {noise}, rounded once and sent modulo "
        f"2^{plan.bits}. The noise in a sum was {min(multipliers):.6g} to {max(multipliers):.6g} times the sensitivity."
        f"{counted} The slack for rounding before summing, {ledger.aliasing_slack:.3g}, is included in epsilon."
    )


def _range(values: Iterable[float]) -> str:
    ordered = sorted({f"{value:.6g}" for value in values}, key=float)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _accountants(ledger: Ledger, cross_check: Mapping[str, float]) -> str:
    first = headline_accountant(ledger.worst_events)
    versions = ", ".join(f"{name} {version}" for name, version in accountant_versions([first, *cross_check]).items())
    others = "; ".join(f"{name} {epsilon:.4f}" for name, epsilon in cross_check.items() if name != first)
    how = "The exact composition of Gaussian mechanisms" if first == CLOSED_FORM else f"{first}"
    return (
        f"Accounting. {how} gives epsilon = {ledger.epsilon:.4f}. Cross-checks: "
        f"{others or 'none made'}. Software: {versions}."
    )


def _draw(ledger: Ledger, corrupt: int) -> str:
    """What holds where the server picks cohorts instead of drawing them: of the client that it costs most."""
    worst = "there is no bound but that of one upload alone"
    if all(corrupt < event.survivors for event in ledger.events):
        placed = [
            [dataclasses.replace(event, colluders=max(event.colluders, corrupt)) for event in history]
            for history in {ledger.events_of(client) for client in ledger.clients}
        ]
        worst = f"epsilon = {epsilon_of(worst_rounds(placed, ledger.delta), ledger.delta):.4g}"
    return (
        "Draw of cohorts. The server draws who takes part, and no client can check that it drew at random. The honest "
        f"minimum counts the corrupt clients of a random cohort; had the server placed all of its {corrupt} in every "
        f"cohort, the guarantee above would not hold: {worst} at the same delta."
    )


def _competitors(compared: Collection[str]) -> str:
    return (
        "Competitors. The report says, beside what the run has reached, "
        f"{'; '.join(what for name, what in COMPARED.items() if name in compared)}. That is computed from the clients' "
        "data outside of the budget, with neither noise nor masking, as only a simulation can, which has all data in "
        "one place. It is for the simulation's owner and NOT for publication: epsilon bounds nothing of it."
    )


def _rates(plan: NoisePlan, unit: Unit, clip_rate: float | None, overflow_rate: float | None) -> str:
    what = {"client": "uploads", "example": "examples' gradients"}[unit]
    clipped = "not measured" if clip_rate is None else f"{clip_rate:.2%} of the {what}"
    wrapped = "not measured" if overflow_rate is None else f"at most {overflow_rate:.3g} of the coordinates"
    assumed = plan.peak_fraction < 1 and not plan.rotated
    premise = f", if no coordinate of a sum passes {plan.peak_fraction:g}·n·c" if assumed else ""
    return (
        f"Accuracy. Clipped: {clipped}. Wrapped around in the ring: {wrapped}; predicted probability of any in the "
        f"whole run: {plan.overflow_probability:.2g}{premise}. Neither changes the guarantee."
    )
