"""The trips of a session."""

from __future__ import annotations

from enum import IntEnum


class Trip(IntEnum):
    """The message exchanges, in order: up to SHARE once a session, from MASK on in each of its rounds.

    ENCAPSULATE exists in the hybrid suite only, AGREE in the malicious-server profile only.
    """

    ADVERTISE = 0
    ENCAPSULATE = 1
    SHARE = 2
    MASK = 3
    AGREE = 4
    UNMASK = 5
