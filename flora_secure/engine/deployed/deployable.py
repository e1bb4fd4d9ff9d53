"""Which configurations a real federation may have."""

from __future__ import annotations

import dataclasses
import math

from flora_secure.errors import require
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.masking import settled
from flora_secure.planning.names import PASSED
from flora_secure.planning.sections import DataConfig


def deployable(config: RunConfig, clients: int) -> RunConfig:
    """The configuration of a federation of so many enrolled clients, settled: without a control variate, which all
    sites need alike, where nobody has set one. The warm start, which the server makes alone, stays open.
    The messages of the masking are kept unless the configuration says otherwise.

    Raises ConfigError for what a simulation may do and a federation may not: noise that is no secret, no masks, masks
    that only resist an honest server, and data that lie in one place.
    """
    how, privacy, data = config.aggregation, config.privacy, config.data
    require(
        data.clients in (None, clients), f"`data.clients` is {data.clients}, and {clients} are enrolled; leave it out"
    )
    require(
        how.secagg == "malicious-server",
        f"`aggregation.secagg` {how.secagg} trusts the server; sites have identity keys, so take malicious-server",
    )
    require(how.masking == "run", "`aggregation.masking` counted hides nothing: leave it out")
    require(how.dropout == 0, f"`aggregation.dropout` {how.dropout} is for simulations: real sites drop out themselves")
    require(not privacy.simulation_noise, "`privacy.simulation_noise` is no secret: leave it out")
    require(
        config.evidence.canaries == 0,
        f"`evidence.canaries` {config.evidence.canaries} are for simulations, whose owner holds coins: leave it out",
    )
    require(privacy.epsilon < math.inf, "`privacy.epsilon` inf protects nobody: set a budget")
    require(
        data.dataset.startswith(PASSED),
        f"`data.dataset` {data.dataset} lies in one place; call the sites' data {PASSED}NAME",
    )
    require(
        data.partition in (None, "natural"), f"`data.partition` {data.partition} deals images, and these stay: leave it"
    )
    require(
        data.total_images is not None or privacy.unit == "client",
        "`privacy.unit` example is planned by the images of all sites together: set `data.total_images`",
    )
    fixed = DataConfig(dataset=data.dataset, clients=clients, total_images=data.total_images, partition="natural")
    require(
        dataclasses.replace(data, clients=clients, partition="natural") == fixed,
        "`data` of a federation has dataset, clients and total_images; all else stands in its data.py",
    )
    kept = config.evidence.transcript is not False
    config = dataclasses.replace(config, evidence=dataclasses.replace(config.evidence, transcript=kept))
    variate = config.training.control_variate or 0.0
    return settled(override(dataclasses.replace(config, data=fixed), {"training.control_variate": variate}))
