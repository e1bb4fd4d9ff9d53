"""The sum of the clients' vectors: :class:`PlainSum` and :class:`MaskedSum`, one interface.

Both send real messages and count them. The sums are equal, element for element; only what the server sees differs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from flora_protocols import (
    Floors,
    Outbox,
    Profile,
    ServerAdvertise,
    ServerAgree,
    SessionParams,
    TooFewSurvivors,
    identity_public,
    lane,
    pack,
    unpack,
)
from flora_secure.engine.traffic import Traffic
from flora_secure.engine.workers import Cohort, Replies, default_workers
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import MaskingPlan, plan_masking
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.sum import RoundSum, Vector


class Summation(Protocol):
    """How a round's vectors become their sum."""

    profile: str

    def masking(self, plan: NoisePlan) -> MaskingPlan | None:
        """Graph and threshold of a round with this plan; ``None`` without masking.

        Raises :class:`flora_protocols.ParameterError` where none can work.
        """
        ...

    def round(
        self,
        number: int,
        plan: NoisePlan,
        cohort: Sequence[int],
        model_hash: bytes,
        broadcast: bytes,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
    ) -> RoundSum:
        """Send ``broadcast`` to the ``cohort`` and sum ``uploads`` (client → uint32 (plan.length,) below 2^bits).

        ``cohort``: ``plan.clients`` distinct clients. Those without an upload drop out. Raises
        :class:`flora_protocols.TooFewSurvivors` if fewer are left than the plan or the threshold needs: then no sum is
        released, but uploads may have been sent.
        """
        ...

    def close(self) -> None:
        """Release what the summation holds."""
        ...


class PlainSum:
    """No masking: the server receives every upload by itself. For comparison and for debugging."""

    profile: str = "off"

    def masking(self, plan: NoisePlan) -> MaskingPlan | None:
        return None

    def round(
        self,
        number: int,
        plan: NoisePlan,
        cohort: Sequence[int],
        model_hash: bytes,
        broadcast: bytes,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
    ) -> RoundSum:
        for client in cohort:
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


class MaskedSum:
    """Secure aggregation (Bonawitz et al. CCS'17, Bell et al. CCS'20), the clients in ``workers`` processes.

    A session is among the cohort of a round: its position i is held by the i-th client of the cohort. The clients' own
    floors come from the round's plan: none lets its vector disappear in a sum with too little noise.
    """

    def __init__(
        self,
        clients: int,
        profile: Profile,
        *,
        neighbours: int | None = None,
        threshold: int | None = None,
        workers: int = 0,
    ) -> None:
        """``clients``: N, of the federation. ``neighbours``, ``threshold``: as for :func:`plan_masking`."""
        self._profile, self._neighbours, self._threshold = profile, neighbours, threshold
        self.profile = profile.value
        # long-term keys, as a deployment's clients would enrol them once; secret, hence from the OS
        self._identities: list[bytes | None] = [
            os.urandom(32) if profile is Profile.MALICIOUS_SERVER else None for _ in range(clients)
        ]
        self._publics = [None if key is None else identity_public(key) for key in self._identities]
        self._plans: dict[tuple[int, int], MaskingPlan] = {}  # by cohort size and survivors
        self._cohort = Cohort(workers)

    def masking(self, plan: NoisePlan) -> MaskingPlan:
        size = plan.clients, plan.survivors_minimum
        if size not in self._plans:
            found = plan_masking(plan, self._profile, self._neighbours, self._threshold)
            self._params(0, bytes(32), plan, found, range(plan.clients))  # refuses what cannot work
            self._plans[size] = found
        return self._plans[size]

    def _params(
        self, number: int, model_hash: bytes, plan: NoisePlan, masking: MaskingPlan, cohort: Sequence[int]
    ) -> SessionParams:
        return SessionParams(
            clients=plan.clients,
            neighbours=masking.neighbours,
            threshold=masking.threshold,
            bits=plan.bits,
            dimension=plan.length,
            profile=self._profile,
            round=number,
            model_hash=model_hash,
            corrupt=masking.corrupt,
            identities=tuple(key for client in cohort if (key := self._publics[client]) is not None),
        )

    def round(
        self,
        number: int,
        plan: NoisePlan,
        cohort: Sequence[int],
        model_hash: bytes,
        broadcast: bytes,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
    ) -> RoundSum:
        masking = self.masking(plan)
        params = self._params(number, model_hash, plan, masking, cohort)
        least = max(2, plan.survivors_minimum)
        floors = Floors(clients=least, threshold=masking.threshold, survivors=least)
        identities = {position: self._identities[client] for position, client in enumerate(cohort)}
        vectors = {position: uploads[client] for position, client in enumerate(cohort) if client in uploads}
        members, server = self._cohort, _Stopwatch()
        clients_before = members.cpu_seconds

        def hear(position: _Receiver, replies: Replies, payload: int = 0) -> None:
            for index, message in replies.items():
                traffic.sent_up(cohort[index], message, payload)
                with server:
                    position.receive(index, message)

        def tell(outbox: Outbox) -> Outbox:
            for index, message in outbox.items():
                traffic.sent_down(cohort[index], message)
            return outbox

        for client in cohort:
            traffic.sent_down(client, broadcast, payload=len(broadcast))

        advertise = ServerAdvertise(params)
        hear(advertise, members.begin(params, floors, identities))
        with server:
            share, rosters = advertise.close()

        hear(share, members.answer("share", tell(rosters)))
        with server:
            mask, inboxes = share.close()

        # whoever has no upload vanishes here, after sharing its keys: the others must recover its masks
        staying = {index: inbox for index, inbox in tell(inboxes).items() if index in vectors}
        hear(mask, members.answer("mask", staying, vectors), payload=params.payload_bytes)
        with server:
            following, told = mask.close()

        if isinstance(following, ServerAgree):
            hear(following, members.answer("agree", tell(told)))
            with server:
                unmask, told = following.close()
        else:
            unmask = following

        hear(unmask, members.answer("unmask", tell(told)))
        with server:
            result = unmask.close()
        client_seconds = (members.cpu_seconds - clients_before) / params.clients
        return RoundSum(result.sum, len(result.recovered), client_seconds, server.seconds)

    def close(self) -> None:
        self._cohort.close()


def summation_of(config: RunConfig) -> Summation:
    """How the rounds of a run are summed."""
    how = config.aggregation
    if how.secagg == "off":
        return PlainSum()
    clients, workers = config.data.clients, default_workers(config.cohort_size)
    return MaskedSum(clients, Profile(how.secagg), neighbours=how.neighbours, threshold=how.threshold, workers=workers)


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
