import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flora_secure.server.scores import evaluate, wilson_interval


def test_wilson_interval_of_a_known_example() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (Wilson)."""
    for correct, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_what_the_score_test_does_not_reject(case: tuple[int, int]) -> None:
    correct, total = case
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            score = abs(correct / total - bound) / math.sqrt(bound * (1 - bound) / total)
            assert score == pytest.approx(1.959963984540054, rel=1e-6)


@pytest.mark.parametrize(("correct", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_no_proportion_is_refused(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="is no proportion"):
        wilson_interval(correct, total)


def test_classes_and_clients_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 2, 2, 2])  # recalls 3/4, 1/2, 1
    clients = [np.array([0, 0]), np.array([1, 0]), np.array([2])] * 4
    found = evaluate(predicted, labels, 4, clients)
    assert found.per_class == [0.75, 0.5, 1.0, None]
    assert found.client_mean == pytest.approx((0.75 + 0.625 + 1.0) / 3)
    assert found.client_worst_decile == pytest.approx(0.625)  # two of twelve, the smallest
    assert found.interval == wilson_interval(6, 8)


def test_a_client_with_a_class_that_no_test_image_shows_has_no_figure() -> None:
    found = evaluate(np.array([0, 1]), np.array([0, 1]), 3, [np.array([0]), np.array([2])])
    assert (found.client_mean, found.client_worst_decile) == (None, None)
