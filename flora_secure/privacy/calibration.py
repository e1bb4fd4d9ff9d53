"""From the run's parameters to noise, grid and ring: the least modulus that costs at most 1 % of accuracy.

Given b, the finest grid (largest s) is taken whose sums stay inside the ring with the stated probability (`overflow`).
Rotating the updates first makes the ring's share for the signal all but vanish, and pads the upload a little; of the
two uploads the smaller one is planned.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable

from flora_secure.errors import InfeasibleError
from flora_secure.privacy.accounting import check_budget, epsilon_of, noise_multiplier_for
from flora_secure.privacy.amplification import CALIBRATION_CELL
from flora_secure.privacy.events import aliasing_exponent, require_whole
from flora_secure.privacy.noise_plan import NoisePlan, tolerated
from flora_secure.privacy.overflow import RingLoad, noiseless_scale, overflow_bound
from flora_secure.privacy.rotation import padded

ERROR_RATIO = 1.01  # of the released sum to plain Gaussian noise; what "within 1 %" means
MAX_SLACK = 1e-9  # κ above which aliasing is no longer negligible; z pays for this much, 2e-9 of ε and a 1e-9th of δ
LEAST_EPSILON = 1e3 * MAX_SLACK
NOISELESS_ERROR = 1e-3  # rounding error of a run without noise, as a fraction of c·√n
OVERFLOW_PROBABILITY = 0.01  # of any wrap in a run; one wrap is one coordinate of one sum
_MARGIN = 1e-9
_COUNT_COORDINATES = tuple(4**k for k in range(7))  # square roots are powers of two: the bit's shares are exact


def calibrate(
    *,
    clients: int,
    dimension: int,
    rounds: int,
    epsilon: float,
    delta: float,
    clip_norm: float,
    dropout_tolerance: float = 0.1,
    colluders: int = 0,
    bits: int | None = None,
    max_bits: int = 32,
    rotation: bool | None = None,
    peak_fraction: float = 1.0,
    overflow_probability: float = OVERFLOW_PROBABILITY,
    smallest_cohort: int | None = None,
    participations: int | None = None,
    population: int | None = None,
    sampling_rate: float = 1.0,
    upload_norm: float | None = None,
    count_noise: float | None = None,
) -> NoisePlan:
    """Solve for z, σ_loc, s and b, and verify the solution.

    Args:
        clients: n >= 2, the roster of a round, all of whom upload or drop out; the largest one where cohorts differ.
        dimension: d >= 1.
        rounds: T >= 1.
        epsilon: target > 0; math.inf for no noise.
        delta: target, between 0 and 1; from 1/population upwards a warning is issued.
        clip_norm: c > 0, finite.
        dropout_tolerance: fraction of a roster, in [0, 1), that may drop out of a round; ⌊fraction·n⌋ clients. It
            costs 1/√(1 − fraction) in noise when nobody drops out.
        colluders: clients whose noise the server is assumed to know.
        bits: b in 8..32, or None for the least within ERROR_RATIO of a central Gaussian's error. A given b is accepted
            with a larger error (see `NoisePlan.error_ratio`) as long as aliasing stays negligible.
        max_bits: largest b considered when none is given.
        rotation: True or False to rotate updates or not; None for what makes the smaller upload, not rotating where
            they are equal, and where there is no noise.
        peak_fraction: in (0, 1]. Without rotation, the largest coordinate of the sum of clipped updates ÷
            (n·upload_norm). The default is proven: it holds even if all updates agree and sit in one coordinate. A
            smaller value saves bits but is an assumption, which `overflow_rate` watches during the run; with
            it nothing is rotated unless asked for.
        overflow_probability: of any wrap in the whole run, in (0, 1).
        smallest_cohort: clients in the smallest round that runs; None for `clients`. Rounds use `NoisePlan.for_cohort`.
        participations: rounds, at most T, that a client may take part in; None for all. The ledger refuses more.
        population: protected units in all, for the warning about delta; None for `clients`.
        sampling_rate: q in (0, 1], unit `example`: Poisson rate of the examples.
        upload_norm: L2 norm that a whole upload is clipped to, >= clip_norm; None for clip_norm. Unit `example`: an
            upload is the sum of many clipped gradients, and clipping it as a whole moves no two uploads further apart.
        count_noise: standard deviation, in clients, of the noise on adaptive clipping's count (`adaptive_clip`); None
            for a fixed clip norm. The update's noise grows so that both together cost `epsilon`.

    Raises:
        InfeasibleError: no b fits, or σ_loc is too small for the aliasing bound, or count_noise is too small.
        ValueError: a parameter is out of range.
    """
    smallest = clients if smallest_cohort is None else smallest_cohort
    taken = rounds if participations is None else participations
    norm = clip_norm if upload_norm is None else upload_norm
    check_budget(epsilon, delta)
    for name, value, least in (
        ("clients", clients, 2), ("dimension", dimension, 1), ("rounds", rounds, 1), ("participations", taken, 1),
        ("smallest_cohort", smallest, 2), ("colluders", colluders, 0), ("bits", 8 if bits is None else bits, 8),
        ("max_bits", max_bits, 8),
    ):  # fmt: skip
        require_whole(name, value, least)
    if not 0 < clip_norm < math.inf:
        raise ValueError(f"clip_norm must be a finite number > 0, got {clip_norm!r}")
    if not clip_norm <= norm < math.inf:
        raise ValueError(f"upload_norm must be finite and at least clip_norm {clip_norm:g}, got {norm!r}")
    if not 0 <= dropout_tolerance < 1:
        raise ValueError(f"dropout_tolerance must be in [0, 1), got {dropout_tolerance!r}")
    if not 0 < peak_fraction <= 1:
        raise ValueError(f"peak_fraction must be in (0, 1], got {peak_fraction!r}")
    if not 0 < overflow_probability < 1:
        raise ValueError(f"overflow_probability must lie between 0 and 1, got {overflow_probability!r}")
    if not 1 <= taken <= rounds:
        raise ValueError(f"participations must be in 1..{rounds}, the rounds, got {taken}")
    if not 2 <= smallest <= clients:
        raise ValueError(f"smallest_cohort must be in 2..{clients}, the clients, got {smallest}")
    if count_noise is not None and not 0 < count_noise < math.inf:
        raise ValueError(f"count_noise must be a finite number > 0, got {count_noise!r}")
    for name, b in (("bits", 8 if bits is None else bits), ("max_bits", max_bits)):
        if not 8 <= b <= 32:
            raise ValueError(f"{name} must be in 8..32, got {b}")
    dropouts = tolerated(smallest, dropout_tolerance)
    if smallest - dropouts - colluders < 1:
        raise ValueError(
            f"{smallest} clients less {dropouts} dropouts less {colluders} colluders leave nobody to add noise: "
            f"tolerate fewer"
        )
    units = clients if population is None else population
    if delta >= 1 / units:
        warnings.warn(
            f"delta {delta:g} is not below 1/clients = {1 / units:g}: it allows giving one client away entirely",
            stacklevel=2,
        )
    draft = NoisePlan(
        clients=clients,
        smallest_cohort=smallest,
        dimension=dimension,
        rounds=rounds,
        participations=taken,
        sampling_rate=sampling_rate,
        epsilon=epsilon,
        delta=delta,
        clip_norm=clip_norm,
        upload_norm=norm,
        dropout_tolerance=dropout_tolerance,
        colluders=colluders,
        noise_multiplier=0.0,
        sigma_local=0.0,
        scale=1.0,
        bits=max_bits if bits is None else bits,
        rotated=False,
        count_scale=0.0,
        count_coordinates=0,
        peak_fraction=peak_fraction,
        overflow_probability=0.0,
        aliasing_slack=0.0,
        rounding_error=0.0,
    )
    if rotation is None:
        # to assume something about the peaks is to ask for the coordinates as they are
        ways = (False,) if epsilon == math.inf or peak_fraction < 1 else (False, True)
    else:
        ways = (rotation,)
    if epsilon == math.inf:
        return _without_noise(draft, ways[0], bits, count_noise is not None, overflow_probability)
    if epsilon <= LEAST_EPSILON:
        raise InfeasibleError(f"epsilon {epsilon:g} is not far above the aliasing slack {MAX_SLACK:g}: allow more")
    z = noise_multiplier_for(epsilon - 2 * MAX_SLACK, delta * math.exp(-MAX_SLACK), taken, sampling_rate)
    noisy = dataclasses.replace(draft, noise_multiplier=z)
    plans, refusals = [], []
    for rotated in ways:
        try:
            plans.append(_with_noise(noisy, rotated, bits, count_noise, overflow_probability))
        except InfeasibleError as refusal:
            refusals.append(refusal)
    if not plans:
        raise refusals[-1]
    solved = min(plans, key=lambda plan: plan.payload_bits)
    _verify(solved, overflow_probability)
    return solved


def _with_noise(
    draft: NoisePlan, rotated: bool, bits: int | None, count_noise: float | None, allowed: float
) -> NoisePlan:
    """z is known: the finest grid of the least modulus. With a count, over as few coordinates as fit beside it."""
    z, honest = draft.noise_multiplier, draft.honest_minimum
    count = 0.0  # its scale for one unit of s
    if count_noise is not None:
        if 2 * count_noise <= z:
            raise InfeasibleError(
                f"the count's noise of {count_noise:.4g} clients alone costs more than the budget: it must be above "
                f"z/2 = {z / 2:.4g}; take several times as much"
            )
        z = 1 / math.sqrt(z**-2 - (2 * count_noise) ** -2)  # Andrew et al. 1905.03871, theorem 1
        count = z * draft.clip_norm / count_noise
    share = z * draft.clip_norm / math.sqrt(honest)  # σ_loc ÷ s
    length = padded(draft.dimension) if rotated else draft.dimension
    updates = _load(draft, rotated, share)
    sigma_least = 0.0 if bits else 1 / math.sqrt(12 * (ERROR_RATIO**2 - 1))

    def fit(b: int) -> NoisePlan | None:
        for coordinates in _COUNT_COORDINATES if count else (0,):
            total = draft.rounds * (length + coordinates)
            reach = draft.clients * count / 2 / math.sqrt(max(coordinates, 1))
            bit = dataclasses.replace(updates, reach=reach, spread=0.0)

            def overflow(scale: float, bit: RingLoad = bit, coordinates: int = coordinates) -> float:
                of_bit = coordinates * overflow_bound(b, bit, scale) if coordinates else 0.0
                return draft.rounds * (length * overflow_bound(b, updates, scale) + of_bit)

            least = max(sigma_least, _least_sigma(honest, MAX_SLACK / total)) / share
            if overflow(least) > allowed:
                continue
            scale = _finest_scale(overflow, least, allowed)
            return dataclasses.replace(
                draft,
                sigma_local=share * scale,
                scale=scale,
                bits=b,
                rotated=rotated,
                count_scale=count * scale,
                count_coordinates=coordinates,
                overflow_probability=overflow(scale),
                aliasing_slack=total * aliasing_exponent(share * scale, honest),
                rounding_error=1 / (math.sqrt(12) * share * scale),
            )
        return None

    for b in range(8, draft.bits + 1) if bits is None else (bits,):
        if (found := fit(b)) is not None:
            return found
    least = max(sigma_least, _least_sigma(honest, MAX_SLACK / (draft.rounds * length)))
    needed = next((str(b) for b in range(9, 1000) if fit(b) is not None), "1,000 or more")
    raise InfeasibleError(
        f"{draft.clients} clients with {least:.3g} grid units of noise each (the least for "
        f"{'1 % of error' if bits is None else 'the aliasing bound'}) make sums of up to "
        f"{draft.clients * draft.upload_norm * draft.peak_fraction * least / share:.4g} plus noise of "
        f"{least * math.sqrt(draft.clients):.4g}: that needs {needed} bits, more than {draft.bits}; allow them, or "
        f"take a smaller epsilon, fewer clients, {'' if rotated else 'the rotation, '}or a peak_fraction below "
        f"{draft.peak_fraction:g}"
    )


def _without_noise(draft: NoisePlan, rotated: bool, bits: int | None, count: bool, allowed: float) -> NoisePlan:
    load = _load(draft, rotated, 0.0)
    length = padded(draft.dimension) if rotated else draft.dimension
    for b in range(8, draft.bits + 1) if bits is None else (bits,):
        scale = noiseless_scale(b, load, allowed / (draft.rounds * length)) * (1 - _MARGIN)
        rounding = math.sqrt(draft.dimension / 12) / (scale * draft.clip_norm) if scale > 0 else math.inf
        if rounding <= NOISELESS_ERROR or (bits is not None and scale > 0):
            room = 2.0 ** (b - 1) - 1 - draft.clients / 2
            return dataclasses.replace(
                draft,
                scale=scale,
                bits=b,
                rotated=rotated,
                count_scale=room / (draft.clients / 2) * (1 - _MARGIN) if count else 0.0,
                count_coordinates=int(count),
                overflow_probability=allowed if rotated else 0.0,
                rounding_error=rounding,
            )
    raise InfeasibleError(
        f"{draft.clients} clients' sums of {draft.dimension} coordinates need more than {draft.bits} bits without "
        f"noise: allow more bits or take fewer clients"
    )


def _load(draft: NoisePlan, rotated: bool, share: float) -> RingLoad:
    """`share`: σ_loc ÷ s in the largest cohort. Its total, σ_loc·√h, is the same in every cohort."""
    sizes = range(draft.smallest_cohort, draft.clients + 1)
    excess = max(n / (n - tolerated(n, draft.dropout_tolerance) - draft.colluders) for n in sizes)
    signal = draft.clients * draft.upload_norm
    return RingLoad(
        clients=draft.clients,
        reach=0.0 if rotated else signal * draft.peak_fraction,
        spread=signal / math.sqrt(padded(draft.dimension)) if rotated else 0.0,
        sigma_local=share,
        deviation=share * math.sqrt(draft.honest_minimum * excess),
    )


def _finest_scale(overflow: Callable[[float], float], least: float, allowed: float) -> float:
    """Largest s >= least, which is known to do, whose overflow is at most `allowed`."""
    low, high = least, 2 * least
    while overflow(high) <= allowed:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if overflow(middle) <= allowed:
            low = middle
        else:
            high = middle
    return low


def _least_sigma(honest: int, allowed: float) -> float:
    """Least σ_loc, to a thousandth, whose aliasing exponent is at most `allowed`."""
    low, high = 0.0, 1.0
    while aliasing_exponent(high, honest) > allowed:
        low, high = high, 2 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        if aliasing_exponent(middle, honest) <= allowed:
            high = middle
        else:
            low = middle
    return high


def _verify(plan: NoisePlan, overflow_allowed: float) -> None:
    """The constraints themselves, recomputed from the plan alone by the code that will count the run."""
    for size in {plan.smallest_cohort, plan.clients}:
        spent = epsilon_of(plan.for_cohort(size).worst_events(), plan.delta, cell=CALIBRATION_CELL)
        if not spent <= plan.epsilon or not plan.overflow_probability <= overflow_allowed:
            raise InfeasibleError(
                f"solved plan misses its constraints, allow a larger delta or epsilon: epsilon {spent:.12g} of "
                f"{plan.epsilon:.12g}, overflow probability {plan.overflow_probability:.3g} of {overflow_allowed:.3g}"
            )
