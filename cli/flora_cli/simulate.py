"""`flora-secure simulate`: train, and report accuracy, privacy budget and communication together."""

from __future__ import annotations

from flora_cli.ended import tell
from flora_cli.options import Given, flagged, options, told
from flora_cli.output import Work, fail

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
                compare=switches.compare or (),
                engine=switches.engine,
                signing_key=switches.signing_key,
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
    tell(run, "simulate", switches.json)


def _refuse_others(given: Given) -> None:
    """`--resume` takes everything from the run folder; where features are kept, who signs and what is printed is
    free."""
    from flora_secure.planning.option_table import flag_of

    free = {"resume", "json", "feature_cache", "no_feature_cache", "engine", "signing_key"}
    for key in sorted(given.flags - free):
        fail(f"--resume takes the options of the run from its folder: leave out {flag_of(key)}")
