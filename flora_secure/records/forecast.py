"""What a run will cost, without training: noise, budget, ring, graph and bytes, from its config alone.

The figures are those that the run itself would use and report: the same calibration, the same graph, and the sizes of
the real messages. What depends on who drops out is given for the config's own `dropout`, shared evenly.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from flora_protocols import ParameterError
from flora_secure.errors import require
from flora_secure.plain import finite_or_none
from flora_secure.planning.architectures import (
    IMAGES,
    Architecture,
    architecture,
    classes_of,
    own_clients,
    private_images,
)
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import SUITES, MaskingPlan, masking_of, name_of
from flora_secure.planning.names import GENERIC, ICONS, PASSED
from flora_secure.planning.noise import plan_noise, refused, target_delta
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.protection import MOST_EPSILON
from flora_secure.planning.rules import rule_named
from flora_secure.planning.selection import Selection
from flora_secure.privacy.accounting import epsilon_for, epsilon_local, epsilon_outsider, gaussian_mu
from flora_secure.privacy.calibration import LEAST_EPSILON
from flora_secure.privacy.cross_check import accountant_versions, cross_check, headline_accountant
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.records.report import Communication
from flora_secure.records.report_table import html_table
from flora_secure.rounds.expected_bytes import broadcast_bytes, invitation_bytes, masking_bytes
from flora_secure.rounds.opening import OPENING_BYTES

SCHEMA = "flora-secure/plan/1"
_MOST_IMAGES = 10**9  # their default delta can still be accounted for
_LEAST_MULTIPLIER = 1e-2  # costs epsilon 5,000 in one round


@dataclass(frozen=True, kw_only=True)
class PrivacyForecast:
    """The budget if every round keeps the fewest survivors that it may; names as in the report.

    `participations`: rounds that one client may be in; it sits out the others. `sampling_rate`: of the examples.
    """

    epsilon: float | None
    delta: float
    mu: float | None
    unit: str
    adjacency: str
    view: str
    epsilon_outsider: float | None
    epsilon_local: float | None
    noise_multiplier: float
    sigma_local: float
    scale: float
    clip_norm: float
    rounds: int
    participations: int
    sampling_rate: float
    honest_minimum: int
    accountant: dict[str, str]
    cross_check: dict[str, float]
    aliasing_slack: float
    error_ratio: float
    overflow_probability: float
    rotated: bool


@dataclass(frozen=True, kw_only=True)
class AggregationForecast:
    """Who shares masks with whom. `masking`: whether the run would execute it, as in the report. `dropouts` and
    `corrupt` are clients of a round that noise and masks allow for; `corrupt_neighbours` is how many of one client's
    share holders may be corrupt. `slots`: rounds of a masking session; `suite`: what its channels rest on;
    `reductions`: that of the communication under either suite."""

    profile: str
    masking: str
    clients: int
    neighbours: int | None
    threshold: int | None
    dropouts: int
    corrupt: int
    corrupt_neighbours: int | None
    slots: int | None
    suite: str | None
    reductions: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ModelForecast:
    """What is trained, and what the server's average is. `parameters` are the whole model's."""

    name: str
    placement: str
    rule: str
    averaging: str
    exact_average: bool
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """All that is known of a run before it starts. `assumed`: what only the data will say, in words."""

    model: ModelForecast
    privacy: PrivacyForecast
    communication: Communication
    aggregation: AggregationForecast
    plan: NoisePlan
    assumed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `schema` first; the plan's figures are in `privacy`."""
        parts = ("model", "privacy", "communication", "aggregation")
        figures = {part: dataclasses.asdict(getattr(self, part)) for part in parts}
        return {"schema": SCHEMA, **figures, "assumed": list(self.assumed)}

    def _repr_html_(self) -> str:
        return html_table("Plan", self.rows())

    def rows(self) -> list[tuple[str, str]]:
        """The table that people see, as pairs of what a figure is of and the figure."""
        p, c, a = self.privacy, self.communication, self.aggregation
        if p.epsilon is None:
            rows = [("privacy", "NONE: no noise would be added (epsilon = inf)")]
        else:
            rows = [
                (
                    "privacy",
                    f"ε = {p.epsilon:.4g} at most after {p.rounds} rounds"
                    + ("" if p.participations == p.rounds else f", {p.participations} of them with one client")
                    + f", δ = {p.delta:.3g}, per {p.unit}, "
                    f"{p.view} view" + ("" if p.mu is None else f" (μ = {p.mu:.4g})"),
                ),
                ("  noise", f"multiplier {p.noise_multiplier:.6g} at {p.honest_minimum} honest survivors"),
                ("  outsiders", "not bounded" if p.epsilon_outsider is None else f"ε = {p.epsilon_outsider:.4g}"),
                (
                    "  one upload alone",
                    "not bounded"
                    if p.epsilon_local is None
                    else f"ε = {p.epsilon_local:.1f} if the server and all other clients collude",
                ),
                ("  cross-check", ", ".join(f"{k} {v:.3f}" for k, v in p.cross_check.items())),
            ]
        return [
            *(
                [("masking", "to be counted and not run (`aggregation.masking` counted)")]
                if a.masking == "counted"
                else []
            ),
            *rows,
            (
                "ring",
                f"{c.bits} bits a value, error {p.error_ratio:.4f} × that of central noise, "
                f"overflow probability {p.overflow_probability:.2g}" + (", updates rotated" if p.rotated else ""),
            ),
            (
                "communication",
                f"{c.reduction:,.0f} × less than sending the model ({c.upload_bytes / 1000:,.1f} kB up, "
                f"{c.download_bytes / 1000:,.1f} kB down a client and round, {c.masking_bytes / 1000:,.1f} kB of it "
                "masking)",
            ),
            (
                "  adapter",
                f"{c.parameters:,} of {self.model.parameters:,} parameters of {self.model.name} "
                f"({c.parameter_ratio:,.0f} × fewer), {self.model.placement}, rule {self.model.rule}",
            ),
            ("  averaging", self.model.averaging),
            (
                "aggregation",
                f"{a.profile}, {a.clients} clients"
                + ("" if a.threshold is None else f", {a.neighbours} neighbours each, threshold {a.threshold}")
                + f"; allows for {a.dropouts} dropouts and {a.corrupt} corrupt clients a round",
            ),
            *(
                [
                    (
                        "  channels",
                        f"{a.suite}, set up for {a.slots} {'round' if a.slots == 1 else 'rounds'} at once; "
                        + ", ".join(f"{reduction:,.0f} × less by {name}" for name, reduction in a.reductions.items()),
                    )
                ]
                if a.suite is not None
                else []
            ),
            *([("assumed", "; ".join(self.assumed))] if self.assumed else []),
        ]


