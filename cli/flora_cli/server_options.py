"""Options of the server optimiser."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from flora_cli.values import number

ServerOptimiser = Annotated[
    str | None, Option(help="momentum (FedAvgM), adam or yogi.  [default: momentum]", metavar="NAME")
]
ServerStep = Annotated[
    float | None,
    Option(parser=number, metavar="NUMBER", help="Step of the server optimiser.  [default: fitted to the noise]"),
]
ServerMomentum = Annotated[
    float | None,
    Option(parser=number, metavar="NUMBER", help="Momentum, or β1 of adam and yogi.  [default: 0.5]"),
]
ServerBeta2 = Annotated[
    float | None,
    Option(parser=number, metavar="NUMBER", help="adam, yogi: decay β2 of the second moment.  [default: 0.99]"),
]
ServerTau = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="adam, yogi: τ, added to the root of the second moment, which begins at τ².  [default: 0.001]",
    ),
]
