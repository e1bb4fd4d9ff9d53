"""The transcript of a run audited: every round in its order, then what only all of them together show."""

from __future__ import annotations

import os
from dataclasses import replace

from flora_protocols import Trip
from flora_secure.auditing.findings import Block, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.transcript.answers import Answers, payload
from flora_secure.auditing.transcript.claims import Claims
from flora_secure.auditing.transcript.notes import CHECKS, Notes
from flora_secure.auditing.transcript.replaying import Replay
from flora_secure.auditing.transcript.reuse import Reuse
from flora_secure.auditing.transcript.rounds import Round
from flora_secure.auditing.transcript.sessions import Sessions, twice
from flora_secure.auditing.transcript.uniformity import FALSE_ALARM, Uniformity, Upload
from flora_secure.errors import ForeignError, RunFolderError
from flora_secure.records.receipts.receipt import read_receipt
from flora_secure.records.record import RoundRecord
from flora_secure.records.transcript.reading import path_of, read_transcript

NAME = "transcript"
_UNSEEN = [
    "What stays with the clients: whether their floors were kept, whether a box opened, whether one answered twice to "
    "a server that wrote nothing down.",
    "Messages that the server did not record: a transcript is its own word, and one that a server makes up together "
    "with its clients passes.",
    "Whether identity keys are those of the people enrolled: compare the enrolment's hash with your own.",
    "What is under the masks: noise and clipping are not seen in masked uploads.",
]


def block(case: Case) -> Block:
    """Audit the transcript of a run, as far as it is there."""
    folder = case.path / "transcript"
    masks = case.config.aggregation.masks
    bound = [record for record in case.records if record.transcript_hash is not None]
    if masks != "run":
        why = "masking was off" if masks == "off" else "masking was counted and not run"
        return Block.skipped(NAME, f"{why}: there were no messages to record")
    if not os.path.lexists(folder):
        if not bound:
            return _unkept(case)
        why = "the log binds a transcript, and transcript/ is not in the folder"
        title = ("The files are those that the log binds", "")
        return Block.skipped(NAME, why, _UNSEEN, [unchecked("T-01", title, why)])
    return _Audit(case).block()


def _unkept(case: Case) -> Block:
    """There is no transcript and the log binds none: a violation where the configuration keeps them."""
    sent = [record for record in case.records if record.uploaded and not record.lost]
    if not (case.config.evidence.transcript and sent):
        return Block.skipped(NAME, "the run kept none (`evidence.transcript`)", _UNSEEN)
    why, notes = "the log binds none, though `evidence.transcript` asks for them", Notes()
    for record in sent:
        notes.problem(
            "T-01", f"rounds.jsonl, round {record.round}", "binds no transcript, and the configuration keeps them"
        )
    found = [finding for finding in notes.findings() if finding.check == "T-01"]
    return replace(Block.skipped(NAME, why, _UNSEEN), findings=found)


