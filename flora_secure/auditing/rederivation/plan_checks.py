"""A-17, A-29 and A-36: what the configuration asks for is planned again, and the rounds keep to it."""

from __future__ import annotations

import math

from flora_secure.auditing.findings import Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.log_checks import at
from flora_secure.auditing.rederivation.noise_checks import near
from flora_secure.planning.architectures import architecture
from flora_secure.planning.noise import expected_contributions
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.privacy.adaptive_clip import AdaptiveClip
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Report
from flora_secure.rounds.optimiser import SERVER_STEP, server_optimiser

_MISS = 1e-9  # how often a genuine run is called false by the number of its examples, in all of its rounds together


def planned(case: Case) -> Finding:
    """A-17: noise, grid, colluders, masks and the update's length are those that the configuration asks for."""
    title = (
        "Noise, grid and masks are those of the configuration",
        "Noise, grid or masks are not those of the configuration",
    )
    plan, report, problems = case.planned.noise, case.report, list[Problem]()
    if report is None:
        return unchecked("A-17", title, f"the update's length stands in it: {case.no_report}")
    if plan is None:
        problems.append(
            ("config.toml", f"no noise can be planned for it, yet there are rounds: {case.planned.why_none}")
        )
        return judged("A-17", title, problems, "", "publish the configuration that was run")
    for r in case.records:
        problems += [(at(r), f"{name} {told}, planned {value}") for name, told, value in _of_a_round(case, r)]
    masks = case.planned.masking(plan.clients)
    for name, told, value in (
        ("noise_multiplier", report.privacy.noise_multiplier, plan.noise_multiplier),
        ("honest_minimum", report.privacy.honest_minimum, plan.honest_minimum),
        ("neighbours", report.aggregation.neighbours, None if masks is None else masks.neighbours),
        ("threshold", report.aggregation.threshold, None if masks is None else masks.threshold),
        *_lengths(case, report),
    ):
        if not _same(told, value):
            problems.append(("report.json", f"{name} {told}, planned {value}"))
    budget = "none" if not plan.noisy else f"{plan.epsilon:g} in {plan.participations} rounds of a client"
    return judged(
        "A-17", title, problems, f"z = {plan.noise_multiplier:.6g}, {plan.bits} bits for a budget of {budget}",
        "publish the configuration that was run",
    )  # fmt: skip


def _of_a_round(case: Case, r: RoundRecord) -> list[tuple[str, object, object]]:
    """What a line says otherwise than the plan for its cohort and clip norm: name, as told, as planned."""
    plan, masks = case.planned.of(r), case.planned.masking(len(r.participants))
    if plan is None or (case.masked and masks is None):
        # a cohort that nothing is planned for: skipped, and nobody is asked
        asked = r.released or r.download_bytes or r.upload_bytes or r.aborted is None
        return [("cohort", len(r.participants), "no such one")] if asked else []
    pairs = (
        ("sigma_local", r.sigma_local, plan.sigma_local),
        ("scale", r.scale, plan.scale),
        ("count_scale", r.count_scale, plan.count_scale),
        ("dimension", r.dimension, plan.length),
        ("values", r.values, plan.dimension),
        ("rotated", r.rotated, plan.rotated),
        ("bits", r.bits, plan.bits),
        ("colluders", r.colluders, plan.colluders),
        ("honest_minimum", r.honest_minimum, plan.honest_minimum),
        ("sampling_rate", r.sampling_rate, plan.sampling_rate),
        ("delta", r.delta, plan.delta),
        ("neighbours", r.neighbours, None if masks is None else masks.neighbours),
        ("threshold", r.threshold, None if masks is None else masks.threshold),
    )
    return [(name, told, value) for name, told, value in pairs if not _same(told, value)]


def _lengths(case: Case, report: Report) -> list[tuple[str, object, object]]:
    """Values that train and that are uploaded, by placement, rule and rank; where the model's sizes are not known, that
    both are so many columns of the adapter's rank."""
    told, rule = report.communication, case.planned.rule
    if case.planned.factors is not None:
        a, b = case.planned.factors
        return [
            ("parameters", told.parameters, rule.size(a, b)),
            ("upload_values", told.upload_values, rule.upload_size(a, b)),
        ]
    rank = case.config.model.rank or PLACEMENTS[case.config.model.placement].rank or 1
    columns = told.parameters % rank == 0 and told.upload_values % rank == 0
    fits = told.parameters == told.upload_values or rule.alternates == "rounds"
    return [("parameters", told.parameters, told.parameters if columns and fits else f"a multiple of {rank}")]


def _same(told: object, planned_: object) -> bool:
    if isinstance(told, float) and isinstance(planned_, float | int):
        return near(told, planned_)
    return told == planned_


