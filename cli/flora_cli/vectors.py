"""`flora-secure vectors`: check the masking protocol's test vectors, or write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from flora_cli.options import at_home
from flora_cli.output import emit, emit_json, fail

IN_A_WHEEL, IN_A_CHECKOUT = "test_vectors", "../vectors"  # beside the modules of flora_protocols

EXAMPLES = """\
Examples:

flora-secure vectors --check

flora-secure vectors --write DIR"""


def vectors(
    check: Annotated[
        bool, typer.Option("--check", help="Make all vectors anew and compare them byte for byte.  [default]")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(callback=at_home, metavar="DIR", help="Write the vectors there instead; the folder is made."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", callback=at_home, metavar="DIR", help="What to compare with.  [default: what is installed]"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Check the masking protocol's test vectors on this machine, or write them for another implementation.

    Exit codes: 0 all are the same, 1 one differs or is missing, 2 bad input.
    """
    if write is not None and (check or directory is not None):
        fail("--write makes the vectors; give it without --check and --dir")
    if write is not None:
        _write(write, json)
    else:
        _check(directory, json)


def _write(folder: Path, as_json: bool) -> None:
    from flora_protocols.testing.vectors import vectors as make

    texts = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_bytes(text.encode())
    except OSError as error:
        fail(f"{error.filename or folder} cannot be written: {error.strerror}")
    _tell({"directory": str(folder), "written": sorted(texts)}, [f"{len(texts)} vectors written to {folder}"], as_json)


def _check(directory: Path | None, as_json: bool) -> None:
    from flora_protocols.testing.vectors import differences
    from flora_secure.boundary.foreign import read_bytes
    from flora_secure.errors import ForeignError

    folder = directory or _shipped()
    try:
        paths = [path for path in sorted(folder.iterdir()) if path.suffix == ".json"]
    except OSError as error:
        fail(f"{error.filename or folder} cannot be read: {error.strerror}")
    found = {}
    for path in paths:
        try:
            found[path.name] = read_bytes(path)
        except ForeignError as error:
            fail(f"{path} cannot be read: {error}")
    same, different = differences(found)
    document = {"directory": str(folder), "same": same, "different": different}
    total = len(same) + len(different)
    lines = [f"{len(same)} of {total} vectors in {folder} are the same, byte for byte", *different.values()]
    _tell(document, lines, as_json)
    if different:
        raise typer.Exit(1)


def _shipped() -> Path:
    import flora_protocols

    package = Path(flora_protocols.__file__).parent
    inside = package / IN_A_WHEEL
    return inside if inside.is_dir() else (package / IN_A_CHECKOUT).resolve()


def _tell(document: Mapping[str, object], lines: Sequence[str], as_json: bool) -> None:
    import json

    if as_json:
        emit_json(json.dumps(document, indent=2))
    else:
        emit(*lines)
