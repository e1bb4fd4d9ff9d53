"""What clip and mean do to clients of different sizes: `python docs/studies/unequal_clients.py`, a minute.

The icons' clients by how many images they hold: how long their updates are before the clip, and what they get on their
own test images alone, from the federation as it is, and from the federated adapter fitted on at home.
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise

import numpy as np

from flora_secure.data.federation import load_federation
from flora_secure.engine.competitors import by_client
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import prepare
from flora_secure.planning.config import RunConfig, override

EDGES = (8, 20, 40, 80, 160, 1000)  # images of a client


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for epsilon in (4.0, math.inf):
        noisy = epsilon < math.inf
        changes = {"privacy.epsilon": epsilon, "privacy.simulation_noise": noisy, "aggregation.secagg": "off"}
        config = override(RunConfig(), changes)
        federation = load_federation(config.data, config.seed)
        task = prepare(federation.settled(config), federation)
        run = Simulation(task.made.config, task)
        invitation = run.server.invite(None)
        rows = run.trainer.contributions(invitation, run.server.broadcast, invitation.members).vectors
        lengths = np.linalg.norm(rows, axis=1) / run.config.clip_norm
        run = Simulation(task.made.config, task)
        *_, _ = run.rounds()
        found, sizes = by_client(run), np.array([len(own) for own in federation.clients])
        print(f"epsilon {epsilon:g}: images a client, clients, length of the first update in clip norms (median), "
              "percent alone, federated, fitted on at home")  # fmt: skip
        for low, high in pairwise(EDGES):
            some = [client for client in found.members if low <= sizes[client] < high]
            shares = (100 * found.mean(of, some) for of in (found.alone, found.federated, found.fitted_on))
            print(f"  {low:3} to {high - 1:3}: {len(some):3}, {np.median(lengths[some]):5.1f},",
                  ", ".join(f"{share:.1f}" for share in shares), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
