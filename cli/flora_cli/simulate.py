"""``flora-secure simulate``: train, and report accuracy, privacy budget and communication together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flora_cli.adapter_options import Alpha, LastLayers, Placement, Rank, Rule
from flora_cli.data_options import (
    ClassNames,
    DataRoot,
    Dataset,
    FeatureCache,
    NoFeatureCache,
    Partition,
    Templates,
    UnseenClasses,
)
from flora_cli.masking_options import Corrupt, Neighbours, SecAgg, Threshold
from flora_cli.output import emit, fail, log, progress, table
from flora_cli.privacy_options import AdaptiveClip, Bits, ClipNorm, Delta, DropoutTolerance, Epsilon, ExampleRate, Unit
from flora_cli.round_options import Clients, Dropout, MinSeparation, Participation, Rounds, Sampling
from flora_cli.server_options import ServerMomentum, ServerStep
from flora_cli.values import names, whole

if TYPE_CHECKING:
    from flora_secure.data.cache import ArrayCache
    from flora_secure.planning.config import RunConfig
    from flora_secure.records.report import Report
    from flora_secure.records.run_folder import Interrupted

Setting = typer.Option


def simulate(
    context: typer.Context,
    epsilon: Epsilon = None,
    delta: Delta = None,
    unit: Unit = None,
    example_rate: ExampleRate = None,
    participation: Participation = None,
    sampling: Sampling = None,
    min_separation: MinSeparation = None,
    clients: Clients = None,
    rounds: Rounds = None,
    server_step: ServerStep = None,
    server_momentum: ServerMomentum = None,
    dropout: Dropout = None,
    dropout_tolerance: DropoutTolerance = None,
    partition: Partition = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    class_names: ClassNames = None,
    templates: Templates = None,
    unseen_classes: UnseenClasses = None,
    feature_cache: FeatureCache = None,
    no_feature_cache: NoFeatureCache = False,
    model: Annotated[
        str | None, Setting(help="tiny (embedded) or an open_clip architecture.  [default: tiny]", metavar="NAME")
    ] = None,
    pretrained: Annotated[
        str | None,
        Setting(help="open_clip tag, local file or open_clip folder, or none for random weights.", metavar="WEIGHTS"),
    ] = None,
    placement: Placement = None,
    rule: Rule = None,
    rank: Rank = None,
    alpha: Alpha = None,
    last_layers: LastLayers = None,
    mirror: Annotated[
        bool | None,
        Setting(
            "--mirror/--no-mirror",
            help="Embed each image together with its mirror image.  [default: as the data set allows]",
        ),
    ] = None,
    crops: Annotated[
        int | None,
        Setting(
            parser=whole,
            metavar="COUNT",
            help="1, 2 or 4 crops of each image embedded together: more accurate, as much slower.  [default: 1]",
        ),
    ] = None,
    secagg: SecAgg = None,
    corrupt: Corrupt = None,
    neighbours: Neighbours = None,
    threshold: Threshold = None,
    bits: Bits = None,
    clip_norm: ClipNorm = None,
    adaptive_clip: AdaptiveClip = None,
    seed: Annotated[
        int | None,
        Setting(parser=whole, metavar="COUNT", help="Seed of the experiment: partition, dropouts.  [default: 0]"),
    ] = None,
    device: Annotated[str | None, Setting(help="torch device.  [default: cpu]")] = None,
    precision: Annotated[
        str | None,
        Setting(help="Of towers that stay frozen: float32, or bfloat16 (mixed).  [default: float32]", metavar="KIND"),
    ] = None,
    simulation_noise: Annotated[
        bool, Setting("--simulation-noise", help="Draw the noise from the seed: repeatable, and NOT secret.")
    ] = False,
    compare_no_noise: Annotated[
        bool, Setting("--compare-no-noise", help="Also run without noise, for the report's no_noise.")
    ] = False,
    config: Annotated[Path | None, Setting(help="TOML file; flags override it.")] = None,
    out: Annotated[Path | None, Setting(help="Run folder, must not exist.  [default: runs/DATE-TIME]")] = None,
    resume: Annotated[
        Path | None,
        Setting(
            help="Go on with the run in this folder, which was interrupted or killed; no other option of a run.",
            metavar="RUN",
        ),
    ] = None,
    json: Annotated[bool, Setting("--json", help="Print report.json on stdout, and nothing else there.")] = False,
) -> None:
    """Train LoRA adapters on CLIP over simulated clients; report accuracy, privacy and communication together."""
    if resume is not None:
        _refuse_others(context)
        _resume(resume, json, _cache(feature_cache, no_feature_cache))
        return
    from flora_secure.errors import ConfigError
    from flora_secure.planning.config import RunConfig, load_config, override
    from flora_secure.records.run_folder import require_new

    changes: dict[str, Any] = {
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.unit": unit,
        "privacy.example_rate": example_rate,
        "privacy.clip_norm": clip_norm,
        "privacy.adaptive_clip": adaptive_clip,
        "privacy.bits": bits,
        "privacy.dropout_tolerance": dropout_tolerance,
        "privacy.simulation_noise": simulation_noise or None,
        "participation.rate": participation,
        "participation.sampling": sampling,
        "participation.min_separation": min_separation,
        "data.clients": clients,
        "data.partition": partition,
        "data.dataset": dataset,
        "data.data_root": None if data_root is None else str(data_root),
        "data.class_names": None if class_names is None else str(class_names),
        "data.templates": None if templates is None else str(templates),
        "data.unseen_classes": None if unseen_classes is None else names(unseen_classes),
        "training.rounds": rounds,
        "training.server_step": server_step,
        "training.server_momentum": server_momentum,
        "training.device": device,
        "training.precision": precision,
        "aggregation.dropout": dropout,
        "aggregation.secagg": secagg,
        "aggregation.neighbours": neighbours,
        "aggregation.threshold": threshold,
        "aggregation.corrupt": corrupt,
        "model.model": model,
        "model.pretrained": pretrained,
        "model.placement": placement,
        "model.rule": rule,
        "model.rank": rank,
        "model.alpha": alpha,
        "model.last_layers": last_layers,
        "model.mirror": mirror,
        "model.crops": crops,
        "seed": seed,
    }
    try:
        settings = override(RunConfig() if config is None else load_config(config), changes)
        folder = out if out is not None else Path("runs") / time.strftime("%Y%m%d-%H%M%S")
        require_new(folder)
    except ConfigError as error:
        fail(str(error))
    _run(settings, folder, compare_no_noise, json, _cache(feature_cache, no_feature_cache))


def _cache(folder: Path | None, none: bool) -> ArrayCache | None:
    if none and folder is not None:
        fail("give either --feature-cache or --no-feature-cache")
    from flora_secure.data.cache import ArrayCache, default_folder

    return None if none else ArrayCache(folder or default_folder(), log)


def _refuse_others(context: typer.Context) -> None:
    """``--resume`` takes everything from the run folder; only where features are kept and what is printed is free."""
    free = {"resume", "json", "feature_cache", "no_feature_cache"}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in free and source is not None and source.name != "DEFAULT":
            fail(f"--resume takes the options of the run from its folder: leave out {parameter.opts[0]}")


def _resume(path: Path, as_json: bool, cache: ArrayCache | None) -> None:
    from flora_secure.errors import InputError
    from flora_secure.records.reading import read_run
    from flora_secure.records.run_folder import reopen

    try:
        if not path.is_dir():
            fail(f"resume {path}: there is no such run folder")
        if (path / "report.json").exists():
            report = read_run(path).report
            assert report is not None
            log(f"the run in {path} is complete, nothing is left to do")
            _show(report, path, as_json)
            return
        interrupted = reopen(path)
    except InputError as error:
        fail(str(error))
    _run(interrupted.config, path, interrupted.checkpoint.compare_no_noise, as_json, cache, interrupted)


def _show(report: Report, out: Path, as_json: bool) -> None:
    from flora_secure.records.report_table import rows

    emit(report.to_json() if as_json else table(rows(report), f"flora-secure simulate → {out}"))


def _run(
    settings: RunConfig,
    out: Path,
    compare_no_noise: bool,
    as_json: bool,
    cache: ArrayCache | None,
    interrupted: Interrupted | None = None,
) -> None:
    started = time.perf_counter()
    begun = interrupted is not None
    done = len(interrupted.records) if interrupted is not None else 0
    try:
        log("loading model and data …")
        from flora_secure.data.federation import load_federation
        from flora_secure.errors import InputError

        try:
            # before the heavy imports below, so that bad data is told at once
            federation = load_federation(settings.data, settings.seed, cache)
            for line in federation.lines:
                log(line)

            from flora_secure.engine.recorded import begin, go_on
            from flora_secure.engine.simulation import Simulation, without_noise
            from flora_secure.engine.summary import summarise
            from flora_secure.engine.task import prepare
            from flora_secure.privacy.cross_check import CrossCheckError

            task = prepare(settings, federation, cache)
            for skipped in task.federation.dataset.skipped[len(federation.dataset.skipped) :]:
                log(skipped.line)
            simulation = Simulation(settings, task)
            if interrupted is None:
                run = begin(simulation, out, compare_no_noise)
            else:
                run = go_on(simulation, interrupted)
                log(run.line)
            begun, done = True, len(simulation.records)
            log(simulation.headline)
            with progress(settings.training.rounds, "round") as show:
                for record in run.rounds():
                    done = record.round
                    show(done, record.line)
            # the adapter first: whatever goes wrong from here on, what was trained is kept
            adapter_hash = run.folder.write_adapter(simulation.save_adapter)
            no_noise = without_noise(settings, task) if compare_no_noise else None
            try:
                report = summarise(
                    simulation,
                    total_seconds=run.earlier_seconds + time.perf_counter() - started,
                    no_noise=no_noise,
                    rounds_hash=run.folder.last_hash,
                    adapter_hash=adapter_hash,
                )
            except CrossCheckError as error:
                fail(f"{error}; rounds and adapter are kept in {out}, no report was written", code=1)
            run.folder.write_report(report)
        except InputError as error:
            fail(str(error) + (f"; rounds 1 to {done} are kept in {out}" if done else ""))
    except KeyboardInterrupt:
        kept = f"rounds 1 to {done} are kept in {out}" if done else "no round was complete"
        where = "after the last round" if done == settings.training.rounds else f"in round {done + 1}"
        again = f"; go on with flora-secure simulate --resume {out}" if begun else ""
        fail(f"interrupted {where}; {kept}{again}", code=130)
    _show(report, out, as_json)
