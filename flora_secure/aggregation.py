"""The sum of the clients' vectors: :class:`PlainSum` and :class:`MaskedSum`, one interface.

Both send real messages and count them. The sums are equal, element for element; only what the server sees differs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flora_protocols import (
    Floors,
    Outbox,
    Profile,
    ServerAdvertise,
    ServerAgree,
    SessionParams,
    TooFewSurvivors,
    corrupt_holders,
    find_parameters,
    identity_public,
    lane,
    pack,
    unpack,
)
from flora_secure.cohort import Cohort, Replies
from flora_secure.privacy.plan import NoisePlan
from flora_secure.traffic import Traffic

Vector = NDArray[np.uint32]


@dataclass(frozen=True)
class RoundSum:
    """``total``: uint32 (d,), the sum of the survivors' vectors modulo 2^bits. ``recovered``: how many dropped clients'
    pairwise masks had to be removed. CPU seconds: mean of a client, total of the server."""

    total: Vector
    recovered: int
    client_seconds: float
    server_seconds: float


class Summation(Protocol):
    """How a round's vectors become their sum."""

    profile: str
    neighbours: int | None
    threshold: int | None

    def round(
        self, number: int, model_hash: bytes, broadcast: bytes, uploads: Mapping[int, Vector], traffic: Traffic
    ) -> RoundSum:
        """Send ``broadcast`` to every client and sum ``uploads`` (client → uint32 (d,) below 2^bits).

        Clients without an upload drop out. Raises :class:`flora_protocols.TooFewSurvivors` if fewer are left than the
        plan or the threshold needs: then nothing is released.
        """
        ...

    def close(self) -> None:
        """Release what the summation holds."""
        ...


class PlainSum:
    """No masking: the server receives every upload by itself. For comparison and for debugging."""

    profile: str = "off"
    neighbours: int | None = None
    threshold: int | None = None

    def __init__(self, plan: NoisePlan) -> None:
        self._plan = plan

    def round(
        self, number: int, model_hash: bytes, broadcast: bytes, uploads: Mapping[int, Vector], traffic: Traffic
    ) -> RoundSum:
        plan = self._plan
        for client in range(plan.clients):
            traffic.sent_down(client, broadcast, payload=len(broadcast))
        before = time.process_time()
        total = np.zeros(plan.length, np.uint32)
        for client, vector in uploads.items():
            message = pack(vector.astype(lane(plan.bits)), plan.bits)
            traffic.sent_up(client, message, payload=len(message))
            arrived = unpack(message, plan.length, plan.bits)
            assert arrived is not None  # our own packing
            total += arrived
        if len(uploads) < plan.survivors_minimum:
            raise TooFewSurvivors("clients that uploaded", len(uploads), plan.survivors_minimum)
        return RoundSum(total & np.uint32((1 << plan.bits) - 1), 0, 0.0, time.process_time() - before)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class MaskingPlan:
    """Who shares masks with whom: ``neighbours`` k (clients − 1: everybody), ``threshold`` t, and how many of the
    holders of any client's shares may be ``corrupt``."""

    neighbours: int
    threshold: int
    corrupt: int


