"""The server's app, as with FedAvg but for the strategy around it."""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from task import Net, accuracy, data

from flora_secure.flower import SecureSum

PILOT = Path(os.environ.get("PILOT", "pilot"))
ROUNDS, EPSILON = 3, 8.0
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Three rounds, evaluated on the server's own test images."""

    def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
        net = Net()
        net.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(net, *data(-1, 1))})

    strategy = SecureSum(
        FedAvg(fraction_evaluate=0.0),
        epsilon=EPSILON,
        rounds=ROUNDS,
        clip_norm=1.0,
        enrolment=PILOT / "enrolment.toml",
        folder=PILOT / "run",
    )
    strategy.start(grid, ArrayRecord(Net().state_dict()), train_config=ConfigRecord({"lr": 0.1}), evaluate_fn=evaluate)
    print(strategy.report())
