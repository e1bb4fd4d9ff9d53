"""Who deals rubbish, and who says so of honest dealers: what it costs, and who is named for it (C-36, C-39, C-76)."""

import os
from contextlib import nullcontext

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import Cohort, hybrid, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import Bitmap, Code, MisuseError, PeerError, TooFewSurvivors, Trip
from flora_protocols.codec import encode_subset
from flora_protocols.setup_messages import sealed_bytes

kinds = pytest.mark.parametrize("make", [semi_honest, malicious, hybrid])
HARARY = {"clients": 10, "neighbours": 8, "threshold": 5}


def recipients_of(cohort, dealer):
    """To whom it deals, in order, and of which of them the shares are sealed."""
    graph = cohort.params.graph
    peers = [member for member in graph.members(dealer) if member != dealer]
    derivers = graph.derivers(dealer, cohort.params.threshold)
    return peers, [peer for peer in peers if peer not in derivers]


def spoilt(cohort, dealer, message, victims):
    """SHARES with random bytes in the boxes for the `victims`, confirmations included."""
    body = bytearray(body_of(message))
    peers, sealed = recipients_of(cohort, dealer)
    size = sealed_bytes(cohort.params)
    for victim in victims:
        at = 16 * peers.index(victim)
        body[at : at + 16] = os.urandom(16)
        if victim in sealed and size:
            start = 16 * len(peers) + size * sealed.index(victim)
            body[start : start + size] = os.urandom(size)
    return reframed(message, bytes(body))


def sabotaged(params, dealer, victims):
    """A cohort whose `dealer` has sealed rubbish for the `victims`."""
    cohort = Cohort(params).trip()
    if params.suite.hybrid:
        cohort.trip()
    moved = {index: cohort.move(index) for index in cohort.clients}
    for index, (cohort.clients[index], message) in moved.items():
        cohort.server.receive(index, spoilt(cohort, dealer, message, victims) if index == dealer else message)
    cohort.server, cohort.mail = cohort.server.close()
    cohort.prepared = cohort.server
    cohort.begin()
    return cohort


@kinds
@pytest.mark.parametrize("shape", [{"clients": 9, "threshold": 5}, HARARY])
@pytest.mark.parametrize("hit", [0, 1, 2, 3])
def test_a_saboteur_of_as_many_as_are_spare_costs_nothing(make, shape, hit):
    """Three of eight (nine) holders are spare: the sum has everybody, the saboteur included, also where it drops out.
    From two on it is named, and not invited any more."""
    params = make(**shape, slots=3)
    if make is malicious and shape is HARARY:
        params = make(**(HARARY | {"threshold": 5}), slots=3)
    peers = [peer for peer in params.graph.members(4) if peer != 4]
    for victims in (peers[:hit], peers[len(peers) - hit :]):  # those that derive their shares, and those that do not
        for dropping in ((), (4,)):
            cohort = sabotaged(params, 4, victims)
            while cohort.server.trip is not Trip.UNMASK:
                cohort.trip(dropping if cohort.server.trip is Trip.MASK else ())
            result = cohort.finish()
            assert (result.dropped, result.recovered) == (dropping, dropping)
            assert set(cohort.prepared._deposits.complaints) == set(victims)
            assert set(cohort.prepared.accused) == ({4} if hit > 1 else set())
        with pytest.raises(MisuseError, match=r"invites \[4\], whose shares do not open") if hit > 1 else nullcontext():
            cohort.again(invited=cohort.start.invited)
        cohort = sabotaged(params, 4, victims)
        cohort.finish()
        cohort.again()
        assert (4 in cohort.start.invited) == (hit <= 1)
        assert cohort.finish().survivors == cohort.prepared.clients


@kinds
def test_a_saboteur_of_more_is_named_and_only_its_own_round_is_lost(make):
    cohort = sabotaged(make(9, threshold=5, slots=2), 4, (0, 1, 5, 7, 8))
    cohort.send()
    with pytest.raises(TooFewSurvivors, match="holders of client 4's shares: 4 left, 5 needed"):
        cohort.server.close()
    assert cohort.server.heard == frozenset(range(9))  # nobody has been told anything
    (error,) = cohort.prepared.accused.values()
    assert (error.culprit, error.code) == (4, Code.BAD_SHARE)
    assert "at 5 of its holders" in str(error)
    result = cohort.again().finish()
    assert result.survivors == (0, 1, 2, 3, 5, 6, 7, 8)


@pytest.mark.parametrize("corrupt", [0, 1, 2, 3])
def test_liars_can_neither_exclude_nor_accuse_an_honest_dealer(corrupt):
    """As many as may be corrupt complain of a client that has dealt well: it is named by nobody, and stays. One more,
    and it goes: the parameters have promised too much."""
    most = max(corrupt, 1)
    for liars in range(most + 2):
        cohort = Cohort(semi_honest(9, threshold=4, corrupt=corrupt, slots=2)).trip().trip()
        complaining(cohort, {liar: {8} for liar in range(liars)})
        assert cohort.finish().survivors == tuple(range(9))
        assert set(cohort.prepared.accused) == ({8} if liars > most else set())
        assert (8 in cohort.prepared.clients) == (liars <= most)
        assert (8 in cohort.again().start.invited) == (liars <= most)
        assert cohort.prepared.dealers == tuple(range(9))


def complaining(cohort, complaints, truly=True):
    """All upload; those in `complaints`, by client, also say that they hold no shares of somebody, and `truly` reveal
    none later."""
    for index in list(cohort.mail):
        cohort.clients[index], message = cohort.move(index)
        if index in complaints:
            members = cohort.params.graph.members(index)
            said = encode_subset(members, complaints[index])
            message = reframed(message, body_of(message)[: cohort.params.payload_bytes] + said)
            for owner in complaints[index] if truly else ():
                del cohort.clients[index]._uploaded.held[owner]
        cohort.server.receive(index, message)
    cohort.server, cohort.mail = cohort.server.close()


