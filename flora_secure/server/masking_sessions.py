"""The masking of one run's rounds: graph and threshold by size of the cohort, and which session a round belongs to."""

from __future__ import annotations

from flora_protocols import Profile, SessionParams
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import MaskingPlan, masking_of
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.enrolment import Enrolment


class MaskingSessions:
    """Masking sessions of a run, of which one is open at a time; without masking there are none."""

    def __init__(self, config: RunConfig, enrolment: Enrolment) -> None:
        """`enrolment`: whose identity keys the sessions go by, in the malicious-server profile."""
        how = config.aggregation.secagg
        self.profile = None if how == "off" else Profile(how)
        self._config, self._enrolment = config, enrolment
        self._plans: dict[tuple[int, int], MaskingPlan] = {}  # by cohort size and survivors
        self._open: tuple[SessionParams, tuple[int, ...]] | None = None  # and its cohort

    def plan(self, plan: NoisePlan) -> MaskingPlan | None:
        """Graph and threshold of a round with this plan; None without masking.

        Raises ParameterError where none can work.
        """
        if self.profile is None:
            return None
        size = plan.clients, plan.survivors_minimum
        if size not in self._plans:
            found = masking_of(self._config, plan)
            assert found is not None
            keys = self._enrolment.identities[: plan.clients]
            found.session(plan, self.profile, identities=keys)  # refuses what cannot work
            self._plans[size] = found
        return self._plans[size]

    def of(self, number: int, plan: NoisePlan, cohort: tuple[int, ...]) -> SessionParams | None:
        """The parameters of the session that round `number` belongs to; None without masking.

        It is the one that is open, where that is of the same cohort and has a slot left, or else one that begins now.
        Raises as `plan`.
        """
        masking = self.plan(plan)
        if masking is None or self.profile is None:
            return None
        if self._open is not None:
            params, members = self._open
            if members == cohort and number - params.number < params.slots:
                return params
        keys = self._enrolment.identities_of(cohort)
        params = masking.session(plan, self.profile, number=number, identities=keys)
        self._open = params, cohort
        return params

    def lost(self) -> None:
        """The open session cannot go on: the next round begins another."""
        self._open = None
