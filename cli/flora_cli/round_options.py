"""Options of the rounds: how many clients and rounds, who takes part, who vanishes."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from flora_cli.values import number, whole

Clients = Annotated[
    int | None, Option(parser=whole, metavar="COUNT", help="Number of clients, at most 1,000,000.  [default: 100]")
]
Rounds = Annotated[
    int | None, Option(parser=whole, metavar="COUNT", help="Training rounds, at most 100,000.  [default: 20]")
]
Participation = Annotated[
    float | None,
    Option(parser=number, metavar="NUMBER", help="Fraction of the clients in a round.  [default: 1]"),
]
Sampling = Annotated[
    str | None,
    Option(
        help="How cohorts are drawn when participation is below 1: poisson (a coin each) or fixed (one size).",
        metavar="KIND",
    ),
]
MinSeparation = Annotated[
    int | None,
    Option(parser=whole, metavar="COUNT", help="Rounds between two participations of a client.  [default: 1]"),
]
Dropout = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="Fraction of a round's clients that vanish after sharing keys.  [default: 0]",
    ),
]
