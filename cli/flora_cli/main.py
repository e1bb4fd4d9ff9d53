"""Entry point: the commands, and how errors reach a person (one line, exit code 2, no traceback)."""

from __future__ import annotations

import atexit
import errno
import gc
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # python -m puts the working directory first, and what lies there is data

import warnings
from typing import Annotated, Any

import typer
import typer.core

from flora_cli import (
    attack,
    audit,
    bench,
    completion,
    export,
    flower,
    join,
    nvflare,
    plan,
    predict,
    report,
    serve,
    simulate,
    vectors,
)
from flora_cli.options import takes_options
from flora_cli.output import any_encoding, fail, log, silence

NAME = "flora-secure"


class _Commands(typer.core.TyperGroup):
    """Who interrupts a command is told so: typer alone would exit without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted", 130)


app = typer.Typer(
    name=NAME,
    cls=_Commands,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,  # typer's own guesses the shell; flora_cli.completion is told
    no_args_is_help=False,
)
COMMANDS = (
    simulate.simulate,
    plan.plan,
    report.report,
    audit.audit,
    attack.attack,
    predict.predict,
    export.export,
    serve.serve,
    join.join,
    vectors.vectors,
    bench.bench,
)
for command in COMMANDS:
    app.command(epilog=sys.modules[command.__module__].EXAMPLES, add_help_option=not takes_options(command))(command)
app.add_typer(flower.app, name="flower")
app.add_typer(nvflare.app, name="nvflare")


def _version(value: bool) -> None:
    if value:
        from flora_secure import __version__

        typer.echo(f"flora-secure {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    _show: completion.Show = None,
    _install: completion.Install = None,
) -> None:
    """Federated LoRA on CLIP with differential privacy and secure aggregation.

    Exit codes: 0 fine, 1 the thing checked is bad, 2 bad input, 130 interrupted.
    """


def run() -> None:
    """Run the console script, and exit with its code."""
    any_encoding()
    # a user wants our own warnings (such as a large delta), as one line, and none of the libraries' among themselves
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module="flora_")
    warnings.showwarning = lambda message, *_: log(f"flora-secure: warning: {message}")
    completion.prepare(NAME)
    # torch and its like leave so many objects that one last search for circles among them would take a second
    atexit.register(gc.freeze)
    try:
        code = app(prog_name=NAME, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 130)
    except OSError as error:
        # what click prints by itself, help and version; files are dealt with where they are written
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        silence()
        code = _fail(f"the output cannot be written: {error.strerror}", 2)
    except Exception as error:
        # typer ≥ 0.21 carries its own copy of click, older ones use click: their usage errors share only their shape
        if not hasattr(error, "format_message"):
            raise
        asked = getattr(getattr(error, "ctx", None), "command_path", NAME)
        code = _fail(f"{error.format_message()} Try '{asked} --help'.", 2)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    log("flora-secure: " + " ".join(message.split()))
    return code


if __name__ == "__main__":
    run()
