"""The solved noise and grid of a run: what clients, server and ledger agree on before the first round."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .events import RoundEvent


class TooFewSurvivorsError(ValueError):
    """A round has fewer honest survivors than the noise was sized for: abort it, release nothing."""


@dataclass(frozen=True)
class NoisePlan:
    """Made by `calibration.calibrate`, which verifies it; every field is public.

    Attributes:
        clients: n, size of the roster.
        dimension: d, coordinates of an update.
        rounds: T, rounds that the budget pays for.
        epsilon: the target; math.inf for a run without noise and without differential privacy.
        delta: the target.
        clip_norm: c, units of the update.
        dropouts: clients of the roster that may drop out of a round without aborting it.
        colluders: clients assumed to tell the server their noise.
        noise_multiplier: z, standard deviation of the noise of `honest_minimum` shares ÷ c. 0 without noise.
        sigma_local: standard deviation of one client's noise, grid units. 0 without noise.
        scale: s, grid units for one unit of the update.
        bits: b, uploads are integers modulo 2^b.
        peak_fraction: the sum of clipped updates is taken to stay within n·c·peak_fraction in every coordinate.
            1 is proven by the clip; less is an assumption.
        overflow_probability: bound on the probability that any coordinate of any round wraps modulo 2^b, all clients
            surviving, given `peak_fraction`. 0 without noise.
        aliasing_slack: κ over all rounds at `honest_minimum`; already inside epsilon and delta.
        rounding_error: L2 norm of the sum's rounding error ÷ that of its noise; without noise ÷ c·√n.
    """

    clients: int
    dimension: int
    rounds: int
    epsilon: float
    delta: float
    clip_norm: float
    dropouts: int
    colluders: int
    noise_multiplier: float
    sigma_local: float
    scale: float
    bits: int
    peak_fraction: float
    overflow_probability: float
    aliasing_slack: float
    rounding_error: float

    @property
    def noisy(self) -> bool:
        """False only for epsilon = inf."""
        return self.epsilon != math.inf

    @property
    def honest_minimum(self) -> int:
        """h_min: fewest honest survivors whose noise is enough."""
        return self.clients - self.dropouts - self.colluders

    @property
    def survivors_minimum(self) -> int:
        """Fewest survivors of a round that is not aborted, colluders counted among them."""
        return self.clients - self.dropouts

    @property
    def error_ratio(self) -> float:
        """Root mean square error of the released sum ÷ that of unrounded Gaussian noise of the same size."""
        return math.hypot(1.0, self.rounding_error)

    def event(self, round_number: int, survivors: int) -> RoundEvent:
        """What round `round_number` releases when `survivors` uploads are summed.

        Raises:
            TooFewSurvivorsError: fewer survivors than `survivors_minimum`.
            ValueError: more survivors than clients.
        """
        if survivors > self.clients:
            raise ValueError(f"{survivors} survivors in a roster of {self.clients}")
        if survivors < self.survivors_minimum:
            raise TooFewSurvivorsError(
                f"round {round_number}: {survivors} of {self.clients} clients survived, the noise needs "
                f"{self.survivors_minimum}: abort the round, or plan for more dropouts than {self.dropouts}"
            )
        return RoundEvent(
            round=round_number,
            survivors=survivors,
            colluders=self.colluders,
            sigma_local=self.sigma_local,
            scale=self.scale,
            clip_norm=self.clip_norm,
            dimension=self.dimension,
        )

    def worst_events(self) -> tuple[RoundEvent, ...]:
        """All rounds with the fewest survivors: the budget that is planned for."""
        return tuple(self.event(t, self.survivors_minimum) for t in range(1, self.rounds + 1))
