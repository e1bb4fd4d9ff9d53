"""Which attacks on a run are asked for: checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from flora_secure.auditing.attacked import ATTACKS
from flora_secure.errors import did_you_mean, require

LEAST_SHADOWS, MOST_SHADOWS = 16, 10_000


@dataclass(frozen=True)
class Asked:
    """Which attacks are to be made, and how.

    Attributes:
        attacks: of `attacked.ATTACKS`.
        shadows: federations that membership trains, without noise and with it.
        seed: of all draws but the protocol's keys.
    """

    attacks: tuple[str, ...] = ATTACKS
    shadows: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        require(bool(self.attacks), f"`attacks` names none; known: {', '.join(ATTACKS)}")
        for name in self.attacks:
            known = f"`attacks` {name!r} is none of {', '.join(ATTACKS)}{did_you_mean(name, ATTACKS)}"
            require(name in ATTACKS, known)
        right = LEAST_SHADOWS <= self.shadows <= MOST_SHADOWS
        require(right, f"`shadows` must lie in {LEAST_SHADOWS}…{MOST_SHADOWS:,}, got {self.shadows}")
        require(0 <= self.seed < 2**32, f"`seed` must lie in 0…{2**32 - 1}, got {self.seed}")
