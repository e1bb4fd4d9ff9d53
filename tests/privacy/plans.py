"""The noise plan that tests of calibration and of rounds start from."""

from typing import Any

from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.noise_plan import NoisePlan

BASE: dict[str, Any] = {"clients": 100, "dimension": 2560, "rounds": 30, "epsilon": 4, "delta": 1e-5, "clip_norm": 2.0}


def plan(**changes: Any) -> NoisePlan:
    return calibrate(**{**BASE, **changes})
