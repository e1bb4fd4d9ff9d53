"""Is there as much in the released sums as the noise alone would put there? A folder by itself can show that.

A sum is signal plus noise, the noise Gaussian and independent of the signal. Whatever the signal, the squared length of
their sum, over the noise's variance, is at least in distribution what it would be without any: chi-squared with as many
degrees of freedom as there are coordinates (a non-central one is larger for every non-centrality; Johnson, Kotz,
Balakrishnan 1995, chapter 29). So a length below that distribution's quantile is a run that added less than it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.sums.replay import length_of
from flora_secure.privacy.encoding import signed
from flora_secure.records.record import RoundRecord

FALSE_ALARMS = 1e-3
_Z = 3.0902323061678132  # the normal quantile of 1 - FALSE_ALARMS


@dataclass(frozen=True)
class LeastNoise:
    """What was found over all sums.

    Attributes:
        coordinates: how many values of sums were looked at.
        ratio: their root mean square over the standard deviation of the noise.
        least: what that falls below with probability `FALSE_ALARMS` where there is the noise and nothing else.
    """

    coordinates: int
    ratio: float
    least: float

    @property
    def alarm(self) -> bool:
        """Whether less was added than is claimed."""
        return self.ratio < self.least


def claimed_variance(record: RoundRecord) -> float:
    """Variance of a coordinate of the noise that a round claims of its sum, in grid units squared.

    Every survivor's noise is in its sum, a colluder's too, and each rounds by itself (variance 1/12 a survivor, as
    little depending on the signal as the noise is wide: `docs/privacy/rounded-gaussian.md`).
    """
    return len(record.survivors) * (record.sigma_local**2 + 1 / 12)


def least_noise(released: Sequence[tuple[RoundRecord, NDArray[np.uint32]]]) -> LeastNoise | None:
    """How much there is in the sums, uint32 (d',) modulo 2^b, of these records; None where none claims noise."""
    squares, degrees = 0.0, 0
    for record, total in released:
        variance = claimed_variance(record)
        if not record.sigma_local > 0 or not variance > 0:
            continue
        values = signed(total, record.bits)[: length_of(record)]
        squares += float(np.square(values.astype(np.float64)).sum()) / variance
        degrees += len(values)
    if not degrees:
        return None
    # Wilson and Hilferty's cube root (PNAS 17, 1931): at these degrees exact to more digits than are shown
    cubed = max(0.0, 1 - 2 / (9 * degrees) - _Z * math.sqrt(2 / (9 * degrees))) ** 3
    return LeastNoise(degrees, math.sqrt(squares / degrees), math.sqrt(cubed))
