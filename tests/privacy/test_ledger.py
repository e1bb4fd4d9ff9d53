"""Ledgers of single clients: each pays for the rounds that it was in, and the worst one is the headline."""

import dataclasses
import math
import time
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_secure.planning.participation import PoissonCohort, draw_cohort, eligible
from flora_secure.privacy.accounting import epsilon_local, epsilon_of, gaussian_epsilon, noise_multiplier_for
from flora_secure.privacy.events import RoundEvent
from flora_secure.privacy.ledger import BudgetExceededError, Ledger, LedgerError


def event(
    z: float, number: int, who: Iterable[int] | None = None, q: float = 1.0, population: int | None = None
) -> RoundEvent:
    participants = None if who is None else frozenset(who)
    survivors = 1 if participants is None else max(1, len(participants))
    sigma = 100 * z / math.sqrt(survivors)
    return RoundEvent(number, survivors, 0, sigma, 100.0, 1.0, 1, participants, q, population)


def enter(ledger: Ledger, e: RoundEvent) -> None:
    ledger.authorise(e)
    ledger.record(e)


def test_a_client_pays_for_its_own_rounds_only() -> None:
    ledger = Ledger(20, 1e-5)
    for t, who in enumerate([{0, 1}, {1, 2}, {1}, {0, 2}], 1):
        enter(ledger, event(2.0, t, who))
    assert ledger.clients == (0, 1, 2)
    assert [e.round for e in ledger.events_of(0)] == [1, 4]
    two, three = (gaussian_epsilon(math.sqrt(rounds) / 2, 1e-5) for rounds in (2, 3))
    assert ledger.epsilon_by_client() == pytest.approx({0: two, 1: three, 2: two})
    assert ledger.epsilon == ledger.epsilon_of_client(1) == max(ledger.epsilon_by_client().values())
    assert [e.round for e in ledger.worst_events] == [1, 2, 3]
    assert ledger.mu == pytest.approx(math.sqrt(3) / 2)
    assert ledger.epsilon_of_client(99) == 0.0
    assert ledger.epsilon_local == max(epsilon_local(ledger.events_of(c), 1e-5) for c in range(3))


def test_uploads_of_aborted_rounds_count_for_single_uploads_alone() -> None:
    """Whoever receives uploads singly has received them, whether or not they became a sum."""
    ledger = Ledger(20, 1e-5)
    enter(ledger, event(2.0, 1, {0, 1, 2}))
    enter(ledger, event(2.0, 2, {0}))
    sums = ledger.epsilon
    for t, who in ((3, {1, 2}), (4, {2}), (5, {2})):
        ledger.authorise(event(2.0, t, who))
        ledger.expose()
    assert ledger.epsilon == sums
    assert ledger.worst_events == ledger.events_of(0)
    assert [e.round for e in ledger.events] == [1, 2]
    # client 2 sent four uploads, more than client 0, who is the worst one for the sums
    sent = [event(2.0, 1, {0, 1, 2}), event(2.0, 3, {1, 2}), event(2.0, 4, {2}), event(2.0, 5, {2})]
    assert ledger.epsilon_local == pytest.approx(epsilon_local(sent, 1e-5))
    enter(ledger, event(2.0, 6, {2}))
    assert ledger.epsilon_local == pytest.approx(epsilon_local([*sent, event(2.0, 6, {2})], 1e-5))
    with pytest.raises(LedgerError, match="no round is authorised"):
        ledger.expose()


def test_an_aborted_round_of_everybody_exposes_everybody() -> None:
    ledger = Ledger(20, 1e-5)
    enter(ledger, event(2.0, 1, {0}))
    for number in (2, 3):
        ledger.authorise(event(3.0, number))
        ledger.expose()
    assert ledger.epsilon == ledger.epsilon_of_client(0) == gaussian_epsilon(0.5, 1e-5)
    exposed = [event(2.0, 1, {0}), event(3.0, 2), event(3.0, 3)]
    assert ledger.epsilon_local == pytest.approx(epsilon_local(exposed, 1e-5))
    nameless = Ledger(20, 1e-5)
    nameless.authorise(event(3.0, 1))
    nameless.expose()
    assert nameless.epsilon == 0
    assert nameless.epsilon_local == pytest.approx(epsilon_local([event(3.0, 1)], 1e-5))


