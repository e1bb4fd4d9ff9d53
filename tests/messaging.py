"""Clients that only ever see bytes, and the rounds and sessions that a server conducts with them."""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from invitations import enrolment_of, invitation_of, secrets_of

from flora_protocols import Exchange, RoundParams, RoundResult, ServerPrepared, Trip, conduct, drive, set_up
from flora_secure.client.client import Client
from flora_secure.client.contribution import Contributions
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.client.store import MemoryStore
from flora_secure.planning.rules import PROMPT_BASIS, TrainedValues
from flora_secure.privacy.calibration import calibrate
from flora_secure.rounds.broadcast import Broadcast
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import encode_opening, encode_request

CLIENTS, DIMENSION = 6, 40
PLAN = calibrate(
    clients=CLIENTS, dimension=DIMENSION, rounds=5, epsilon=8.0, delta=1e-5, clip_norm=1.0, dropout_tolerance=0.4
)
NOISELESS = calibrate(
    clients=CLIENTS, dimension=DIMENSION, rounds=5, epsilon=math.inf, delta=1e-5, clip_norm=1.0, dropout_tolerance=0.4
)
MODEL, BROADCAST = bytes(range(32)), bytes(range(2 * DIMENSION))
MODEL_HASH = hashlib.sha256(MODEL + BROADCAST).digest()


def alone(number: int, adapter: bytes = BROADCAST) -> bytes:
    """The broadcast of an adapter without a state."""
    return Broadcast(since=number, adapter=adapter).to_bytes()


class Given:
    """A trainer whose contributions are given, and which counts how often it is asked."""

    def __init__(self) -> None:
        self.rows = np.random.default_rng(3).normal(0, 0.1, (CLIENTS, DIMENSION))
        self.asked = 0

    @property
    def trained(self) -> TrainedValues:
        return TrainedValues(PROMPT_BASIS, 7, DIMENSION)

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        assert broadcast == BROADCAST
        self.asked += 1
        ones = np.ones(len(members), np.int64)
        return Contributions(self.rows[list(members)], ones, 0 * ones)


def terms(**changes) -> Policy:
    given = {"profile": "semi-honest", "least_noise": 0.1, "most_epsilon": 100.0, "delta": 1e-5, "most_rounds": 5}
    return Policy(**{**given, **changes})


class Federation:
    """Clients with stores in memory, and the sessions and rounds that a server conducts with them."""

    def __init__(self, *, signed: bool = False, **changes) -> None:
        self.secrets = secrets_of(CLIENTS) if signed else {}
        self.enrolment: Enrolment = enrolment_of(CLIENTS, self.secrets)
        self.trainer = Given()
        self.prepared: ServerPrepared | None = None
        self.clients = [
            Client(
                enrolment=self.enrolment,
                number=number,
                policy=terms(**changes),
                trainer=self.trainer,
                ledger=ClientLedger(None),
                store=MemoryStore(),
                model_hash=MODEL,
                identity=self.secrets.get(number),
            )
            for number in range(CLIENTS)
        ]

    def invitation(self, number: int = 1, plan=PLAN, **changes) -> Invitation:
        return invitation_of(plan, self.enrolment, number=number, **{"model_hash": MODEL_HASH, **changes})

    def opening(self, invitation: Invitation, after: Invitation | None = None) -> bytes:
        return encode_opening(invitation.to_bytes(self.enrolment, after), alone(invitation.round))

    def request(self, invitation: Invitation, start: RoundParams, *, opening: bytes | None = None) -> bytes:
        """What asks for the upload of a round, whatever START says."""
        assert self.prepared is not None
        told = self.opening(invitation) if opening is None else opening
        return encode_request(told, start.to_bytes(self.prepared.params, self.prepared.session))

    def answer(self, position: int, message: bytes) -> bytes:
        return self.clients[position].answer(message)

    def set_up(self, invitation: Invitation, *, gone: Mapping[Trip, Collection[int]] | None = None, after=None) -> None:
        """Prepare the session of `invitation`, without those who are `gone` from a trip on."""
        opening, gone = self.opening(invitation, after), gone or {}

        def carry(exchange: Exchange):
            for position, message in exchange.outbox.items():
                if position not in gone.get(exchange.trip, ()):
                    yield position, self.answer(position, message or opening)

        self.prepared = drive(set_up(invitation.params), carry)

    def conduct(
        self, invitation: Invitation, *, gone: Mapping[Trip, Collection[int]] | None = None, after=None
    ) -> RoundResult:
        """A round, and before it the set-up if it begins a session. Who is `gone` from a trip is not in the round."""
        gone = gone or {}
        if invitation.slot == 0:
            self.set_up(invitation, gone=gone, after=after)
        assert self.prepared is not None
        opening = self.opening(invitation, after) if invitation.slot else b""

        def carry(exchange: Exchange):
            for position, message in exchange.outbox.items():
                if position not in gone.get(exchange.trip, ()):
                    asked = exchange.trip is Trip.MASK
                    yield position, self.answer(position, encode_request(opening, message) if asked else message)

        start = invitation.start(self.enrolment, self.prepared.clients)
        return drive(conduct(self.prepared, start), carry)
