"""T-04, T-07, T-08, T-09 and T-12 in a round: START, uploads, survivors, signatures and what was revealed."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flora_protocols import Bitmap, Kind, PeerError, RoundParams, Trip
from flora_protocols.codec import CHECKSUM, HEADER, OVERHEAD
from flora_protocols.keys import PAIR_TAG_BYTES, SIGNATURE
from flora_protocols.round_messages import decode_endorsement, decode_reveal, decode_survivors, decode_upload
from flora_protocols.round_params import start_bytes
from flora_protocols.shamir import SHARE
from flora_secure.auditing.transcript.claims import Claims
from flora_secure.auditing.transcript.notes import Notes
from flora_secure.auditing.transcript.reuse import Reuse
from flora_secure.auditing.transcript.rounds import Round
from flora_secure.auditing.transcript.sessions import Session, refused, told

Flags = NDArray[np.bool_]


@dataclass
class _Told:
    """What the clients were told of a round, each for itself."""

    starts: dict[int, RoundParams] = field(default_factory=dict)
    survivors: dict[int, Bitmap] = field(default_factory=dict)
    flags: dict[bytes, Flags] = field(default_factory=dict)  # of bitmaps, as arrays

    def scope(self, session: Session, position: int) -> bytes | None:
        """The round id of who is at that position; None where it was told no START."""
        start = self.starts.get(position)
        return None if start is None or session.id is None else start.id(session.params, session.id)

    def of(self, bitmap: Bitmap, clients: int) -> Flags:
        """The bitmap as an array."""
        if bitmap.raw not in self.flags:
            bits = np.unpackbits(np.frombuffer(bitmap.raw, np.uint8), bitorder="little")
            self.flags[bitmap.raw] = bits[:clients].astype(bool)
        return self.flags[bitmap.raw]


class Answers:
    """Checks the messages of the rounds of a session, each by what its own client was told."""

    def __init__(self, notes: Notes, reuse: Reuse, claims: Claims) -> None:
        self._notes, self._reuse, self._claims = notes, reuse, claims
        self.signatures = self.revealed = 0

    def take(self, round: Round, session: Session) -> None:
        """Check the messages of one round."""
        found = _Told()
        if Trip.MASK not in round.trips or session.id is None:
            return
        self._starts(round, session, found)
        uploaded = self._uploads(round, session, found)
        trip = Trip.AGREE if round.params.malicious else Trip.UNMASK
        if trip in round.trips:
            self._survivors(round, session, found, trip, uploaded)
        if round.params.malicious:
            self._signed(round, session, found)
        if Trip.UNMASK in round.trips:
            self._reveals(round, session, found)

    def _starts(self, round: Round, session: Session, found: _Told) -> None:
        notes, params, size = self._notes, round.params, start_bytes(round.params)
        assert session.id is not None
        starts: dict[bytes, RoundParams | None] = {}
        for position, message in round.trips[Trip.MASK].told.items():
            head = message[:size]
            if head not in starts:
                try:
                    starts[head] = RoundParams.from_bytes(params, session.id, head)
                except PeerError as error:
                    notes.problem("T-02", round.where, f"START to {round.client(position)}: {error.reason}")
                    starts[head] = None
            if (start := starts[head]) is not None:
                found.starts[position] = start
            if len(message) > size:
                told(notes, round, position, message[size:], Kind.INBOX, session.id)
        different = [start for start in starts.values() if start is not None]
        if len(different) > 1:
            notes.problem("T-04", round.where, f"{len(different)} different STARTs were told in one round")
        for start in different:
            self._start(round, session, start)
        session.next_slot = max([session.next_slot, *(start.slot + 1 for start in different)])

    def _start(self, round: Round, session: Session, start: RoundParams) -> None:
        problem = self._notes.problem
        if start.slot < session.next_slot:
            problem("T-04", round.where, f"slot {start.slot} was used or passed over before")
        if start.slot != round.invitation.slot:
            problem("T-04", round.where, f"slot {start.slot} was told, and the round's is {round.invitation.slot}")
        if start.round != round.record.round:
            problem("T-04", round.where, f"START is of round {start.round}")
        if strangers := sorted(set(start.invited) - session.sharers):
            problem("T-04", round.where, f"{round.client(strangers[0])} is invited, and has shared nothing")
        self._claims.take_start(round, start.model_hash)

    def _uploads(self, round: Round, session: Session, found: _Told) -> set[int]:
        """Who uploaded what is sound."""
        uploaded, seen = set[int](), dict[int, bytes]()
        for position, message in round.trips[Trip.MASK].replies:
            scope = found.scope(session, position)
            if scope is None:
                who = round.client(position)
                self._notes.problem("T-12", round.where, f"{who} uploads without having been told the round")
                continue
            if seen.setdefault(position, message) != message:
                self._notes.problem("T-12", round.where, f"{round.client(position)} uploads twice under one slot")
                continue
            try:
                _, unopened = decode_upload(round.params, scope, message, position)
            except PeerError as error:
                refused(self._notes, round, position, error)
                continue
            uploaded.add(position)
            if unopened:
                session.complaints[position].update(unopened)
        return uploaded

    def _survivors(self, round: Round, session: Session, found: _Told, trip: Trip, uploaded: set[int]) -> None:
        notes, params, record = self._notes, round.params, round.record
        stories: Counter[bytes] = Counter()
        for position, message in round.trips[trip].told.items():
            scope = found.scope(session, position)
            if scope is None:
                notes.problem("T-08", round.where, f"{round.client(position)} is told survivors of no round of its own")
                continue
            try:
                bitmap = decode_survivors(params, scope, message)
            except PeerError as error:
                notes.problem("T-02", round.where, f"SURVIVORS to {round.client(position)}: {error.reason}")
                continue
            found.survivors[position] = bitmap
            stories[bitmap.raw] += 1
            if position not in bitmap:
                notes.problem("T-08", round.where, f"{round.client(position)} is told survivors without itself")
        if len(stories) > 1:
            counts = ", ".join(str(count) for count in sorted(stories.values(), reverse=True))
            notes.problem("T-08", round.where, f"{len(stories)} different sets of survivors were told ({counts})")
        least = max(params.threshold, record.honest_minimum + record.colluders)
        for raw in stories:
            there = set(Bitmap(raw))
            if len(there) < least:
                notes.problem("T-08", round.where, f"{len(there)} survivors were told, and {least} are the fewest")
            if strangers := sorted(there - uploaded):
                notes.problem("T-08", round.where, f"{round.client(strangers[0])} survives without a sound upload")
            members = round.invitation.members
            told = sorted(members[position] for position in there)
            if not record.lost and record.released and told != sorted(record.survivors):
                notes.problem("T-08", round.where, "the survivors that were told are not those of the log")

    def _signed(self, round: Round, session: Session, found: _Told) -> None:
        """T-09: endorsements, each of what its signer was told, and agreements of them."""
        params, signed = round.params, dict[int, bytes]()
        for position, message in round.trips[Trip.AGREE].replies if Trip.AGREE in round.trips else ():
            scope, bitmap = found.scope(session, position), found.survivors.get(position)
            if scope is None or bitmap is None:
                self._notes.problem("T-09", round.where, f"{round.client(position)} signs what it was not told")
                continue
            text = scope + hashlib.sha256(bitmap.raw).digest()
            try:
                signed[position] = decode_endorsement(params, scope, message, position, text)
                self.signatures += 1
            except PeerError as error:
                refused(self._notes, round, position, error)
        for position, message in (round.trips[Trip.UNMASK].told if Trip.UNMASK in round.trips else {}).items():
            scope = found.scope(session, position)
            body = None if scope is None else told(self._notes, round, position, message, Kind.AGREEMENT, scope)
            if body is None:
                continue
            members = params.graph.members(position)
            size = (len(members) + 7) // 8
            signers = [member for at, member in enumerate(members) if body[at >> 3] >> (at & 7) & 1]
            need = params.threshold - (position in params.graph.holders(position))
            if len(signers) < need:
                what = f"{round.client(position)} is told {len(signers)} signatures, and {need} are the fewest"
                self._notes.problem("T-09", round.where, what)
            if body[size:] != b"".join(signed.get(signer, bytes(SIGNATURE)) for signer in signers):
                what = f"{round.client(position)} is told signatures that their owners did not give"
                self._notes.problem("T-09", round.where, what)

    def _reveals(self, round: Round, session: Session, found: _Told) -> None:
        """T-07: whose seed and whose opener a share was revealed of, each reply by what its sender was told."""
        params, graph, slot = round.params, round.params.graph, round.invitation.slot
        seeds = session.seeds.setdefault(slot, np.zeros(params.clients, np.int64))
        openers = session.openers.setdefault(slot, np.zeros(params.clients, np.int64))
        seen = dict[int, bytes]()
        for position, message in round.trips[Trip.UNMASK].replies:
            scope, bitmap = found.scope(session, position), found.survivors.get(position)
            if scope is None or bitmap is None:
                self._notes.problem("T-07", round.where, f"{round.client(position)} reveals without having been told")
                continue
            if (before := seen.setdefault(position, message)) is not message:
                if before != message:
                    self._notes.problem("T-07", round.where, f"{round.client(position)} reveals twice in one slot")
                continue
            here = found.of(found.starts[position].invited, params.clients)
            alive = found.of(bitmap, params.clients)
            owners = graph.holdings[position]
            owners = owners[here[owners]]
            if position in session.complaints:
                owners = owners[~np.isin(owners, list(session.complaints[position]))]
            near = graph.neighbourhoods[position]
            gone = int((here[near] & ~alive[near]).sum())
            if len(message) != OVERHEAD + SHARE * len(owners) + PAIR_TAG_BYTES * gone:
                refused_length = f"{round.client(position)}: REVEAL of {len(message)} bytes"
                self._notes.problem("T-16", round.where, refused_length)
                continue
            try:
                shares, _ = decode_reveal(params, scope, message, position, len(owners), gone)
            except PeerError as error:
                refused(self._notes, round, position, error)
                continue
            survived = alive[owners]
            seeds[owners[survived]] += 1
            openers[owners[~survived]] += 1
            self.revealed += len(owners)
            self._reuse.take(shares[:, :16], f"shares revealed in {round.where}")
        for owner in np.flatnonzero((seeds > 0) & (openers > 0)).tolist():
            counts = f"{seeds[owner]} shares of its seed and {openers[owner]} of its opener"
            self._notes.problem(
                "T-07", round.where, f"{round.client(owner)}, slot {slot}: {counts} ({params.threshold} tell either)"
            )


def payload(round: Round, message: bytes) -> bytes | None:
    """The packed vector in an upload; None where the message is too short to hold one."""
    size = round.params.payload_bytes
    return message[HEADER : HEADER + size] if len(message) >= HEADER + size + CHECKSUM else None
