"""`flora-secure simulate`: train, and report accuracy, privacy budget and communication together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flora_cli.options import Given, flagged, options, told
from flora_cli.output import Work, emit, emit_json, fail, log, table

if TYPE_CHECKING:
    import flora_secure

EXAMPLES = """\
Examples:

flora-secure simulate --epsilon 4

flora-secure simulate --dataset folder --data-root DIR --out runs/mine

flora-secure simulate --resume runs/mine"""


@options("simulate")
def simulate(given: Given) -> None:
    """Train LoRA adapters on CLIP over simulated clients; report accuracy, privacy and communication together."""
    switches = given.switches
    if switches.feature_cache is not None and switches.no_feature_cache:
        fail("give either --feature-cache or --no-feature-cache")
    if switches.resume is not None:
        _refuse_others(given)
    import flora_secure
    from flora_secure.errors import InputError

    file = switches.config if switches.resume is None else switches.resume / "config.toml"
    try:
        with Work(beats=True) as work:
            run = flora_secure.simulate(
                switches.config,
                out=switches.out,
                resume=switches.resume,
                progress=lambda number, total, record: work.round(number, total, record.line),
                log=lambda line: work.log(flagged(line)),
                cache=not switches.no_feature_cache and (switches.feature_cache or True),
                compare_no_noise=switches.compare_no_noise,
                engine=switches.engine,
                html=False,  # after the table, which nobody shall wait for
                **given.settings,
            )
    except InputError as error:
        fail(told(error, given.flags, file))
    except flora_secure.RunInterrupted as interrupt:
        again = f"; go on with flora-secure simulate --resume {interrupt.folder}" if interrupt.resumable else ""
        fail(f"{interrupt}{again}", code=130)
    except RuntimeError as error:
        from flora_secure.privacy.cross_check import CrossCheckError

        if not isinstance(error, CrossCheckError):
            raise
        fail(str(error), code=1)
    try:
        _show(run, switches.json)
    except BaseException:
        _write_page(run, log=None)  # it is written where nobody can read the table, too
        raise
    _write_page(run, log)


def _refuse_others(given: Given) -> None:
    """`--resume` takes everything from the run folder; only where features are kept and what is printed is free."""
    from flora_secure.planning.option_table import flag_of

    free = {"resume", "json", "feature_cache", "no_feature_cache", "engine"}
    for key in sorted(given.flags - free):
        fail(f"--resume takes the options of the run from its folder: leave out {flag_of(key)}")


def _show(run: flora_secure.Run, as_json: bool) -> None:
    from flora_secure.records.report_table import rows

    if as_json:
        emit_json(run.report.to_json())
    else:
        found = [(what, flagged(figure)) for what, figure in rows(run.report)]
        emit(*table(found, f"flora-secure simulate → {run.folder}"))


def _write_page(run: flora_secure.Run, log: Callable[[str], None] | None) -> None:
    import flora_secure
    from flora_secure.errors import InputError

    try:
        line = f"wrote {flora_secure.report(run.folder)}"
    except InputError as error:
        line = f"report.html was left out: {error}"
    if log is not None:
        log(line)
