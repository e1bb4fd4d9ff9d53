"""Nobody is named for wrong shares whom as many holders as may be corrupt could have made look guilty."""

import numpy as np
import pytest
from cohorts import Cohort, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import PeerError, UnsoundShares, WrongShares
from flora_protocols.shamir import LIMBS, P, decode, encode

profiles = pytest.mark.parametrize("make", [semi_honest, malicious])


def at_the_end(params, dropping=()):
    cohort = Cohort(params)
    while type(cohort.server).__name__ != "ServerUnmask":
        cohort.trip(dropping if type(cohort.server).__name__ == "ServerMask" else ())
    return cohort.send()


def forge(cohort, liars, owner, through, scale=1):
    """`liars` agree on the true polynomials of `owner`'s secret plus one that is zero at the points of `through`."""
    for liar in liars:
        shares = cohort.server._shares[liar].copy()
        other = np.prod([np.int64(liar - true) for true in through]) * scale % P
        shares[owner] = encode((decode(shares[owner][None]) + np.full(LIMBS, other)) % P)
        cohort.server._shares[liar] = shares


def named(cohort):
    """Who is named; nobody, if the server says that it cannot tell, and None, if it notices nothing."""
    try:
        cohort.server.close()
    except WrongShares as error:
        return set(error.faults)
    except PeerError as error:
        return {error.culprit}
    except UnsoundShares:
        return set()
    return None


@profiles
def test_blame_cannot_be_forged_by_as_many_as_may_be_corrupt(make):
    """The attack: of nine shares of threshold six, five true ones and the liars' two lie on the liars' polynomial, and
    the two others, which are true, do not. Seven against two: with one more of the liars it is eight against one."""
    params = make(9, threshold=6, corrupt=2)
    assert named(at_the_end(params)) is None
    cohort = at_the_end(params)
    forge(cohort, (7, 8), owner=0, through=range(5))
    assert named(cohort) == set()
    beyond = at_the_end(params)
    forge(beyond, (6, 7, 8), owner=0, through=range(5))
    assert named(beyond) == {5}  # three lie where two may: the parameters have promised too much


@pytest.mark.parametrize(("corrupt", "blamed"), [(2, {4, 5}), (3, set()), (4, set())])
def test_four_true_shares_and_three_that_agree(corrupt, blamed):
    """Nine shares of threshold five: the two others look wrong, to everybody who thinks that two lie at the most."""
    cohort = at_the_end(semi_honest(9, threshold=5, corrupt=corrupt))
    forge(cohort, (6, 7, 8), owner=0, through=range(4))
    assert named(cohort) == blamed


@pytest.mark.parametrize(("corrupt", "blamed"), [(0, {7, 8}), (2, {7, 8}), (3, set())])
def test_two_that_lie_are_named_where_three_could_not_have_made_them_look_so(corrupt, blamed):
    cohort = at_the_end(semi_honest(9, threshold=5, corrupt=corrupt))
    forge(cohort, (7, 8), owner=0, through=range(4))
    assert named(cohort) == blamed


@pytest.mark.parametrize("revealing", [4, 5, 6])
@pytest.mark.parametrize("corrupt", [0, 1, 2])
def test_an_owner_is_named_only_if_holders_cannot_have_forged_it(revealing, corrupt):
    """Shares of an opener that fit one another and open nothing, so that all neighbours' tags differ: m - t + 1 holders
    who agree can do that to an owner who is honest, dropped out and can say nothing (C-75). So with a seed, which is
    then not the one of the commitment (C-70)."""
    owner = revealing
    surplus = revealing - 4
    liars = range(revealing - surplus - 1, revealing)
    cohort = at_the_end(semi_honest(revealing + 1, threshold=4, corrupt=corrupt), dropping={owner})
    forge(cohort, liars, owner, through=range(revealing - surplus - 1))
    assert named(cohort) == (set() if max(corrupt, 1) > surplus else {owner})
    cohort = at_the_end(semi_honest(revealing, threshold=4, corrupt=corrupt))
    forge(cohort, liars, 0, through=range(revealing - surplus - 1))
    assert named(cohort) == (set() if max(corrupt, 1) > surplus else {0})


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_liars_that_agree(data):
    """As many as may be corrupt, about an honest owner, through any true shares, or each for itself: no innocent one is
    named, and what is wrong is noticed where it can be."""
    threshold = data.draw(st.integers(3, 6))
    clients = data.draw(st.integers(threshold + 1, 10))
    corrupt = data.draw(st.integers(1, threshold - 1))
    liars = data.draw(st.sets(st.integers(0, clients - 1), min_size=1, max_size=corrupt))
    true = sorted(set(range(clients)) - liars)
    owner = data.draw(st.sampled_from(true))
    cohort = at_the_end(semi_honest(clients, threshold=threshold, corrupt=corrupt))
    agree = data.draw(st.booleans())
    through = data.draw(st.permutations(true))[: threshold - 1]
    for scale, liar in enumerate(sorted(liars), 1):
        forge(cohort, [liar], owner, through, scale=1 if agree else scale)
    found = named(cohort)
    if found is None:  # all that reveal fit: the liars and the t - 1 that they agree with are everybody
        assert len(liars) >= clients - threshold + 1
    else:
        assert found <= liars
