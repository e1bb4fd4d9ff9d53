"""A federation in one process: a server, a trainer of all clients, and a transport between them on this machine.

Clients and server exchange the real messages, and traffic is counted from them. The generator yields a `RoundRecord` as
soon as a round is over, so that a caller can write it down before the next one starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flora_protocols import Profile, RoundAborted, TooFewSurvivors, identity_public
from flora_secure.auditing.canaries.secret import Canaries
from flora_secure.client.contribution import Contributions
from flora_secure.client.policy import Policy
from flora_secure.client.upload import uploads as uploads_of
from flora_secure.engine.ended import Simulated
from flora_secure.engine.evidence.canaries import WithCanaries
from flora_secure.engine.evidence.noise_meter import noise_ratio
from flora_secure.engine.exchange import CountedExchange, MaskedExchange, PlainExchange, RoundExchange, Traffic
from flora_secure.engine.task import Task
from flora_secure.engine.workers import default_workers
from flora_secure.model.devices import batch_map
from flora_secure.planning.config import RunConfig
from flora_secure.planning.participation import vanishing_of
from flora_secure.planning.protection import AggregationConfig, EvidenceConfig
from flora_secure.privacy.encoding import wrapped
from flora_secure.records.record import PARTS, RoundRecord
from flora_secure.records.transcript.writing import Transcript, recording
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import decode_opening
from flora_secure.rounds.sum import Outcome, RoundSum
from flora_secure.server.server import Announce, Server, Skipped

_TOGETHER = 1 << 14  # values of uploads that are made in one go: they stay in the cache
_ROUNDING = 1e-9  # of a planned noise multiplier, when it is counted again from a round's own plan


class Simulation(Simulated):
    """One run over a prepared task. Iterate over `rounds` once; the state after the last round stays readable.

    `server` is the real one. The clients share one trainer and one policy, and their positions live in `exchange`.
    """

    clients_timed = True

    def __init__(self, config: RunConfig, task: Task, canaries: Canaries | None = None) -> None:
        """Set up server and clients, with the `canaries` that the configuration asks for. Raises ConfigError if noise,
        ring or masking cannot be had."""
        if config.evidence.canaries != (0 if canaries is None else canaries.count):
            raise ValueError(f"{config.evidence.canaries} canaries are configured, and {canaries} are given")
        trainer = task.trainer(config)
        self.trainer = trainer if canaries is None else WithCanaries(trainer, canaries)
        clients = config.clients
        # long-term keys, as a deployment's clients would enrol them once; secret, hence from the OS
        signs = config.aggregation.secagg == Profile.MALICIOUS_SERVER.value
        secrets = {client: os.urandom(32) for client in range(clients)} if signs else {}
        enrolment = Enrolment(clients=clients, identities=tuple(map(identity_public, secrets.values())))
        super().__init__(config, task, Server(config, task.for_server(), enrolment))
        self.policy = None if self.server.profile is None else simulated_policy(self.server)
        self.exchange = _exchange(config, secrets, enrolment)

    @property
    def headline(self) -> str:
        """What is about to run, in a line."""
        return headline(self.server, self.task)

    def rounds(self, announce: Announce | None = None, transcript: Transcript | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends. `announce`: see `Server.invite`; `transcript`: where
        the messages of the masking protocol are kept, if they are."""
        try:
            while not self.server.done:
                yield self._round(announce, transcript)
        finally:
            self.exchange.close()

    def _round(self, announce: Announce | None, transcript: Transcript | None) -> RoundRecord:
        server, clock = self.server, _Clock()
        try:
            invitation = server.invite(announce)
        except Skipped as skipped:
            return skipped.record
        floors = None if self.policy is None else self.policy.accept(invitation)[1]
        traffic, broadcasts = Traffic(), dict[bytes, bytes]()  # of an opening, which many members share
        for client, opening in server.openings(invitation).items():
            if opening not in broadcasts:
                broadcasts[opening] = decode_opening(opening)[1]
            traffic.sent_down(client, opening, payload=len(broadcasts[opening]))

        given = self.trainer.contributions(invitation, server.broadcast, invitation.members)
        clock.lap("training")
        coins = self.config.seed if server.repeats else None
        vanishing = vanishing_of(coins, invitation.round, invitation.members, self.config.aggregation.dropout)
        uploads = _uploads(self.config, invitation, given, vanishing)
        clock.lap("noise")
        aborted, announced, carried = None, list[int](), None
        with recording(transcript, invitation, server.enrolment, around=0) as messages:
            try:
                carried = self.exchange.round(invitation, floors, uploads.vectors, traffic, messages)
            except (RoundAborted, TooFewSurvivors) as error:
                aborted = str(error)
                if isinstance(error, RoundAborted):
                    announced = [invitation.members[position] for position in error.survivors]
            transcript_hash = None if messages is None else messages.end()
        clock.lap("masking")
        if carried is not None:
            clock.seconds |= {"client_mean": carried.client_seconds, "server": carried.server_seconds}
        outcome = Outcome(
            sum=None if carried is None else carried.sum,
            aborted=aborted,
            uploaded=uploads.vectors.keys(),
            announced=announced,
            session_lost=carried is None and not self.exchange.standing,
            # whoever left because of what it computed makes the survivors no uniform subset
            uniform=len(uploads.vectors) == len(invitation.members) - len(vanishing),
            contributions=uploads.contributions,
            clipped=uploads.clipped,
            overflowed=None
            if carried is None
            else wrapped(carried.sum.total, uploads.vectors.values(), invitation.plan),
            noise_ratio=None if carried is None else _measured(invitation, given, carried.sum),
            upload=traffic.upload,
            download=traffic.download,
            payload=traffic.payload,
            broadcast=traffic.broadcast,
            transcript_hash=transcript_hash,
            seconds=clock.seconds,
        )
        return server.finish(invitation, outcome)


