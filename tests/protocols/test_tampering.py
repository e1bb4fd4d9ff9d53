"""Any bit of any message flipped on the way, in both directions, the checksum mended: a typed error or the right sum.

Where a client may say what it likes, it says just that: a flipped bit of an UPLOAD changes one element of the sum.
"""

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import Cohort, malicious, plain_sum, semi_honest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flora_protocols import PeerError, ProtocolError, shamir
from flora_protocols.codec import HEADER

KINDS = {  # two shares more than needed, even after the dropout, so that a wrong one can be told from the owner's fault
    "complete": lambda: semi_honest(6, threshold=3),
    "Harary direct": lambda: semi_honest(8, 6, threshold=3, direct_reveal=True),
    "signed": lambda: malicious(7, threshold=4),
    "signed direct": lambda: malicious(8, threshold=5, direct_reveal=True),
}
LIAR, LEAVER = 1, 2


def flipped(message, at):
    """Bit `at` of header and body, modulo their length, the checksum mended."""
    raw = bytearray(message[:-4])
    raw[at // 8 % len(raw)] ^= 1 << at % 8
    return reframed(bytes(raw[:HEADER]), bytes(raw[HEADER:]))


class Round:
    """A round in which client 1's message of one trip is changed, and client 2 drops in MASK.

    A client that refuses what it gets has dropped, too. `told`: whom these clients blamed. `refused`: whether the
    server refused the changed message; it then gets the true one.
    """

    def __init__(self, params, trip, at):
        self.cohort, self.told, self.refused = Cohort(params), [], False
        self.trip, self.at = trip % (5 if params.malicious else 4), at
        self.changed = ""

    def play(self):
        cohort, number = self.cohort, 0
        while True:
            position, moved = type(cohort.server).__name__, {}
            for index in sorted(cohort.clients.keys() & cohort.mail.keys()):
                if (position, index) == ("ServerMask", LEAVER):
                    continue
                try:
                    moved[index], message = cohort.move(index)
                except PeerError as error:
                    self.told.append(error.culprit)
                    continue
                if (number, index) == (self.trip, LIAR):
                    self.receive(message)
                else:
                    cohort.server.receive(index, message)
            cohort.clients, number = moved, number + 1
            if position == "ServerUnmask":
                return cohort.server.close()
            cohort.server, cohort.mail = cohort.server.close()

    def receive(self, truth):
        self.changed = type(self.cohort.server).__name__
        try:
            self.cohort.server.receive(LIAR, flipped(truth, self.at))
        except PeerError as error:
            self.told.append(error.culprit)
            self.refused = True  # and the state is unchanged: the true message is taken in its place
            self.cohort.server.receive(LIAR, truth)

    def hits_a_pair_key(self):
        """Whether the change was in the last 32 bytes of a REVEAL with direct reveal: the key shared with client 2."""
        params = self.cohort.params
        size = HEADER + shamir.SHARE * len(params.graph.holders(LIAR)) + 32
        return params.direct_reveal and self.changed == "ServerUnmask" and self.at // 8 % size >= size - 32


@pytest.mark.searches
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_any_bit_that_a_client_sends(make):
    outcomes = set()

    @settings(max_examples=80)
    @example(0, 0)
    @example(0, 8 * HEADER)
    @example(1, 8 * HEADER)
    @example(2, 8 * HEADER)
    @example(3, 8 * HEADER)
    @example(4, 8 * HEADER)
    @given(st.integers(0, 4), st.integers(0, 10_000))
    def tamper(trip, at):
        played = Round(make(), trip, at)
        try:
            result = played.play()
        except PeerError as error:
            outcomes.add((played.changed, played.refused, error.culprit))
            return
        assert set(played.told) <= {LIAR, "server"}
        params, vectors = played.cohort.params, played.cohort.vectors
        off = result.sum - plain_sum(params, vectors, result.survivors) & np.uint32((1 << params.bits) - 1)
        if played.refused:
            outcomes.add("refused")
            assert not off.any()
        elif played.changed == "ServerMask":
            outcomes.add("another vector")
            assert np.count_nonzero(off) == 1
            assert int(off.max()) in {sign * (1 << bit) % 512 for bit in range(9) for sign in (1, -1)}
        else:
            outcomes.add("gone on")
            assert off.any() == played.hits_a_pair_key()  # noise then, as the specification says

    tamper()
    assert outcomes == {("ServerUnmask", False, LIAR), "refused", "another vector", "gone on"}  # first, a wrong share


@pytest.mark.searches
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_any_bit_that_the_server_sends(make):
    """Client 1 gets a changed message: it refuses it and takes the true one; or it answers, to no effect."""

    @settings(max_examples=60)
    @given(st.integers(1, 4), st.integers(0, 100_000))
    def tamper(trip, at):
        cohort = Cohort(make())
        for number in range(trip if cohort.params.malicious else min(trip, 3)):
            cohort.trip(dropping={LEAVER} if number == 2 else ())
        truth = cohort.mail[LIAR]
        cohort.mail = dict(cohort.mail) | {LIAR: flipped(truth, at)}
        held = cohort.clients[LIAR]._uploaded.held if hasattr(cohort.clients[LIAR], "_uploaded") else {}
        try:
            answered, answer = cohort.move(LIAR)
        except ProtocolError:
            cohort.mail[LIAR] = truth
            cohort.finish()
            return
        if type(answered).__name__ == "ClientDone":  # told other survivors: one share of each owner all the same
            shares = body_of(answer)[: shamir.SHARE * len(held)]
            for place, pair in enumerate(held[owner] for owner in sorted(held)):
                assert shares[17 * place : 17 * place + 17] in (pair[:17], pair[17:])
            return
        try:
            cohort.server.receive(LIAR, answer)
        except PeerError as error:
            culprits = {error.culprit}
        else:  # in a Harary graph, a forged key goes out with a true session id; but no shares open there
            culprits = set()
            cohort.clients[LIAR] = answered
            for index in sorted(set(cohort.clients) - {LIAR}):
                cohort.clients[index], message = cohort.move(index)
                cohort.server.receive(index, message)
            cohort.server, cohort.mail = cohort.server.close()
            for index in list(cohort.clients):
                try:
                    cohort.move_again(index)
                except PeerError as error:
                    culprits.add(error.culprit)
        assert LIAR in culprits

    tamper()
