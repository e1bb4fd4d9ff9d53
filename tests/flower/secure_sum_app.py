"""An app of numpy arrays with secure sums, for Flower's own programs: two rounds; the environment names the PILOT."""

import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from flora_secure.flower import SecureSum, secure_sum_mod

PILOT = Path(os.environ.get("PILOT", "pilot"))
SITES, ROUNDS, EPSILON = 3, 2, 8.0

client = ClientApp(mods=[secure_sum_mod(pilot=PILOT)])
server = ServerApp()


@client.train()
def train(message, context) -> Message:
    site = int(context.node_config["partition-id"])
    arrays = {name: Array(array.numpy() + np.float32(site)) for name, array in message.content["arrays"].items()}
    metrics = MetricRecord({"num-examples": 1, "secret-metric": 12345.0 + site})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context) -> None:
    strategy = SecureSum(
        FedAvg(min_train_nodes=SITES - 1, min_available_nodes=SITES - 1, fraction_evaluate=0.0),
        epsilon=EPSILON,
        rounds=ROUNDS,
        clip_norm=1.0,
        enrolment=PILOT / "enrolment.toml",
        folder=PILOT / "run",
        dropout_tolerance=0.34,
        corrupt=0,
        patience=30,
    )
    result = strategy.start(grid, ArrayRecord({"a": Array(np.zeros(100, np.float32))}), timeout=60)
    print("SUM", strategy.report().summed, result.arrays["a"].numpy().shape)
