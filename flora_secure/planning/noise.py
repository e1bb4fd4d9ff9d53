"""The noise of a run from its configuration: one place, for the simulation and for `plan`."""

from __future__ import annotations

import re

from flora_secure.errors import ConfigError, InfeasibleError, InputError
from flora_secure.planning.config import RunConfig
from flora_secure.planning.selection import Selection
from flora_secure.privacy.accounting import default_delta
from flora_secure.privacy.adaptive_clip import default_count_noise
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.noise_plan import NoisePlan

# Unit example: uploads are clipped to so many times the norm of an average client's sum if all its gradients agreed.
UPLOAD_NORM = 2.0

# what solver and masking protocol say, who know no settings, and the setting that each means
_MEANT = {
    r"^epsilon(?= [\d.])": "`privacy.epsilon`",
    r"^threshold(?= \d)": "`aggregation.threshold`",
    r"^neighbours(?= \d)": "`aggregation.neighbours`",
    r"^(\d+) slots(?= among)": r"`aggregation.slots` \1",
    r"(?<=shares; lower )one of them$": "that or `aggregation.neighbours`",
    r"(?<=smaller )epsilon|(?<=or )epsilon$": "`privacy.epsilon`",
    r"(?<=larger )delta": "`privacy.delta`",
    r"(?<=fewer )clients": "`data.clients`",
    r"(?<=allow )(them(?=, or)|more bits(?= or))": "more `privacy.bits`",
    r"(?<=fewer )corrupt clients": "corrupt clients (`aggregation.corrupt`)",
    r"(?<=fewer )dropouts": "dropouts (`privacy.dropout_tolerance`)",
    r"(?<=the semi-honest profile)$": " (`aggregation.secagg`)",
    r"(?<=: tolerate )fewer$": "fewer (`aggregation.corrupt`, `privacy.dropout_tolerance`)",
}


def refused(error: Exception) -> InputError:
    """What the solver or the masking's protocol refuses, as an error that names the settings to change."""
    if isinstance(error, InputError) and not isinstance(error, InfeasibleError):  # which names numbers, no settings
        return error
    message = str(error)
    for words, meant in _MEANT.items():
        message = re.sub(words, meant, message)
    return ConfigError(message)


def protected_units(config: RunConfig, images: int) -> int:
    """How many clients or examples the federation holds, by the unit that the budget protects."""
    return config.clients if config.privacy.unit == "client" else images


def target_delta(config: RunConfig, images: int) -> float:
    """δ as given, or the default for so many units."""
    given = config.privacy.delta
    return default_delta(protected_units(config, images)) if given is None else given


def plan_noise(config: RunConfig, selection: Selection, dimension: int, images: int) -> NoisePlan:
    """The plan of a run whose updates have `dimension` values, over clients that hold `images` in all.

    Raises `InfeasibleError` where no noise and ring satisfy the configuration.
    """
    privacy = config.privacy
    # One example alone may be all that a client draws, and must arrive whole.
    typical = 1.0 if privacy.unit == "client" else UPLOAD_NORM * config.sampling_rate * images / config.clients
    return calibrate(
        clients=selection.largest,
        smallest_cohort=selection.smallest,
        dimension=dimension,
        rounds=config.training.rounds,
        participations=selection.participations,
        epsilon=privacy.epsilon,
        delta=target_delta(config, images),
        population=protected_units(config, images),
        sampling_rate=config.sampling_rate,
        clip_norm=config.clip_norm,
        upload_norm=config.clip_norm * max(1.0, typical),
        count_noise=None if privacy.adaptive_clip is None else default_count_noise(config.cohort_size),
        dropout_tolerance=config.dropout_tolerance,
        colluders=selection.colluders,
        bits=privacy.bits,
    )


def expected_contributions(config: RunConfig, images: int, survivors: int) -> float:
    """How many updates or gradients are in the sum of so many uploads, on average: what the server divides by.

    `images`: of all clients together. Unit `client` uploads one update each; in unit `example` an average client's
    upload holds q times its images.
    """
    if config.privacy.unit == "client":
        return survivors
    return survivors * (config.sampling_rate * images / config.clients)
