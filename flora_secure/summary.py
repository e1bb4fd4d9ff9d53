"""From a finished simulation to its :class:`Report`: every figure from what happened, none from what was planned."""

from __future__ import annotations

import importlib.metadata
import math
import resource
import sys
from statistics import fmean

from flora_secure import __version__
from flora_secure.privacy.accounting import gaussian_mu
from flora_secure.privacy.cross_check import accountant_versions, cross_check, headline_accountant
from flora_secure.privacy.statement import statement
from flora_secure.report import (
    Accuracy,
    Aggregation,
    AggregationSeconds,
    Communication,
    Privacy,
    Provenance,
    Report,
    Timing,
    TimingSeconds,
    finite_or_none,
)
from flora_secure.simulation import Simulation

PACKAGES = ("torch", "open_clip_torch", "peft", "numpy", "cryptography", "dp-accounting", "opacus")


def summarise(
    simulation: Simulation, *, total_seconds: float, no_noise: float | None = None, rounds_hash: str | None = None
) -> Report:
    """The report of all rounds so far.

    ``total_seconds``: wall-clock of the whole command. ``no_noise``: final accuracy of the same run without noise, if
    it was measured. ``rounds_hash``: :attr:`flora_secure.run_folder.RunFolder.last_hash`, if the rounds were written
    down. Raises :class:`flora_secure.privacy.cross_check.CrossCheckError` if two accountants disagree, and
    ``ValueError`` before the first round.
    """
    if not simulation.records:
        raise ValueError("no round has run yet, there is nothing to report")
    return Report(
        accuracy=_accuracy(simulation, no_noise),
        privacy=_privacy(simulation),
        communication=_communication(simulation),
        aggregation=_aggregation(simulation),
        timing=_timing(simulation, total_seconds),
        provenance=Provenance(
            versions={"flora-secure": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
            config_hash=simulation.config.digest,
            model_hash=simulation.task.clip.model_hash,
            data_hash=simulation.task.federation.dataset.data_hash,
            rounds_hash=rounds_hash,
            seed=simulation.config.seed,
            secret_noise=simulation.plan.noisy and not simulation.config.privacy.simulation_noise,
        ),
    )


def _accuracy(simulation: Simulation, no_noise: float | None) -> Accuracy:
    per_round = [record.accuracy for record in simulation.records]
    return Accuracy(
        zero_shot=simulation.task.accuracy(simulation.task.initial),
        final=per_round[-1],
        best=max(per_round),
        per_round=per_round,
        classes=list(simulation.task.federation.dataset.class_names),
        test_examples=len(simulation.task.test_labels),
        no_noise=no_noise,
    )


def _privacy(simulation: Simulation) -> Privacy:
    plan, ledger = simulation.plan, simulation.ledger
    summed = [record for record in simulation.records if record.aborted is None]
    checks = cross_check(ledger.worst_events, ledger.delta) if plan.noisy else {}
    accountant = headline_accountant(ledger.worst_events)
    # without masking the server sees every upload by itself, and only outsiders are left with the sum
    masked = simulation.config.aggregation.secagg != "off"
    local = ledger.epsilon_local if plan.noisy else math.inf
    spent = ledger.epsilon if plan.noisy else math.inf
    multipliers = [e.noise_multiplier if masked else e.noise_multiplier_local for e in ledger.events]
    uploads = sum(len(record.survivors) for record in summed)
    overflowed = sum(record.overflowed or 0 for record in summed)
    clip_rate = sum(record.clipped for record in summed) / uploads if uploads else None
    overflow_rate = overflowed / (len(summed) * plan.length) if summed else None
    return Privacy(
        target_epsilon=finite_or_none(plan.epsilon),
        epsilon=finite_or_none(spent if masked else local),
        delta=plan.delta,
        mu=finite_or_none(gaussian_mu(multipliers)) if plan.noisy else None,
        unit=simulation.config.privacy.unit,
        adjacency="zero-out",
        view="server",
        epsilon_outsider=finite_or_none(spent),
        epsilon_local=finite_or_none(local),
        noise_multiplier=plan.noise_multiplier,
        clip_norm=plan.clip_norm,
        rounds=len(simulation.records),
        honest_minimum=plan.honest_minimum,
        accountant={"name": accountant, **accountant_versions([accountant])},
        cross_check={name: epsilon for name, epsilon in checks.items() if name != accountant},
        aliasing_slack=ledger.aliasing_slack if plan.noisy else 0.0,
        clip_rate=clip_rate,
        overflow_rate=overflow_rate,
        statement=statement(
            plan,
            ledger,
            cross_check=checks,
            profile=simulation.config.aggregation.secagg,
            secret_noise=not simulation.config.privacy.simulation_noise,
            aborted_rounds=len(simulation.records) - len(summed),
            clip_rate=clip_rate,
            overflow_rate=overflow_rate,
        ),
    )


def _communication(simulation: Simulation) -> Communication:
    records, clip = simulation.records, simulation.task.clip
    messages = len(records) * simulation.plan.clients
    upload = sum(record.upload_bytes for record in records) / messages
    download = sum(record.download_bytes for record in records) / messages
    payload = sum(record.payload_bytes for record in records) / messages
    return Communication(
        upload_bytes=upload,
        download_bytes=download,
        payload_bytes=payload,
        masking_bytes=upload + download - payload,
        full_model_bytes=clip.full_model_bytes,
        reduction=2 * clip.full_model_bytes / (upload + download),
        reduction_upload=clip.full_model_bytes / upload,
        parameters=simulation.task.dimension,
        parameter_ratio=clip.parameter_count / simulation.task.dimension,
        bits=simulation.plan.bits,
    )


def _aggregation(simulation: Simulation) -> Aggregation:
    records, summation = simulation.records, simulation.summation
    return Aggregation(
        profile=summation.profile,
        clients=simulation.plan.clients,
        neighbours=summation.neighbours,
        threshold=summation.threshold,
        dropped=[len(record.dropped) for record in records],
        recovered=[record.recovered for record in records],
        aborted=[record.round for record in records if record.aborted is not None],
        seconds=AggregationSeconds(
            client_mean=fmean(record.seconds["client_mean"] for record in records),
            server_total=sum(record.seconds["server"] for record in records) / len(records),
        ),
    )


def _timing(simulation: Simulation, total_seconds: float) -> Timing:
    parts = {
        part: sum(record.seconds[part] for record in simulation.records)
        for part in ("training", "noise", "masking", "evaluation")
    }
    rounds = parts["training"] + parts["noise"] + parts["masking"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Timing(
        seconds=TimingSeconds(total=total_seconds, **parts),
        clients_per_second=len(simulation.records) * simulation.plan.clients / rounds,
        # kilobytes on Linux, bytes on macOS
        peak_memory_bytes=peak if sys.platform == "darwin" else peak * 1024,
    )