def test_a_round_of_everybody_charges_everybody() -> None:
    ledger = Ledger(20, 1e-5)
    enter(ledger, event(2.0, 1, {0}))
    enter(ledger, event(3.0, 2))
    enter(ledger, event(4.0, 3, {5}))
    assert [[e.round for e in ledger.events_of(c)] for c in (0, 5, 7)] == [[1, 2], [2, 3], [2]]
    assert ledger.epsilon == gaussian_epsilon(math.sqrt(1 / 4 + 1 / 9), 1e-5)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(1.0, 9.0), st.none() | st.sets(st.integers(0, 5), min_size=1)), max_size=8))
def test_the_ledger_is_the_slow_sum(rounds: list[tuple[float, set[int] | None]]) -> None:
    ledger = Ledger(1e6, 1e-5)
    events = [event(z, t, who) for t, (z, who) in enumerate(rounds, 1)]
    for e in events:
        enter(ledger, e)
    slow = {c: [e for e in events if e.participants is None or c in e.participants] for c in range(7)}
    for client, own in slow.items():
        assert list(ledger.events_of(client)) == own
    assert ledger.epsilon == pytest.approx(max(epsilon_of(own, 1e-5) for own in slow.values()), rel=1e-12)


def test_clients_whose_budget_is_used_up_are_named_and_left_out() -> None:
    z = noise_multiplier_for(4, 1e-5, 2)
    ledger = Ledger(4, 1e-5)
    enter(ledger, event(z, 1, {0, 1, 2}))
    enter(ledger, event(z, 2, {0, 1, 3}))
    third = event(z, 3, range(5))
    assert ledger.refused(third) == {0, 1}
    with pytest.raises(BudgetExceededError, match=r"round 3 .* from 4 to 5\.\d+, .*leave out the 2") as e:
        ledger.authorise(third)
    assert e.value.clients == {0, 1}
    with pytest.raises(LedgerError, match="not authorised"):
        ledger.record(third)
    rest = event(z, 3, {2, 3, 4})
    enter(ledger, rest)
    assert ledger.epsilon <= 4
    assert ledger.refused(event(z, 4, range(6))) == {0, 1, 2, 3}
    with pytest.raises(BudgetExceededError, match="stop here") as e:
        ledger.authorise(event(z, 4))
    assert not e.value.clients
    assert ledger.refused(event(1e9, 4, range(6))) == frozenset()
    with pytest.raises(LedgerError, match="does not say who"):
        ledger.refused(event(z, 4))


def test_only_authorised_clients_are_charged() -> None:
    ledger = Ledger(4, 1e-5)
    ledger.authorise(event(9.0, 1, {0, 1, 2}))
    with pytest.raises(LedgerError, match=r"charges clients \[3\]"):
        ledger.record(event(9.0, 1, {0, 3}))
    with pytest.raises(LedgerError, match="charges every client"):
        ledger.record(event(9.0, 1))
    ledger.record(event(9.0, 1, {0, 2}))
    assert ledger.clients == (0, 2)
    ledger.authorise(event(9.0, 2))
    ledger.record(event(9.0, 2, {1}))  # authorised for everybody, so for her as well
    assert len(ledger.events_of(1)) == 1


def test_the_slack_of_a_coarse_grid_can_make_another_client_the_worst() -> None:
    loud = event(1.0, 1, {0})
    coarse = dataclasses.replace(
        RoundEvent(2, 100, 0, 1.0, 0.7, 2.0, 5), scale=8.0, participants=frozenset(range(1, 101)), clip_norm=1.3
    )
    assert coarse.noise_multiplier < 1.0
    ledger = Ledger(100, 1e-5)
    enter(ledger, loud)
    enter(ledger, coarse)
    assert ledger.worst_events == (coarse,)
    for e in (loud, coarse):
        assert epsilon_of([e], 1e-5) <= ledger.epsilon
    softer = dataclasses.replace(coarse, scale=7.6)  # μ below the loud round's, slack above
    assert softer.noise_multiplier > 1.0
    second = Ledger(100, 1e-5)
    enter(second, loud)
    enter(second, softer)
    assert second.epsilon == max(epsilon_of([loud], 1e-5), epsilon_of([softer], 1e-5))


