"""The trips of a round."""

from __future__ import annotations

from enum import IntEnum


class Trip(IntEnum):
    """The message exchanges of a round, in order. AGREE exists in the malicious-server profile only."""

    ADVERTISE = 0
    SHARE = 1
    MASK = 2
    AGREE = 3
    UNMASK = 4