def stepped(case: Case) -> Finding:
    """A-36: the server's step, its divisor and the next clip norm are those of the configuration and the rounds."""
    problems, quantile = list[Problem](), case.config.privacy.adaptive_clip
    step, clip = _step(case), case.config.clip_norm
    for r in case.records:
        if not near(r.server_step, step if step is not None else case.records[0].server_step):
            problems.append((at(r), f"server_step {r.server_step:.6g}, expected {step or case.records[0].server_step}"))
        if not 0 < r.server_step <= (step or SERVER_STEP[case.config.privacy.unit]) * (1 + 1e-9):
            problems.append((at(r), f"server_step {r.server_step:.6g} is no step of this unit"))
        divisor = expected_contributions(case.config, case.planned.images, len(set(r.survivors))) if r.summed else None
        known = case.config.privacy.unit == "client" or case.planned.images
        if (r.divisor is None) != (divisor is None) or (known and divisor and not near(r.divisor or 0.0, divisor)):
            problems.append((at(r), f"divisor {r.divisor}, {len(r.survivors)} survivors say {divisor}"))
        if (r.released_count is None) != (quantile is None or not r.summed):
            problems.append((at(r), f"released_count is {r.released_count}"))
        if not near(r.clip_norm, clip):
            problems.append((at(r), f"clip norm {r.clip_norm:.6g}, that of the counts before is {clip:.6g}"))
        if quantile is not None and r.released_count is not None and r.summed and math.isfinite(r.released_count):
            clip = AdaptiveClip(quantile).next_norm(r.clip_norm, r.released_count, max(1, len(set(r.survivors))))
        else:
            clip = r.clip_norm
    how = "" if step is not None else "; constant, its length follows from the model"
    return judged(
        "A-36",
        ("The server's steps are those that were configured", "A step of the server is not the one configured"),
        problems,
        f"step {case.records[0].server_step:.6g}{how}, divisors and clip norms of {len(case.records)} rounds",
        "publish the log that the run wrote",
    )


def _step(case: Case) -> float | None:
    """The server's step as configured, or as fitted to the noise; None where that takes the model."""
    given, model = case.config.training.server_step, case.config.model
    if given is not None or case.planned.noise is None:
        return given
    if not case.planned.noise.noisy:
        return SERVER_STEP[case.config.privacy.unit]
    if case.planned.factors is None or not case.planned.labelled or model.placement != "text-projection":
        return None
    sizes = architecture(model.model).shapes
    width = sizes.embed * model.scale(case.planned.factors[1] // sizes.embed) ** 2
    expected = lambda survivors: expected_contributions(case.config, case.planned.images, survivors)  # noqa: E731
    return server_optimiser(case.config, case.planned.noise, expected, width).step


def examples(case: Case) -> Finding:
    """A-29: about as many examples are in the sums as the sampling rate draws of so many."""
    title = (
        "The examples in the sums are those that the rate draws",
        "The examples in the sums are not those that the rate draws",
    )
    if case.config.privacy.unit == "client":
        return judged("A-29", title, [], "unit client draws no examples", "")
    data = None if case.report is None else case.report.data
    if data is None or data.client_minimum is None or data.client_maximum is None or not case.planned.images:
        return unchecked("A-29", title, "how many examples each client holds is known in a simulation's report alone")
    # of captions the report counts a client's images, of which each has several
    fewest, largest = (0, case.planned.images) if data.private_captions else (data.client_minimum, data.client_maximum)
    known = [r for r in case.records if r.summed]
    problems, q = list[Problem](), case.config.sampling_rate
    allowed, every = math.log(2 * (len(known) + 1) / _MISS), [0, 0, 0]
    for place, r in enumerate(known):
        here = len(set(r.survivors))
        away = case.config.clients - here
        least = max(here * fewest, case.planned.images - away * largest, 0)
        most = max(least, min(here * largest, case.planned.images - away * fewest))
        every = [total + one for total, one in zip(every, (r.contributions, least, most), strict=True)]
        tests = [(at(r), r.contributions, least, most)]
        if place == len(known) - 1:
            tests.append(("rounds.jsonl", every[0], every[1], every[2]))
        for where, count, few, many in tests:
            if max(_against(count, few, q, below=True), _against(count, many, q, below=False)) > allowed:
                problems.append((where, f"{count:,} examples of {few:,} to {many:,}, each drawn with {q:g}"))
    fine = f"q · images in {len(known)} sums; a genuine run is called false once in {1 / _MISS:.0e}"
    return judged("A-29", title, problems, fine, "publish the rate that examples were drawn at")


def _against(count: int, trials: int, q: float, *, below: bool) -> float:
    """-log of a bound on the probability that so many draws with `q` give `count` or what is further out on that side:
    n·KL(count/n ‖ q), Chernoff's."""
    if trials == 0 or not 0 <= count <= trials:
        return math.inf if count > trials and not below else 0.0
    x = count / trials
    if q == 1 or (x >= q) == below:
        return math.inf if q == 1 and x < 1 and below else 0.0
    upper = x * math.log(x / q) if x else 0.0
    lower = (1 - x) * math.log((1 - x) / (1 - q)) if x < 1 else 0.0
    return trials * (upper + lower)
