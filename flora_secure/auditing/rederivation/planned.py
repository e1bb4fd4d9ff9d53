"""What a configuration asks for, planned again: noise and grid, masks, the sizes of what trains."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

from flora_protocols import ParameterError, Profile, Suite
from flora_secure.errors import InputError, first_line
from flora_secure.planning.architectures import CLASSES, architecture
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import SUITES, MaskingPlan, plan_masking, slots_of
from flora_secure.planning.noise import plan_noise
from flora_secure.planning.rules import FROZEN_A, Rule, rule_named
from flora_secure.planning.selection import Selection
from flora_secure.privacy.noise_plan import CohortSizeError, NoisePlan
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import TOP_1, Report


@dataclass(frozen=True)
class Planned:
    """The plan of a run. `no_report`: why there is no report, where there is none."""

    config: RunConfig
    report: Report | None
    no_report: str

    @functools.cached_property
    def images(self) -> int:
        """Examples of all clients together, by which unit `example` is planned; 0 where neither report nor
        configuration says."""
        data = None if self.report is None else self.report.data
        held = None if data is None else data.private_captions or data.private_images
        return held or self.config.data.total_images or 0

    @property
    def labelled(self) -> bool:
        """Whether the run tells classes apart, and does not match captions."""
        return self.report is not None and self.report.accuracy.measures == TOP_1

    @property
    def rule(self) -> Rule:
        """What trains: captions have no class prompts, whose basis the default takes."""
        rule = rule_named(self.config.model.trained_rule)
        captioned = self.report is not None and not self.labelled
        return FROZEN_A if captioned and rule.prompt_basis else rule

    @functools.cached_property
    def factors(self) -> tuple[int, int] | None:
        """Values of all A and of all B, by model, placement and rank; None where the model's sizes are not known."""
        classes = len(self.report.accuracy.classes) if self.labelled and self.report is not None else CLASSES
        try:
            return architecture(self.config.model.model).factor_sizes(self.config.model, max(1, classes))
        except InputError:
            return None

    @functools.cached_property
    def _solved(self) -> NoisePlan | str:
        if self.report is None:
            return self.no_report
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a large delta, which A-25 names
                selection = Selection.of(self.config)
                return plan_noise(self.config, selection, self.report.communication.upload_values, self.images)
        except (InputError, ValueError, ArithmeticError) as error:
            return first_line(error)

    @property
    def noise(self) -> NoisePlan | None:
        """Noise and grid of the largest cohort at the first clip norm; `why_none` where there are none."""
        return None if isinstance(self._solved, str) else self._solved

    @property
    def why_none(self) -> str:
        """Why nothing can be planned; empty where it can."""
        return self._solved if isinstance(self._solved, str) else ""

    def of(self, record: RoundRecord) -> NoisePlan | None:
        """The plan for the cohort and the clip norm of a round; None for a cohort that nothing is planned for."""
        if self.noise is None:
            return None
        try:
            return self.noise.for_cohort(len(record.participants)).with_clip(record.clip_norm)
        except (CohortSizeError, ValueError):
            return None

    @property
    def profile(self) -> Profile | None:
        """Whom the masks resist; None without masks."""
        name = self.config.aggregation.secagg
        return None if name == "off" else Profile(name)

    @property
    def suite(self) -> Suite:
        """What the channels rest on: as configured, or as the report says where a simulation left it open."""
        told = None if self.report is None else self.report.aggregation.suite
        return SUITES.get(self.config.aggregation.suite or told or "", Suite.X25519)

    def masking(self, clients: int) -> MaskingPlan | None:
        """Graph and threshold of a round with so many clients; None without masks, and where there can be none."""
        if self.noise is None or self.profile is None:
            return None
        how = self.config.aggregation
        return _masking(
            self.noise, clients, self.profile, how.neighbours, how.threshold, slots_of(self.config), self.suite
        )


@functools.lru_cache(maxsize=1024)
def _masking(
    plan: NoisePlan,
    clients: int,
    profile: Profile,
    neighbours: int | None,
    threshold: int | None,
    slots: int,
    suite: Suite,
) -> MaskingPlan | None:
    try:
        of_round = plan.for_cohort(clients)
        return plan_masking(of_round, profile, neighbours, threshold, slots=slots, suite=suite)
    except (CohortSizeError, ParameterError, InputError):
        return None
