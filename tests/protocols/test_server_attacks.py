"""What clients may do to the server: wrong, second and too few messages, false shares, blobs and tags."""

import numpy as np
import pytest
from attacker import at, body_of, closed, others_send, reframed
from cohorts import Cohort, hybrid, malicious, semi_honest

from flora_protocols import (
    Code,
    MisuseError,
    PeerError,
    TooFewSurvivors,
    Trip,
    UnsoundShares,
    shamir,
    slots,
)


def last_trip(clients=7, threshold=4, dropping=(5,), make=semi_honest, **more):
    return at(Cohort(make(clients, threshold=threshold, **more)), Trip.UNMASK, dropping).send()


def revealing(cohort, liar, at_byte, value=1):
    """Client `liar` has a byte of its REVEAL changed, with a right checksum; it is taken in the place of its own."""
    server, body = cohort.server, bytearray(body_of(cohort.sent[liar]))
    body[at_byte] ^= value
    server._heard.remove(liar)
    server.receive(liar, reframed(cohort.sent[liar], bytes(body)))


def share_at(owner):
    return owner * shamir.SHARE


@pytest.mark.parametrize("make", [semi_honest, hybrid, malicious])
@pytest.mark.parametrize("owner", [0, 5])
@pytest.mark.parametrize("liar", [0, 4, 6])
def test_a_wrong_share_names_who_revealed_it(liar, owner, make):
    """Of a survivor's seed, and of the opener of one that dropped."""
    cohort = last_trip(make=make)
    revealing(cohort, liar, share_at(owner))
    with pytest.raises(PeerError, match=f"a wrong share of client {owner}") as caught:
        cohort.server.close()
    assert caught.value.culprit == liar


def test_shares_must_be_canonical(cohort):
    _, message = at(cohort, Trip.UNMASK).move(0)
    bad = bytearray(body_of(message))
    bad[:2], bad[16] = b"\1\0", bad[16] | 1  # limb 0 would be 65537
    with pytest.raises(PeerError, match="client 0: a share is not canonically encoded"):
        cohort.server.receive(0, reframed(message, bytes(bad)))
    cohort.server.receive(0, message)


def test_a_wrong_share_that_cannot_be_attributed_names_nobody():
    cohort = last_trip(clients=6, threshold=4)  # five reveal: one more than t
    revealing(cohort, 1, share_at(5))
    with pytest.raises(UnsoundShares, match="nobody is named") as caught:
        cohort.server.close()
    assert caught.value.owner == 5


def test_a_wrong_seed_share_without_surplus_is_noticed_by_the_commitment():
    """And nobody is named: that one holder lied is as likely as that the owner did."""
    cohort = last_trip(clients=4, threshold=4, dropping=())
    revealing(cohort, 1, share_at(2))
    with pytest.raises(UnsoundShares, match="do not give the seed that it committed to") as caught:
        cohort.server.close()
    assert caught.value.owner == 2


def test_a_wrong_opener_share_without_surplus_names_nobody():
    """Every surviving neighbour then says that its key is another one; not by the owner's fault."""
    cohort = last_trip(clients=5, threshold=4, dropping=(4,))
    revealing(cohort, 1, share_at(4))
    with pytest.raises(UnsoundShares, match="without the key of the mask with client 0, or so that one says") as caught:
        cohort.server.close()
    assert caught.value.owner == 4


def dealing(cohort, index, monkeypatch, **patches):
    """SHARE, in which client `index` deals with functions of `slots` replaced."""
    with monkeypatch.context() as patched:
        for name, value in patches.items():
            patched.setattr(slots, name, value)
        cohort.clients[index], message = cohort.move(index)
    cohort.server.receive(index, message)
    return closed(others_send(cohort, index))


@pytest.mark.parametrize("make", [semi_honest, hybrid])
def test_shares_of_a_seed_that_is_not_the_one_committed_to(make, monkeypatch):
    true = shamir.split
    cohort = at(Cohort(make(threshold=2)), Trip.SHARE)
    dealing(cohort, 3, monkeypatch, split=lambda secrets, *rest: true(bytes(16) + secrets[16:], *rest))
    at(cohort, Trip.UNMASK).send()
    with pytest.raises(PeerError, match="client 3: shared a secret that is not the seed that it committed to"):
        cohort.server.close()


@pytest.mark.parametrize("make", [semi_honest, hybrid])
def test_shares_of_an_opener_that_does_not_open_the_blob(make, monkeypatch):
    """Noticed only where the dealer drops: by its neighbours' tags, for what is opened are not their keys."""
    true = shamir.split
    for dropping in ((), {3}):
        cohort = at(Cohort(make(threshold=2)), Trip.SHARE)
        dealing(cohort, 3, monkeypatch, split=lambda secrets, *rest: true(secrets[:16] + bytes(16), *rest))
        at(cohort, Trip.UNMASK, dropping).send()
        if not dropping:
            cohort.result()
            continue
        with pytest.raises(PeerError, match="client 3: left other keys than it masked with, say 3 of its") as caught:
            cohort.server.close()
        assert caught.value.code is Code.BAD_SHARE