def forecast(config: RunConfig, images: int | None = None) -> Forecast:
    """The forecast of `config` over clients that hold `images` in all (they matter for unit example only); None for as
    many as its data set is known to have, or is taken to have.

    Figures of a round are those of a cohort of fixed size, or of average size. Raises ConfigError, one line, where no
    noise, ring or graph satisfies the config.
    """
    require(
        images is None or config.privacy.unit == "example",
        f"`images` {images} is for `privacy.unit` example, whose budget counts images: leave it out",
    )
    held = _held(config, images)
    require(held <= _MOST_IMAGES, f"`images` must be at most {_MOST_IMAGES:,}, got {held}")
    size = architecture(config.model.model)
    dimension, rule = size.dimension(config.model, classes_of(config.data)), rule_named(config.model.trained_rule)
    try:
        selection = Selection.of(config)
        plan = plan_noise(config, selection, dimension, held)
        cohort = plan.for_cohort(min(max(config.cohort_size, plan.smallest_cohort), plan.clients))
        masking, reductions = masking_of(config, cohort), {}
        communication = _communication(config, cohort, masking, size)
        if masking is not None:
            for name, suite in SUITES.items():
                other = dataclasses.replace(masking, suite=suite)
                reductions[name] = _communication(config, cohort, other, size).reduction
    except (ValueError, ParameterError) as error:
        raise refused(error) from None
    return Forecast(
        model=ModelForecast(
            name=size.name,
            placement=config.model.placement,
            rule=rule.name,
            averaging=rule.averaging,
            exact_average=rule.exact,
            parameters=size.parameters,
        ),
        privacy=_privacy(config, plan, cohort, selection),
        communication=communication,
        aggregation=AggregationForecast(
            profile=config.aggregation.secagg,
            masking=config.aggregation.masks,
            clients=cohort.clients,
            neighbours=None if masking is None else masking.neighbours,
            threshold=None if masking is None else masking.threshold,
            dropouts=cohort.dropouts,
            corrupt=cohort.colluders,
            corrupt_neighbours=None if masking is None else masking.corrupt,
            slots=None if masking is None else masking.slots,
            suite=None if masking is None else name_of(masking.suite),
            reductions={name: reduction for name, reduction in reductions.items() if reduction is not None},
        ),
        plan=plan,
        assumed=_assumed(config, images),
    )


def _held(config: RunConfig, images: int | None) -> int:
    """Images of all clients together: as given, as known of the data set, or as assumed."""
    known = private_images(config.data) if images is None else images
    return IMAGES if known is None else known


def _assumed(config: RunConfig, images: int | None) -> tuple[str, ...]:
    """What a run takes from its data, and a plan without data cannot know."""
    found, own = [], config.data.dataset.startswith((*GENERIC, PASSED))
    of = f" of data set {ICONS}" if config.data.name == ICONS else ""  # the default, which nobody may have meant
    if config.data.name != config.data.dataset:
        found.append(f"data set {config.data.name}, which was called {config.data.dataset}")
    if config.data.clients is None:
        more = "; a run takes as many as the data have of their own" if own else ""
        theirs = of if own_clients(config.data) is not None else ""
        found.append(f"{config.data_clients} clients{theirs}, since none were given{more}")
    by_class = config.model.rank is None and PLACEMENTS[config.model.placement].rank is None
    if by_class and (own or of):
        found.append(f"{classes_of(config.data)} classes{of}, each of which adds to the adapter")
    if config.privacy.unit == "example" and images is None and config.data.total_images is None:
        found.append(f"{_held(config, None):,} images of all clients{of} together")
    return tuple(found)


