"""From a contribution to what is masked: clipped, rotated, on the grid, with the client's share of the noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flora_secure.privacy.adaptive_clip import within
from flora_secure.privacy.encoding import encode_rows
from flora_secure.privacy.rounded_gaussian import RowsOfNoise
from flora_secure.rounds.invitation import Invitation


def upload(
    invitation: Invitation, contribution: NDArray[np.float64], noise_key: bytes | None = None
) -> NDArray[np.uint32]:
    """One client's vector for the round, before masking: uint32 (plan.length,), every value below 2^bits.

    `contribution`: float64 (plan.dimension,). `noise_key`: None for noise from the operating system's randomness; bytes
    for noise that follows from them, which a simulation repeats and which is no secret.

    Raises NonFiniteUpdateError for a contribution that is not finite: the client must leave the round, since zeros in
    its place would carry full weight.
    """
    found: NDArray[np.uint32] = uploads(invitation, contribution[None], [noise_key])[0]
    return found


def uploads(
    invitation: Invitation, contributions: NDArray[np.float64], noise_keys: Sequence[bytes | None]
) -> NDArray[np.uint32]:
    """`upload` of many clients at once: uint32 (m, plan.length) of (m, plan.dimension), a noise key a row.

    Every row is what it would be by itself. Raises as `upload`, for the first row that is not finite.
    """
    plan = invitation.plan
    sampler = RowsOfNoise(noise_keys) if plan.noisy else None
    below = None
    if plan.count_coordinates:
        below = np.array([within(contribution, plan.clip_norm) for contribution in contributions])
    return encode_rows(contributions, plan, sampler, invitation.rotation, below=below)
