"""Options of the masking, of every command that has them."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from flora_cli.values import number, whole

SecAgg = Annotated[
    str | None,
    Option(help="off, semi-honest or malicious-server.  [default: semi-honest]", metavar="PROFILE"),
]
Corrupt = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="Fraction of clients that may collude with the server; sizes noise and masks.  [default: 0.05]",
    ),
]
Neighbours = Annotated[
    int | None,
    Option(
        parser=whole,
        metavar="COUNT",
        help="Clients that each shares masks with; clients − 1 for everybody.  [default: derived]",
    ),
]
Threshold = Annotated[
    int | None, Option(parser=whole, metavar="COUNT", help="Shares needed to reveal a secret.  [default: derived]")
]
