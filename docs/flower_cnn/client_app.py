"""The sites' app, as for any strategy of Flower's but for the mod."""

from __future__ import annotations

import os

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from task import Net, accuracy, data, train

from flora_secure.flower import secure_sum_mod

torch.set_num_threads(1)
app = ClientApp(mods=[secure_sum_mod(pilot=os.environ.get("PILOT"))])  # without `pilot` where sites are real


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train from the arrays that came."""
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    images, labels = data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    loss = train(net, images, labels, float(message.content["config"]["lr"]))
    metrics = MetricRecord({"num-examples": len(images), "train-loss": loss})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def score(message: Message, context: Context) -> Message:
    """Accuracy on the site's own images: it leaves without noise, see docs/flower-secure-sum.md."""
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    images, labels = data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    metrics = MetricRecord({"num-examples": len(images), "accuracy": accuracy(net, images, labels)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
