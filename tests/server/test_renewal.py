"""Which masking session a server's rounds are of: one for as long as its slots and its cohort last."""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from following import CLIENTS, server_of

from flora_protocols import Suite
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.sum import Outcome, RoundSum
from flora_secure.server.server import Server


def summed(invitation: Invitation) -> Outcome:
    zeros, everybody = np.zeros(invitation.plan.length, np.uint32), invitation.members
    return Outcome(sum=RoundSum(zeros, everybody, 0), aborted=None, uploaded=everybody)


def failed(*, session_lost: bool = False) -> Outcome:
    return Outcome(sum=None, aborted="too few", uploaded=(), session_lost=session_lost)


def rounds_of(server: Server, outcomes: Iterable = ()) -> list[tuple[int, int]]:
    """Session and slot of the next rounds, which end with these outcomes; of all that are left where none is given."""
    taken = []
    for outcome in outcomes or itertools.repeat(summed):
        if server.done:
            break
        invitation = server.invite()
        assert invitation.params is not None
        assert invitation.slot == invitation.round - invitation.params.number
        taken.append((invitation.params.number, invitation.slot))
        server.finish(invitation, outcome(invitation))
    return taken


def test_one_session_serves_a_whole_run_unless_its_slots_are_fewer() -> None:
    assert rounds_of(server_of()) == [(1, slot) for slot in range(8)]
    assert rounds_of(server_of(aggregation__slots=8)) == [(1, slot) for slot in range(8)]
    three = [(1, 0), (1, 1), (1, 2), (4, 0), (4, 1), (4, 2), (7, 0), (7, 1)]
    assert rounds_of(server_of(aggregation__slots=3)) == three
    assert rounds_of(server_of(aggregation__slots=1)) == [(number, 0) for number in range(1, 9)]


def test_all_rounds_of_a_session_have_its_parameters() -> None:
    us, seen = server_of(aggregation__slots=3), set()
    for _ in range(4):
        invitation = us.invite()
        seen.add(invitation.params)
        us.finish(invitation, summed(invitation))
    first, second = sorted(seen, key=lambda params: params.number)
    assert (first.slots, first.suite, first.number) == (3, Suite.X25519_MLKEM768, 1)
    assert second.setup_id != first.setup_id


def test_a_round_without_a_sum_takes_its_slot_and_the_session_goes_on() -> None:
    us = server_of(aggregation__slots=3, privacy__dropout_tolerance=0.2)
    outcomes = iter([summed, lambda _: failed(), summed, summed])
    assert rounds_of(us, outcomes) == [(1, 0), (1, 1), (1, 2), (4, 0)]


def test_a_session_that_is_lost_is_begun_anew_in_the_next_round() -> None:
    us = server_of(aggregation__slots=5)
    outcomes = iter([summed, lambda _: failed(session_lost=True), summed, summed])
    assert rounds_of(us, outcomes) == [(1, 0), (1, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize("sampling", ["fixed", "poisson"])
def test_cohorts_have_a_session_each(sampling) -> None:
    """Also where the same clients are drawn twice: a session of one slot is over with its round."""
    us = server_of(participation__rate=0.9, participation__sampling=sampling, aggregation__corrupt=0.0)
    taken, cohorts = [], []
    while not us.done:
        invitation = us.invite()
        assert invitation.params.slots == 1
        assert invitation.params.suite is Suite.X25519
        taken.append((invitation.params.number, invitation.slot))
        cohorts.append(invitation.members)
        us.finish(invitation, summed(invitation))
    assert taken == [(number, 0) for number in range(1, 9)]
    assert len(set(cohorts)) > 1


def test_another_cohort_begins_another_session() -> None:
    us = server_of(aggregation__slots=5)
    cohorts = iter([range(10), range(10), range(9), range(9), range(10)])

    class Drawn:
        clients, uniform, scheme = CLIENTS, False, None

        def candidates(self, *_):
            return range(CLIENTS)

        def draw(self, *_):
            return tuple(next(cohorts))

    us.selection, us.plan = Drawn(), dataclasses.replace(us.plan, smallest_cohort=9)
    assert rounds_of(us, [summed] * 5) == [(1, 0), (1, 1), (3, 0), (3, 1), (5, 0)]


def test_sessions_of_signing_clients_name_them_in_their_order() -> None:
    us = server_of(aggregation__secagg="malicious-server")
    assert us.invite().params.identities == us.enrolment.identities
    assert len(set(us.enrolment.identities)) == CLIENTS


def test_a_server_that_goes_on_after_a_crash_begins_another_session() -> None:
    """Its clients may have lost theirs, and it has itself; the number is that of no session before."""
    first = server_of(aggregation__slots=8)
    for _ in range(2):
        invitation = first.invite()
        first.finish(invitation, summed(invitation))
    again = server_of(aggregation__slots=8)
    again.restore(first.records, first.checkpoint())
    assert rounds_of(first) == [(1, slot) for slot in range(2, 8)]
    assert rounds_of(again) == [(3, slot) for slot in range(6)]


def test_a_lost_round_counts_for_the_numbers_of_sessions() -> None:
    """What was begun in it may have reached clients: its number is not taken again."""
    announced = []
    us = server_of(aggregation__slots=8)
    us.invite(announced.append)
    again = server_of(aggregation__slots=8)
    again.restore([], us.checkpoint())
    again.lose(announced[0])
    assert rounds_of(again)[:2] == [(2, 0), (2, 1)]
