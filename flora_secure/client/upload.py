"""From a contribution to what is masked: clipped, rotated, on the grid, with the client's share of the noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flora_secure.privacy.adaptive_clip import within
from flora_secure.privacy.encoding import encode
from flora_secure.privacy.rounded_gaussian import RoundedGaussian
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
    plan = invitation.plan
    sampler = RoundedGaussian(noise_key) if plan.noisy else None
    below = within(contribution, plan.clip_norm) if plan.count_coordinates else None
    return encode(contribution, plan, sampler, invitation.rotation, below=below)