@kinds
def test_what_a_liar_complains_of_it_need_not_reveal(make):
    """Its REVEAL is shorter then, and the round goes on with the shares of the others."""
    cohort = Cohort(make(5, threshold=3)).trip().trip()
    if cohort.params.suite.hybrid:
        cohort.trip()
    complaining(cohort, {1: {0, 2}}, truly=False)
    if cohort.params.malicious:
        cohort.trip()
    for index in range(5):
        message = cohort.move(index)[1]
        if index == 1:
            with pytest.raises(PeerError, match="REVEAL of 102 bytes; between 17 and 68 expected") as caught:
                cohort.server.receive(1, message)
            assert caught.value.culprit == 1
            body = body_of(message)
            message = reframed(message, body[17:34] + body[51:])
        cohort.server.receive(index, message)
    assert cohort.result().survivors == tuple(range(5))


@kinds
def test_a_complaint_is_repeated_in_each_upload(make):
    """The server learns of it where the client uploads at all; the bit is the same in every round."""
    cohort = sabotaged(make(6, threshold=4, slots=3), 2, {4})
    for _ in range(3):
        cohort.trip(dropping={0})
        assert body_of(cohort.sent[4])[-1] == 1 << 2
        assert body_of(cohort.sent[5])[-1] == 0
        assert cohort.finish().survivors == (1, 2, 3, 4, 5)
        if cohort.prepared.next_slot < 3:
            cohort.again()


@kinds
def test_who_can_open_next_to_nothing_leaves(make):
    """It has been told other keys than the others, or nearly all lie (C-39). Its position stays as it was, so that the
    true inbox can come yet."""
    cohort = Cohort(make(6, threshold=4, slots=2)).trip()
    if cohort.params.suite.hybrid:
        cohort.trip()
    cohort.trip()
    true = cohort.mail[5]
    body = body_of(true)
    cohort.mail = cohort.mail | {5: reframed(true, body[:1] + os.urandom(len(body) - 1))}
    with pytest.raises(TooFewSurvivors, match="boxes that opened: 1 left, 4 needed"):
        cohort.move(5)
    cohort.mail = cohort.mail | {5: true}
    assert cohort.finish().survivors == tuple(range(6))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_any_sabotage_of_the_boxes(data):
    """Some deal rubbish to some. Whoever is named has dealt it to more than one; each round is the right sum, or ends
    with too few; and none of those who deal well is ever left out."""
    make = data.draw(st.sampled_from([semi_honest, malicious]))
    params = make(**data.draw(st.sampled_from([{"clients": 8, "threshold": 5}, HARARY])), slots=3)
    graph, rubbish = params.graph, {}
    for dealer in data.draw(st.sets(st.integers(0, params.clients - 1), max_size=3)):
        peers = [peer for peer in graph.members(dealer) if peer != dealer]
        rubbish[dealer] = data.draw(st.sets(st.sampled_from(peers), max_size=len(peers)))
    cohort = Cohort(params).trip()
    moved = {index: cohort.move(index) for index in cohort.clients}
    for index, (cohort.clients[index], message) in moved.items():
        cohort.server.receive(index, spoilt(cohort, index, message, rubbish.get(index, ())))
    cohort.server, cohort.mail = cohort.server.close()
    cohort.prepared = cohort.server
    cohort.begin()
    inboxes = cohort.mail
    for _ in range(3):
        cohort.mail = {index: mail for index, mail in cohort.mail.items() if index in cohort.start.invited}
        leaving = {index for index in cohort.mail if left(cohort, index)}
        try:
            cohort.trip(dropping=leaving)
            while type(cohort.server).__name__ != "ServerUnmask":
                cohort.trip()
            cohort.send()
            survivors = cohort.result().survivors
        except TooFewSurvivors:
            survivors = ()
        assert all(len(rubbish.get(dealer, ())) > 1 for dealer in cohort.prepared.accused)
        assert survivors == () or set(survivors) >= set(cohort.start.invited) - leaving
        if cohort.prepared.next_slot < 3:
            cohort.again()
            cohort.mail = inboxes  # which all get with each START until they have uploaded


def left(cohort, index):
    """Whether a client would not go on."""
    try:
        cohort.move_again(index)
    except TooFewSurvivors:
        return True
    return False


def test_the_shares_of_those_who_complain_do_not_count():
    """Nine reveal, and of client 0's secret six shares."""
    cohort = sabotaged(semi_honest(9, threshold=4), 0, (6, 7, 8))
    cohort.trip().send()
    counted = cohort.server._state.owners(tuple(range(9)))
    assert np.bincount(counted)[:2].tolist() == [6, 9]
    assert cohort.result().survivors == tuple(range(9))


def test_a_complaint_is_not_taken_back():
    """A client that complains in one round and not in the next, or of another client then, still holds nothing of whom
    it named, as far as the server goes: else it could count among the holders where it pleases it."""
    cohort = Cohort(semi_honest(6, threshold=4, slots=2)).trip().trip()
    complaining(cohort, {1: {0}, 2: {0}, 3: {4}})
    assert cohort.finish().survivors == tuple(range(6))
    cohort.again(invited=cohort.start.invited.without(Bitmap.of(6, {0})))
    complaining(cohort, {3: {5}})
    assert cohort.prepared._deposits.complaints == {1: {0}, 2: {0}, 3: {4, 5}}
    message = cohort.move_again(3)
    with pytest.raises(PeerError, match="REVEAL of 85 bytes; between 17 and 68 expected"):
        cohort.server.receive(3, message)
