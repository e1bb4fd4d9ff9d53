"""Options of the server optimiser."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from flora_cli.values import number

ServerStep = Annotated[
    float | None,
    Option(parser=number, metavar="NUMBER", help="Server step.  [default: fitted to the noise]"),
]
ServerMomentum = Annotated[
    float | None,
    Option(parser=number, metavar="NUMBER", help="Server momentum (FedAvgM).  [default: 0.5]"),
]