def budget_of(config: RunConfig, noise_multiplier: float, images: int | None = None) -> float:
    """The ε to plan for, so that the noise multiplier z of `config`'s run is the one given. ConfigError for z <= 0, and
    where the budget would be none that can be planned for."""
    require(
        0 < noise_multiplier < math.inf, f"`noise_multiplier` must be a finite number > 0, got {noise_multiplier:g}"
    )
    try:
        taken, spent = Selection.of(config).participations, math.inf
        if noise_multiplier >= _LEAST_MULTIPLIER:
            delta = target_delta(config, _held(config, images))
            spent = epsilon_for(noise_multiplier, delta, taken, config.sampling_rate)
    except ValueError as error:
        raise refused(error) from None
    require(
        spent <= MOST_EPSILON,
        f"`noise_multiplier` {noise_multiplier:g} costs more than epsilon {MOST_EPSILON:g}, which cannot be accounted "
        "for; take a larger one, or `privacy.epsilon` inf for a run without noise",
    )
    require(
        spent > LEAST_EPSILON,
        f"`noise_multiplier` {noise_multiplier:g} costs less than epsilon {LEAST_EPSILON:g}, which cannot be accounted "
        "for; take a smaller one",
    )
    return spent


def _privacy(config: RunConfig, plan: NoisePlan, cohort: NoisePlan, selection: Selection) -> PrivacyForecast:
    events = plan.worst_events()
    # outsiders do not know who was in a cohort, where it is a uniform one; they see every round
    population = selection.clients if selection.uniform else None
    # more survivors bring more noise, and take more of the doubt who is among them: either may cost outsiders more
    outsiders = [
        epsilon_outsider(
            [cohort.event(t, survivors, population=population) for t in range(1, plan.rounds + 1)], plan.delta
        )
        for survivors in {cohort.survivors_minimum, cohort.clients}
        if plan.noisy
    ]
    checks = cross_check(events, plan.delta, opacus=False) if plan.noisy else {}
    headline = headline_accountant(events)
    local = epsilon_local(events, plan.delta) if plan.noisy else math.inf
    spent = checks[headline] if plan.noisy else math.inf
    return PrivacyForecast(
        # without masking the server sees every upload by itself
        epsilon=finite_or_none(local if config.aggregation.secagg == "off" else spent),
        delta=plan.delta,
        mu=finite_or_none(gaussian_mu(e.noise_multiplier for e in events)) if plan.sampling_rate == 1 else None,
        unit=config.privacy.unit,
        adjacency="zero-out",
        view="server",
        epsilon_outsider=min(spent, max(outsiders)) if plan.noisy else None,
        epsilon_local=finite_or_none(local),
        noise_multiplier=plan.noise_multiplier,
        sigma_local=cohort.sigma_local,
        scale=plan.scale,
        clip_norm=plan.clip_norm,
        rounds=plan.rounds,
        participations=plan.participations,
        sampling_rate=plan.sampling_rate,
        honest_minimum=cohort.honest_minimum,
        accountant={"name": headline, **accountant_versions([headline])},
        cross_check={name: epsilon for name, epsilon in checks.items() if name != headline},
        aliasing_slack=plan.aliasing_slack,
        error_ratio=plan.error_ratio,
        overflow_probability=plan.overflow_probability,
        rotated=plan.rotated,
    )


def _communication(
    config: RunConfig, plan: NoisePlan, masking: MaskingPlan | None, size: Architecture
) -> Communication:
    n = plan.clients
    stay = 1 - math.floor(config.aggregation.dropout * n) / n
    trained = size.trained(config.model, classes_of(config.data))
    broadcast, invitation = broadcast_bytes(config, plan, trained), invitation_bytes(config, plan)
    packed = -(-plan.payload_bits // 8)
    upload, download = stay * packed, invitation + broadcast + OPENING_BYTES
    if masking is not None:
        upload, more = masking_bytes(config, plan, masking)
        download += more
    payload = broadcast + stay * packed
    full = 4 * size.parameters
    return Communication(
        upload_bytes=upload,
        download_bytes=download,
        payload_bytes=payload,
        broadcast_bytes=broadcast,
        masking_bytes=upload + download - payload - invitation,
        invitation_bytes=invitation,
        full_model_bytes=full,
        reduction=2 * full / (upload + download),
        reduction_upload=full / upload,
        parameters=trained,
        upload_values=size.dimension(config.model, classes_of(config.data)),
        parameter_ratio=size.parameters / trained,
        bits=plan.bits,
    )
