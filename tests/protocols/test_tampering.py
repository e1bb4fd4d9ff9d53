"""Any bit of any message flipped on the way, in both directions, the checksum mended: a typed error or the right sum.

Where a client may say what it likes, it says just that: a flipped bit of an UPLOAD changes one element of the sum.
"""

import numpy as np
import pytest
from attacker import at, body_of, closed, others_send, reframed
from cohorts import Cohort, hybrid, malicious, plain_sum, semi_honest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flora_protocols import PeerError, ProtocolError, Suite, Trip, UnsoundShares, shamir
from flora_protocols.codec import HEADER

KINDS = {  # two shares more than needed, even after the dropout, so that a wrong one can be told from the owner's fault
    "complete": lambda: semi_honest(6, threshold=3, slots=2),
    "Harary": lambda: semi_honest(8, 6, threshold=3),
    "signed": lambda: malicious(7, threshold=4),
    "hybrid Harary": lambda: hybrid(8, neighbours=6, threshold=3),
    "hybrid signed": lambda: malicious(7, threshold=4, suite=Suite.X25519_MLKEM768, slots=2),
}
LIAR, LEAVER = 1, 2


def trips_of(params):
    return [
        trip
        for trip in Trip
        if (params.suite.hybrid or trip is not Trip.ENCAPSULATE) and (params.malicious or trip is not Trip.AGREE)
    ]


