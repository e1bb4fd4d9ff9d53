"""A site's policy for secure sums, as a file that its own people write from what was agreed on."""

from __future__ import annotations

import os
from pathlib import Path

import tomli_w

from flora_secure.client.policy import Policy
from flora_secure.engine.flower.sums.mod import POLICY
from flora_secure.errors import ConfigError, require
from flora_secure.planning.placements import ARRAYS
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, create_file
from flora_secure.server.sum_budget import Budget

_MARGIN = 1e-6  # by which the terms allow for rounding


def write_policy(
    folder: str | Path,
    *,
    epsilon: float,
    rounds: int,
    clients: int,
    delta: float | None = None,
    dropout_tolerance: float = 0.2,
    corrupt: int = 1,
) -> Path:
    """Write `policy.toml` into a site's folder: the terms that a federation of this kind keeps, and no weaker ones.

    To be run at the site, by its own people, with the numbers that they have agreed on; a server that asks for more
    rounds, less noise, or fewer clients is then refused by the site. `most_epsilon` is this site's whole budget, over
    all servers that it ever answers: raise it there, by hand, for a second run.

    Args:
        folder: the site's, or a pilot's.
        epsilon, delta, rounds, dropout_tolerance, corrupt: as of `SecureSum`, with the same defaults.
        clients: how many sites are enrolled and not revoked.

    Returns the file's path. Raises ConfigError for values that no federation can have, and where there is a policy,
    which is not overwritten.
    """
    budget = Budget(
        epsilon=epsilon, rounds=rounds, clip_norm=1.0, delta=delta, dropout_tolerance=dropout_tolerance, corrupt=corrupt
    )
    require(type(clients) is int and clients >= 2, f"clients must be a whole number of at least 2, got {clients!r}")
    plan = budget.plan(clients, dimension=1)  # the noise multiplier does not depend on it
    policy = Policy(
        least_noise=plan.noise_multiplier * (1 - _MARGIN),
        most_epsilon=epsilon * (1 + _MARGIN),
        delta=plan.delta,
        most_rounds=rounds,
        last_round=rounds,
        corrupt=corrupt / clients,
        least_clients=plan.survivors_minimum,  # a site that is away at the set-up must not stop the others
        least_threshold=2,
        least_survivors=plan.survivors_minimum,
        unit="client",
        placements=(ARRAYS,),
    )
    table = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(policy).items()}
    path = Path(folder) / POLICY
    try:
        path.parent.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        create_file(path, tomli_w.dumps(table).encode(), mode=PRIVATE)
    except FileExistsError:
        raise ConfigError(f"{path} is there and is not overwritten; change it by hand, or move it away") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {os.strerror(error.errno or 0)}; choose another folder") from None
    return path
