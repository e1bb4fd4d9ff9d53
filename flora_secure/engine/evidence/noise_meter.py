"""The noise that is in a released sum, measured: what a simulation can, since it has the plain contributions.

It clips, rotates and scales by itself, and the sum once, so that it shares with the clients' way to an upload
(`client.upload`) the rotation alone. Noise that is too small, contributions that were not clipped, and whatever else
gets lost or added between contribution and sum, make the ratio another than 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.sum import Vector


def noise_ratio(invitation: Invitation, contributions: NDArray[np.float64], total: Vector) -> float | None:
    """Root mean square of what is in a sum beyond the plain sum, over that of the noise claimed; None without noise.

    `contributions`: (m, d), of all survivors, as their trainers gave them: updates, or sums of clipped gradients, whose
    single gradients nobody sees here. `total`: uint32 (plan.length,), the released sum. The claim is √(m·(σ_loc² +
    1/12)): every survivor's noise is in the sum, that of colluders too, and is rounded once.
    """
    plan = invitation.plan
    if not plan.noisy:
        return None
    exact = _plain_sum(invitation, contributions)
    whole = np.floor(exact)
    half = 1 << (plan.bits - 1)
    # modulo 2^b, as the sum is: a coordinate that wrapped is no noise
    beyond = ((total.astype(np.int64) - whole.astype(np.int64) + half) & (2 * half - 1)) - half - (exact - whole)
    return math.sqrt(float(np.mean(beyond**2))) / claimed_deviation(plan, len(contributions))


def claimed_deviation(plan: NoisePlan, survivors: int) -> float:
    """Standard deviation of a coordinate of the noise in a sum of so many uploads, grid units."""
    return math.sqrt(survivors * (plan.sigma_local**2 + 1 / 12))


def _plain_sum(invitation: Invitation, contributions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum as it would be without noise and rounding, (plan.length,) in grid units."""
    plan, rotation = invitation.plan, invitation.rotation
    norms = np.sqrt(np.sum(contributions**2, axis=1))
    kept = np.minimum(1.0, plan.upload_norm / np.maximum(norms, 1e-300))
    update = kept @ contributions
    exact = plan.scale * (update if rotation is None else rotation.forward(update))
    if not plan.count_coordinates:
        return exact
    votes = int(np.sum(norms <= plan.clip_norm)) - len(norms) / 2
    share = plan.count_scale / math.sqrt(plan.count_coordinates)
    return np.concatenate([exact, np.full(plan.count_coordinates, votes * share)])
