"""A pilot of five sites on this machine, by Flower's simulation engine: PILOT=folder python simulate.py

It makes keys and policies of all sites in the folder, where they are missing. Real sites make their own: docs/keys.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from client_app import app as client_app
from flwr.simulation import run_simulation
from server_app import EPSILON, PILOT, ROUNDS
from server_app import app as server_app

from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.flower import write_policy

SITES = 5

if __name__ == "__main__":
    os.environ["PILOT"] = str(PILOT.resolve())
    make_federation(PILOT, clients=SITES)
    if not (Path(PILOT) / "policy.toml").exists():
        write_policy(PILOT, epsilon=EPSILON, rounds=ROUNDS, clients=SITES)
    run_simulation(server_app, client_app, num_supernodes=SITES)
