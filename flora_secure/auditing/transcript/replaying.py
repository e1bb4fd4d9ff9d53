"""T-10 and T-11: the protocol's own server, given what the clients sent, must send what was sent, and have its sum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flora_protocols import (
    Exchange,
    ProtocolError,
    Replies,
    RoundAborted,
    RoundResult,
    ServerPrepared,
    conduct,
    set_up,
)
from flora_secure.auditing.transcript.notes import Notes
from flora_secure.auditing.transcript.rounds import SET_UP, Exchanged, Round
from flora_secure.errors import RunFolderError
from flora_secure.records.evidence import sums

T = TypeVar("T")


class Replay:
    """Replays the rounds of a run, one after another. `folder`: the run's."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self._folder, self._notes = folder, notes
        self._prepared: ServerPrepared | None = None
        self.rounds = self.sums = 0

    def forget(self) -> None:
        """A round could not be read: what the server knew after it is not known."""
        self._prepared = None

    def take(self, round: Round) -> None:
        """Replay one round from its messages."""
        notes, params = self._notes, round.params
        left = iter(round.exchanges)
        try:
            if round.begins:
                self._prepared = None
                self._prepared = self._driven(round, set_up(params), left)
                if self._prepared is None:
                    self._cut(round)
                    return
            prepared = self._prepared
            if prepared is None or prepared.params != params:
                self._cannot(round, "goes on with a session whose beginning is not here")
                return
            start = round.invitation.start(round.recorded.enrolment, prepared.clients)
            least = round.invitation.plan.survivors_minimum
            result = self._driven(round, conduct(prepared, start, least_survivors=least), left)
        except RoundAborted as error:
            self._aborted(round, error)
        except ProtocolError as error:
            what = f"the protocol's server could not run it: {error}"
            notes.problem("T-10", round.where, what)
            self._prepared = None
        else:
            if result is None:
                self._cut(round)
            else:
                self._ended(round, result)
        if next(left, None) is not None:
            notes.problem("T-10", round.where, "messages follow where the protocol's server had ended the round")
        self.rounds += 1

    def _cannot(self, round: Round, why: str) -> None:
        for check in ("T-10", "T-11"):
            self._notes.cannot(check, f"{round.where} {why}")

    def _driven(self, round: Round, loop: Generator[Exchange, Replies, T], left: Iterator[Exchanged]) -> T | None:
        """What the server's loop comes to, given the recorded replies; None where the record ends before it does."""
        exchange = next(loop)
        while True:
            recorded = next(left, None)
            if recorded is None:
                return None
            if exchange.trip is not recorded.trip:
                what = f"trip {recorded.trip.name} stands where the protocol has {exchange.trip.name}"
                self._notes.problem("T-10", round.where, what)
                return None
            self._compare(round, exchange, recorded)
            try:
                exchange = loop.send(list(recorded.replies))
            except StopIteration as end:
                result: T = end.value
                return result

    def _compare(self, round: Round, exchange: Exchange, recorded: Exchanged) -> None:
        """What the server of the protocol sends beside what was sent."""
        problem = self._notes.problem
        if exchange.outbox == recorded.told:
            return
        own, told = set(exchange.outbox), set(recorded.told)
        if own != told:
            few = sorted(own ^ told)
            what = f"{round.client(few[0])} was {'not ' if few[0] in own else ''}told in trip {exchange.trip.name}"
            problem("T-10", round.where, f"{what}, and {len(few) - 1} more like it")
        differ = [place for place in sorted(own & told) if exchange.outbox[place] != recorded.told[place]]
        if differ:
            what = f"{round.client(differ[0])} and {len(differ) - 1} more were told other bytes in trip "
            problem("T-10", round.where, f"{what}{exchange.trip.name} than the protocol's server sends")

    def _aborted(self, round: Round, error: RoundAborted) -> None:
        record = round.record
        if all(exchanged.trip in SET_UP for exchanged in round.exchanges):
            self._prepared = None  # no session began
        if record.lost:
            return
        told = sorted(round.invitation.members[position] for position in error.survivors)
        if record.aborted is None:
            self._notes.problem("T-10", round.where, f"ends without a sum: {error}; the log has one")
        elif record.aborted != str(error) or sorted(record.survivors) != told:
            what = f"ends without a sum for another reason or other survivors than the log's: {error}"
            self._notes.problem("T-10", round.where, what)

    def _cut(self, round: Round) -> None:
        """The transcript ends before the round does: as it must where the run was killed."""
        self._prepared = None
        if not round.record.lost:
            self._notes.problem("T-10", round.where, "ends before the protocol's server would have ended the round")

    def _ended(self, round: Round, result: RoundResult) -> None:
        record, members = round.record, round.invitation.members
        problem = self._notes.problem
        if record.lost:
            return
        survivors = [members[position] for position in result.survivors]
        if record.aborted is not None:
            problem("T-10", round.where, "ends with a sum, and the log says that there was none")
            return
        if survivors != record.survivors:
            what = f"the sum is of {len(survivors)} clients, and not of the {len(record.survivors)} that the log says"
            problem("T-10", round.where, what)
        if len(result.recovered) != record.recovered:
            what = f"masks of {len(result.recovered)} who dropped were removed, and {record.recovered} by the log"
            problem("T-10", round.where, what)
        self._sum(round, result.sum, round.params.bits)

    def _sum(self, round: Round, total: NDArray[np.uint32], bits: int) -> None:
        """T-11: the file of the released sum, and the hash of it in the log's line."""
        record, problem = round.record, self._notes.problem
        path, unmasked = self._folder / sums.FOLDER / sums.name_of(record.round), sums.bytes_of_sum(total, bits)
        where = f"{sums.FOLDER}/{path.name}"
        if os.path.lexists(path):
            try:
                kept = sums.sum_of(sums.read(path, len(total)), len(total), bits)
            except RunFolderError as error:
                problem("T-11", where, str(error))
                return
            if (wrong := int((kept != total).sum())) > 0:
                problem("T-11", where, f"{wrong:,} of {len(total):,} values are not those that were unmasked")
        elif record.sum_hash is None:
            self._notes.cannot("T-11", "the run kept no sums (`evidence.keep_sums`), and none are here to compare with")
            return
        elif hashlib.sha256(unmasked).hexdigest() != record.sum_hash:
            problem("T-11", round.where, "the sum that was unmasked is not the one whose hash the log has")
        self.sums += 1
