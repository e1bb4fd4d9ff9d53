"""A server that has vectors summed under one budget, whatever they are: it knows no model and no optimiser.

    invite()  the worst case authorised in the ledger · announced on disk
              … clients upload, an engine brings the sum …
    finish()  what the sum really was is charged · on disk · decoded

As in `server.server`: whatever happens to the process, no upload is sent in a round that ledger and log do not know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flora_protocols import ParameterError
from flora_secure.errors import require
from flora_secure.planning.masking import name_of, suite_of
from flora_secure.planning.noise import refused
from flora_secure.planning.placements import ARRAYS as PLACEMENT
from flora_secure.planning.rules import ARRAYS
from flora_secure.planning.selection import corrupt_clients
from flora_secure.privacy.cross_check import cross_check
from flora_secure.privacy.encoding import decode
from flora_secure.privacy.events import RoundEvent
from flora_secure.privacy.ledger import Ledger
from flora_secure.records.statement import statement
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.sum import Outcome
from flora_secure.server.masking_sessions import MaskingSessions
from flora_secure.server.openings import Openings
from flora_secure.server.sum_budget import Budget, worded
from flora_secure.server.sum_log import SumLog, SumRecord

_SENT = (
    "What clients are sent. The model, as the server's own step made it of the released sums. The guarantee is of the "
    "sums, and covers whatever follows from them and public numbers (post-processing); a step that looks at the "
    "clients' data by another way is not covered."
)
_BESIDE = (
    "Beside the budget. No epsilon covers what clients send beside their uploads: metrics of evaluation, metrics of "
    "training that a site names as public, replies to queries, and who took part."
)


@dataclass(frozen=True)
class SumReport:
    """What a budget was spent on.

    Attributes:
        rounds: that were announced; summed: of these, rounds whose sum the server has.
        epsilon, delta: spent so far, against a server that sees every sum; target: ε of the budget.
        upload, download: bytes of all messages of the rounds, over all clients.
        statement: what is promised, to whom, on which assumptions, in paragraphs.
    """

    rounds: int
    summed: int
    epsilon: float
    delta: float
    target: float
    upload: int
    download: int
    statement: str

    def __str__(self) -> str:
        return (
            f"{self.summed} sums of {self.rounds} rounds; epsilon {self.epsilon:.4g} of {self.target:g} at delta "
            f"{self.delta:g}; {self.upload:,} bytes up, {self.download:,} down\n\n{self.statement}"
        )


class SumServer:
    """The rounds of one budget. `plan`, `ledger` and `records` stay readable."""

    def __init__(
        self, budget: Budget, enrolment: Enrolment, dimension: int, folder: Path, terms: Mapping[str, str]
    ) -> None:
        """Plan noise and masks, and begin or go on with the count in `folder`; a round in flight there is charged.

        `dimension`: values of an upload. `terms`: what else must not change while the budget lasts, by name.
        Raises ConfigError where there is no plan, and as `SumLog`.
        """
        self.members = tuple(i for i in range(enrolment.clients) if i not in enrolment.revoked)
        require(bool(enrolment.identities), "the enrolment has no identity keys; enrol sites with theirs")
        require(len(self.members) >= 2, f"{len(self.members)} clients are enrolled and not revoked; a sum needs 2")
        self._config, self.enrolment = budget.config(len(self.members)), enrolment
        self.plan = budget.plan(len(self.members), dimension)
        self._masking = MaskingSessions(self._config, enrolment)
        try:
            self._masking.plan(self.plan)  # refuses what cannot work, before anybody is asked
        except (ValueError, ParameterError) as error:
            raise worded(refused(error)) from None
        self.ledger = Ledger(self.plan.epsilon, self.plan.delta)
        fixed = {field.name: str(getattr(budget, field.name)) for field in dataclasses.fields(budget)}
        fixed |= {"enrolment": enrolment.digest.hex(), "values of an upload": str(dimension), **terms}
        self._log = SumLog(folder, fixed)
        self._open: Invitation | None = None
        self._openings = Openings(enrolment)
        for record in self._log.records:
            self._charge(record)
        if self._log.in_flight is not None:
            self._charge(self._log.lose())

    @property
    def records(self) -> tuple[SumRecord, ...]:
        """The rounds so far, in order; those of earlier processes among them."""
        return tuple(self._log.records)

    @property
    def left(self) -> int:
        """How many rounds the budget still pays for."""
        return self.plan.rounds - len(self._log.records)

    @property
    def epsilon(self) -> float:
        """ε spent so far."""
        return self.ledger.epsilon

    def invite(self, model_hash: bytes) -> Invitation:
        """Begin the next round, in which everybody trains from what `model_hash`, 32 bytes, is of. Call `finish` with
        what became of it; a round that was not finished counts as released.

        Raises ConfigError where the budget's rounds are over, `privacy.ledger.BudgetExceededError` where the round
        could pass the budget, OSError where it cannot be written down.
        """
        if self._open is not None:
            self._open = None
            self._charge(self._log.lose())
            self._masking.lost()
        number = len(self._log.records) + 1
        require(
            self.left > 0,
            f"the {self.plan.rounds} rounds that the budget pays for are over; plan more rounds, in a new folder and "
            "with a budget of their own",
        )
        self.ledger.authorise(self.plan.event(number, self.plan.survivors_minimum))
        self._log.announce(number)
        self._open = Invitation(
            session=self._log.session,
            round=number,
            members=self.members,
            unit="client",
            placement=PLACEMENT,
            rule=ARRAYS.name,
            rotation_seed=self._log.seed,
            plan=self.plan,
            model_hash=model_hash,
            params=self._masking.of(number, self.plan, self.members),
        )
        return self._open

    def openings(self, invitation: Invitation) -> dict[int, bytes]:
        """The message that opens the round at each member; its broadcast is empty, the arrays travel beside."""
        return self._openings.of(invitation, dict.fromkeys(invitation.members, b""))

    def complete_opening(self, invitation: Invitation, member: int) -> bytes:
        """The message that opens the round at a member that has lost what it was sent before."""
        return self._openings.complete(invitation, b"", member)

    def finish(
        self, invitation: Invitation, outcome: Outcome, *, beside: int = 0
    ) -> tuple[SumRecord, NDArray[np.float64] | None]:
        """End the round that `invitation` began: charge it and write it down. Returns its record and the sum of the
        survivors' vectors, float64 (d,), with its noise; None where there is none. `beside`: bytes that went
        down beside the protocol's messages.

        Raises RuntimeError where this round is not open, ValueError for an outcome that cannot be of it, and OSError
        where it cannot be written down.
        """
        if invitation is not self._open:
            raise RuntimeError(f"round {invitation.round} is not open: finish the round that invite began, and once")
        outcome.check(invitation.members)
        found = outcome.sum
        survivors = sorted(outcome.announced if found is None else found.survivors)
        record = SumRecord(
            round=invitation.round,
            survivors=survivors,
            summed=found is not None,
            exposed=bool(not survivors and outcome.uploaded),
            lost=False,
            aborted=outcome.aborted,
            upload=outcome.upload,
            download=outcome.download + beside,
        )
        self._log.end(record)
        self._charge(record, authorised=True)
        self._open = None
        if outcome.session_lost:
            self._masking.lost()
        self._openings.ended(invitation, outcome.uploaded)
        if found is None:
            return record, None
        return record, decode(found.total, self.plan, len(found.survivors), invitation.rotation)

    def report(self) -> SumReport:
        """What was spent, and the privacy statement. ε is derived again by another accountant.

        Raises `privacy.cross_check.CrossCheckError` where the two disagree.
        """
        records, events = self.records, self.ledger.worst_events
        text = statement(
            self.plan,
            self.ledger,
            cross_check=cross_check(events, self.plan.delta, opacus=False) if events else {},
            profile="malicious-server",
            secret_noise=True,
            population=len(self.members),
            aborted_rounds=sum(not record.released for record in records),
            lost_rounds=[record.round for record in records if record.lost],
            announced_rounds=sum(record.released and not record.summed and not record.lost for record in records),
            corrupt=corrupt_clients(self._config),
            suite=name_of(suite_of(self._config)),
            sent=_SENT,
            beside=_BESIDE,
        )
        return SumReport(
            rounds=len(records),
            summed=sum(record.summed for record in records),
            epsilon=self.epsilon,
            delta=self.plan.delta,
            target=self.plan.epsilon,
            upload=sum(record.upload for record in records),
            download=sum(record.download for record in records),
            statement=text,
        )

    def close(self) -> None:
        """Let go of the folder. A round that is open then counts as in flight."""
        self._log.close()

    def _charge(self, record: SumRecord, *, authorised: bool = False) -> None:
        least = self.plan.survivors_minimum
        if not authorised:
            self.ledger.authorise(self.plan.event(record.round, least))
        if record.released:
            self.ledger.record(self._event(record, least))
        elif record.exposed:
            self.ledger.expose()

    def _event(self, record: SumRecord, least: int) -> RoundEvent:
        return self.plan.event(record.round, least if record.lost else len(record.survivors))
