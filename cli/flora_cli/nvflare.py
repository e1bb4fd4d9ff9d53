"""`flora-secure nvflare`: a folder to begin a federation over NVFlare with; `flora-secure flower` makes its keys."""

from __future__ import annotations

import typer

from flora_cli.federation import Clients, Epsilon, Folder, Json, Rounds, Together, Whom, begin_one

app = typer.Typer(rich_markup_mode="rich", add_completion=False, help="A federation over NVFlare: its folder and job.")

INIT = """\
Examples:

flora-secure nvflare init clinic

flora-secure nvflare init clinic --clients 5 --rounds 20 --epsilon 4 --images 12000"""


@app.callback()
def main() -> None:
    """Begin a federation over NVFlare."""


@app.command(epilog=INIT)
def init(
    directory: Folder,
    clients: Clients = 3,
    rounds: Rounds = 10,
    epsilon: Epsilon = 8.0,
    unit: Whom = None,
    images: Together = None,
    json: Json = False,
) -> None:
    """Write a folder to begin a federation with: what all parties have alike, a policy that fits it, NVFlare's job.

    Nothing is overwritten. Keys come next (flower certs, or identity and enrol), then each site's images.
    """
    begin_one("nvflare", directory, clients, rounds, epsilon, unit, images, as_json=json)