def plan_masking(
    plan: NoisePlan, profile: Profile, neighbours: int | None = None, threshold: int | None = None
) -> MaskingPlan:
    """Graph and threshold for the dropouts and colluders that the noise of ``plan`` is sized for.

    ``neighbours`` defaults to the least that keeps the promises of :func:`flora_protocols.find_parameters`. So does
    ``threshold``, but in the complete graph it is a majority where the dropouts allow one: there it costs nothing.
    Raises :class:`flora_protocols.ParameterError` where nothing can work.
    """
    n, corrupt = plan.clients, Fraction(plan.colluders, plan.clients)
    found, least = find_parameters(n, corrupt, Fraction(plan.dropouts, n), profile)
    k = found if neighbours is None else neighbours
    holding = corrupt_holders(n, k, corrupt)
    if threshold is not None:
        return MaskingPlan(k, threshold, holding)
    if k == n - 1:
        least = max(2, plan.colluders + 1, (n + plan.colluders) // 2 + 1 if profile is Profile.MALICIOUS_SERVER else 0)
        return MaskingPlan(k, max(least, min(n // 2 + 1, plan.survivors_minimum)), holding)
    if k != found:
        least = (holding + k) // 2 + 1 if profile is Profile.MALICIOUS_SERVER else max(holding + 1, 2)
    return MaskingPlan(k, least, holding)


class MaskedSum:
    """Secure aggregation (Bonawitz et al. CCS'17, Bell et al. CCS'20), the clients in ``workers`` processes.

    The clients' own floors come from the plan: none lets its vector disappear in a sum with too little noise.
    """

    def __init__(self, plan: NoisePlan, masking: MaskingPlan, profile: Profile, workers: int = 0) -> None:
        """Raises :class:`flora_protocols.ParameterError` if ``masking`` is impossible for plan and profile."""
        self._plan, self._masking, self._profile = plan, masking, profile
        self.profile = profile.value
        self.neighbours: int | None = masking.neighbours
        self.threshold: int | None = masking.threshold
        survivors = max(2, plan.survivors_minimum)
        self._floors = Floors(clients=survivors, threshold=masking.threshold, survivors=survivors)
        # long-term keys, as a deployment's clients would enrol them once; secret, hence from the OS
        self._identities: dict[int, bytes | None] = {
            client: os.urandom(32) if profile is Profile.MALICIOUS_SERVER else None for client in range(plan.clients)
        }
        self._publics = tuple(identity_public(key) for key in self._identities.values() if key is not None)
        self._params(0, bytes(32))  # so that impossible parameters are refused before the first round
        self._cohort = Cohort(workers)

    def _params(self, number: int, model_hash: bytes) -> SessionParams:
        return SessionParams(
            clients=self._plan.clients,
            neighbours=self._masking.neighbours,
            threshold=self._masking.threshold,
            bits=self._plan.bits,
            dimension=self._plan.length,
            profile=self._profile,
            round=number,
            model_hash=model_hash,
            corrupt=self._masking.corrupt,
            identities=self._publics,
        )

    def round(
        self, number: int, model_hash: bytes, broadcast: bytes, uploads: Mapping[int, Vector], traffic: Traffic
    ) -> RoundSum:
        cohort, params = self._cohort, self._params(number, model_hash)
        clients_before, server = cohort.cpu_seconds, _Stopwatch()

        def hear(position: _Receiver, replies: Replies, payload: int = 0) -> None:
            for client, message in replies.items():
                traffic.sent_up(client, message, payload)
                with server:
                    position.receive(client, message)

        def tell(outbox: Outbox) -> Outbox:
            for client, message in outbox.items():
                traffic.sent_down(client, message)
            return outbox

        for client in range(params.clients):
            traffic.sent_down(client, broadcast, payload=len(broadcast))

        advertise = ServerAdvertise(params)
        hear(advertise, cohort.begin(params, self._floors, self._identities))
        with server:
            share, rosters = advertise.close()

        hear(share, cohort.answer("share", tell(rosters)))
        with server:
            mask, inboxes = share.close()

        # whoever has no upload vanishes here, after sharing its keys: the others must recover its masks
        staying = {client: inbox for client, inbox in tell(inboxes).items() if client in uploads}
        hear(mask, cohort.answer("mask", staying, uploads), payload=params.payload_bytes)
        with server:
            following, told = mask.close()

        if isinstance(following, ServerAgree):
            hear(following, cohort.answer("agree", tell(told)))
            with server:
                unmask, told = following.close()
        else:
            unmask = following

        hear(unmask, cohort.answer("unmask", tell(told)))
        with server:
            result = unmask.close()
        client_seconds = (cohort.cpu_seconds - clients_before) / params.clients
        return RoundSum(result.sum, len(result.recovered), client_seconds, server.seconds)

    def close(self) -> None:
        self._cohort.close()


class _Receiver(Protocol):
    def receive(self, client: int, message: bytes) -> None: ...


class _Stopwatch:
    """CPU time spent inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._since = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._since
