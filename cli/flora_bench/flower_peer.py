"""Flower's SecAgg+ as a peer: its own stages, called as its mod and its workflow call them, without its network.

Client: `_setup`, `_share_keys`, `_collect_masked_vectors` and `_unmask` of
flwr.client.mod.secure_aggregation.secaggplus_mod. Server: `SecAggPlusWorkflow.unmask_stage` with a grid that answers
at once. What other clients send is made by the same functions outside the timed part.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

# The defaults of SecAggPlusWorkflow, except a weight of one that needs no scaling.
_CLIPPING_RANGE, TARGET_RANGE, MOD_RANGE, _EXAMPLES = 8.0, 1 << 22, 1 << 32, 1


class FlowerClient:
    """One client with `neighbours` neighbours and a float32 update of `dimension` coordinates.

    A secret is shared among `neighbours + 1` clients, `threshold` of whom reveal it.
    """

    def __init__(self, neighbours: int, threshold: int, dimension: int) -> None:
        # the package has a function of the same name in the module's place
        mod = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
        from flwr.common import ndarrays_to_parameters
        from flwr.common.secure_aggregation.secaggplus_constants import Key

        self._mod, self._key = mod, Key
        self._setting: Any = {
            Key.SAMPLE_NUMBER: neighbours + 1,
            Key.SHARE_NUMBER: neighbours + 1,
            Key.THRESHOLD: threshold,
            Key.CLIPPING_RANGE: _CLIPPING_RANGE,
            Key.TARGET_RANGE: TARGET_RANGE,
            Key.MOD_RANGE: MOD_RANGE,
            Key.MAX_WEIGHT: float(_EXAMPLES),
        }
        update = np.random.default_rng(0).uniform(-1, 1, dimension).astype(np.float32)
        self._update = ndarrays_to_parameters([update])
        self._states = [mod.SecAggPlusState(nid=node) for node in range(neighbours + 1)]
        public = [mod._setup(state, self._setting) for state in self._states]
        self._roster: Any = {
            str(node): [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]] for node, own in enumerate(public)
        }
        self._me = self._states[0]
        self.share()
        self._inbox = self._boxes_to_me()

    def setup(self) -> object:
        """Make keys (for a state of their own: this client's peers already know its keys)."""
        return self._mod._setup(self._mod.SecAggPlusState(), self._setting)

    def share(self) -> object:
        """Goes through the stage in which both secrets are shared, sealed for each neighbour."""
        return self._mod._share_keys(self._me, self._roster)

    def mask(self) -> object:
        """Open the inbox, scale and quantise the update, mask it, serialise it."""
        return self._mod._collect_masked_vectors(self._me, self._inbox, _EXAMPLES, self._update)

    def quantise(self) -> object:
        """That part of `mask` which is not masking, in the same words."""
        mod = self._mod
        parameters = mod.parameters_multiply(mod.parameters_to_ndarrays(self._update), 1.0)
        return mod.factor_combine(TARGET_RANGE, mod.quantize(parameters, _CLIPPING_RANGE, TARGET_RANGE))

    def unmask(self) -> object:
        """Goes through the stage in which one share of each peer is revealed."""
        everybody = list(range(len(self._states)))
        configs: Any = {self._key.ACTIVE_NODE_ID_LIST: everybody, self._key.DEAD_NODE_ID_LIST: []}
        return self._mod._unmask(self._me, configs)

    def whole_round(self) -> None:
        """Go through all four stages of a round."""
        self.setup()
        self.share()
        self.mask()
        self.unmask()

    def _boxes_to_me(self) -> Any:
        """What the peers send. Their shares are copies of this client's: only the length matters to who opens them."""
        mod, me = self._mod, self._me
        own = mod.bytes_to_public_key(me.pk2)
        boxes = []
        for peer in self._states[1:]:
            key = mod.generate_shared_key(mod.bytes_to_private_key(peer.sk2), own)
            shares = me.rd_seed_share_dict[0], me.sk1_share_dict[0]
            boxes.append(mod.encrypt(key, mod.share_keys_plaintext_concat(peer.nid, 0, *shares)))
        return {self._key.CIPHERTEXT_LIST: boxes, self._key.SOURCE_LIST: [peer.nid for peer in self._states[1:]]}


def share_secrets(threshold: int, clients: int) -> None:
    """Shamir shares of both secrets of a client, as `_share_keys` makes them."""
    from flwr.common.secure_aggregation.crypto.shamir import create_shares

    create_shares(os.urandom(32), threshold, clients)
    create_shares(_mask_secret(), threshold, clients)


class FlowerServer:
    """A server that has summed the uploads of a complete graph of `clients`, of which `dropped` dropped.

    One survivor's seed and one dropped client's key stand for everybody's, since what the server does depends on their
    number alone; sharing them n times would take minutes.
    """

    def __init__(self, clients: int, threshold: int, dropped: int, dimension: int) -> None:
        from flwr.common.secure_aggregation.crypto.shamir import create_shares
        from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # the workflow's messages want some
        self._threshold, self._dimension = threshold, dimension
        self.survivors, self.dropped = tuple(range(dropped, clients)), tuple(range(dropped))
        self._seed_shares = create_shares(os.urandom(32), threshold, clients)
        self._key_shares = create_shares(_mask_secret(), threshold, clients) if dropped else []
        self._publics = [public_key_to_bytes(generate_key_pairs()[1]) for _ in range(clients)]

    def unmask(self, owners: Sequence[int]) -> Any:
        """A trial (see measure): the stage for those clients' secrets, all survivors sending their shares of them."""
        from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState

        everybody = {*self.survivors, *self.dropped}
        state = WorkflowState(
            sampled_node_ids=set(owners),
            active_node_ids=set(self.survivors),
            threshold=self._threshold,
            clipping_range=_CLIPPING_RANGE,
            quantization_range=TARGET_RANGE,
            mod_range=MOD_RANGE,
            nid_to_neighbours={node: set(everybody) for node in everybody},
            nid_to_publickeys={node: [key, key] for node, key in enumerate(self._publics)},
            aggregate_ndarrays=[np.array([7]), np.random.default_rng(0).integers(0, MOD_RANGE, self._dimension)],
        )
        workflow = SecAggPlusWorkflow(len(everybody), self._threshold)
        grid: Any = SimpleNamespace(send_and_receive=lambda messages, timeout: self._replies(owners))
        return lambda: self._run(workflow, grid, state)

    def _run(self, workflow: Any, grid: Any, state: Any) -> None:
        logging.getLogger("flwr").setLevel(logging.WARNING)
        if not workflow.unmask_stage(grid, _Context(), state):
            raise AssertionError("Flower's unmask stage stopped")

    def _replies(self, owners: Iterable[int]) -> list[Any]:
        """One message for each survivor: its share of each owner's secret."""
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

        alive = set(self.survivors)
        replies = []
        for node in self.survivors:
            shares = [(self._seed_shares if owner in alive else self._key_shares)[node] for owner in owners]
            records = {RECORD_KEY_CONFIGS: {Key.NODE_ID_LIST: list(owners), Key.SHARE_LIST: shares}}
            replies.append(
                SimpleNamespace(
                    has_error=lambda: False,
                    metadata=SimpleNamespace(src_node_id=node),
                    content=SimpleNamespace(config_records=records),
                )
            )
        return replies


class _Context:
    """As much of Flower's context as the unmask stage reads."""

    def __init__(self) -> None:
        from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, Key

        self.state = SimpleNamespace(config_records={MAIN_CONFIGS_RECORD: {Key.CURRENT_ROUND: 1}})
        self.strategy = SimpleNamespace(aggregate_fit=lambda *_: (None, {}))


def _mask_secret() -> bytes:
    """A key as Flower shares it: PEM."""
    from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes

    return bytes(private_key_to_bytes(generate_key_pairs()[0]))
