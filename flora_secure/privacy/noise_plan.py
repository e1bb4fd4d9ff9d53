"""The solved noise and grid of a run: what clients, server and ledger agree on before the first round."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from flora_secure.privacy.events import RoundEvent, event_fields
from flora_secure.privacy.rotation import padded


class CohortSizeError(ValueError):
    """A cohort that the plan was not made for: skip the round."""


class TooFewSurvivorsError(ValueError):
    """A round has fewer honest survivors than the noise was sized for: abort it, release nothing."""


@dataclass(frozen=True)
class NoisePlan:
    """Made by `calibration.calibrate`, which verifies it; every field is public.

    Attributes:
        clients: n, size of the roster of a round; of the largest one where cohorts differ.
        smallest_cohort: of a round that runs; n where every client takes part.
        dimension: d, coordinates of an update.
        rounds: T of the run.
        participations: rounds that one client may take part in: what the budget pays for.
        sampling_rate: q of unit `example`, each example's probability to enter its client's upload; 1 otherwise.
        epsilon: the target; math.inf for a run without noise and without differential privacy.
        delta: the target.
        clip_norm: c, units of the update: how far the protected unit moves an upload.
        upload_norm: L2 norm that a whole upload is clipped to; c for unit `client`.
        dropout_tolerance: fraction of a roster that may drop out of a round without aborting it.
        colluders: clients assumed to tell the server their noise.
        noise_multiplier: z, standard deviation of the noise of `honest_minimum` shares ÷ the sensitivity. 0 without
            noise.
        sigma_local: standard deviation of one client's noise, grid units. 0 without noise.
        scale: s, grid units for one unit of the update.
        bits: b, uploads are integers modulo 2^b.
        rotated: updates are rotated (`rotation.Rotation`) before they are rounded, d' = padded(d) coordinates.
        count_scale: grid units for one unit of adaptive clipping's centred bit, 0 without it.
        count_coordinates: coordinates at the end of an upload that the bit is spread over: 0, or a power of 4.
        peak_fraction: without rotation, the sum of clipped updates is taken to stay within n·upload_norm·peak_fraction
            in every coordinate. 1 is proven by the clip; less is an assumption.
        overflow_probability: bound on the probability that any coordinate of any round wraps modulo 2^b, all clients
            surviving, given `peak_fraction`, over noise and rotations. 0 without noise and rotation.
        aliasing_slack: κ over all rounds at `honest_minimum`; already inside epsilon and delta.
        rounding_error: L2 norm of the sum's rounding error ÷ that of its noise; without noise ÷ c·√n.
    """

    clients: int
    smallest_cohort: int
    dimension: int
    rounds: int
    participations: int
    sampling_rate: float
    epsilon: float
    delta: float
    clip_norm: float
    upload_norm: float
    dropout_tolerance: float
    colluders: int
    noise_multiplier: float
    sigma_local: float
    scale: float
    bits: int
    rotated: bool
    count_scale: float
    count_coordinates: int
    peak_fraction: float
    overflow_probability: float
    aliasing_slack: float
    rounding_error: float

    @property
    def noisy(self) -> bool:
        """Whether clients add noise: false only for a target of epsilon = inf."""
        return self.epsilon != math.inf

    @property
    def length(self) -> int:
        """Coordinates of an upload: d, padded for the rotation, and the bit's."""
        return (padded(self.dimension) if self.rotated else self.dimension) + self.count_coordinates

    @property
    def payload_bits(self) -> int:
        """How many bits one upload takes without framing: length·b."""
        return self.length * self.bits

    @property
    def dropouts(self) -> int:
        """Clients of the roster that may drop out of a round without aborting it."""
        return tolerated(self.clients, self.dropout_tolerance)

    @property
    def honest_minimum(self) -> int:
        """The honest minimum h_min: the fewest honest survivors whose noise is enough."""
        return self.clients - self.dropouts - self.colluders

    @property
    def survivors_minimum(self) -> int:
        """Fewest survivors of a round that is not aborted, colluders counted among them."""
        return self.clients - self.dropouts

    @property
    def error_ratio(self) -> float:
        """Root mean square error of the released sum ÷ that of unrounded Gaussian noise of the same size."""
        return math.hypot(1.0, self.rounding_error)

    def for_cohort(self, size: int) -> NoisePlan:
        """The plan of a round with a roster of `size`: the same total noise, in shares for its honest minimum.

        Raises CohortSizeError outside smallest_cohort..clients.
        """
        if not self.smallest_cohort <= size <= self.clients:
            raise CohortSizeError(
                f"a cohort of {size} clients; the plan is for {self.smallest_cohort} to {self.clients}: skip the round"
            )
        round_plan = dataclasses.replace(self, clients=size, smallest_cohort=size)
        share = self.sigma_local * math.sqrt(self.honest_minimum / round_plan.honest_minimum)
        return dataclasses.replace(round_plan, sigma_local=share)

    def with_clip(self, clip_norm: float) -> NoisePlan:
        """The plan with another clip norm, the grid stretched with it: in grid units nothing changes, nor does z."""
        if not 0 < clip_norm < math.inf:
            raise ValueError(f"clip_norm must be a finite number > 0, got {clip_norm!r}")
        factor = clip_norm / self.clip_norm
        return dataclasses.replace(
            self, clip_norm=clip_norm, upload_norm=self.upload_norm * factor, scale=self.scale / factor
        )

    def event(
        self,
        round_number: int,
        survivors: int,
        *,
        participants: Iterable[int] | None = None,
        population: int | None = None,
    ) -> RoundEvent:
        """What round `round_number` releases when `survivors` uploads are summed.

        `participants`, `population`: see `RoundEvent`; None at full participation.

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
        given = {
            "round": round_number,
            "survivors": survivors,
            "dimension": self.length,
            "participants": None if participants is None else frozenset(participants),
            "population": population,
        }
        return RoundEvent(**{**event_fields(self), **given})

    def worst_events(self) -> tuple[RoundEvent, ...]:
        """All rounds of one client with the fewest survivors: the budget that is planned for."""
        return tuple(self.event(t, self.survivors_minimum) for t in range(1, self.participations + 1))


def tolerated(clients: int, fraction: float) -> int:
    """How many of `clients` may drop out at this tolerance."""
    return math.floor(fraction * clients + 1e-9)
