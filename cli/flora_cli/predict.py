"""`flora-secure predict`: classes (or captions) of images by a trained adapter."""

from __future__ import annotations

import json as json_format
import os
from pathlib import Path
from typing import Annotated

import typer

from flora_cli.options import at_home, told, whole
from flora_cli.output import emit, emit_json, fail, fields, log, working

EXAMPLES = """\
Examples:

flora-secure predict runs/mine photos/ --top 3"""


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or the adapter/ in one.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES…", help="Image files, and folders, searched to their ends.")
    ],
    top: Annotated[int, typer.Option(parser=whole, metavar="COUNT", help="Names for each image, the best first.")] = 1,
    class_names: Annotated[
        Path | None,
        typer.Option(
            callback=at_home, metavar="FILE", help="Other classes than the run's, one a line, for its prompt templates."
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            callback=at_home, metavar="FILE", help="Texts to choose from, one a line; what a run on captions needs."
        ),
    ] = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(
            callback=at_home, metavar="PATH", help="The model's weights, where they are local files that were moved."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="torch device.")] = "cpu",
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
    ] = False,
) -> None:
    """Say what images show, by the adapter that a run has trained.

    An image that cannot be read is named on stderr, and the others are answered; exits 2 if none can be read.
    """
    from flora_secure.data.class_names import odd_names, read_lines
    from flora_secure.errors import InputError

    try:
        names = None if class_names is None else read_lines(class_names, "--class-names")
        for line in odd_names(names or ()):
            log(f"warning: {told(InputError(line))}")
        texts = None if captions is None else read_lines(captions, "--captions")
        for path in images:
            if not os.path.exists(path):
                fail(f"image {str(path)!r} does not exist")
        with working("loading the model, looking at the images"):
            import flora_secure

            classifier = flora_secure.load(run, device=device, pretrained=pretrained)
            found = classifier.predict(
                [str(path) for path in images], top, class_names=names, captions=texts, skip_unreadable=True
            )
    except InputError as error:
        fail(told(error))
    for one in found.unreadable:
        log(f"image {one.image!r} cannot be read: {one.reason}")
    for left_out in found.left_out:
        log(left_out.line)
    if not found:
        bad = f"none of {len(found.unreadable):,} images can be read" if found.unreadable else "there is no image"
        fail(f"{bad} in {', '.join(map(str, images))}: name image files, or folders that hold some")
    if found.unreadable:
        log(f"{len(found):,} images answered, {len(found.unreadable):,} could not be read")
    if json:
        table = found.to_dict()
        about = {"model": classifier.card.model, "adapter_hash": classifier.card.adapter_hash}
        emit_json(json_format.dumps({"schema": table.pop("schema"), **about, **table}, indent=2, ensure_ascii=False))
        return
    for answer in found:
        emit(fields(str(answer.image), *(f"{guess.name} {guess.score:.1%}" for guess in answer.guesses)))