def test_a_client_with_more_slack_and_less_loss_is_refused_on_its_own() -> None:
    coarse = RoundEvent(1, 100, 0, 1.0, 7.6, 1.3, 5, frozenset(range(1, 101)))
    assert coarse.aliasing_slack > 1e-3
    loud = event(coarse.noise_multiplier * 0.9999, 2, {0})  # a little more loss, but no slack
    spent = [epsilon_of([e], 1e-5) for e in (loud, coarse)]
    assert spent[0] < spent[1]
    ledger = Ledger(100, 1e-5)
    for e in (coarse, loud):
        enter(ledger, e)
    nothing = event(1e9, 3, range(101))
    ledger.target_epsilon = (spent[0] + spent[1]) / 2
    assert ledger.refused(nothing) == frozenset(range(1, 101))


def test_headline_and_outsider_of_a_sampled_population(coarse) -> None:
    """q = 0.1 of 200 clients, 40 rounds: the unluckiest client is the headline, outsiders stay below it."""
    ledger, z, last = Ledger(1e3, 1e-5), 6.0, {}
    for t in range(1, 41):
        cohort = draw_cohort(np.random.default_rng([5, t]), PoissonCohort(0.1), eligible(200, t, last))
        enter(ledger, event(z, t, cohort, population=200))
    counts = [len(ledger.events_of(c)) for c in range(200)]
    assert ledger.epsilon == pytest.approx(gaussian_epsilon(math.sqrt(max(counts)) / z, 1e-5))
    assert ledger.epsilon_of_client(counts.index(min(counts))) < ledger.epsilon
    assert ledger.epsilon_outsider <= ledger.epsilon


def test_a_thousand_clients_and_a_hundred_rounds_are_counted_in_seconds() -> None:
    """Not a race: the plain way, 10^5 root findings of a millisecond each, would take minutes."""
    ledger, started = Ledger(1e3, 1e-5), time.process_time()
    for t in range(1, 101):
        who = np.random.default_rng(t).choice(1000, 100, replace=False).tolist()
        enter(ledger, event(5.0 + 0.001 * t, t, who))
    spent = ledger.epsilon_by_client()
    assert len(spent) == 1000
    assert ledger.epsilon == max(spent.values())
    assert time.process_time() - started < 30


def test_examples_in_a_ledger_of_clients() -> None:
    z = noise_multiplier_for(1, 1e-5, 4, 0.05)
    ledger = Ledger(1, 1e-5)
    for t, who in enumerate([{0, 1}, {0, 1}, {0, 2}, {0, 3}], 1):
        enter(ledger, event(z, t, who, q=0.05))
    assert 0.98 < ledger.epsilon <= 1
    assert ledger.epsilon == ledger.epsilon_of_client(0) > ledger.epsilon_of_client(1)
    assert ledger.refused(event(z, 5, range(4), q=0.05)) == {0}
    assert gaussian_epsilon(ledger.mu, 1e-5) == pytest.approx(ledger.epsilon, abs=1e-6)
    assert ledger.epsilon < ledger.epsilon_local
    quieter = dataclasses.replace(event(z, 5, {1}, q=0.05), sigma_local=1e4)
    enter(ledger, quieter)
    assert ledger.worst_events == ledger.events_of(0)


def test_bad_events_are_refused() -> None:
    good = event(2.0, 1, range(5), population=9)
    for change in ({"participants": frozenset({1})}, {"population": 4}, {"count_scale": -1.0}, {"sampling_rate": 0.0}):
        with pytest.raises(ValueError):
            dataclasses.replace(good, **change)


def test_the_bit_of_adaptive_clipping_is_part_of_the_sensitivity() -> None:
    """Andrew et al. 1905.03871, theorem 1: z^-2 = z_Δ^-2 + (2σ_b)^-2."""
    both = dataclasses.replace(event(2.0, 1), count_scale=60.0)
    sigma_b = both.sigma_local / 60.0
    assert both.noise_multiplier**-2 == pytest.approx(2.0**-2 + (2 * sigma_b) ** -2, rel=1e-12)
