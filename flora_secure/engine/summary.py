"""From a finished run to its `Report`: every figure from what happened, none from what was planned."""

from __future__ import annotations

import importlib.metadata
import math
from statistics import fmean

import dp_accounting

from flora_secure import __version__
from flora_secure.engine.accuracy import accuracy_of, forgetting_of, retrieval, retrieval_accuracy
from flora_secure.engine.competitors import competitors_of
from flora_secure.engine.ended import Ended
from flora_secure.engine.memory import peak_memory
from flora_secure.plain import finite_or_none
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import name_of, suite_of, warning_of
from flora_secure.planning.noise import protected_units
from flora_secure.planning.selection import corrupt_clients
from flora_secure.privacy.cross_check import (
    accountant_versions,
    cross_check,
    cross_check_outsiders,
    headline_accountant,
)
from flora_secure.records.record import PARTS
from flora_secure.records.report import (
    Aggregation,
    AggregationSeconds,
    Communication,
    Competitors,
    Data,
    Privacy,
    Provenance,
    Report,
    SkippedData,
    Timing,
    TimingSeconds,
)
from flora_secure.records.statement import statement

PACKAGES = ("torch", "open_clip_torch", "peft", "numpy", "cryptography", "dp-accounting", "opacus")

_NOTHING_LEARNED = (
    "training has achieved nothing; more clients, images or rounds, less noise (`privacy.epsilon`), or another "
    "model (`model.model`, `model.pretrained`) may"
)


