"""T-02, T-04, T-05 and T-09 in the set-up: the masking sessions of a run, each from the bytes that set it up."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flora_protocols import Bitmap, Code, Kind, PeerError, SessionParams, Trip
from flora_protocols.codec import OVERHEAD, decode_frame
from flora_protocols.setup_messages import decode_advertisement, decode_ciphertexts, decode_shares, entry_bytes
from flora_protocols.sizes import most_bytes
from flora_secure.auditing.transcript.notes import Notes
from flora_secure.auditing.transcript.reuse import Reuse
from flora_secure.auditing.transcript.rounds import SET_UP, Round


@dataclass
class Session:
    """A masking session as its messages show it.

    Attributes:
        params, members: what it was begun with.
        id: the session id; None where it is not known.
        sharers: positions whose SHARES the server took.
        next_slot: the first slot that is left.
        complaints: who has said of whom that it holds no shares.
        seeds, openers: by slot, how many shares of each owner's secrets were revealed.
    """

    params: SessionParams
    members: tuple[int, ...]
    id: bytes | None = None
    sharers: frozenset[int] = frozenset()
    next_slot: int = 0
    complaints: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    seeds: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    openers: dict[int, NDArray[np.int64]] = field(default_factory=dict)


class Sessions:
    """Follows the sessions of a run from round to round."""

    def __init__(self, notes: Notes, reuse: Reuse) -> None:
        self._notes, self._reuse = notes, reuse
        self._open: Session | None = None
        self._begun: dict[bytes, str] = {}  # set-up ids, and where each was begun
        self._keys: dict[bytes, str] = {}
        self.advertised = 0

    def forget(self) -> None:
        """A round could not be read: what session is open is not known."""
        self._open = None

    def of(self, round: Round) -> Session | None:
        """The session of the round, which its messages may begin; None where it is not known."""
        notes, params = self._notes, round.params
        if round.begins:
            return self._new(round)
        session = self._open
        if not round.trips:
            return session
        if session is None:
            notes.cannot("T-04", f"{round.where} goes on with a session whose beginning is not here")
            return None
        if session.params != params or session.members != round.invitation.members:
            what = "goes on with a session that was begun with other parameters, members or identity keys"
            notes.problem("T-04", round.where, what)
            self._open = None
        return self._open

    def _new(self, round: Round) -> Session:
        notes, params = self._notes, round.params
        before = self._begun.setdefault(params.setup_id, round.where)
        if before != round.where:
            notes.problem("T-04", round.where, f"begins a session that was begun before, in {before}")
        if params.number != round.record.round:
            what = f"begins session {params.number}, which is not its number {round.record.round}"
            notes.problem("T-04", round.where, what)
        order = [exchanged.trip for exchanged in round.exchanges]
        if any(later <= earlier for earlier, later in itertools.pairwise(order)):
            notes.problem("T-04", round.where, "its trips are not in the order of the protocol")
        session = self._open = Session(params, round.invitation.members)
        advertised = self._advertisements(round)
        session.id = self._roster(round, advertised)
        if session.id is None:
            return session
        there = set(advertised)
        if params.suite.hybrid:
            there = self._ciphertexts(round, session, there)
        session.sharers = frozenset(self._shares(round, session, there))
        return session

    def _advertisements(self, round: Round) -> dict[int, bytes]:
        """The entries of all whose advertisement is sound."""
        found: dict[int, bytes] = {}
        for position, message in round.trips[Trip.ADVERTISE].replies:
            try:
                own, _ = decode_advertisement(round.params, message, position)
            except PeerError as error:
                refused(self._notes, round, position, error)
                continue
            if position in found:
                continue
            found[position] = own.entry
            self.advertised += 1
            for key in {own.channel, own.kem_hash} - {b""}:
                whose = f"{round.client(position)} in round {round.record.round}"
                before = self._keys.setdefault(key, whose)
                if before != whose:
                    self._notes.problem("T-05", round.where, f"{whose} advertises a key of {before}")
        return found

    def _roster(self, round: Round, advertised: dict[int, bytes]) -> bytes | None:
        """The session id that follows from the rosters; None where none was told."""
        params, kinds = round.params, dict[bytes, list[int]]()
        trip = round.trips.get(Trip.ENCAPSULATE if params.suite.hybrid else Trip.SHARE)
        for position, message in (trip.told if trip else {}).items():
            body = told(self._notes, round, position, message, Kind.ROSTER, params.setup_id)
            if body is None:
                continue
            bitmap = body[: (params.clients + 7) // 8]
            rest = body[len(bitmap) :]
            near = Bitmap(bitmap).among(params.graph.members(position))
            claimed = b"" if params.graph.complete else rest[:32]
            entries = rest[len(claimed) : len(claimed) + entry_bytes(params) * len(near)]
            if entries != b"".join(advertised.get(member, b"") for member in near):
                what = f"{round.client(position)} was told other keys than its neighbours advertised"
                self._notes.problem("T-04", round.where, what)
            digest = claimed or hashlib.sha256(entries).digest()
            kinds.setdefault(params.session_id(bitmap, digest), []).append(position)
        if not kinds:
            return None
        if len(kinds) > 1:
            few = min(kinds.values(), key=len)
            what = f"{round.client(few[0])} and {len(few) - 1} more were told another roster than the others"
            self._notes.problem("T-04", round.where, what)
        own = hashlib.sha256(b"".join(advertised[position] for position in sorted(advertised))).digest()
        flags = np.packbits(params.graph.flags(sorted(advertised)), bitorder="little").tobytes()
        if params.session_id(flags, own) not in kinds:
            self._notes.problem("T-04", round.where, "the roster is not of the keys that clients advertised")
        return max(kinds, key=lambda id: len(kinds[id]))

    def _ciphertexts(self, round: Round, session: Session, there: set[int]) -> set[int]:
        params, found = round.params, set[int]()
        assert session.id is not None
        to = params.graph.flags(sorted(there))[params.graph.neighbourhoods] & params.graph.clockwise
        for position, message in round.trips[Trip.ENCAPSULATE].replies:
            try:
                made = decode_ciphertexts(params, session.id, message, position, int(to[position].sum()))
            except PeerError as error:
                refused(self._notes, round, position, error)
                continue
            found.add(position)
            self._reuse.take(made[:, :16], f"ciphertexts of {round.where}")
        for position, message in (round.trips[Trip.SHARE].told if Trip.SHARE in round.trips else {}).items():
            told(self._notes, round, position, message, Kind.DELIVERY, session.id)
        return found

    def _shares(self, round: Round, session: Session, there: set[int]) -> set[int]:
        params, found = round.params, set[int]()
        if Trip.SHARE not in round.trips or session.id is None:
            return found
        graph = params.graph
        near = graph.neighbourhoods
        to = graph.flags(sorted(there))[near] & (near != np.arange(params.clients)[:, None])
        sealed = to & ~graph.derives(params.threshold)
        for position, message in round.trips[Trip.SHARE].replies:
            counts = int(to[position].sum()), int(sealed[position].sum())
            try:
                sent = decode_shares(params, session.id, message, position, *counts)
            except PeerError as error:
                refused(self._notes, round, position, error)
                continue
            found.add(position)
            for pieces, what in ((sent.tags, "boxes"), (sent.blobs, "blobs"), (sent.commitments, "commitments")):
                self._reuse.take(pieces.reshape(-1, 16), f"{what} of {round.where}")
        return found


def told(notes: Notes, round: Round, position: int, message: bytes, kind: Kind, scope: bytes) -> bytes | None:
    """T-02: the body of a message of the server; None where it is no sound frame."""
    try:
        frame = decode_frame(message, kind, round.params.suite, scope, "server", most_bytes(round.params))
        return frame.take(len(message) - OVERHEAD)
    except PeerError as error:
        notes.problem("T-02", round.where, f"{kind.name} to {round.client(position)}: {error.reason}")
        return None


def refused(notes: Notes, round: Round, position: int, error: PeerError) -> None:
    """T-16, and T-09 where it is a signature: what a client sent must be refused."""
    check = "T-09" if error.code is Code.BAD_SIGNATURE else "T-16"
    notes.problem(check, round.where, f"{round.client(position)}: {error.reason}")


def twice(notes: Notes, round: Round) -> None:
    """T-02: nobody is told two things in one trip. T-04: no set-up goes on that never began."""
    for exchanged in round.exchanges:
        if exchanged.twice:
            who = round.client(exchanged.twice[0])
            notes.problem("T-02", round.where, f"{who} was told two things in trip {exchanged.trip.name}")
        if exchanged.trip in SET_UP and not round.begins:
            notes.problem("T-04", round.where, f"trip {exchanged.trip.name} of a set-up that never began")