class _Audit:
    """One transcript's audit."""

    def __init__(self, case: Case) -> None:
        self._case, self._folder = case, case.path / "transcript"
        self._notes, self._reuse, self._uniformity = Notes(), Reuse(), Uniformity()
        self._claims = Claims(case.config, self._notes)
        self._sessions = Sessions(self._notes, self._reuse)
        self._answers = Answers(self._notes, self._reuse, self._claims)
        self._replay = Replay(case.path, self._notes)
        self._read = self._messages = 0

    def block(self) -> Block:
        """All of it."""
        notes = self._notes
        for record in self._case.records:
            self._round(record)
        self._strangers()
        self._signed()
        self._reuse.judge(notes)
        self._uniformity.judge(notes)
        self._fine()
        return Block(
            name=NAME,
            left_out=None,
            findings=notes.findings(),
            measurements=self._uniformity.measurements(),
            checked=self._checked(),
            assumed=[
                "The transcript is what the server saw: its files have the hashes of the log, nothing more.",
                f"Uniformity raises a false alarm in less than {FALSE_ALARM:g} of transcripts, all tests together.",
            ],
            uncovered=_UNSEEN,
        )

    def _round(self, record: RoundRecord) -> None:
        found = self._opened(record)
        if found is None:
            return
        self._read += 1
        self._messages += sum(len(one.positions) for one in found.recorded.sent if one.message)
        twice(self._notes, found)
        if self._case.config_unread:
            self._notes.cannot("T-03", "config.toml could not be read")
        else:
            self._claims.take(found)
        if not record.lost:
            self._claims.count(found)
        session = self._sessions.of(found)
        if session is not None:
            self._answers.take(found, session)
            self._replay.take(found)
        else:
            self._replay.forget()
        self._uploads(found)

    def _opened(self, record: RoundRecord) -> Round | None:
        """The round's transcript, if it is there and can be read."""
        path, problem = path_of(self._folder, record.round), self._notes.problem
        where = f"{self._folder.name}/{path.name}"
        there = os.path.lexists(path)
        if record.transcript_hash is None and not record.lost:
            if there:
                problem("T-01", where, "is of a round whose line in the log binds no transcript")
            elif record.uploaded and self._case.config.evidence.transcript:
                problem("T-01", where, "is not there nor bound by the log, and the configuration keeps transcripts")
            self._forget()
            return None
        if not there:
            if not record.lost:
                problem("T-01", where, "is missing, and the log binds it")
            self._forget()
            return None
        try:
            recorded = read_transcript(path)
            if not record.lost and recorded.hash != record.transcript_hash:
                problem("T-01", where, f"has SHA-256 {recorded.hash:.16}…, and the log {record.transcript_hash:.16}…")
            if not recorded.complete and not record.lost:
                problem("T-01", where, "is cut short")
        except ForeignError as error:
            problem("T-01", where, f"cannot be read: {error}")
            self._forget()
            return None
        try:
            found = Round.of(where, record, recorded)
        except ValueError as error:
            problem("T-03", where, str(error))
            self._forget()
            return None
        if found.tractable:
            return found
        for check in CHECKS:
            self._notes.cannot(check, f"{where} is of more clients and neighbours than can be looked at here")
        self._forget()
        return None

    def _forget(self) -> None:
        self._sessions.forget()
        self._replay.forget()

    def _uploads(self, found: Round) -> None:
        """The masked vectors of the round, for the tests of uniformity; of lost rounds, too."""
        params = found.params
        if Trip.MASK not in found.trips:
            return
        uploads, seen = [], set[int]()
        for position, message in found.trips[Trip.MASK].replies:
            packed = payload(found, message)
            if packed is not None and position not in seen and position < params.clients:
                seen.add(position)
                uploads.append(Upload(found.invitation.members[position], packed))
        self._uniformity.take(found.where, uploads, params.dimension, params.bits, self._notes)

    def _strangers(self) -> None:
        """T-01: files of no round of the log. That of a round in flight may follow, and of a log that could not be read
        to its end, any."""
        if self._case.cut:
            return
        known = {path_of(self._folder, record.round).name for record in self._case.records}
        if self._case.report is None:
            known.add(path_of(self._folder, len(self._case.records) + 1).name)
        try:
            found = sorted(set(os.listdir(self._folder)) - known)
        except OSError as error:
            self._notes.problem("T-01", self._folder.name, f"cannot be listed: {error.strerror}")
            return
        for name in found:
            self._notes.problem("T-01", f"{self._folder.name}/{name[:60]!r}", "is of no round of the log")

    def _signed(self) -> None:
        """T-03: the session that clients were invited to is the one that the folder's receipt signs."""
        try:
            signed = read_receipt(self._case.path).head.session
        except RunFolderError:
            return  # none is there, or R-01 says what is wrong with it
        told = self._claims.session
        if told and told != signed:
            what = f"is of run {signed:.12}…, and clients were invited to run {told:.12}…"
            self._notes.problem("T-03", "receipt.json", what)

    def _fine(self) -> None:
        """The evidence of what was right."""
        notes, uniform = self._notes, self._uniformity
        notes.fine("T-01", f"{self._read} rounds, {self._messages:,} messages")
        notes.fine("T-02", f"{self._messages:,} messages: checksum, kind, session, length")
        notes.fine("T-03", f"{self._read} rounds; enrolment {self._claims.enrolment[:16]}…")
        notes.fine("T-04", f"{self._read} rounds")
        notes.fine("T-05", f"{self._sessions.advertised:,} advertisements")
        notes.fine("T-06", f"{self._reuse.count:,} pieces of 16 bytes; by chance in {self._reuse.chance:.1g} of runs")
        notes.fine("T-07", f"{self._answers.revealed:,} revealed shares")
        notes.fine("T-08", f"{self._read} rounds")
        notes.fine(
            "T-09", f"{self._answers.signatures:,} endorsements" if self._answers.signatures else "no signatures"
        )
        notes.fine("T-10", f"{self._replay.rounds} rounds replayed, byte for byte")
        notes.fine("T-11", f"{self._replay.sums} sums")
        notes.fine("T-12", f"{self._read} rounds")
        notes.fine("T-13", f"{uniform.tests:,} tests; false alarms {FALSE_ALARM / 2:g}, all together")
        few = f"; in {uniform.left} rounds each with the next ones only" if uniform.left else ""
        notes.fine("T-14", f"{uniform.pairs:,} pairs; false alarms {FALSE_ALARM / 2:g}, all together{few}")
        notes.fine("T-15", f"{self._claims.bytes:,} bytes")
        notes.fine("T-16", "none")

    def _checked(self) -> list[str]:
        return [
            f"{self._messages:,} messages of {self._read} rounds, against the log, the configuration and each other.",
            f"{self._replay.rounds} rounds replayed by the protocol's own server, which sends what was sent.",
            f"{self._replay.sums} released sums unmasked again from the messages and compared with those kept.",
        ]
