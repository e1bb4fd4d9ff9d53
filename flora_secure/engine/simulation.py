"""The loop: rounds of local training, noise, masking and the server's step, over clients in one process.

Clients and server exchange the real messages, and traffic is counted from them. The generator yields a
:class:`~flora_secure.records.record.RoundRecord` as soon as a round is over, so that a caller can write it down before
the next one starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import torch

from flora_protocols import ParameterError, TooFewSurvivors
from flora_secure.client.contribution import unit_of
from flora_secure.client.upload import Uploads, rotation, uploads_of, vanishing_of
from flora_secure.engine.exchange import summation_of
from flora_secure.engine.task import Task
from flora_secure.engine.traffic import Traffic
from flora_secure.errors import CheckpointError
from flora_secure.model.factors import Factors
from flora_secure.planning.config import RunConfig
from flora_secure.planning.noise import noise_plan, refused
from flora_secure.planning.selection import Selection
from flora_secure.privacy.accounting import epsilon_of
from flora_secure.privacy.adaptive_clip import AdaptiveClip
from flora_secure.privacy.amplification import CALIBRATION_CELL
from flora_secure.privacy.encoding import decode, decode_count, wrapped
from flora_secure.privacy.events import RoundEvent
from flora_secure.privacy.ledger import BudgetExceededError, Ledger, LedgerError
from flora_secure.privacy.noise_plan import CohortSizeError, NoisePlan
from flora_secure.records.checkpoints import Checkpoint
from flora_secure.records.record import PARTS, RoundRecord, intent
from flora_secure.rounds.broadcast import from_wire, to_wire
from flora_secure.rounds.optimisers import ServerState
from flora_secure.rounds.step import server_optimiser
from flora_secure.rounds.sum import RoundSum


class Simulation:
    """One run over a prepared task. Iterate over :meth:`rounds` once; the state after the last round stays readable."""

    def __init__(self, config: RunConfig, task: Task) -> None:
        """Solve for noise and ring, set up the sum. Raises :class:`ConfigError` if they cannot be."""
        self.config = config
        self.task = task
        self.selection = Selection.of(config)
        self.unit = unit_of(config, task)
        try:
            self.plan = noise_plan(config, self.selection, task.dimension, len(task.federation.dataset.private.labels))
            self.summation = summation_of(config)
            for size in (self.selection.smallest, self.selection.largest):
                self.summation.masking(self.plan.for_cohort(size))
        except (ValueError, ParameterError) as error:
            raise refused(error) from None
        self.ledger = Ledger(self.plan.epsilon, self.plan.delta)
        self.records: list[RoundRecord] = []
        self.optimiser = server_optimiser(config, self.plan, self.unit.expected, task.learner.width)
        quantile = config.privacy.adaptive_clip
        self._clip_rule = None if quantile is None else AdaptiveClip(quantile)
        self._clip_norm = config.clip_norm
        self._last_round: dict[int, int] = {}  # of every client that has taken part
        self._state = ServerState.initial(task.initial.vector(task.rule).cpu().numpy())

    @property
    def headline(self) -> str:
        """What is about to run, in a line."""
        plan, selection, images = self.plan, self.selection, len(self.task.federation.dataset.private.labels)
        noise = f"z = {plan.noise_multiplier:.3f}" if plan.noisy else "NO noise, hence NO DIFFERENTIAL PRIVACY"
        sizes = dict.fromkeys((selection.smallest, selection.largest))
        held = "captions" if self.task.federation.dataset.captioned else "images"
        who = "" if selection.scheme is None else f" in cohorts of {' to '.join(map(str, sizes))}"
        return (
            f"{selection.clients} clients with {images:,} {held}{who}, {plan.rounds} rounds, {plan.dimension:,} values "
            f"at {plan.bits} bits, unit {self.config.privacy.unit}, {noise}, masking {self.summation.profile}"
        )

    @property
    def factors(self) -> Factors:
        """The adapter that the clients hold now: what the server last sent, in the precision of the wire."""
        return self._received(to_wire(self._state.adapter))

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in peft's format."""
        self.task.learner.save(self.factors, folder)

    def checkpoint(self, *, compare_no_noise: bool = False) -> Checkpoint:
        """What the rounds that are left depend on, ``records`` apart."""
        return Checkpoint(
            round=len(self.records),
            server=self._state,
            clip_norm=self._clip_norm,
            last_round=dict(self._last_round),
            model_hash=self.task.clip.model_hash,
            data_hash=self.task.federation.dataset.data_hash,
            compare_no_noise=compare_no_noise,
        )

    def restore(self, records: Sequence[RoundRecord], checkpoint: Checkpoint) -> None:
        """Go on after ``records``, in the state after them. Before the first round of this simulation.

        Raises :class:`CheckpointError` if model or data are not those of the checkpoint, or the budget did not allow
        for the rounds.
        """
        for what, here, there in (
            ("model", self.task.clip.model_hash, checkpoint.model_hash),
            ("data", self.task.federation.dataset.data_hash, checkpoint.data_hash),
        ):
            if here != there:
                raise CheckpointError(
                    f"the {what} is not what the run began with: SHA-256 {here:.12}…, then {there:.12}…; "
                    f"bring back the {what}, or begin a new run"
                )
        length, own = len(checkpoint.server.adapter), len(self._state.adapter)
        if length != own:
            raise CheckpointError(f"the state has {length} values, the adapter {own}")
        for record in records:
            if record.aborted is None or record.exposed:
                self._charge(record)
        self.records = list(records)
        self._state = checkpoint.server
        self._clip_norm = checkpoint.clip_norm
        self._last_round = dict(checkpoint.last_round)

    @property
    def repeats(self) -> bool:
        """Does a round that is run again release the same sum, or none that a budget protects?"""
        return self.config.privacy.simulation_noise or not self.plan.noisy

    def lose(self, announced: RoundRecord) -> RoundRecord:
        """Count a round that was announced and whose sum is not known, as if it was released; the adapter stays.

        Returns its record. Raises as :meth:`restore`.
        """
        self._charge(announced)
        self._last_round.update(dict.fromkeys(announced.participants, announced.round))
        record = dataclasses.replace(announced, epsilon=self._epsilon(), accuracy=self.task.accuracy(self.factors))
        self.records.append(record)
        return record

    def _charge(self, record: RoundRecord) -> None:
        try:
            event = record.exposed_event() if record.exposed else record.event()
            self.ledger.authorise(event)
            if record.exposed:
                self.ledger.expose()
            else:
                self.ledger.record(event)
        except (BudgetExceededError, LedgerError, ValueError) as error:
            raise CheckpointError(f"the ledger does not take round {record.round} of the log: {error}") from None

    def _epsilon(self) -> float | None:
        # coarse cells where examples are sampled: a little above what the report will say, and quick
        plan = self.plan
        return epsilon_of(self.ledger.worst_events, plan.delta, cell=CALIBRATION_CELL) if plan.noisy else None

    def rounds(self, announce: Callable[[RoundRecord], None] | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends.

        ``announce`` is given, before anybody uploads, the record to count if the round is lost (:meth:`lose`).
        """
        try:
            for number in range(len(self.records) + 1, self.config.training.rounds + 1):
                record = self._round(number, announce)
                self.records.append(record)
                yield record
        finally:
            self.summation.close()

    def _round(self, number: int, announce: Callable[[RoundRecord], None] | None) -> RoundRecord:
        candidates = self.selection.candidates(number, self._last_round)
        exhausted = self._exhausted(number, candidates)
        # secret, where the noise is: the report publishes the seed, and outsiders must not know who took part
        seed = self.config.seed if self.repeats else None
        cohort = self.selection.draw(seed, number, [i for i in candidates if i not in exhausted])
        uniform = self.selection.uniform and not exhausted
        broadcast = to_wire(self._state.adapter)
        task, clock = self.task, _Clock()
        model_hash = hashlib.sha256(bytes.fromhex(task.clip.model_hash) + broadcast).digest()
        uploads = Uploads({}, 0, 0)
        traffic, masking, outcome, event, aborted, overflowed = Traffic(), None, None, None, None, None
        plan = self.plan.with_clip(self._clip_norm)
        try:
            plan = plan.for_cohort(len(cohort))
            masking = self.summation.masking(plan)
            # refused before it runs: the worst that this round may become must still fit the budgets
            worst = self._event(plan, number, plan.survivors_minimum, cohort, uniform)
            self.ledger.authorise(worst)
            self._last_round.update(dict.fromkeys(cohort, number))
            if announce is not None:
                begun = intent(self.config, number, plan, cohort, exhausted, model_hash, masking)
                announce(dataclasses.replace(begun, noise_multiplier=worst.noise_multiplier))

            given = self.unit.contribute(number, self._received(broadcast), cohort, plan.clip_norm)
            clock.lap("training")
            vanishing = vanishing_of(self.config, number, cohort)
            uploads = uploads_of(self.config, number, plan, cohort, given, vanishing)
            clock.lap("noise")
            outcome = self.summation.round(number, plan, cohort, model_hash, broadcast, uploads.vectors, traffic)
        except (CohortSizeError, ParameterError, TooFewSurvivors) as error:
            aborted = str(error)
            if uploads.vectors:
                self.ledger.expose()
        clock.lap("masking")

        if outcome is not None:
            # whoever left because of what it computed makes the survivors no uniform subset
            survivors = len(uploads.vectors)
            uniform = uniform and survivors == len(cohort) - len(vanishing)
            event = self._event(plan, number, survivors, cohort, uniform)
            self.ledger.record(event)
            overflowed = wrapped(outcome.total, uploads.vectors.values(), plan)
            self._step(number, plan, outcome, survivors)
        accuracy = task.accuracy(self.factors)
        clock.lap("evaluation")

        return dataclasses.replace(
            intent(self.config, number, plan, cohort, exhausted, model_hash, masking),
            lost=False,
            survivors=sorted(uploads.vectors) if aborted is None else [],
            dropped=sorted(set(cohort) - uploads.vectors.keys()),
            recovered=0 if outcome is None else outcome.recovered,
            aborted=aborted,
            noise_multiplier=None if event is None else event.noise_multiplier,
            population=None if event is None else event.population,
            epsilon=self._epsilon(),
            accuracy=accuracy,
            contributions=uploads.contributions,
            clipped=uploads.clipped,
            overflowed=overflowed,
            upload_bytes=traffic.upload,
            download_bytes=traffic.download,
            payload_bytes=traffic.payload,
            seconds={
                **clock.seconds,
                "client_mean": 0.0 if outcome is None else outcome.client_seconds,
                "server": 0.0 if outcome is None else outcome.server_seconds,
            },
        )

    def _exhausted(self, number: int, candidates: Collection[int]) -> frozenset[int]:
        """Who must sit out, because this round may pass its budget. The plan pays for some participations of each."""
        plan = self.plan
        if len(candidates) < plan.survivors_minimum or all(
            len(self.ledger.events_of(client)) < plan.participations for client in candidates
        ):
            return frozenset()
        return self.ledger.refused(plan.event(number, plan.survivors_minimum, participants=candidates))

    def _event(
        self, plan: NoisePlan, number: int, survivors: int, cohort: Collection[int], uniform: bool
    ) -> RoundEvent:
        clients = self.selection.clients
        named = None if len(cohort) == clients else cohort
        return plan.event(number, survivors, participants=named, population=clients if uniform else None)

    def _step(self, number: int, plan: NoisePlan, outcome: RoundSum, survivors: int) -> None:
        """What the server does with the sum."""
        estimate = decode(outcome.total, plan, survivors, rotation(self.config, plan, number))
        expected = self.unit.expected(survivors)
        span = self.task.initial.span(self.task.rule, number)
        part = self._state.part(span)
        moved = self.optimiser.apply(part, estimate[: len(part.adapter)], expected, plan.clip_norm)
        self._state = self._state.with_part(span, moved)
        if self._clip_rule is not None:
            count = decode_count(outcome.total, plan, survivors)
            self._clip_norm = self._clip_rule.next_norm(plan.clip_norm, count, survivors)

    def _received(self, broadcast: bytes) -> Factors:
        vector = torch.from_numpy(from_wire(broadcast, self.task.initial.dimension(self.task.rule))).to(
            self.task.initial.b.device
        )
        return self.task.initial.with_vector(self.task.rule, vector)


class _Clock:
    """Wall-clock seconds of a round's parts; a part that did not run took none."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._since = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now


def without_noise(config: RunConfig, task: Task) -> float:
    """Final accuracy of the same run with neither noise nor masking (the sum is the same with masking)."""
    plain = dataclasses.replace(
        config,
        privacy=dataclasses.replace(config.privacy, epsilon=math.inf, bits=None),
        aggregation=dataclasses.replace(config.aggregation, secagg="off", neighbours=None, threshold=None),
    )
    *_, last = Simulation(plain, task).rounds()
    return last.accuracy
