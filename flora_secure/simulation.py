"""The loop: rounds of local training, noise, masking and the server's step, over clients in one process.

Clients and server exchange the real messages, and traffic is counted from them. The generator yields a
:class:`~flora_secure.records.RoundRecord` as soon as a round is over, so that a caller can write it down before the
next one starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flora_protocols import ParameterError, Profile, TooFewSurvivors
from flora_secure.adapters import Factors, save_adapter
from flora_secure.aggregation import MaskedSum, PlainSum, Summation, plan_masking
from flora_secure.cohort import default_workers
from flora_secure.config import AggregationConfig, ConfigError, RunConfig
from flora_secure.encoding import decode, encode, wrapped
from flora_secure.privacy.accounting import default_delta
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.clipping import NonFiniteUpdateError
from flora_secure.privacy.ledger import Ledger
from flora_secure.privacy.plan import NoisePlan
from flora_secure.privacy.rotation import Rotation
from flora_secure.privacy.rounded_gaussian import RoundedGaussian
from flora_secure.records import MECHANISM, RoundRecord
from flora_secure.report import finite_or_none
from flora_secure.server import MomentumAverage, ServerState, from_wire, to_wire
from flora_secure.task import Task
from flora_secure.traffic import Traffic


class Simulation:
    """One run over a prepared task. Iterate over :meth:`rounds` once; the state after the last round stays readable."""

    def __init__(self, config: RunConfig, task: Task) -> None:
        """Solve for noise and ring, set up the sum. Raises :class:`ConfigError` if they cannot be."""
        self.config = config
        self.task = task
        privacy, clients, masking = config.privacy, config.data.clients, config.aggregation
        try:
            self.plan: NoisePlan = calibrate(
                clients=clients,
                dimension=task.dimension,
                rounds=config.training.rounds,
                epsilon=privacy.epsilon,
                delta=default_delta(clients) if privacy.delta is None else privacy.delta,
                clip_norm=privacy.clip_norm,
                dropout_tolerance=config.dropout_tolerance,
                colluders=math.floor(masking.corrupt * clients + 1e-9),
                bits=privacy.bits,
            )
            self.summation = _summation(self.plan, masking)
        except (ValueError, ParameterError) as error:
            raise ConfigError(str(error)) from None
        self.ledger = Ledger(self.plan.epsilon, self.plan.delta)
        self.records: list[RoundRecord] = []
        self.optimiser = MomentumAverage(
            step=config.training.server_step,
            momentum=config.training.server_momentum,
            clip_norm=privacy.clip_norm,
        )
        self._state = ServerState.initial(task.rule.vector(task.initial).cpu().numpy())

    @property
    def headline(self) -> str:
        """What is about to run, in a line."""
        plan, images = self.plan, len(self.task.federation.dataset.private.labels)
        noise = f"z = {plan.noise_multiplier:.3f}" if plan.noisy else "NO noise, hence NO DIFFERENTIAL PRIVACY"
        return (
            f"{plan.clients} clients with {images:,} images, {plan.rounds} rounds, "
            f"{plan.dimension:,} values at {plan.bits} bits, {noise}, masking {self.summation.profile}"
        )

    @property
    def factors(self) -> Factors:
        """The adapter that the clients hold now: what the server last sent, in the precision of the wire."""
        return self._received(to_wire(self._state.adapter))

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in peft's format."""
        save_adapter(self.task.clip.model, self.task.head.to_model(self.factors), folder)

    def rounds(self) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends."""
        try:
            for number in range(len(self.records) + 1, self.config.training.rounds + 1):
                record = self._round(number)
                self.records.append(record)
                yield record
        finally:
            self.summation.close()

    def _round(self, number: int) -> RoundRecord:
        config, plan, task = self.config, self.plan, self.task
        # refused before it runs: the worst that this round may become must still fit the budget
        self.ledger.authorise(plan.event(number, plan.survivors_minimum))
        broadcast = to_wire(self._state.adapter)
        model_hash = hashlib.sha256(bytes.fromhex(task.clip.model_hash) + broadcast).digest()
        traffic = Traffic()

        started = time.perf_counter()
        rate = config.training.local_rate or task.rule.local_rate
        updates = task.batch.train(task.head, task.rule, self._received(broadcast), config.training.local_steps, rate)
        raw = updates.double().cpu().numpy()
        trained = time.perf_counter()

        dropped = self._dropouts(number)
        uploads, clipped = self._encode(number, raw, dropped)
        encoded = time.perf_counter()

        aborted, outcome = None, None
        try:
            outcome = self.summation.round(number, model_hash, broadcast, uploads, traffic)
        except TooFewSurvivors as error:
            aborted = str(error)
        summed = time.perf_counter()

        event, overflowed = None, None
        if outcome is not None:
            event = plan.event(number, len(uploads))
            self.ledger.record(event)
            estimate = decode(outcome.total, plan, len(uploads), self._rotation(number))
            overflowed = wrapped(outcome.total, uploads.values(), plan)
            self._state = self.optimiser.apply(self._state, estimate, len(uploads))
        accuracy = task.accuracy(self.factors)
        evaluated = time.perf_counter()

        return RoundRecord(
            round=number,
            mechanism=MECHANISM,
            unit=config.privacy.unit,
            clients=plan.clients,
            participants=list(range(plan.clients)),
            exhausted=[],
            survivors=sorted(uploads) if aborted is None else [],
            dropped=sorted(set(range(plan.clients)) - uploads.keys()),
            recovered=0 if outcome is None else outcome.recovered,
            aborted=aborted,
            model_hash=model_hash.hex(),
            noise_multiplier=None if event is None else event.noise_multiplier,
            sigma_local=plan.sigma_local,
            scale=plan.scale,
            clip_norm=plan.clip_norm,
            dimension=plan.length,
            bits=plan.bits,
            colluders=plan.colluders,
            honest_minimum=plan.honest_minimum,
            sampling_rate=plan.sampling_rate,
            population=None,
            count_scale=plan.count_scale,
            neighbours=self.summation.neighbours,
            threshold=self.summation.threshold,
            target_epsilon=finite_or_none(plan.epsilon),
            epsilon=self.ledger.epsilon if plan.noisy else None,
            delta=plan.delta,
            accuracy=accuracy,
            contributions=len(uploads),
            clipped=clipped,
            overflowed=overflowed,
            upload_bytes=traffic.upload,
            download_bytes=traffic.download,
            payload_bytes=traffic.payload,
            seconds={
                "training": trained - started,
                "noise": encoded - trained,
                "masking": summed - encoded,
                "evaluation": evaluated - summed,
                "client_mean": 0.0 if outcome is None else outcome.client_seconds,
                "server": 0.0 if outcome is None else outcome.server_seconds,
            },
        )

    def _received(self, broadcast: bytes) -> Factors:
        vector = torch.from_numpy(from_wire(broadcast, self.task.dimension)).to(self.task.initial.b.device)
        return self.task.rule.with_vector(self.task.initial, vector)

    def _encode(
        self, number: int, updates: NDArray[np.float64], dropped: set[int]
    ) -> tuple[dict[int, NDArray[np.uint32]], int]:
        """The uploads of the clients that stay, and how many of their updates were clipped."""
        plan, uploads, clipped, rotation = self.plan, {}, 0, self._rotation(number)
        for client in range(plan.clients):
            if client in dropped:
                continue
            sampler = RoundedGaussian(self._noise_key(number, client)) if plan.noisy else None
            try:
                uploads[client] = encode(updates[client], plan, sampler, rotation)
            except NonFiniteUpdateError:
                continue  # the client leaves this round; zeros in its place would carry full weight
            clipped += bool(np.linalg.norm(updates[client]) > plan.clip_norm)
        return uploads, clipped

    def _rotation(self, number: int) -> Rotation | None:
        return Rotation(self.plan.dimension, self.config.seed, number) if self.plan.rotated else None

    def _noise_key(self, number: int, client: int) -> bytes | None:
        """``None`` means fresh from the OS; simulation noise derives the key from the seed instead."""
        if not self.config.privacy.simulation_noise:
            return None
        return hashlib.sha256(f"flora-secure simulation noise {self.config.seed} {number} {client}".encode()).digest()

    def _dropouts(self, number: int) -> set[int]:
        clients = self.config.data.clients
        count = math.floor(self.config.aggregation.dropout * clients)
        rng = np.random.default_rng([self.config.seed, 1, number])
        return set(rng.choice(clients, count, replace=False).tolist())


def _summation(plan: NoisePlan, config: AggregationConfig) -> Summation:
    if config.secagg == "off":
        return PlainSum(plan)
    profile = Profile(config.secagg)
    masking = plan_masking(plan, profile, config.neighbours, config.threshold)
    return MaskedSum(plan, masking, profile, default_workers(plan.clients))


def without_noise(config: RunConfig, task: Task) -> float:
    """Final accuracy of the same run with neither noise nor masking (the sum is the same with masking)."""
    plain = dataclasses.replace(
        config,
        privacy=dataclasses.replace(config.privacy, epsilon=math.inf, bits=None),
        aggregation=dataclasses.replace(config.aggregation, secagg="off", neighbours=None, threshold=None),
    )
    *_, last = Simulation(plain, task).rounds()
    return last.accuracy