def flipped(message, at):
    """Bit `at` of header and body, modulo their length, the checksum mended."""
    raw = bytearray(message[:-4])
    raw[at // 8 % len(raw)] ^= 1 << at % 8
    return reframed(bytes(raw[:HEADER]), bytes(raw[HEADER:]))


class Round:
    """A session of one round in which client 1's message of one trip is changed, and client 2 drops in MASK.

    A client that refuses what it gets has dropped, too. `told`: whom these clients blamed. `refused`: whether the
    server refused the changed message; it then gets the true one.
    """

    def __init__(self, params, trip, at):
        self.cohort, self.told, self.refused = Cohort(params), [], False
        trips = trips_of(params)
        self.trip, self.at = trips[trip % len(trips)], at
        self.changed = None

    def play(self):
        cohort = self.cohort
        while True:
            trip, moved = cohort.server.trip, {}
            for index in sorted(cohort.clients.keys() & cohort.mail.keys()):
                if (trip, index) == (Trip.MASK, LEAVER):
                    continue
                try:
                    moved[index], message = cohort.move(index)
                except PeerError as error:
                    self.told.append(error.culprit)
                    continue
                if (trip, index) == (self.trip, LIAR):
                    self.receive(message)
                else:
                    cohort.server.receive(index, message)
            cohort.clients = moved
            if trip is Trip.UNMASK:
                return cohort.server.close()
            closed(cohort)

    def receive(self, truth):
        self.changed = self.cohort.server.trip
        try:
            self.cohort.server.receive(LIAR, flipped(truth, self.at))
        except PeerError as error:
            self.told.append(error.culprit)
            self.refused = True  # and the state is unchanged: the true message is taken in its place
            self.cohort.server.receive(LIAR, truth)

    @property
    def place(self):
        """The byte of the body that was changed; negative in the header."""
        return self.at // 8 % self.size - HEADER

    @property
    def size(self):
        """Bytes of header and body of the message that was changed."""
        params = self.cohort.params
        if self.changed is Trip.UNMASK:
            gone = LEAVER in params.graph.members(LIAR)
            return HEADER + shamir.SHARE * params.holders + 8 * gone
        assert self.changed is Trip.MASK
        return HEADER + params.payload_bytes + 1 + params.neighbours // 8


@pytest.mark.searches
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_any_bit_that_a_client_sends(make):
    outcomes = set()

    @settings(max_examples=50)
    @example(0, 0)
    @example(0, 8 * HEADER)
    @example(1, 8 * HEADER)
    @example(2, 8 * HEADER)
    @example(3, 8 * HEADER)
    @example(4, 8 * HEADER)
    @example(5, 8 * HEADER)
    @example(1, 8 * (HEADER + 1100))  # in the hybrid suite, the second ciphertext
    @given(st.integers(0, 5), st.integers(0, 40_000))
    def tamper(trip, at):
        played = Round(make(), trip, at)
        params, vectors = played.cohort.params, played.cohort.vectors
        try:
            result = played.play()
        except PeerError as error:
            outcomes.add((played.changed, played.refused, error.culprit))
            assert played.changed is not Trip.MASK or played.place >= params.payload_bytes  # a complaint
            return
        except UnsoundShares as error:  # its tag of the mask with who dropped, or its blob or commitment
            owner = error.owner
            complaints = played.cohort.prepared.complaints
            told = complaints.get(LIAR, frozenset()) - {LEAVER}
            if played.changed is Trip.ENCAPSULATE and told:  # its channel to somebody is another one at that end
                outcomes.add("another channel")
                assert complaints == {LIAR: complaints[LIAR]} | {peer: {LIAR} for peer in told}
                return
            outcomes.add(("unsound", played.changed))
            assert not played.refused
            assert owner in (LIAR, LEAVER)
            assert played.changed is not Trip.UNMASK or played.place >= shamir.SHARE * params.holders
            return
        assert set(played.told) <= {LIAR, "server"}
        off = result.sum - plain_sum(params, vectors, result.survivors) & np.uint32((1 << params.bits) - 1)
        if played.refused:
            outcomes.add("refused")
            assert not off.any()
        elif played.changed is Trip.MASK and played.place < params.payload_bytes:
            outcomes.add("another vector")
            assert np.count_nonzero(off) == 1
            assert int(off.max()) in {sign * (1 << bit) % 512 for bit in range(9) for sign in (1, -1)}
        elif played.changed is Trip.ENCAPSULATE:  # the channel to who drops is another one at the other end
            outcomes.add("another channel to nobody")
            assert played.cohort.prepared.complaints.get(LIAR, {LEAVER}) == {LEAVER}
            assert not off.any()
        else:
            outcomes.add("gone on")
            assert not off.any()

    tamper()
    needed = {(Trip.UNMASK, False, LIAR), "refused", "another vector", "gone on"}  # first, a wrong share
    assert outcomes >= needed | ({"another channel"} if make().suite.hybrid else set())
    # Somebody is wrong then, but not the sum: a tag; a commitment or a blob; a channel to the one who drops; and a
    # complaint, which its own shares belie.
    unsound = {("unsound", trip) for trip in (Trip.ENCAPSULATE, Trip.SHARE, Trip.UNMASK)}
    allowed = unsound | {
        "another channel",
        "another channel to nobody",
        (Trip.SHARE, False, LIAR),
        (Trip.MASK, False, LIAR),
    }
    assert outcomes <= needed | allowed


@pytest.mark.searches
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_any_bit_that_the_server_sends(make):
    """Client 1 gets a changed message: it refuses it and takes the true one; or it answers, to no effect."""

    @settings(max_examples=40)
    @given(st.integers(1, 5), st.integers(0, 100_000))
    def tamper(trip, place):
        params = make()
        trips = trips_of(params)
        cohort = at(Cohort(params), trips[min(trip, len(trips) - 1)], dropping={LEAVER})
        now, truth = cohort.server.trip, cohort.mail[LIAR]
        client = cohort.clients[LIAR]
        cohort.mail = dict(cohort.mail) | {LIAR: flipped(truth, place)}
        held = client._uploaded.held if hasattr(client, "_uploaded") else {}
        try:
            answered, answer = cohort.move(LIAR)
        except ProtocolError:
            assert not client.spent
            cohort.mail[LIAR] = truth
            cohort.finish()
            return
        if now is Trip.UNMASK:  # told other survivors: one share of each owner all the same
            shares = body_of(answer)[: shamir.SHARE * len(held)]
            for number, pair in enumerate(held[owner] for owner in sorted(held)):
                assert shares[17 * number : 17 * number + 17] in (pair[:17], pair[17:])
            return
        if now is Trip.MASK:  # a box does not open: the client says so, and the sum is right
            cohort.server.receive(LIAR, answer)
            cohort.clients[LIAR] = answered
            closed(others_send(cohort, LIAR, absent={LEAVER}))
            assert cohort.finish().survivors
            assert len(cohort.prepared.complaints[LIAR]) == 1
            return
        try:
            cohort.server.receive(LIAR, answer)
        except PeerError as error:
            culprit = error.culprit
            assert culprit == LIAR
            return
        # In a Harary graph, a forged key goes out with a true session id; a forged ciphertext always: but boxes do not
        # open between the two ends, and both complain.
        cohort.clients[LIAR] = answered
        at(closed(others_send(cohort, LIAR)), Trip.MASK).send()
        complaints = cohort.prepared.complaints
        if not complaints:  # the hash of a KEM key to which somebody else encapsulates: nothing follows from it here
            assert (now, params.suite.hybrid, params.malicious) == (Trip.ENCAPSULATE, True, False)
            closed(cohort).finish()
            return
        assert complaints == {LIAR: complaints[LIAR]} | {peer: {LIAR} for peer in complaints[LIAR]}
        assert complaints[LIAR]
        with pytest.raises(UnsoundShares, match="open nothing of each other"):
            cohort.server.close()

    tamper()