def _measured(invitation: Invitation, given: Contributions, found: RoundSum) -> float | None:
    """The round's noise over what is claimed; row i of `given` is that of the i-th member."""
    survivors = set(found.survivors)
    rows = [place for place, client in enumerate(invitation.members) if client in survivors]
    return noise_ratio(invitation, given.vectors[rows], found.total)


def headline(server: Server, task: Task) -> str:
    """What is about to run, in a line."""
    config, plan, selection, data = server.config, server.plan, server.selection, task.federation.dataset
    noise = f"z = {plan.noise_multiplier:.3f}" if plan.noisy else "NO noise, hence NO DIFFERENTIAL PRIVACY"
    sizes = dict.fromkeys((selection.smallest, selection.largest))
    held = "captions" if data.captioned else "images"
    who = "" if selection.scheme is None else f" in cohorts of {' to '.join(map(str, sizes))}"
    canaries = f", {config.evidence.canaries} of them canaries" if config.evidence.canaries else ""
    return (
        f"{selection.clients} clients with {len(data.private.labels):,} {held}{canaries}{who}, {plan.rounds} rounds, "
        f"{plan.dimension:,} values at {plan.bits} bits, unit {config.privacy.unit}, {noise}, "
        f"masking {config.aggregation.secagg}"
        + (", COUNTED AND NOT RUN" if config.aggregation.masks == "counted" else "")
    )


@dataclass(frozen=True)
class Uploads:
    """What the members of a round send.

    Attributes:
        vectors: uint32 (plan.length,) of each client that stayed.
        contributions: updates or gradients in them.
        clipped: how many of these were longer than the clip norm.
    """

    vectors: dict[int, NDArray[np.uint32]]
    contributions: int
    clipped: int


def _uploads(config: RunConfig, invitation: Invitation, given: Contributions, vanishing: Collection[int]) -> Uploads:
    """The uploads of the members that do not vanish; row i of `given` is that of the i-th.

    A client whose contribution is not finite leaves the round.
    """
    members, plan = invitation.members, invitation.plan
    staying = np.array([client not in vanishing for client in members])
    staying &= [bool(np.isfinite(row).all()) for row in given.vectors]
    rows = np.flatnonzero(staying)
    matrix = np.empty((len(rows), plan.length), np.uint32)

    def fill(first: int) -> None:
        some = rows[first : first + together]
        keys = [noise_key(config, invitation.round, members[row]) for row in some.tolist()]
        matrix[first : first + together] = uploads_of(invitation, given.vectors[some], keys)

    together = max(1, _TOGETHER // plan.length)
    for _ in batch_map(fill, range(0, len(rows), together), torch.device("cpu")):
        pass
    vectors = {members[row]: vector for row, vector in zip(rows.tolist(), matrix, strict=True)}
    return Uploads(vectors, int(given.counts[rows].sum()), int(given.clipped[rows].sum()))


def noise_key(config: RunConfig, number: int, client: int) -> bytes | None:
    """The key of a client's noise in round `number`: None for noise from the operating system, unless the run's noise
    follows from its seed."""
    if not config.privacy.simulation_noise:
        return None
    return hashlib.sha256(f"flora-secure simulation noise {config.seed} {number} {client}".encode()).digest()


def _exchange(config: RunConfig, secrets: Mapping[int, bytes], enrolment: Enrolment) -> RoundExchange:
    masks = config.aggregation.masks
    if masks == "run":
        return MaskedExchange(secrets, enrolment, default_workers(config.cohort_size))
    return PlainExchange() if masks == "off" else CountedExchange()


def simulated_policy(server: Server) -> Policy:
    """The terms of simulated clients: what the experiment's configuration promises them, no less."""
    config, plan = server.config, server.plan
    return Policy(
        profile=config.aggregation.secagg,
        least_noise=plan.noise_multiplier * (1 - _ROUNDING),
        most_epsilon=plan.epsilon,
        delta=plan.delta,
        most_rounds=plan.rounds,
        last_round=config.training.rounds,
        corrupt=0.0,  # the plan has the configuration's, which depends on the cohort
        unit=config.privacy.unit,
        placements=(config.model.placement,),
    )


class _Clock:
    """Wall-clock seconds of a round's parts; a part that did not run took none."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._since = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now


def without_noise(config: RunConfig, task: Task) -> float:
    """Final accuracy of the same run with neither noise nor masking (the sum is the same with masking)."""
    plain = dataclasses.replace(
        config,
        privacy=dataclasses.replace(config.privacy, epsilon=math.inf, delta=None, bits=None),
        aggregation=AggregationConfig(
            secagg="off", corrupt=config.aggregation.corrupt, dropout=config.aggregation.dropout
        ),
        evidence=EvidenceConfig(keep_sums=False),
    )
    *_, last = Simulation(plain, task).rounds()
    return last.accuracy
