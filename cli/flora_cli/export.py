"""`flora-secure export`: a trained adapter merged into weights that plain open_clip loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flora_cli.options import at_home, told
from flora_cli.output import emit, fail, working

EXAMPLES = """\
Examples:

flora-secure export runs/mine clothes-clip"""


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or the adapter/ in one.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write, must not exist.")],
    pretrained: Annotated[
        Path | None,
        typer.Option(
            callback=at_home, metavar="PATH", help="The model's weights, where they are local files that were moved."
        ),
    ] = None,
) -> None:
    """Merge a run's adapter into its model, for open_clip.create_model("local-dir:OUT").

    OUT/README.txt says what the weights are, and the run's privacy budget.
    """
    from flora_secure.errors import InputError
    from flora_secure.records.durable import require_creatable

    try:
        require_creatable(out)  # before seconds are spent on the model
    except FileExistsError:
        fail(f"OUT {out} exists already; choose a new folder, nothing was overwritten")
    except (OSError, ValueError) as error:
        fail(f"OUT {out} cannot be written: {getattr(error, 'strerror', None) or error}; choose another folder")
    try:
        with working("loading the model, merging the adapter"):
            import flora_secure

            flora_secure.load(run, pretrained=pretrained).export(out)
    except InputError as error:
        fail(told(error))
    emit(f"{out}: load it with open_clip.create_model({f'local-dir:{out}'!r})")
