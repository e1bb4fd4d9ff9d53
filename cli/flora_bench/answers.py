"""A deployed client's path, from message to message, beside the batch of the simulation: both with given contributions.

The batch clips, adds noise and moves positions; a client by itself also reads its invitation, asks its policy, counts
in its ledger, and writes its position down and reads it back between any two messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from flora_bench.measure import Row, Scale, Stopwatch
from flora_bench.our_client import forget
from flora_protocols import Exchange, Profile, conduct, drive, set_up
from flora_secure.client.client import Client
from flora_secure.client.contribution import Contributions
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.client.store import MemoryStore
from flora_secure.client.upload import upload
from flora_secure.engine.exchange import MaskedExchange, Traffic
from flora_secure.planning.masking import plan_masking
from flora_secure.planning.rules import PROMPT_BASIS, TrainedValues
from flora_secure.privacy.calibration import calibrate
from flora_secure.rounds.broadcast import Broadcast
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import encode_opening, encode_request

_MODEL = bytes(32)


class GivenContributions:
    """A trainer that trains nothing: row i is client i's, float64 (clients, d)."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    @property
    def trained(self) -> TrainedValues:
        """Rule and sizes: B alone, as the default simulation."""
        return TrainedValues(PROMPT_BASIS, 0, self.rows.shape[1])

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """The rows of `members`, see `contribution.Trainer`."""
        ones = np.ones(len(members), np.int64)
        return Contributions(self.rows[list(members)], ones, np.zeros_like(ones))


class Rounds:
    """A federation of the default simulation's size, whose rounds can be run either way."""

    def __init__(self, clients: int, dimension: int) -> None:
        plan = calibrate(
            clients=clients,
            dimension=dimension,
            rounds=20,
            epsilon=4.0,
            delta=1e-5,
            clip_norm=1.0,
            dropout_tolerance=0.1,
            colluders=clients // 20,
        )
        masking, adapter = plan_masking(plan, Profile.SEMI_HONEST), bytes(2 * dimension)
        self._params, self._plan, self._adapter = masking.session(plan, Profile.SEMI_HONEST), plan, adapter
        self._trainer = GivenContributions(np.random.default_rng(0).normal(0, 0.01, (clients, dimension)))
        self._enrolment = Enrolment(clients=clients)
        self._policy = Policy(
            profile="semi-honest", least_noise=0.0, most_epsilon=1e9, delta=1e-5, most_rounds=1_000_000
        )
        self._number = 0

    def _invitation(self) -> Invitation:
        self._number += 1
        params = replace(self._params, number=self._number)  # a session of one round
        return Invitation(
            session=bytes(16),
            round=self._number,
            members=tuple(range(params.clients)),
            unit="client",
            placement="text-projection",
            rule="prompt-basis",
            rotation_seed=0,
            plan=self._plan,
            model_hash=hashlib.sha256(_MODEL + self._adapter).digest(),
            params=params,
        )

    def answers(self) -> float:
        """CPU seconds of all clients in a round of theirs, each answering bytes with bytes."""
        forget()
        invitation, clock = self._invitation(), Stopwatch()
        broadcast = Broadcast(since=invitation.round, adapter=self._adapter).to_bytes()
        opening = encode_opening(invitation.to_bytes(self._enrolment), broadcast)
        clients = [
            Client(
                enrolment=self._enrolment,
                number=number,
                policy=self._policy,
                trainer=self._trainer,
                ledger=ClientLedger(None),
                store=MemoryStore(),
                model_hash=_MODEL,
            )
            for number in range(self._enrolment.clients)
        ]

        def carry(exchange: Exchange) -> Iterator[tuple[int, bytes]]:
            with clock:  # around a whole trip: asking the time costs as much as some answers
                replies = [
                    (i, clients[i].answer(encode_request(b"", message) if exchange.start else message or opening))
                    for i, message in exchange.outbox.items()
                ]
            yield from replies

        assert invitation.params is not None
        prepared = drive(set_up(invitation.params), carry)
        drive(conduct(prepared, invitation.start(self._enrolment, prepared.clients)), carry)
        return clock.seconds

    def batch(self) -> float:
        """CPU seconds of all clients in a round of the simulation's, as they would spend them each by itself."""
        forget()
        invitation, clock = self._invitation(), Stopwatch()
        floors = self._policy.accept(invitation)[1]
        with clock:
            vectors = {member: upload(invitation, self._trainer.rows[member]) for member in invitation.members}
        carried = MaskedExchange({}, self._enrolment).round(invitation, floors, vectors, Traffic())
        return clock.seconds + carried.client_seconds * len(vectors)


def rows(scale: Scale) -> Iterator[Row]:
    """Yields what a client costs by messages beside what it costs in a batch."""
    quick = scale is Scale.QUICK
    clients, dimension = (10, 200) if quick else (100, 1_920)
    rounds = Rounds(clients, dimension)
    ours, other = _medians(2 if quick else 7, rounds.answers, rounds.batch)
    yield Row(
        figure="client, a round by messages",
        setting=f"n={clients} d={dimension:,}",
        ours=ours / clients,
        other=other / clients,
        against="the simulation's batch, a client",
        at_most=1.3,
        note="contribution given; X25519 counted for both ends",
    )


def _medians(repeats: int, *measured: Callable[[], float]) -> list[float]:
    """Medians of what the functions measure by themselves, taking turns, after one turn unseen."""
    taken: list[list[float]] = [[] for _ in measured]
    for turn in range(repeats + 1):
        for function, seconds in zip(measured, taken, strict=True):
            found = function()
            if turn:
                seconds.append(found)
    return [float(np.median(seconds)) for seconds in taken]
