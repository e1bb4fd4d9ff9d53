"""A server and clients that follow it by its broadcasts alone: contributions are drawn, sums are plain."""

from collections.abc import Collection

import numpy as np

from flora_protocols import identity_public
from flora_secure.client.following import Following, arrive
from flora_secure.client.upload import upload
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.rules import PROMPT_BASIS, Rule, TrainedValues
from flora_secure.rounds.broadcast import Broadcast, Layout
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import decode_opening
from flora_secure.rounds.sum import Outcome, RoundSum
from flora_secure.server.server import Server
from flora_secure.server.task import ServerTask

CLIENTS, MODEL = 10, bytes(range(32))


def server_of(rule: Rule = PROMPT_BASIS, a: int = 40, b: int = 192, **changes) -> Server:
    """A server of ten clients without a model, whose configuration has `changes`, with two underscores for a dot."""
    given = {
        "data.clients": CLIENTS,
        "training.rounds": 8,
        "privacy.epsilon": 50.0,
        "privacy.simulation_noise": True,
        "privacy.dropout_tolerance": 0.4,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    trained = TrainedValues(rule, a, b)
    task = ServerTask(
        trained=trained,
        initial=np.random.default_rng(1).normal(0, 0.1, trained.dimension).astype(np.float32),
        width=8.0,
        images=1000,
        model_hash=MODEL.hex(),
        data_hash="00" * 32,
        accuracy=lambda adapter: 0.5,
    )
    config = override(RunConfig(), given)
    signed = config.aggregation.secagg == "malicious-server"
    identities = tuple(identity_public(bytes([client + 1]) * 32) for client in range(CLIENTS * signed))
    return Server(config, task, Enrolment(clients=CLIENTS, identities=identities))


class Followers:
    """The clients of a server, each with what it keeps from round to round."""

    def __init__(self, server: Server) -> None:
        self.server, self.kept = server, dict.fromkeys(range(CLIENTS), b"")
        self.sent: list[dict[int, Broadcast]] = []  # a round each, as members read it
        self.bytes: list[int] = []

    def round(
        self, *, lost: Collection[int] = (), gone: Collection[int] = (), aborted: bool = False, announced: bool = False
    ) -> Invitation:
        """One round. Openings of the `lost` do not arrive; those and the `gone` do not upload."""
        server, trained = self.server, self.server.task.trained
        invitation = server.invite()
        layout = Layout.of(invitation.plan, trained)
        messages = {client: decode_opening(opening)[1] for client, opening in server.openings(invitation).items()}
        self.bytes.append(sum(map(len, messages.values())))
        self.sent.append(
            {client: Broadcast.from_bytes(message, layout, invitation.round) for client, message in messages.items()}
        )
        for client in set(invitation.members).difference(lost):
            adapter, self.kept[client] = arrive(messages[client], invitation, trained, MODEL, self.kept[client])
            assert adapter == server.broadcast
            self.require_equal(client, invitation)
        uploaded = [client for client in invitation.members if client not in {*lost, *gone}]
        total = np.zeros(invitation.plan.length, np.uint32)
        for client in uploaded:
            rng = np.random.default_rng([invitation.round, client])
            total += upload(invitation, rng.normal(0, 0.05, invitation.plan.dimension), noise_key=bytes(32))
        total &= np.uint32((1 << invitation.plan.bits) - 1)
        server.finish(
            invitation,
            Outcome(
                sum=None if aborted else RoundSum(total, tuple(uploaded), 0),
                aborted="too few" if aborted else None,
                uploaded=uploaded,
                announced=uploaded if announced else (),
            ),
        )
        return invitation

    def require_equal(self, client: int, invitation: Invitation) -> None:
        """The client's state is the server's, bit for bit, if it keeps the one of this round."""
        own = Following.read(self.kept[client], invitation, Layout.of(invitation.plan, self.server.task.trained))
        if own is None or own.number < invitation.round:
            return
        state = self.server.checkpoint().server
        assert own.full.state.adapter.tobytes() == state.adapter.tobytes()
        assert own.full.state.momentum.tobytes() == state.momentum.tobytes()
