"""Sparse-vector filters: what selecting and releasing so many values costs (docs/foreign-log.md has the derivation)."""

from __future__ import annotations

import math

from flora_secure.auditing.foreign.log import REPLACE_ONE, SparseVector


def released_values(sparse: SparseVector) -> int | None:
    """How many values an upload holds; `None` where the size of the model is not known."""
    if sparse.released is not None:
        return sparse.released
    if sparse.parameters is None or sparse.fraction is None:
        return None
    return min(math.ceil(sparse.parameters * sparse.fraction), sparse.parameters)


def release_epsilon(sparse: SparseVector) -> float:
    """ε of all released values of one upload, values replaced within their bound; NaN where it is not known."""
    if sparse.epsilon_release is not None:
        return sparse.epsilon_release
    count = released_values(sparse)
    return math.nan if count is None or sparse.noise_var is None else count * sparse.noise_var


def sparse_epsilon(sparse: SparseVector, rounds: int, delta: float, adjacency: str) -> float:
    """ε at `delta` of `rounds` uploads of one client; NaN where the log does not say enough.

    Each value is released with Laplace noise for a distance of twice its bound, so zero-out, half that distance, costs
    half. The selection counts as the filter counts it. At delta > 0 the smaller of the sum of all and of concentrated
    privacy: pure ε is ε²/2-zCDP (Bun and Steinke 1605.02065, propositions 1.3 and 1.4).
    """
    count, released = released_values(sparse), release_epsilon(sparse)
    if sparse.epsilon is None or math.isnan(released):
        return math.nan
    if adjacency != REPLACE_ONE:
        released /= 2
    pure = rounds * (sparse.epsilon + released)
    if delta == 0 or not count:
        return pure
    rho = rounds * (released**2 / count + sparse.epsilon**2) / 2
    return min(pure, rho + 2 * math.sqrt(rho * math.log(1 / delta)))