def test_a_blob_that_is_wrong_for_one_neighbour_names_nobody(monkeypatch):
    """That one may lie. If it is silent, the sum is noise, as the specification says."""
    true = slots._blob_bytes

    def spoilt(*args):
        stream = true(*args)
        return bytes((stream[0] ^ 1,)) + stream[1:]

    for silent in (False, True):
        cohort = at(Cohort(semi_honest(5, bits=32, dimension=50, threshold=2)), Trip.SHARE)
        dealing(cohort, 3, monkeypatch, _blob_bytes=spoilt)
        at(cohort, Trip.UNMASK, dropping={3}).send(dropping={0} if silent else ())
        if silent:
            with pytest.raises(AssertionError):
                cohort.result()
            continue
        with pytest.raises(UnsoundShares, match="open a blob without the key of the mask with client 0") as caught:
            cohort.server.close()
        assert caught.value.owner == 3


def test_a_false_tag_names_nobody_and_stops_the_round():
    cohort = last_trip()
    revealing(cohort, 2, -1)
    with pytest.raises(UnsoundShares, match="without the key of the mask with client 2, or so that one says"):
        cohort.server.close()


@pytest.mark.parametrize("make", [semi_honest, hybrid, malicious])
def test_missing_and_surplus_tags(make):
    params = make(6, threshold=4) if make is malicious else make(6, neighbours=4, threshold=2)
    cohort = at(Cohort(params), Trip.UNMASK, dropping={1})
    sender = next(i for i in cohort.params.graph.members(1) if i != 1)
    message = cohort.move_again(sender)
    body = body_of(message)
    for bad in (body[:-8], body[:-1], body + b"\0", body + bytes(8), body + body[-8:], body[8:]):
        with pytest.raises(PeerError) as caught:
            cohort.server.receive(sender, reframed(message, bad))
        assert caught.value.culprit == sender
    assert cohort.finish().recovered == (1,)


def test_second_messages_strangers_and_impossible_indices(cohort):
    cohort.trip(dropping={3})
    cohort.send()
    with pytest.raises(PeerError, match="client 0: sent a second message in trip SHARE"):
        cohort.server.receive(0, cohort.sent[0])
    with pytest.raises(PeerError, match="client 3: is not in trip SHARE"):
        cohort.server.receive(3, cohort.sent[0])
    for index in (-1, 4, "0", True, False, np.True_, 0.0, None, 10**5000):
        with pytest.raises(MisuseError, match="client index"):
            cohort.server.receive(index, cohort.sent[0])
    assert cohort.server.heard == {0, 1, 2}


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_numpy_integers_are_indices(cohort, kind):
    """As for a client's own index; and what is kept is a Python int."""
    for index in range(4):
        cohort.server.receive(kind(index), cohort.move(index)[1])
    assert {type(index) for index in cohort.server.heard} == {int}
    with pytest.raises(PeerError, match="client 1: sent a second message") as caught:
        cohort.server.receive(kind(1), b"")
    assert type(caught.value.culprit) is int


def test_another_clients_reveal_changes_nothing_unseen():
    """Shares revealed under another client's name lie off the polynomials."""
    cohort = at(Cohort(semi_honest(7, threshold=4)), Trip.UNMASK)
    moved = {i: cohort.move(i)[1] for i in range(7)}
    for index in range(7):
        cohort.server.receive(index, moved[0 if index == 1 else index])
    with pytest.raises(PeerError) as caught:
        cohort.server.close()
    assert caught.value.culprit == 1


@pytest.mark.parametrize("trip", [Trip.ADVERTISE, Trip.ENCAPSULATE, Trip.SHARE, Trip.MASK, Trip.UNMASK])
def test_too_few_leaves_the_server_waiting(hybrid_cohort, trip):
    cohort = at(hybrid_cohort, trip)
    late = cohort.clients[2]
    cohort.send(dropping={2, 3})
    with pytest.raises(TooFewSurvivors, match=": 2 left, 3 needed") as caught:
        cohort.server.close()
    assert caught.value.code is Code.TOO_FEW_SURVIVORS
    assert not cohort.server.spent
    cohort.clients[2] = late
    cohort.server.receive(2, cohort.move(2)[1])
    assert cohort.server.close()


def test_a_round_that_cannot_be_unmasked_ends_before_anything_is_revealed():
    """Harary graph: enough clients uploaded, but one of them has too few surviving neighbours to hold its shares."""
    params = semi_honest(8, 2, threshold=2)
    cohort = at(Cohort(params), Trip.MASK)
    cohort.send(dropping={params.graph.holders(0)[0]})
    with pytest.raises(TooFewSurvivors, match=r"shares: 1 left, 2 needed"):
        cohort.server.close()
