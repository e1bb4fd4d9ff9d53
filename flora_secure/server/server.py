"""The server of a federation: it invites to rounds, and makes a new adapter of each sum. It does no I/O of its own.

    invite()  cohort drawn · noise planned · the worst case authorised in the ledger · announced on disk
              … clients upload, the transport brings the sum …
    finish()  what the sum really was is charged · decode · server optimiser · clip norm · record

The order matters: whatever happens to the process, no upload is sent in a round that ledger and log do not know.
Engines drive it: the simulation in one process, others over a network. It sees sums and numbers, never images; what an
adapter is worth it asks an evaluator.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from flora_protocols import ParameterError, Profile, lane, pack
from flora_secure.errors import CheckpointError, ConfigError
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import MaskingPlan
from flora_secure.planning.noise import expected_contributions, plan_noise, refused
from flora_secure.planning.selection import Selection
from flora_secure.privacy.accounting import epsilon_of
from flora_secure.privacy.adaptive_clip import AdaptiveClip
from flora_secure.privacy.amplification import CALIBRATION_CELL
from flora_secure.privacy.encoding import decode_count, require_sum
from flora_secure.privacy.events import RoundEvent
from flora_secure.privacy.ledger import BudgetExceededError, Ledger, LedgerError
from flora_secure.privacy.noise_plan import CohortSizeError, NoisePlan
from flora_secure.records.checkpoints import Checkpoint
from flora_secure.records.evidence.sums import bytes_of_sum
from flora_secure.records.record import PARTS, RoundRecord, announcement
from flora_secure.rounds.broadcast import FullState, Layout
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.float16 import from_wire, to_wire
from flora_secure.rounds.invitation import SESSION, Invitation
from flora_secure.rounds.optimiser import ServerState, server_optimiser
from flora_secure.rounds.step import ReleasedSum, ServerStep
from flora_secure.rounds.sum import Outcome, RoundSum
from flora_secure.server.broadcasts import Broadcasts
from flora_secure.server.masking_sessions import MaskingSessions
from flora_secure.server.openings import Openings
from flora_secure.server.task import ServerTask

Announce = Callable[[RoundRecord], None]


class Skipped(Exception):  # noqa: N818  (it says what happened, and is no mistake of anybody's)
    """A round that nobody was invited to, because its cohort is none that the noise was planned for."""

    def __init__(self, record: RoundRecord) -> None:
        self.record = record
        super().__init__(str(record.aborted))


class Server:
    """One run, round after round. `records` and the adapter after the last round stay readable."""

    def __init__(self, config: RunConfig, task: ServerTask, enrolment: Enrolment) -> None:
        """Solve for noise, ring and masking. Raises ConfigError if they cannot be, or the enrolment does not fit."""
        self.config, self.task, self.enrolment = config, task, enrolment
        self.selection = Selection.of(config)
        how = config.aggregation
        self._masking = MaskingSessions(config, enrolment)
        if enrolment.clients != config.clients:
            raise ConfigError(f"{enrolment.clients} clients are enrolled, and clients is {config.clients}")
        if (self.profile is Profile.MALICIOUS_SERVER) != bool(enrolment.identities):
            raise ConfigError(f"secagg {how.secagg} and an enrolment with {len(enrolment.identities)} identity keys")
        if enrolment.revoked and self.selection.scheme is None:
            raise ConfigError(
                f"{len(enrolment.revoked)} clients are revoked, and everybody is to take part in every round: "
                "make an enrolment without them, or set `participation.rate` below 1"
            )
        try:
            self.plan = plan_noise(config, self.selection, task.trained.upload_size, task.images)
            for size in (self.selection.smallest, self.selection.largest):
                self.masking(self.plan.for_cohort(size))
        except (ValueError, ParameterError) as error:
            raise refused(error) from None
        self.ledger = Ledger(self.plan.epsilon, self.plan.delta)
        self.records: list[RoundRecord] = []
        self.session = os.urandom(SESSION)
        self._open: Invitation | None = None  # of the round that is not over
        self._openings = Openings(enrolment)
        self.optimiser = server_optimiser(config, self.plan, self._expected, task.width)
        quantile = config.privacy.adaptive_clip
        self._clip_rule = None if quantile is None else AdaptiveClip(quantile)
        self._clip_norm = config.clip_norm
        self._last_round: dict[int, int] = {}  # of every client that has taken part
        self._state = ServerState.initial(task.initial)
        self._server_step = ServerStep(self.optimiser, task.trained, self.plan, config.seed)
        layout, everybody = Layout.of(self.plan, task.trained), self.selection.scheme is None
        self._broadcasts = Broadcasts(layout, self._full, everybody=everybody)
        self.keeps_sums = config.evidence.keeps_sums(config.training.rounds, self.plan.length)
        self.kept_sum: bytes | None = None  # of the last round, as a file of `sums/`, if it had one and they are kept
        self._invited: tuple[frozenset[int], bool] = frozenset(), False  # who is exhausted; is the cohort uniform?

    @property
    def broadcast(self) -> bytes:
        """The adapter that the broadcasts of the next round lead to: what its clients train from, in float16."""
        return to_wire(self._state.adapter)

    @property
    def adapter(self) -> NDArray[np.float32]:
        """The trained values that the clients train from, in the precision of float16."""
        return from_wire(self.broadcast, self.task.trained.dimension)

    @property
    def _full(self) -> FullState:
        return FullState(self._state, self.optimiser)

    @property
    def repeats(self) -> bool:
        """Whether a round that is run again releases the same sum, or none that a budget protects."""
        return self.config.privacy.simulation_noise or not self.plan.noisy

    @property
    def invitation_bytes(self) -> int:
        """Bytes of all invitations that were sent so far."""
        return self._openings.invitation_bytes

    @property
    def done(self) -> bool:
        """Whether all rounds of the run are over."""
        return len(self.records) == self.config.training.rounds

    @property
    def profile(self) -> Profile | None:
        """Whom the masking resists; None without masking."""
        return self._masking.profile

    def masking(self, plan: NoisePlan) -> MaskingPlan | None:
        """Graph and threshold of a round with this plan, see `MaskingSessions.plan`."""
        return self._masking.plan(plan)

    def invite(self, announce: Announce | None = None) -> Invitation:
        """Begin the next round: what its clients are told. Call `finish` with what became of it.

        `announce` is given, before this returns and so before anybody can upload, the record to count if the round is
        lost (`lose`). Raises Skipped, with the record of a round that is over, where the cohort is none that the noise
        was planned for; BudgetExceededError where the round could pass the budget; RuntimeError while a round is open.
        """
        if self._open is not None:
            raise RuntimeError(f"round {self._open.round} is not over: call finish first")
        number = len(self.records) + 1
        eligible = self.selection.candidates(number, self._last_round)
        candidates = [client for client in eligible if client not in self.enrolment.revoked]
        exhausted = self._exhausted(number, candidates)
        # secret, where the noise is: the report publishes the seed, and outsiders must not know who took part
        seed = self.config.seed if self.repeats else None
        cohort = self.selection.draw(seed, number, [i for i in candidates if i not in exhausted])
        # who is revoked is never drawn: the others are no uniform subset of all clients
        uniform = self.selection.uniform and not self.enrolment.revoked
        broadcast = self.broadcast
        model_hash = hashlib.sha256(bytes.fromhex(self.task.model_hash) + broadcast).digest()
        plan, masking = self.plan.with_clip(self._clip_norm), None
        try:
            plan = plan.for_cohort(len(cohort))
            masking = self.masking(plan)
        except (CohortSizeError, ParameterError) as error:
            begun = self._announcement(number, plan, cohort, exhausted, model_hash, masking)
            raise Skipped(self._skip(begun, str(error))) from None
        # refused before it runs: the worst that this round may become must still fit the budgets
        worst = self._event(plan, number, plan.survivors_minimum, cohort, uniform)
        self.ledger.authorise(worst)
        self._last_round.update(dict.fromkeys(cohort, number))
        self._invited = exhausted, uniform
        if announce is not None:
            begun = self._announcement(number, plan, cohort, exhausted, model_hash, masking)
            announce(dataclasses.replace(begun, noise_multiplier=worst.noise_multiplier))
        self._open = Invitation(
            session=self.session,
            round=number,
            members=tuple(cohort),
            unit=self.config.privacy.unit,
            placement=self.config.model.placement,
            rule=self.task.trained.rule.name,
            rotation_seed=self.config.seed,
            plan=plan,
            model_hash=model_hash,
            params=self._masking.of(number, plan, tuple(cohort)),
        )
        return self._open

    def openings(self, invitation: Invitation) -> dict[int, bytes]:
        """The message that opens the round at each member: invitation and broadcast, each as short as it can be."""
        return self._openings.of(invitation, self._broadcasts.of(invitation, self._full))

    def complete_opening(self, invitation: Invitation, member: int) -> bytes:
        """The message that opens the round at a member that has lost what it was sent before.

        It says why it refuses the other one: with code `state` of the client, or `other-session` of the protocol.
        """
        broadcast = self._broadcasts.complete(invitation, self._full, member)
        return self._openings.complete(invitation, broadcast, member)

    def finish(self, invitation: Invitation, outcome: Outcome) -> RoundRecord:
        """End the round that `invitation` began: charge it, step, evaluate; returns its record, the last of `records`.

        A round without a sum is charged as released where its survivors had been announced, since others may have the
        sum. Otherwise, uploads that were sent are exposed, and nothing else is charged for it. Raises RuntimeError
        where this round is not open, and ValueError for an outcome that cannot be of it; nothing has changed then.
        """
        if invitation is not self._open:
            raise RuntimeError(f"round {invitation.round} is not open: finish the round that invite began, and once")
        outcome.check(invitation.members)
        before, plan, number = time.perf_counter(), invitation.plan, invitation.round
        cohort, found, event = invitation.members, outcome.sum, None
        exhausted, uniform = self._invited
        survivors = sorted(outcome.announced if found is None else found.survivors)
        if survivors:
            event = self._event(plan, number, len(survivors), cohort, uniform and outcome.uniform)
            self.ledger.record(event)
        elif outcome.uploaded:
            self.ledger.expose()
        self.kept_sum = None
        released, count = (None, None) if found is None else self._step(invitation, found)
        self._open = None
        if outcome.session_lost:
            self._masking.lost()
        self._broadcasts.ended(invitation, outcome.uploaded, released)
        self._openings.ended(invitation, outcome.uploaded)
        accuracy = self.task.accuracy(self.adapter)
        seconds = {part: outcome.seconds.get(part, 0.0) for part in (*PARTS, "client_mean", "server")}
        seconds["evaluation"] += time.perf_counter() - before
        record = dataclasses.replace(
            self._announcement(number, plan, cohort, exhausted, invitation.model_hash, self.masking(plan)),
            lost=False,
            survivors=survivors,
            dropped=sorted(set(cohort).difference(outcome.uploaded)),
            recovered=0 if found is None else found.recovered,
            aborted=outcome.aborted,
            noise_multiplier=None if event is None else event.noise_multiplier,
            population=None if event is None else event.population,
            epsilon=self.epsilon,
            accuracy=accuracy,
            contributions=outcome.contributions,
            clipped=outcome.clipped,
            overflowed=outcome.overflowed,
            noise_ratio=outcome.noise_ratio,
            upload_bytes=outcome.upload,
            download_bytes=outcome.download,
            broadcast_bytes=outcome.broadcast,
            divisor=None if released is None else released.contributions,
            released_count=count,
            sum_hash=None if self.kept_sum is None else hashlib.sha256(self.kept_sum).hexdigest(),
            payload_bytes=outcome.payload,
            transcript_hash=outcome.transcript_hash,
            seconds=seconds,
        )
        self.records.append(record)
        return record

    @property
    def epsilon(self) -> float | None:
        """ε spent so far by the worst client, for one who sees every sum; None without noise.

        With coarse cells where examples are sampled: a little above what the report will say, and quick.
        """
        return epsilon_of(self.ledger.worst_events, self.plan.delta, cell=CALIBRATION_CELL) if self.plan.noisy else None

    def checkpoint(self, *, compare: tuple[str, ...] = ()) -> Checkpoint:
        """What the rounds that are left depend on, `records` apart, and what is to be compared with them then."""
        return Checkpoint(
            round=len(self.records),
            server=self._state,
            clip_norm=self._clip_norm,
            last_round=dict(self._last_round),
            session=self.session.hex(),
            invitation_bytes=self.invitation_bytes,
            model_hash=self.task.model_hash,
            data_hash=self.task.data_hash,
            compare=compare,
        )

    def restore(self, records: Sequence[RoundRecord], checkpoint: Checkpoint) -> None:
        """Go on after `records`, in the state after them. Before the first round of this server.

        Raises CheckpointError if model or data are not those of the checkpoint, or the budget did not allow for the
        rounds.
        """
        for what, here, there in (
            ("model", self.task.model_hash, checkpoint.model_hash),
            ("data", self.task.data_hash, checkpoint.data_hash),
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
            if record.released or record.exposed:
                self._charge(record)
        self.records = list(records)
        self.session = bytes.fromhex(checkpoint.session)
        self._openings.invitation_bytes = checkpoint.invitation_bytes
        self._state = checkpoint.server
        self._broadcasts.restart(self._full, len(records) + 1)
        self._clip_norm = checkpoint.clip_norm
        self._last_round = dict(checkpoint.last_round)

    def lose(self, announced: RoundRecord) -> RoundRecord:
        """Count a round that was announced and whose sum is not known, as if it was released; the adapter stays.

        Returns its record. Raises as `restore`.
        """
        self._charge(announced)
        self._last_round.update(dict.fromkeys(announced.participants, announced.round))
        self.kept_sum = None
        record = dataclasses.replace(announced, epsilon=self.epsilon, accuracy=self.task.accuracy(self.adapter))
        self.records.append(record)
        return record

    def _skip(self, begun: RoundRecord, reason: str) -> RoundRecord:
        """Write down a round that nobody was invited to."""
        self.kept_sum = None
        before = time.perf_counter()
        accuracy = self.task.accuracy(self.adapter)
        record = dataclasses.replace(
            begun,
            lost=False,
            survivors=[],
            dropped=sorted(begun.participants),
            aborted=reason,
            epsilon=self.epsilon,
            accuracy=accuracy,
            seconds={**begun.seconds, "evaluation": time.perf_counter() - before},
        )
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

    def _expected(self, survivors: int) -> float:
        return expected_contributions(self.config, self.task.images, survivors)

    def _announcement(
        self,
        number: int,
        plan: NoisePlan,
        cohort: Sequence[int],
        exhausted: Collection[int],
        model_hash: bytes,
        masking: MaskingPlan | None,
    ) -> RoundRecord:
        step = self.optimiser.step
        return announcement(self.config, number, plan, cohort, exhausted, model_hash, masking, step)

    def _step(self, invitation: Invitation, found: RoundSum) -> tuple[ReleasedSum, float | None]:
        """What the server does with the sum: what others need to do it too, and the noisy count, if there is one."""
        plan, survivors = invitation.plan, len(found.survivors)
        require_sum(found.total, plan, survivors)
        released = ReleasedSum(
            round=invitation.round,
            clip_norm=plan.clip_norm,
            scale=plan.scale,
            contributions=self._expected(survivors),
            packed=pack(found.total.astype(lane(plan.bits)), plan.bits),
        )
        self._state = self._server_step.after(self._state, released)
        if self.keeps_sums:
            self.kept_sum = bytes_of_sum(found.total, plan.bits)
        if self._clip_rule is None:
            return released, None
        count = decode_count(found.total, plan, survivors)
        self._clip_norm = self._clip_rule.next_norm(plan.clip_norm, count, survivors)
        return released, count