def summarise(
    run: Ended,
    *,
    total_seconds: float,
    competitors: Competitors | None = None,
    rounds_hash: str | None = None,
    adapter_hash: str | None = None,
) -> Report:
    """The report of all rounds so far.

    `total_seconds`: wall-clock of the whole command, and of the earlier rounds where the run was resumed.
    `competitors`: of the run; public labels alone where they are left out. `rounds_hash`:
    `flora_secure.records.run_folder.RunFolder.last_hash`, if the rounds were written down. `adapter_hash`: what
    `write_adapter` gave, if the adapter was. Raises
    `flora_secure.privacy.cross_check.CrossCheckError` if two accountants disagree, and `ValueError` before the
    first round.
    """
    if not run.records:
        raise ValueError("no round has run yet, there is nothing to report")
    task, per_round = run.task, [record.accuracy for record in run.records]
    beside, retrieved = competitors_of(run) if competitors is None else competitors, None
    if task.federation.dataset.captioned:
        retrieved = task.evaluator.ranks(task.frozen), task.evaluator.ranks(run.factors)
    return Report(
        masking=run.config.aggregation.masks,
        accuracy=(accuracy_of(run, per_round) if retrieved is None else retrieval_accuracy(*retrieved, per_round)),
        competitors=beside,
        retrieval=None if retrieved is None else retrieval(*retrieved),
        forgetting=forgetting_of(run),
        choices=task.made.choices,
        data=_data(run),
        privacy=_privacy(run, beside.of_private_data),
        communication=_communication(run),
        aggregation=_aggregation(run),
        timing=_timing(run, total_seconds),
        warnings=[
            *task.warnings,
            *filter(None, [warning_of(run.config), _diluted(run.config)]),
            *task.doubt(per_round[-1], "the trained adapter", _NOTHING_LEARNED),
        ],
        provenance=Provenance(
            versions={"flora-secure": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
            config_hash=run.config.digest,
            model_hash=run.task.clip.model_hash,
            rounds_hash=rounds_hash,
            adapter_hash=adapter_hash,
            seed=run.config.seed,
            secret_noise=run.server.plan.noisy and not run.config.privacy.simulation_noise,
        ),
    )


def _diluted(config: RunConfig) -> str | None:
    """A line about canaries, where there are any."""
    count = config.evidence.canaries
    if not count:
        return None
    return (
        f"{count} of the {config.clients} clients are canaries, which hold no data and dilute the updates of the "
        "others: this adapter is for an audit; for a better one run without `evidence.canaries`"
    )


def _data(run: Ended) -> Data:
    federation = run.task.federation
    dataset, here = federation.dataset, bool(federation.clients)
    private, public, test = federation.image_counts
    skew = federation.skew if here else None
    return Data(
        dataset=dataset.name,
        test=run.config.data.test,
        partition=run.config.partition,
        private_images=private if here else None,
        public_images=public,
        test_images=test,
        private_captions=len(dataset.private) if dataset.captioned and here else None,
        client_minimum=None if skew is None else skew.minimum,
        client_median=None if skew is None else skew.median,
        client_maximum=None if skew is None else skew.maximum,
        mean_classes=None if skew is None else skew.mean_classes,
        mean_label_distance=None if skew is None else skew.mean_distance,
        skipped=[SkippedData(reason=one.reason, count=one.count, used=one.used) for one in dataset.skipped],
    )


def _privacy(run: Ended, compared: list[str]) -> Privacy:
    plan, ledger = run.server.plan, run.server.ledger
    records = run.records
    summed = [record for record in records if record.summed]
    worst = ledger.worst_events
    checks = cross_check(worst, ledger.delta) if plan.noisy else {}
    amplified = plan.noisy and ledger.epsilon_outsider < ledger.epsilon
    released = [record.noise_multiplier for record in records if record.noise_multiplier is not None]
    accountant = headline_accountant(worst)
    # without masking the server sees every upload by itself, and only outsiders are left with the sum
    masked = run.config.aggregation.secagg != "off"
    local = ledger.epsilon_local if plan.noisy else math.inf
    spent = ledger.epsilon if plan.noisy else math.inf
    contributions = sum(record.contributions for record in summed)
    overflowed = sum(record.overflowed or 0 for record in summed)
    # which a simulation knows, and the server of a real federation does not
    counted = summed and all(record.overflowed is not None for record in summed)
    clip_rate = sum(record.clipped for record in summed) / contributions if counted and contributions else None
    overflow_rate = overflowed / (len(summed) * plan.length) if counted else None
    return Privacy(
        target_epsilon=finite_or_none(plan.epsilon),
        epsilon=finite_or_none(spent if masked else local),
        delta=plan.delta,
        mu=finite_or_none(ledger.mu if masked else _gaussian_mu(local, plan.delta)) if plan.noisy else None,
        unit=run.config.privacy.unit,
        adjacency="zero-out",
        view="server",
        epsilon_outsider=finite_or_none(ledger.epsilon_outsider if plan.noisy else math.inf),
        epsilon_local=finite_or_none(local),
        noise_multiplier=plan.noise_multiplier,
        noise_released=[min(released), max(released)] if released else [],
        clip_norm=plan.clip_norm,
        rounds=len(run.records),
        participations=len(worst),
        exhausted=len({client for record in run.records for client in record.exhausted}),
        sampling_rate=plan.sampling_rate,
        honest_minimum=plan.honest_minimum,
        accountant={"name": accountant, **accountant_versions([accountant])},
        cross_check={name: epsilon for name, epsilon in checks.items() if name != accountant},
        cross_check_outsiders=cross_check_outsiders(ledger.events, ledger.delta) if amplified else {},
        aliasing_slack=ledger.aliasing_slack if plan.noisy else 0.0,
        clip_rate=clip_rate,
        overflow_rate=overflow_rate,
        statement=statement(
            plan,
            ledger,
            cross_check=checks,
            profile=run.config.aggregation.secagg,
            secret_noise=not run.config.privacy.simulation_noise,
            unit=run.config.privacy.unit,
            population=protected_units(run.config, run.server.task.images),
            aborted_rounds=sum(not record.released for record in records),
            lost_rounds=[record.round for record in records if record.lost],
            announced_rounds=sum(record.announced for record in records),
            clip_rate=clip_rate,
            overflow_rate=overflow_rate,
            corrupt=corrupt_clients(run.config),
            counted=run.config.aggregation.masks == "counted",
            suite=None if run.server.profile is None else name_of(suite_of(run.config)),
            canaries=run.config.evidence.canaries,
            compared=compared,
        ),
    )


def _gaussian_mu(epsilon: float, delta: float) -> float:
    """μ of the Gaussian mechanism with this ε at δ."""
    return 0.0 if epsilon == 0 else 1 / float(dp_accounting.get_sigma_gaussian(epsilon, delta))


def _communication(run: Ended) -> Communication:
    records, task = run.records, run.task
    clip, trained = task.clip, task.trained.dimension
    # a round that was skipped because of its cohort has asked nobody for anything
    messages = max(1, sum(len(record.participants) for record in records if record.download_bytes))
    upload = sum(record.upload_bytes for record in records) / messages
    download = sum(record.download_bytes for record in records) / messages
    payload = sum(record.payload_bytes for record in records) / messages
    invitation = run.server.invitation_bytes / messages
    return Communication(
        upload_bytes=upload,
        download_bytes=download,
        payload_bytes=payload,
        broadcast_bytes=sum(record.broadcast_bytes for record in records) / messages,
        masking_bytes=upload + download - payload - invitation,
        invitation_bytes=invitation,
        full_model_bytes=clip.full_model_bytes,
        reduction=2 * clip.full_model_bytes / (upload + download) if upload + download else None,
        reduction_upload=clip.full_model_bytes / upload if upload else None,
        parameters=trained,
        upload_values=task.trained.upload_size,
        parameter_ratio=clip.parameter_count / trained,
        bits=run.server.plan.bits,
    )


def _aggregation(run: Ended) -> Aggregation:
    records, how = run.records, run.config.participation
    # of the others nothing was measured: nobody was invited, or the round ended before its sum
    measured = [record.seconds for record in records if record.summed] or [{"client_mean": 0.0, "server": 0.0}]
    masking = run.server.masking(run.server.plan)
    return Aggregation(
        profile=run.config.aggregation.secagg,
        clients=run.server.selection.clients,
        participation=how.rate,
        sampling=how.sampling,
        min_separation=how.min_separation,
        cohort=[len(record.participants) for record in records],
        neighbours=None if masking is None else masking.neighbours,
        threshold=None if masking is None else masking.threshold,
        slots=None if masking is None else masking.slots,
        suite=None if masking is None else name_of(masking.suite),
        dropped=[len(record.dropped) for record in records],
        recovered=[record.recovered for record in records],
        aborted=[record.round for record in records if record.aborted is not None],
        lost=[record.round for record in records if record.lost],
        announced=[record.round for record in records if record.announced],
        seconds=None
        if run.config.aggregation.masks == "counted"
        else AggregationSeconds(
            client_mean=fmean(seconds["client_mean"] for seconds in measured) if run.clients_timed else None,
            server_total=fmean(seconds["server"] for seconds in measured),
        ),
    )


def _timing(run: Ended, total_seconds: float) -> Timing:
    parts = {part: sum(record.seconds[part] for record in run.records) for part in PARTS}
    rounds = parts["training"] + parts["noise"] + parts["masking"]
    return Timing(
        seconds=TimingSeconds(
            total=total_seconds,
            loading=0.0,  # who begins a run knows
            features=0.0,
            comparison=0.0,
            report=0.0,
            other=max(0.0, total_seconds - sum(parts.values())),
            **parts,
        ),
        # where nobody was ever invited, no round took any time
        clients_per_second=sum(len(r.participants) for r in run.records if r.download_bytes) / (rounds or 1.0),
        peak_memory_bytes=peak_memory(),
    )
