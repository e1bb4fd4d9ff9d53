"""Clients by their messages: whole rounds, and what they refuse before they are in one."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
from messaging import CLIENTS, DIMENSION, MODEL, NOISELESS, PLAN, Federation, alone

from flora_protocols import Code, PeerError, Suite, Trip
from flora_secure.client.client import Client, code_of
from flora_secure.errors import Refusal, RefusalError
from flora_secure.planning.masking import SUITES
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.encoding import decode
from flora_secure.rounds.opening import encode_opening


@pytest.mark.parametrize("signed", [False, True])
def test_rounds_by_messages_give_the_sum_of_those_who_stayed(signed) -> None:
    federation, before = Federation(signed=signed, least_noise=0.0, most_epsilon=math.inf), None
    for number in (1, 2, 3):
        invitation = federation.invitation(number, NOISELESS)  # each in a session of one slot
        result = federation.conduct(invitation, gone={Trip.MASK: {4}}, after=before)
        before = invitation
        assert result.survivors == (0, 1, 2, 3, 5)
        found = decode(result.sum, invitation.plan, 5, invitation.rotation)
        np.testing.assert_allclose(found, federation.trainer.rows[[0, 1, 2, 3, 5]].sum(0), atol=1e-3)
    assert [len(client.ledger.given) for client in federation.clients] == [3, 3, 3, 3, 0, 3]


def refused(client: Client, message: bytes) -> str:
    """The code of the refusal; the client is as it was."""
    before = client.store.load(), client.ledger.given
    with pytest.raises((RefusalError, PeerError)) as caught:
        client.answer(message)
    assert (client.store.load(), client.ledger.given) == before
    return code_of(caught.value)


def test_what_is_no_message_is_refused_and_changes_nothing() -> None:
    federation = Federation()
    client, invitation = federation.clients[0], federation.invitation()
    assert refused(client, b"") == "no-round"
    client.answer(federation.opening(invitation))
    assert refused(client, b"rubbish" * 4) == Code.NOT_A_MESSAGE.value
    opening = federation.opening(federation.invitation(2))
    assert refused(client, opening[:8] + b"\x09" + opening[9:]) == Code.OTHER_VERSION.value
    newer = b"fS\x09\x01" + bytes(40)
    assert refused(client, newer) in {Code.OTHER_VERSION.value, Code.NOT_A_MESSAGE.value}
    assert refused(client, opening[:10]) == Code.NOT_A_MESSAGE.value


@pytest.mark.parametrize(
    ("policy", "invited", "code"),
    [
        ({"profile": "malicious-server"}, {}, Refusal.PROFILE),
        ({}, {"masked": False}, Refusal.PROFILE),
        ({"least_noise": 100.0}, {}, Refusal.NOISE),
        ({}, {"plan": NOISELESS}, Refusal.NOISE),
        ({"most_epsilon": 0.1}, {}, Refusal.BUDGET),
        ({"least_clients": 7}, {}, Refusal.FLOORS),
        ({"least_threshold": 6}, {}, Refusal.FLOORS),
        ({"least_survivors": 6}, {}, Refusal.FLOORS),
        ({"unit": "example"}, {}, Refusal.UNIT),
        ({"placements": ("text-attention",)}, {}, Refusal.PLACEMENT),
        ({"suite": "x25519-mlkem768"}, {}, Refusal.PROFILE),
    ],
)
def test_a_round_that_falls_short_of_the_clients_terms_is_refused(policy, invited, code) -> None:
    federation = Federation(**policy)
    assert refused(federation.clients[0], federation.opening(federation.invitation(**invited))) == code.value


def test_the_noise_is_counted_and_not_believed() -> None:
    """A plan that claims a noise multiplier which its shares do not make."""
    federation = Federation(least_noise=0.5 * PLAN.noise_multiplier)
    lying = dataclasses.replace(PLAN, sigma_local=PLAN.sigma_local / 10)
    assert refused(federation.clients[0], federation.opening(federation.invitation(plan=lying))) == "noise"


def test_the_suite_that_a_client_insists_on_is_its_floor_in_the_protocol_too() -> None:
    for asked, suite in SUITES.items():
        federation = Federation(suite=asked)
        invitation = federation.invitation(suite=Suite.X25519_MLKEM768)
        assert federation.clients[0].policy.accept(invitation)[1].suite is suite
        federation.clients[0].answer(federation.opening(invitation))


def test_another_model_and_a_round_of_others_are_refused() -> None:
    federation = Federation()
    client = federation.clients[0]
    tampered = federation.opening(federation.invitation())[:-1] + b"?"
    assert refused(client, tampered) == Refusal.MODEL.value
    small = calibrate(clients=5, dimension=DIMENSION, rounds=5, epsilon=8.0, delta=1e-5, clip_norm=1.0)
    others = federation.invitation(plan=small, members=range(1, 6))
    assert refused(client, federation.opening(others)) == Refusal.NOT_INVITED.value


def test_colluders_are_counted_by_the_client_and_their_noise_is_not() -> None:
    costs = []
    for corrupt in (0.0, 0.3):
        federation = Federation(corrupt=corrupt)
        invitation = federation.invitation()
        federation.conduct(invitation)
        (given,) = federation.clients[0].ledger.given
        assert given.event.colluders == max(invitation.worst_event.colluders, math.ceil(corrupt * CLIENTS))
        costs.append(federation.clients[0].ledger.epsilon(1e-5))
        least = federation.clients[0].policy.accept(invitation)[0].noise_multiplier
        insisting = Federation(corrupt=corrupt, least_noise=least * 1.001)
        assert refused(insisting.clients[0], insisting.opening(insisting.invitation())) == Refusal.NOISE.value
    assert costs[1] > 1.2 * costs[0]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rule": "frozen-a"}, Refusal.MODEL),
        ({"dimension": DIMENSION + 1}, Refusal.MODEL),
        ({"broadcast": 2 * DIMENSION + 2}, Code.BAD_BODY),
    ],
)
def test_a_round_that_trains_other_values_is_refused(changes, code) -> None:
    federation = Federation()
    broadcast = bytes(changes.get("broadcast", 2 * DIMENSION))
    invitation = federation.invitation(
        plan=dataclasses.replace(PLAN, dimension=changes.get("dimension", DIMENSION)),
        rule=changes.get("rule", "prompt-basis"),
        model_hash=hashlib.sha256(MODEL + broadcast).digest(),
    )
    opening = encode_opening(invitation.to_bytes(federation.enrolment, None), alone(1, broadcast))
    assert refused(federation.clients[0], opening) == code.value


def test_a_round_is_taken_once_and_rounds_are_counted() -> None:
    federation = Federation(most_rounds=2, last_round=9)
    for number in (1, 2):
        federation.conduct(federation.invitation(number))
    client = federation.clients[0]
    again = federation.invitation(2, rotation_seed=1)
    assert refused(client, federation.opening(again)) == Refusal.REPEATED.value
    assert refused(client, federation.opening(federation.invitation(1))) == Refusal.REPEATED.value
    assert refused(client, federation.opening(federation.invitation(3))) == Refusal.ROUNDS.value


def test_the_server_cannot_choose_among_all_numbers_of_rounds() -> None:
    """The graph follows from the number: half a million of them a minute can be looked through."""
    for terms, last in (({"most_rounds": 2}, 2), ({"most_rounds": 2, "last_round": 9}, 9)):
        federation = Federation(**terms)
        client = federation.clients[0]
        assert refused(client, federation.opening(federation.invitation(last + 1))) == Refusal.ROUNDS.value
        client.answer(federation.opening(federation.invitation(last)))


def test_nothing_secret_is_shown() -> None:
    federation = Federation(signed=True)
    client = federation.clients[0]
    client.answer(federation.opening(federation.invitation()))
    shown = repr(client) + repr(client.store.load())
    held = client.store.load()
    assert held is not None
    assert held.position is not None
    for secret in (held.position, client.identity):
        assert secret is not None
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
