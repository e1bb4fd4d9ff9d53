"""A server without an engine: rounds in order, openings that every member can read, and outcomes that can be."""

import math
from dataclasses import replace

import numpy as np
import pytest

from flora_secure.errors import ConfigError
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.rules import PROMPT_BASIS, TrainedValues
from flora_secure.records.record import RoundRecord
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import MAGIC, SHORT_MAGIC, Invitation
from flora_secure.rounds.opening import decode_opening
from flora_secure.rounds.sum import Outcome, RoundSum
from flora_secure.server.server import Server
from flora_secure.server.task import ServerTask

CLIENTS, DIMENSION = 10, 64


def server(*, revoked: tuple[int, ...] = (), **changes) -> Server:
    config = override(
        RunConfig(),
        {
            "data.clients": CLIENTS,
            "training.rounds": 4,
            "privacy.epsilon": 50.0,
            "privacy.simulation_noise": True,
            **{key.replace("__", "."): value for key, value in changes.items()},
        },
    )
    task = ServerTask(
        trained=TrainedValues(PROMPT_BASIS, 1, DIMENSION),
        initial=np.zeros(DIMENSION, np.float32),
        width=8.0,
        images=1000,
        model_hash="00" * 32,
        data_hash="00" * 32,
        accuracy=lambda adapter: float(np.abs(adapter).sum() < math.inf),
    )
    return Server(config, task, Enrolment(clients=CLIENTS, revoked=frozenset(revoked)))


def ended(invitation: Invitation, uploaded: tuple[int, ...]) -> Outcome:
    zeros = np.zeros(invitation.plan.length, np.uint32)
    return Outcome(sum=RoundSum(zeros, uploaded, 0), aborted=None, uploaded=uploaded, contributions=len(uploaded))


def test_a_member_is_sent_the_short_form_once_it_has_shown_that_it_has_the_long_one() -> None:
    us = server(privacy__dropout_tolerance=0.2)
    everybody = tuple(range(CLIENTS))
    held: dict[int, Invitation] = {}
    short_to = list[set[int]]()
    # the same clients drop out in rounds 1 and 2, another one in round 3
    for uploaded in (everybody[:8], everybody[:8], everybody[1:], everybody):
        invitation = us.invite()
        openings = us.openings(invitation)
        assert tuple(openings) == invitation.members
        short_to.append(
            {member for member, opening in openings.items() if decode_opening(opening)[0][:2] == SHORT_MAGIC}
        )
        for member, opening in openings.items():
            data, _ = decode_opening(opening)
            read = Invitation.from_bytes(data, us.enrolment, held.get(member))
            assert read == invitation
            if data[:2] == MAGIC and member in uploaded:
                held[member] = read
        us.finish(invitation, ended(invitation, uploaded))
    assert short_to == [set(), set(everybody[:8]), set(everybody[:8]), set(everybody[1:])]
    assert us.invitation_bytes == sum(
        Invitation.sizes(CLIENTS, "text-projection", "prompt-basis", masked=True)[member in short]
        for short in short_to
        for member in everybody
    )


def test_rounds_come_one_at_a_time_and_end_once() -> None:
    us = server()
    first = us.invite()
    with pytest.raises(RuntimeError, match="round 1 is not over"):
        us.invite()
    with pytest.raises(RuntimeError, match="round 1 is not open"):
        us.finish(replace(first), ended(first, first.members))
    us.finish(first, ended(first, first.members))
    with pytest.raises(RuntimeError, match="round 1 is not open"):
        us.finish(first, ended(first, first.members))
    assert [record.round for record in us.records] == [1]
    assert us.invite().round == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uploaded": (0, 99)}, "clients \\[99\\] uploaded"),
        ({"aborted": "too few"}, "either a sum or the reason"),
        ({"sum": None}, "either a sum or the reason"),
        ({"uploaded": (0, 1)}, "who did not upload"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused_and_changes_nothing(changes: dict[str, object], message: str) -> None:
    us = server()
    invitation = us.invite()
    good = ended(invitation, invitation.members)
    with pytest.raises(ValueError, match=message):
        us.finish(invitation, replace(good, **changes))
    assert us.records == []
    assert us.ledger.epsilon == 0
    assert us.finish(invitation, good).round == 1


def test_revoked_clients_are_not_invited_and_a_cohort_of_everybody_is_refused_with_them() -> None:
    us = server(
        revoked=(2, 5), participation__rate=0.5, participation__sampling="fixed", privacy__simulation_noise=False
    )
    for _ in range(4):
        invitation = us.invite()
        assert not {2, 5} & set(invitation.members)
        us.finish(invitation, ended(invitation, invitation.members))
    with pytest.raises(ConfigError, match="2 clients are revoked, and everybody is to take part"):
        server(revoked=(2, 5))


def test_a_round_that_is_aborted_after_its_survivors_were_told_is_charged_and_moves_nothing() -> None:
    us, twin = server(privacy__dropout_tolerance=0.2), server(privacy__dropout_tolerance=0.2)
    everybody = tuple(range(CLIENTS))
    for told, server_ in (((), twin), (everybody[:9], us)):
        invitation = server_.invite()
        record = server_.finish(
            invitation, Outcome(sum=None, aborted="too few revealed", uploaded=everybody[:9], announced=told)
        )
        assert record.dropped == [9]
        assert record.survivors == list(told)
        assert (record.announced, record.released, record.exposed, record.summed) == (
            bool(told),
            bool(told),
            not told,
            False,
        )
        assert not server_.adapter.any()
        assert (server_.ledger.epsilon > 0) == bool(told)
        assert (record.noise_multiplier is not None) == bool(told)
        assert RoundRecord.from_dict(record.to_dict()) == record
        again = server(privacy__dropout_tolerance=0.2)
        again.restore([record], server_.checkpoint())
        assert again.ledger.epsilon == server_.ledger.epsilon
        assert again.ledger.epsilon_local == server_.ledger.epsilon_local > 0
    assert us.ledger.events[0].survivors == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"announced": (0, 9), "uploaded": (0, 1)}, "were announced, and did not upload"),
        ({"announced": (0,)}, "has its survivors"),
    ],
)
def test_announced_survivors_are_those_of_a_round_without_a_sum(changes, message) -> None:
    us = server()
    invitation = us.invite()
    good = ended(invitation, invitation.members)
    if "uploaded" in changes:
        good = replace(good, sum=None, aborted="late")
    with pytest.raises(ValueError, match=message):
        us.finish(invitation, replace(good, **changes))


def test_nothing_is_amplified_where_clients_are_revoked() -> None:
    """Who is revoked is never drawn, so that cohorts come from fewer clients than there are."""
    sampled = {"participation__rate": 0.5, "participation__sampling": "fixed", "training__rounds": 1}
    for revoked, population in (((), CLIENTS), ((2, 5), None)):
        us = server(revoked=revoked, **sampled)
        assert us.selection.uniform
        invitation = us.invite()
        record = us.finish(invitation, replace(ended(invitation, invitation.members), uniform=True))
        assert record.population == population
        assert us.ledger.events[0].population == population


def test_a_member_that_does_not_upload_is_sent_the_long_form_again() -> None:
    """It may have lost what it kept, and could never come back."""
    us = server(privacy__dropout_tolerance=0.2)
    everybody, forms = tuple(range(CLIENTS)), []
    for uploaded in (everybody, everybody[:9], everybody):
        invitation = us.invite()
        forms.append(decode_opening(us.openings(invitation)[9])[0][:2])
        us.finish(invitation, ended(invitation, uploaded))
    assert forms == [MAGIC, SHORT_MAGIC, MAGIC]
