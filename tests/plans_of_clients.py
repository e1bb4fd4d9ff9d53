"""Rounds that a client has uploaded in, as events."""

from flora_secure.privacy.events import RoundEvent


def event(number: int, sigma: float = 20.0) -> RoundEvent:
    return RoundEvent(
        round=number, survivors=10, colluders=1, sigma_local=sigma, scale=10.0, clip_norm=1.0, dimension=100
    )


def sampled(number: int) -> RoundEvent:
    return RoundEvent(
        round=number,
        survivors=10,
        colluders=1,
        sigma_local=20.0,
        scale=10.0,
        clip_norm=1.0,
        dimension=100,
        sampling_rate=0.1,
    )
