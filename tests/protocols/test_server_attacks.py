"""What clients may do to the server: wrong, second and too few messages."""

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import Cohort, semi_honest

from flora_protocols import (
    MisuseError,
    PeerError,
    TooFewSurvivors,
    UnsoundShares,
    messages,
    shamir,
)


def last_trip(clients=7, threshold=4, dropping=(5,)):
    cohort = Cohort(semi_honest(clients, threshold=threshold)).trip().trip().trip(dropping)
    cohort.send()
    return cohort


def revealing(cohort, liar, owner):
    """Client `liar` flips a bit of its share of `owner`'s secret, with a right checksum."""
    body = bytearray(body_of(cohort.sent[liar]))
    body[owner * shamir.SHARE] ^= 1
    cohort.server._shares[liar], _ = messages.decode_reveal(
        cohort.server._state.session, reframed(cohort.sent[liar], bytes(body)), liar, cohort.params.clients, ()
    )


@pytest.mark.parametrize("owner", [0, 5])
@pytest.mark.parametrize("liar", [0, 4, 6])
def test_a_wrong_share_names_who_revealed_it(liar, owner):
    cohort = last_trip()
    revealing(cohort, liar, owner)
    with pytest.raises(PeerError, match=f"a wrong share of client {owner}") as caught:
        cohort.server.close()
    assert caught.value.culprit == liar


def test_shares_must_be_canonical(cohort):
    cohort.trip().trip().trip()
    _, message = cohort.move(0)
    bad = bytearray(body_of(message))
    bad[:2], bad[16] = b"\1\0", bad[16] | 1  # limb 0 would be 65537
    with pytest.raises(PeerError, match="client 0: a share is not canonically encoded"):
        cohort.server.receive(0, reframed(message, bytes(bad)))
    cohort.server.receive(0, message)


def test_a_wrong_share_that_cannot_be_attributed_names_nobody():
    cohort = last_trip(clients=6, threshold=4)  # five reveal: one more than t
    revealing(cohort, 1, 5)
    with pytest.raises(UnsoundShares, match="nobody is named") as caught:
        cohort.server.close()
    assert caught.value.owner == 5


def test_a_wrong_key_share_without_surplus_is_noticed_by_the_public_key():
    """And nobody is named: that one holder lied is as likely as that the owner did."""
    cohort = last_trip(clients=5, threshold=4, dropping=(4,))
    revealing(cohort, 1, 4)
    with pytest.raises(UnsoundShares, match="do not give the mask key that it advertised") as caught:
        cohort.server.close()
    assert caught.value.owner == 4


def test_shares_of_a_secret_that_is_not_the_mask_key(monkeypatch):
    """A client deals shares of another secret than its mask key's, then drops."""
    cohort = Cohort(semi_honest(threshold=2)).trip()
    true = shamir.split

    def false(secrets, *rest):
        return true(bytes(16) + secrets[16:], *rest)

    with monkeypatch.context() as patched:
        patched.setattr("flora_protocols.client.split", false)
        cohort.clients[3], message = cohort.move(3)
    cohort.server.receive(3, message)
    for index in range(3):
        cohort.clients[index], message = cohort.move(index)
        cohort.server.receive(index, message)
    cohort.server, cohort.mail = cohort.server.close()
    cohort.trip(dropping={3}).send()
    with pytest.raises(PeerError, match="client 3: shared a secret that does not belong"):
        cohort.server.close()


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
    cohort = Cohort(semi_honest(7, threshold=4)).trip().trip().trip()
    moved = {i: cohort.move(i)[1] for i in range(7)}
    for index in range(7):
        cohort.server.receive(index, moved[0 if index == 1 else index])
    with pytest.raises(PeerError) as caught:
        cohort.server.close()
    assert caught.value.culprit == 1


def test_too_few_leaves_the_server_waiting(cohort):
    cohort.trip()
    cohort.send(dropping={2, 3})
    with pytest.raises(TooFewSurvivors, match="clients that shared: 2 left, 3 needed"):
        cohort.server.close()
    assert not cohort.server.spent


def test_too_few_answers_leave_the_server_waiting(cohort):
    cohort.trip().trip().trip().send(dropping={2, 3})
    with pytest.raises(TooFewSurvivors, match="clients that revealed shares: 2 left, 3 needed"):
        cohort.server.close()
    assert not cohort.server.spent


def test_a_round_that_cannot_be_unmasked_ends_before_anything_is_revealed():
    """Harary graph: enough clients uploaded, but one of them has too few surviving neighbours to hold its shares."""
    params = semi_honest(8, 2, threshold=2)
    cohort = Cohort(params).trip().trip()
    cohort.send(dropping={params.graph.holders(0)[0]})
    with pytest.raises(TooFewSurvivors, match=r"shares: 1 left, 2 needed"):
        cohort.server.close()
