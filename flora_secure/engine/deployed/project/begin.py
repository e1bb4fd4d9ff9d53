"""A folder to begin a federation with: planned, so that its policy fits its configuration, and never written over.

    DIR/app/            what Flower packs and sends to all parties: the configuration, where the images lie; no secret
    DIR/policy.toml     what each site insists on, to be read and copied to it
    DIR/server/         the server's own folder: test images, later the run
    DIR/flwr/           Flower's own configuration, for whoever starts runs; for NVFlare there is DIR/app/job.py instead
    DIR/README.md       what to edit, and the commands

Keys, and the sites' folders, are made beside (`engine.deployed.keys`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flora_secure.client.ledger import spent
from flora_secure.client.policy import Policy
from flora_secure.engine.deployed.deployable import deployable
from flora_secure.engine.deployed.folders import POLICY
from flora_secure.engine.deployed.keys.change import changing
from flora_secure.engine.deployed.project import app_text, nvflare_text, terms_text
from flora_secure.errors import require
from flora_secure.planning.architectures import private_images
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.masking import name_of, suite_of
from flora_secure.planning.names import ICONS
from flora_secure.planning.protection import Unit
from flora_secure.planning.sections import DataConfig
from flora_secure.records.forecast import Forecast, forecast

FEW_CLIENTS = 30
"""With fewer clients a federation protects examples, unless asked otherwise: they cannot hide one of them."""
CORRUPT = 0.05
DATA = "own:images"
_PUBLIC = 0o644


@dataclass(frozen=True)
class Begun:
    """What was written, and why it is as it is.

    Attributes:
        folder: of the federation.
        config: of so many clients, as every party will read it.
        policy: that fits it.
        plan: of the noise and the masks.
        reason: in a line for people, why the budget protects this unit.
    """

    folder: Path
    config: RunConfig
    policy: Policy
    plan: Forecast
    reason: str


def begin(
    folder: Path,
    *,
    clients: int = 3,
    rounds: int = 10,
    epsilon: float = 8.0,
    unit: Unit | None = None,
    images: int | None = None,
    framework: Literal["flower", "nvflare"] = "flower",
) -> Begun:
    """Write the folder of a federation.

    Args:
        folder: made where it is missing; what is there already is left alone, and none of it is written over.
        clients: how many sites there will be, which noise and masks are planned for.
        rounds, epsilon: of the run.
        unit: whom the budget protects; None for `example` with few clients and `client` with many.
        images: of all sites together, for unit `example`; None for as many as the example has.
        framework: whose programs carry the messages; what they start is written beside.

    Raises an `errors.InputError`, with nothing written, where no plan satisfies these, and ConfigError where a file of
    it is there or cannot be written.
    """
    chosen: Unit = unit or ("example" if clients < FEW_CLIENTS else "client")
    require(
        images is None or chosen == "example",
        f"`images` {images} is for `privacy.unit` example, whose budget counts images: leave it out",
    )
    config = _config(clients, rounds, epsilon, chosen, images)
    plan = forecast(config)
    config = override(config, {"privacy.delta": plan.plan.delta})
    deployable(config, clients)  # what is written now must be what a party can read later
    policy = policy_for(config, plan)
    home = folder.resolve()
    files = {
        "app/federation/__init__.py": app_text.PACKAGE,
        "app/federation/data.py": app_text.DATA,
        "app/federation/config.toml": terms_text.config_text(config, plan),
        "server/README.md": app_text.SERVER_README,
    }
    if framework == "flower":
        files |= {
            "app/pyproject.toml": app_text.pyproject(home / "server"),
            "app/federation/app.py": app_text.APP,
            "flwr/config.toml": app_text.flower_config(home / "certs" / "ca.crt"),
            "README.md": app_text.readme(chosen),
        }
    else:
        files |= {"app/job.py": nvflare_text.job(home, clients), "README.md": nvflare_text.README}
    with changing(folder) as change:
        for name, text in files.items():
            change.file(home / name, text.encode(), _PUBLIC)
        change.file(home / POLICY, terms_text.policy_text(policy, plan).encode(), _PUBLIC)
        change.commit(home, None, _PUBLIC)
    return Begun(folder, config, policy, plan, reason_of(chosen, clients, asked=unit is not None))


def policy_for(config: RunConfig, plan: Forecast) -> Policy:
    """A site's policy that takes part in all rounds of the run, and grants no more than they cost at the worst."""
    noise = plan.plan
    events = noise.worst_events()
    assert plan.aggregation.threshold is not None
    least = min(event.noise_multiplier for event in events)
    return Policy(
        profile="malicious-server",
        least_noise=math.floor(0.999 * least * 1000) / 1000,
        most_epsilon=math.ceil(spent(events, noise.delta) * 100) / 100,
        delta=noise.delta,
        most_rounds=config.training.rounds,
        last_round=config.training.rounds,
        corrupt=config.aggregation.corrupt,
        least_clients=noise.survivors_minimum,
        least_threshold=plan.aggregation.threshold,
        least_survivors=noise.survivors_minimum,
        suite=name_of(suite_of(config)),
        unit=config.privacy.unit,
        placements=(config.model.placement,),
    )


def reason_of(unit: Unit, clients: int, *, asked: bool) -> str:
    """Why the budget protects this unit, or what it means that it does, in a line for people."""
    if unit == "example":
        why = (
            f"{clients} sites cannot hide a site: noise for a whole site among {clients} would drown everything"
            if clients < FEW_CLIENTS
            else "as you asked"
        )
        return f"unit example: the budget protects each single image ({why})"
    if clients < FEW_CLIENTS and asked:
        return (
            f"unit client, as you asked: the noise hides a whole site among {clients}, which drowns most of what they "
            "learn; --unit example protects each single image"
        )
    return f"unit client: the budget protects all that a site has, among {clients} of them"


def _config(clients: int, rounds: int, epsilon: float, unit: Unit, images: int | None) -> RunConfig:
    # so that one of three may fail; with more of them a smaller part
    tolerance = 0.34 if clients <= 5 else 0.2 if clients < FEW_CLIENTS else 0.1
    settings = {
        "data.dataset": DATA,
        "data.clients": clients,
        "data.partition": "natural",
        "training.rounds": rounds,
        "privacy.unit": unit,
        "privacy.epsilon": epsilon,
        "privacy.dropout_tolerance": tolerance,
        "aggregation.secagg": "malicious-server",
        "aggregation.corrupt": CORRUPT if CORRUPT * clients >= 1 else 0.0,
    }
    if unit == "example":
        example = DataConfig(dataset=ICONS)  # whose images `example.write_example` writes
        settings["data.total_images"] = private_images(example) if images is None else images
    else:
        settings["training.control_variate"] = 0.0
    config = override(RunConfig(), settings)
    return override(config, {"aggregation.suite": name_of(suite_of(config))})
