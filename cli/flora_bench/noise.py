"""`bench noise`: the rounded Gaussian beside OpenDP's exact sampler and numpy's float one; calibration.

The plan is that of 100 clients, 20 rounds, epsilon 4 and delta 1e-5 at d = 131,072. numpy's normal draws are ordinary
floating point: fast, and unfit for privacy (Mironov, CCS 2012). They are here as a yardstick for time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import numpy as np

from flora_bench.measure import Row, Scale, installed, medians
from flora_secure.boundary.processes import fresh_python, surroundings
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.encoding import encode
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rotation import Rotation
from flora_secure.privacy.rounded_gaussian import RoundedGaussian

MISSING = "peer not installed"
_CALIBRATION_LIMIT = 0.010
_Make = Callable[[], Rotation | None]


def rows(scale: Scale) -> Iterator[Row]:
    """Yields every row of the subject as soon as it is measured."""
    yield from draws(scale)
    yield from encoding(scale)
    yield from calibration(scale)


def plan_for(dimension: int, rotated: bool | None = None, epsilon: float = 4.0) -> NoisePlan:
    """The setting of all rows. `rotated`: as `calibrate` takes it, None for the default."""
    return calibrate(
        clients=100, dimension=dimension, rounds=20, epsilon=epsilon, delta=1e-5, clip_norm=1.0, rotation=rotated
    )


def _dimension(scale: Scale) -> int:
    return 2_048 if scale is Scale.QUICK else 131_072


def draws(scale: Scale) -> Iterator[Row]:
    """Integer Gaussian noise of one client's scale around zero, exact on both sides."""
    count = 2_000 if scale is Scale.QUICK else 1_000_000
    zeros, plan = np.zeros(count), plan_for(_dimension(scale))
    own = medians(9, lambda: lambda: RoundedGaussian().sample(zeros, plan.sigma_local))[0]
    other, note = None, MISSING
    if installed("opendp") is not None:
        other, note = medians(1, _opendp_draws(count, plan.sigma_local))[0], "OpenDP measured once"
    yield Row(
        figure="exact Gaussian draws",
        setting=f"{count:,} at sigma {plan.sigma_local:.3g}",
        ours=own,
        other=other,
        against="OpenDP's discrete Gaussian",
        at_least=100.0,
        note=note,
    )


def encoding(scale: Scale) -> Iterator[Row]:
    """One client's upload before masking, beside as many float draws; without the rotation and with it."""
    generator = np.random.default_rng(0)
    for rotated in (False, True):
        plan = plan_for(_dimension(scale), rotated)
        update = generator.normal(0, 1e-2, plan.dimension).astype(np.float32)
        # made once a round for all clients of a simulation, but once for each client elsewhere: counted
        make = partial(Rotation, plan.dimension, 0, 1) if rotated else lambda: None

        def ours(update: np.ndarray = update, plan: NoisePlan = plan, make: _Make = make) -> Callable[[], object]:
            return lambda: encode(update, plan, RoundedGaussian(), make())

        own, modern, legacy = medians(
            3 if scale is Scale.QUICK else 31,
            ours,
            lambda d=plan.dimension: lambda: generator.normal(size=d),  # type: ignore[misc]
            lambda d=plan.dimension: lambda: np.random.normal(size=d),  # type: ignore[misc]
        )
        setting = f"d={plan.dimension:,} b={plan.bits}" + (" rotated" if rotated else "")
        for other, against in ((modern, "numpy's default_rng().normal"), (legacy, "numpy's legacy random.normal")):
            yield Row(
                figure="clip, noise and encode", setting=setting, ours=own, other=other, against=against, at_most=5.0
            )


def calibration(scale: Scale) -> Iterator[Row]:
    """From the run's parameters to noise, grid and bits: a fresh interpreter's first call, and later ones."""
    budgets = iter(np.linspace(3.0, 5.0, 1000))

    def warm() -> Callable[[], object]:
        epsilon = float(next(budgets))  # another one each time, so that no cache could answer
        return lambda: plan_for(131_072, epsilon=epsilon)

    repeats = 3 if scale is Scale.QUICK else 31
    for name, seconds in (("first call", _cold_calibration(scale)), ("later calls", medians(repeats, warm)[0])):
        yield Row(
            figure="calibration, full participation",
            setting=f"n=100 d=131,072 T=20, {name}",
            ours=seconds,
            other=_CALIBRATION_LIMIT,
            against="10 ms",
            at_most=1.0,
        )


def _cold_calibration(scale: Scale) -> float:
    """Median over fresh interpreters of the first call's CPU seconds, imports not counted."""
    program = (
        "import time; from flora_bench.noise import plan_for\n"
        "before = time.process_time(); plan_for(131_072); print(time.process_time() - before)"
    )
    seconds = []
    for _ in range(1 if scale is Scale.QUICK else 5):
        done = subprocess.run(fresh_python("-c", program), capture_output=True, check=True, env=surroundings())  # noqa: S603  (our own program)
        seconds.append(float(done.stdout))
    return median(seconds)


def _opendp_draws(count: int, sigma: float) -> Callable[[], Callable[[], object]]:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    measurement = dp.m.make_gaussian(
        dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float), scale=float(sigma)
    )
    zeros = [0] * count
    return lambda: lambda: measurement(zeros)
