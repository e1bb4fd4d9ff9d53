"""Federated LoRA on CLIP with distributed differential privacy and secure aggregation.

    import flora_secure

    run = flora_secure.simulate(epsilon=4)                # train; run.report, run.records, run.folder
    flora_secure.plan(epsilon=4)                          # the same figures without training
    found = flora_secure.audit(run.folder)                # every claim of the run derived again
    flora_secure.document(found, "audit.html")            # what an auditor signs
    flora_secure.attack(run.folder)                       # what its updates, sums and adapter would give away
    flora_secure.load(run.folder).predict("photos/")      # what images show, by the trained adapter
    flora_secure.report("runs/a", "runs/b", out="ab.html")  # runs side by side, for a browser

Importing this module imports neither torch nor numpy; a function imports what it needs. docs/api.md has all of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flora_secure.auditing.attacked import Attacks
    from flora_secure.auditing.findings import Audit
    from flora_secure.auditing.sums.checks import Measure
    from flora_secure.data.cache import ArrayCache
    from flora_secure.data.passed.own import OwnData
    from flora_secure.data.passed.party import PartyData
    from flora_secure.engine.ended import Engine
    from flora_secure.engine.run import Progress, Run, Surroundings
    from flora_secure.engine.task import Task
    from flora_secure.errors import InputError, RunInterrupted
    from flora_secure.model.trained.answers import Answer as Answer
    from flora_secure.model.trained.answers import Predictions as Predictions
    from flora_secure.model.trained.classifier import Classifier as Classifier
    from flora_secure.model.trained.classifier import load as load
    from flora_secure.planning.config import RunConfig
    from flora_secure.planning.options import EngineName
    from flora_secure.records.forecast import Forecast
    from flora_secure.records.receipts.head import Signer
    from flora_secure.records.record import RoundRecord
    from flora_secure.records.report import Report

__version__ = "0.1.0"

# imported when it is first asked for
_LATER = {
    "Answer": "flora_secure.model.trained.answers",
    "Attacks": "flora_secure.auditing.attacked",
    "Audit": "flora_secure.auditing.findings",
    "Classifier": "flora_secure.model.trained.classifier",
    "Forecast": "flora_secure.records.forecast",
    "InputError": "flora_secure.errors",
    "OwnData": "flora_secure.data.passed.own",
    "PartyData": "flora_secure.data.passed.party",
    "Report": "flora_secure.records.report",
    "Predictions": "flora_secure.model.trained.answers",
    "RoundRecord": "flora_secure.records.record",
    "Run": "flora_secure.engine.run",
    "RunConfig": "flora_secure.planning.config",
    "RunInterrupted": "flora_secure.errors",
    "load": "flora_secure.model.trained.classifier",
}
__all__ = [
    "Answer",
    "Attacks",
    "Audit",
    "Classifier",
    "Forecast",
    "InputError",
    "OwnData",
    "PartyData",
    "Predictions",
    "Report",
    "RoundRecord",
    "Run",
    "RunConfig",
    "RunInterrupted",
    "attack",
    "audit",
    "document",
    "load",
    "plan",
    "report",
    "simulate",
]


def simulate(
    config: RunConfig | str | Path | None = None,
    /,
    *,
    dataset: str | OwnData | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
    cache: str | Path | bool = True,
    compare: Sequence[str] = (),
    html: bool = True,
    engine: EngineName = "process",
    signing_key: str | Path | None = None,
    **options: Any,
) -> Run:
    """Train LoRA adapters on CLIP over simulated clients; report accuracy, privacy budget and communication together.

    Args:
        config: the run's description, or a TOML file of it; the defaults where it is left out.
        dataset: a data set by name, or one's own images (`OwnData`).
        out: the run's folder, which must not exist; `runs/DATE-TIME` where it is left out.
        resume: the folder of a run that was interrupted, to go on with; takes no `config`, `out` and `options`.
        progress: called after every round with its number, how many there are, and its record.
        log: called with lines for people: what the data hold, what is left out of them, what is about to run; one that
            ends in "…" says what is being done from then on.
        cache: the folder that keeps image features between runs; `True` for the user's own, `False` for none.
        compare: competitors for `report.competitors`, of "public" (which is there anyhow), "local", "central" and
            "no-noise"; docs/report.md says what each is. They tell of the clients' data, and no budget covers them.
        html: write `report.html` into the folder at the end; `report` does so later. Where its libraries are missing,
            `log` is told.
        engine: where the simulated clients are: in this `process`, or on the nodes of Flower's simulation engine
            (`flora-secure[flower]`, docs/flower.md), which runs on a Ray cluster too.
        signing_key: the file of the key that signs the run's receipt, made where there is none; a key of this run
            alone where it is left out.
        options: settings by keyword, such as `epsilon=4, clients=100, rule="ab"`: docs/options.md has all. They
            override `config`.

    Returns:
        The report, a record of every round, and the folder with these and the adapter.

    Raises:
        InputError: something given cannot be; the message is one line, and `kept` says what is on disk.
        RunInterrupted: Ctrl-C; a KeyboardInterrupt that knows what is on disk.
        TypeError: a keyword that is no option.
    """
    from flora_secure.data.cache import ArrayCache, default_folder
    from flora_secure.data.passed.own import OwnData, settings_for
    from flora_secure.engine.run import Surroundings, begin_run, resume_run
    from flora_secure.planning.option_table import configured

    if not (dataset is None or isinstance(dataset, str | OwnData)):
        raise TypeError(f"dataset is a {type(dataset).__name__}: give a name, or OwnData(…) with your images")
    if isinstance(compare, str):
        raise TypeError(f"compare is one text, {compare!r}: give a list of competitors")
    passed = dataset.load() if isinstance(dataset, OwnData) else None
    folder = default_folder() if cache is True else Path(cache) if cache else None
    warn = log if log is not None else lambda line: None
    features = None if folder is None else ArrayCache(folder, warn)
    signer = None if signing_key is None else _signer(Path(signing_key), warn)
    around = Surroundings(passed, features, progress, log, _engine(engine, features, warn), signer)
    if resume is not None:
        others = {"config": config, "out": out, **options, "compare": tuple(compare) or None}
        if given := [name for name, value in others.items() if value is not None]:
            raise TypeError(f"resume takes the options of the run from its folder: leave out {', '.join(given)}")
        if isinstance(dataset, str):
            raise TypeError("resume takes the data set of the run from its folder: leave out dataset")
        return _shown(resume_run(Path(resume), around), html, around)
    settings = configured(config, {**options, "dataset": dataset} if isinstance(dataset, str) else options)
    if passed is not None:
        settings = settings_for(settings, passed)
    run = begin_run(settings, None if out is None else Path(out), around, compare=compare)
    return _shown(run, html, around)


def _signer(path: Path, log: Callable[[str], None]) -> Signer:
    from flora_secure.engine.deployed.keys.signing import signer_in

    return signer_in(path, log)


def _engine(name: str, features: ArrayCache | None, log: Callable[[str], None]) -> Callable[[], Engine] | None:
    """What imports the engine of that name; None for the one of this process."""
    if name == "process":
        return None
    if name != "flower":
        raise TypeError(f"engine is {name!r}: give process or flower")

    def engine() -> Engine:
        from flora_secure.errors import ConfigError

        try:
            from flora_secure.engine.flower.virtual import VirtualFederation
        except ModuleNotFoundError as error:
            raise ConfigError(f"engine flower needs {error.name}: pip install 'flora-secure[flower]'") from None

        def made(config: RunConfig, task: Task) -> VirtualFederation:
            return VirtualFederation(config, task, features, log)

        return made

    return engine


def _shown(run: Run, html: bool, around: Surroundings) -> Run:
    """The run, its page written; without one it is a run all the same."""
    from flora_secure.errors import InputError

    if html:
        try:
            report(run.folder)
        except InputError as error:
            around.say(f"report.html was left out: {error}")
    return run


def report(*runs: str | Path, out: str | Path | None = None, log: Callable[[str], None] | None = None) -> Path:
    """One HTML file that shows a run, or several side by side; it opens without a network.

    Args:
        runs: their folders.
        out: the file, which is replaced; `report.html` in the folder of a single run where it is left out.
        log: called with a line for each of several runs that cannot be shown; the others are.

    Returns:
        The file.

    Raises:
        InputError: no run can be shown, the file cannot be written, or a library is missing.
        TypeError: no run, or several without `out`.
    """
    from flora_secure.errors import InputError, PlotError
    from flora_secure.records.html.shown import read

    if not runs or (len(runs) > 1 and out is None):
        raise TypeError("give at least one run" if not runs else "give out: several runs are shown in one file")
    found = []
    for run in runs:
        try:
            found.append(read(Path(run)))
        except InputError as error:
            if len(runs) == 1:
                raise
            if log is not None:
                log(f"left out: {error}")
            last = error
    if not found:
        raise last
    try:
        from flora_secure.records.html.page import write
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe", "matplotlib"):
            raise
        raise PlotError(f"a report needs {error.name}: pip install 'flora-secure[report]'") from None
    target = Path(runs[0]) / "report.html" if out is None else Path(out)
    write(found, target)
    return target


def plan(
    config: RunConfig | str | Path | None = None,
    /,
    *,
    images: int | None = None,
    noise_multiplier: float | None = None,
    **options: Any,
) -> Forecast:
    """Noise, budget, neighbours, bits and bytes of a run before it starts; needs neither torch nor data.

    Args:
        config, options: as in `simulate`.
        images: of all clients together, for unit `example`; those of the data set where they are known, else 20,000.
        noise_multiplier: z of the released sum, instead of `epsilon`: what ε does it cost?

    Raises:
        InputError: no noise, ring or graph satisfies the settings.
        TypeError: a keyword that is no option, and both of `epsilon` and `noise_multiplier`.
    """
    from flora_secure.planning.config import override
    from flora_secure.planning.option_table import configured
    from flora_secure.records.forecast import budget_of, forecast

    settings = configured(config, options)
    if noise_multiplier is not None:
        if options.get("epsilon") is not None:
            raise TypeError("give either epsilon or noise_multiplier, each follows from the other")
        settings = override(settings, {"privacy.epsilon": budget_of(settings, noise_multiplier, images)})
    return forecast(settings, images)


def audit(
    path: str | Path,
    /,
    *,
    opacus: bool = True,
    accuracy: bool = False,
    receipts: Sequence[str | Path] = (),
    server_key: str | None = None,
    canaries: str | Path | None = None,
    attacks: str | Path | None = None,
) -> Audit:
    """Derive every claim of a run again from its folder alone; no data, no weights.

    Args:
        path: the run's folder, or a file: the receipt of a client, which is then looked at without one, or the log of a
            system that is not ours (docs/foreign-log.md).
        opacus: ask opacus' accountant too, where it is installed; it imports torch, which takes seconds.
        accuracy: measure every replayed adapter again, which takes the run's model and test images, and torch.
        receipts: files of receipts that clients of the run kept.
        server_key: the public key, 64 hex digits, that the run must be signed by; any where it is left out.
        canaries: the file of the run's canaries (`simulate(canaries=…)`); the one beside the folder where left out.
        attacks: what `attack` found, for the audit to include; `local/attacks/attacks.json` in the folder, where it is,
            when it is left out.

    Returns:
        Findings, each with evidence; `passed` is false where a claim is wrong.

    Raises:
        InputError: a folder or file that cannot be read, or a folder that holds no round; with `accuracy`, model or
            data that cannot be had, or are not the run's.
    """
    if isinstance(receipts, str | Path):
        raise TypeError(f"receipts is one path, {str(receipts)!r}: give a list of them")
    place, brought = Path(path), [Path(one) for one in receipts]
    if place.is_file():
        from flora_secure.auditing.file import audit_file

        return audit_file(place, opacus=opacus, receipts=brought, server_key=server_key)
    from flora_secure.auditing.folder import Brought
    from flora_secure.auditing.folder import audit as audited

    return audited(
        place,
        Brought(
            measure=_measure if accuracy else None,
            receipts=brought,
            server_key=server_key,
            canaries=None if canaries is None else Path(canaries),
            attacks=None if attacks is None else Path(attacks),
        ),
        opacus=opacus,
    )


def document(audit: Audit, out: str | Path) -> Path:
    """Write what an auditor signs: the guarantee on top, what it rests on, every finding, and what nobody could check.

    Args:
        audit: of a run, as `audit` gives it.
        out: the file, which is replaced; by its name Markdown (.md), a page (.html), or the entry for a registry of
            deployments (.json). The same audit gives the same bytes.

    Returns:
        The file.

    Raises:
        InputError: another name, a file that cannot be written, or a page whose libraries are missing.
    """
    from flora_secure.auditing.document.markdown import markdown
    from flora_secure.auditing.document.registry import registry_text
    from flora_secure.auditing.document.written import require_format, write
    from flora_secure.errors import PlotError

    path = Path(out)
    require_format(path)
    if path.suffix.lower() == ".md":
        text = markdown(audit)
    elif path.suffix.lower() == ".json":
        text = registry_text(audit) + "\n"
    else:
        try:
            from flora_secure.auditing.document.page import page
        except ModuleNotFoundError as error:
            if error.name not in ("jinja2", "markupsafe", "matplotlib"):
                raise
            raise PlotError(
                f"a page needs {error.name}: pip install 'flora-secure[report]', or name a .md file"
            ) from None
        text = page(audit)
    write(text, path)
    return path


def _measure(config: RunConfig, model_hash: str | None) -> Measure:
    from flora_secure.data.cache import ArrayCache, default_folder
    from flora_secure.engine.remeasured import measure_of

    return measure_of(config, model_hash, ArrayCache(default_folder(), lambda line: None))


def attack(
    run: str | Path,
    /,
    *,
    dataset: OwnData | None = None,
    out: str | Path | None = None,
    attacks: Sequence[str] = ("reconstruction", "membership", "sites"),
    shadows: int = 64,
    seed: int = 0,
    cache: str | Path | bool = True,
    log: Callable[[str], None] | None = None,
) -> Attacks:
    """Attack a run's federation as who sees its messages could, and say what updates, sums and adapter give away.

    It loads the run's data and model again, so only who has the clients' images can do this. Minutes on two cores.

    Args:
        run: the run's folder.
        dataset: the images that the run was passed, where it was (`OwnData`).
        out: a folder for `attacks.json` and pictures, which show private images; `local/attacks` in the run's folder
            where it is left out.
        attacks: which to make.
        shadows: federations that membership trains, so many without noise and so many with the run's.
        seed: of the attacks' draws.
        cache, log: as in `simulate`.

    Returns:
        Each attack on each object, with its interval and what guessing reaches.

    Raises:
        InputError: a run or data that cannot be read or attacked, or a library that is missing.
    """
    from flora_secure.auditing.asked import Asked
    from flora_secure.data.cache import ArrayCache, default_folder
    from flora_secure.errors import PlotError

    if isinstance(attacks, str):
        raise TypeError(f"attacks is one text, {attacks!r}: give a list of them")
    asked = Asked(tuple(attacks), shadows, seed)
    say = log if log is not None else lambda line: None
    say("loading model and data …")
    try:
        from flora_secure.auditing.attacks.course import attack as attacked
    except ModuleNotFoundError as error:
        if error.name not in ("matplotlib", "torch"):
            raise
        raise PlotError(f"attacks need {error.name}: pip install 'flora-secure[train]'") from None
    folder = default_folder() if cache is True else Path(cache) if cache else None
    features = None if folder is None else ArrayCache(folder, say)
    target = Path(run) / "local" / "attacks" if out is None else Path(out)
    passed = None if dataset is None else dataset.load()
    return attacked(Path(run), target, asked, passed, features, say)


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
