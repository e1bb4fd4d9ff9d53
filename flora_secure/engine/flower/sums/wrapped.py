"""Which strategies a secure sum can wrap, and what they may ask of a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid, strategy
from flwr.serverapp.strategy import Strategy

from flora_secure.errors import require

# they compare or weigh single updates, which nobody has here, or add noise of their own
_SINGLE = (
    strategy.Bulyan,
    strategy.FedMedian,
    strategy.FedTrimmedAvg,
    strategy.FedXgbBagging,
    strategy.FedXgbCyclic,
    strategy.Krum,
    strategy.MultiKrum,
    strategy.QFedAvg,
)
_NOISY = (
    strategy.DifferentialPrivacyClientSideAdaptiveClipping,
    strategy.DifferentialPrivacyClientSideFixedClipping,
    strategy.DifferentialPrivacyServerSideAdaptiveClipping,
    strategy.DifferentialPrivacyServerSideFixedClipping,
)


def require_fit(wrapped: Strategy) -> None:
    """Raises ConfigError for what is no strategy of Flower's Message API, for one that needs single updates, and for
    one that adds noise of its own."""
    require(isinstance(wrapped, Strategy), f"a strategy of flwr.serverapp is wrapped, not {type(wrapped).__name__}")
    name = type(wrapped).__name__
    require(
        not isinstance(wrapped, _SINGLE),
        f"{name} looks at single updates, and a secure sum shows none: take FedAvg, FedAvgM, FedProx, FedAdam, "
        "FedAdagrad or FedYogi",
    )
    require(not isinstance(wrapped, _NOISY), f"{name} adds noise too: wrap the strategy within it instead")


def chosen(
    wrapped: Strategy,
    messages: Iterable[Message],
    nodes: Mapping[int, int],
    grid: Grid,
    log: Callable[[str], None],
) -> dict[int, Message]:
    """The message of the `wrapped` strategy for each client of `nodes`, by the client's number.

    `log` is told of nodes that are not enrolled. Raises ConfigError where a site that is connected is left out, and
    where sites would be sent different arrays.
    """
    by_node = {message.metadata.dst_node_id: message for message in messages}
    connected = set(grid.get_node_ids())
    left_out = [client for client, node in nodes.items() if node not in by_node and node in connected]
    require(
        not left_out,
        f"{type(wrapped).__name__} leaves out {len(left_out)} of {len(nodes)} sites, and the noise counts on "
        "all of them: give it fraction_train=1.0",
    )
    if strangers := len(by_node.keys() - set(nodes.values())):
        log(f"{strangers} nodes are not enrolled, and do not train")
    found = {client: by_node[node] for client, node in nodes.items() if node in by_node}
    records = [list(message.content.array_records.values()) for message in found.values()]
    require(
        all(len(one) == 1 for one in records) and len({one[0].object_id for one in records}) <= 1,
        f"{type(wrapped).__name__} sends sites different arrays, or more than one ArrayRecord; one sum needs one model",
    )
    return found
