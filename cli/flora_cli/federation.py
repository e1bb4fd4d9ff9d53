"""`flora-secure flower init` and `example`: a folder to begin a federation with, and images to try it with.

`flora_cli.flower` adds both to its commands.
"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flora_cli.options import at_home, number, told, whole
from flora_cli.output import emit, emit_json, fail, log, table, working

if TYPE_CHECKING:
    from flora_secure.engine.deployed.project.begin import Begun

Folder = Annotated[Path, typer.Argument(metavar="DIR", callback=at_home, help="The coordinator's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, of what is public.")]


def print_document(document: dict[str, Any]) -> None:
    """Print a JSON document on stdout."""
    emit_json(json_format.dumps(document, indent=2, ensure_ascii=False))


INIT = """\
Examples:

flora-secure flower init clinic

flora-secure flower init clinic --clients 5 --rounds 20 --epsilon 4 --images 12000"""


Clients = Annotated[int, typer.Option(parser=whole, metavar="COUNT", help="Sites that will take part.")]
Rounds = Annotated[int, typer.Option(parser=whole, metavar="COUNT", help="Rounds of the run.")]
Epsilon = Annotated[float, typer.Option(parser=number, metavar="NUMBER", help="The budget of all rounds.")]
Whom = Annotated[
    str | None,
    typer.Option(
        metavar="UNIT",
        help="Whom the budget protects, example or client.",
        show_default="example below 30 clients, else client",
    ),
]
Together = Annotated[
    int | None,
    typer.Option(
        parser=whole,
        metavar="COUNT",
        help="Images of all sites together, roughly; for unit example.",
        show_default="the example's",
    ),
]


def init(
    directory: Folder,
    clients: Clients = 3,
    rounds: Rounds = 10,
    epsilon: Epsilon = 8.0,
    unit: Whom = None,
    images: Together = None,
    json: Json = False,
) -> None:
    """Write a folder to begin a federation with: the app of all parties, a policy that fits it, Flower's connection.

    Nothing is overwritten. Keys come next (flower certs, or identity and enrol), then each site's images.
    """
    begin_one("flower", directory, clients, rounds, epsilon, unit, images, as_json=json)


def begin_one(
    framework: Literal["flower", "nvflare"],
    directory: Path,
    clients: int,
    rounds: int,
    epsilon: float,
    unit: str | None,
    images: int | None,
    *,
    as_json: bool,
) -> None:
    """Write the folder for a framework, and say what was planned."""
    from flora_secure.errors import InputError

    if unit not in (None, "client", "example"):
        fail(f"--unit must be client or example, got {unit!r}")
    try:
        with working("planning the federation"):
            from flora_secure.engine.deployed.project.begin import begin

            begun = begin(
                directory,
                clients=clients,
                rounds=rounds,
                epsilon=epsilon,
                unit=unit,  # type: ignore[arg-type]
                images=images,
                framework=framework,
            )
    except InputError as error:
        fail(told(error))
    log(begun.reason)
    if as_json:
        print_document(_about(begun))
    else:
        emit(*table(_rows(begun), f"flora-secure {framework} init → {directory}"))


EXAMPLE = """\
Examples:

flora-secure flower example clinic"""


def example(directory: Folder, json: Json = False) -> None:
    """Write images to try a federation with into the folders of a pilot's sites and of its server.

    They are the embedded icons, as PNG files in a folder for each class; a site has whole icon sets.
    """
    from flora_secure.errors import InputError

    try:
        with working("writing images"):
            from flora_secure.engine.deployed.project.example import write_example

            written = write_example(directory)
    except InputError as error:
        fail(told(error))
    if json:
        sites = {f"site{client}": count for client, count in written.sites.items()}
        about = {"directory": str(directory), "sites": sites, "test": written.test, "public": written.public}
        print_document({"schema": "flora-secure/example/1", **about})
        return
    sites_line = ", ".join(f"site{client} {count:,}" for client, count in written.sites.items())
    emit(
        f"images: {sites_line} ({sum(written.sites.values()):,} together)",
        f"test images at the server: {written.test:,}; public ones at all parties: {written.public:,}",
    )


def _about(begun: Begun) -> dict[str, Any]:
    noise, privacy = begun.plan.plan, begun.config.privacy
    return {
        "schema": "flora-secure/begun/1",
        "directory": str(begun.folder),
        "unit": privacy.unit,
        "reason": begun.reason,
        "clients": noise.clients,
        "images": begun.config.data.total_images,
        "rounds": noise.rounds,
        "epsilon": privacy.epsilon,
        "delta": noise.delta,
        "survivors_minimum": noise.survivors_minimum,
        "threshold": begun.plan.aggregation.threshold,
        "most_epsilon": begun.policy.most_epsilon,
    }


def _rows(begun: Begun) -> list[tuple[str, str]]:
    noise, privacy, images = begun.plan.plan, begun.config.privacy, begun.config.data.total_images
    counted = "" if images is None else f", {images:,} images of all sites together"
    stay = f"{noise.survivors_minimum} must stay in a round (threshold {begun.plan.aggregation.threshold})"
    asks = f"{begun.folder / 'policy.toml'} asks what to mind"
    return [
        ("budget", f"ε = {privacy.epsilon:g}, δ = {noise.delta:.3g}, per {privacy.unit}{counted}"),
        ("rounds", f"{noise.rounds}, noise multiplier {noise.noise_multiplier:.4g}"),
        ("sites", f"{noise.clients}, of which {stay}"),
        ("policy", f"at most ε = {begun.policy.most_epsilon:g} a site; {asks}"),
        ("next", str(begun.folder / "README.md")),
    ]
