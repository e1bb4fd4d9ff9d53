"""Wrong shares are found where the surplus allows, and nobody is named where it does not."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import shamir
from flora_protocols.decoding import misfits


def shares_at(points, threshold, seed=0):
    rng, places = np.random.default_rng(seed), points.tolist()
    given, others = tuple(places[: threshold - 1]), tuple(places[threshold - 1 :])
    values = shamir.uniform(shamir.LIMBS, [rng.bytes] * (threshold - 1))
    return np.concatenate((shamir.encode(values), shamir.split(rng.bytes(16), given, values, others)))


def wrong_rows(rng, count):
    return shamir.encode(rng.integers(0, shamir.P, (count, shamir.LIMBS)))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_wrong_shares_are_found(data):
    """Any places, up to half the surplus, and whether whole shares are wrong or a single bit is."""
    threshold = data.draw(st.integers(2, 8))
    surplus = data.draw(st.integers(2, 9))
    size, rng = threshold + surplus, np.random.default_rng(data.draw(st.integers(0, 1000)))
    points = np.sort(rng.choice(1 << 16, size, replace=False)).astype(np.int64) + 1
    shares = shares_at(points, threshold)
    wrong = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=surplus // 2)))
    if data.draw(st.booleans()):
        shares[wrong] = wrong_rows(rng, len(wrong))
    else:
        shares[wrong, data.draw(st.integers(0, 15))] ^= 1 << data.draw(st.integers(0, 7))
        if not shamir.canonical(shares):
            return
    found = misfits(points, shares, threshold)
    assert found is not None
    assert found.tolist() == wrong


@pytest.mark.parametrize("more", [1, 2, 3])
@pytest.mark.parametrize("surplus", range(6))
def test_too_many_wrong_shares_name_nobody(surplus, more):
    points = np.arange(1, 5 + surplus, dtype=np.int64)
    shares, rng = shares_at(points, 4), np.random.default_rng(1)
    places = range(min(surplus // 2 + more, len(points)))
    shares[places] = wrong_rows(rng, len(places))
    assert misfits(points, shares, 4) is None


def test_sound_shares_of_what_is_no_secret():
    """All lie on one polynomial, whose value at zero is 2^16: no holder is at fault, the owner dealt them so."""
    values = (65536 + 3 * np.arange(1, 8)) % shamir.P
    shares = shamir.encode(np.repeat(values[:, None], shamir.LIMBS, 1))
    points = np.arange(1, 8, dtype=np.int64)
    assert not shamir.combine(points[None], shares[None, None], 2)[1].any()
    assert misfits(points, shares, 2) is None
    shares[3] = wrong_rows(np.random.default_rng(3), 1)
    assert misfits(points, shares, 2) is None  # a holder lies as well, but without it they are no better


def test_a_thousand_holders_are_searched_in_no_time():
    points = np.arange(1, 1001, dtype=np.int64)
    shares, rng = shares_at(points, 501), np.random.default_rng(2)
    wrong = np.sort(rng.choice(1000, 249, replace=False))
    shares[wrong] = wrong_rows(rng, 249)
    before = time.process_time()
    assert (misfits(points, shares, 501) == wrong).all()
    assert time.process_time() - before < 10
