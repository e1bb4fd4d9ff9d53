"""Options of the budget and the noise, of every command that has them."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from flora_cli.values import number, whole

Epsilon = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="Privacy budget ε of the whole run, at most 100; inf trains without noise.  [default: 4]",
    ),
]
Delta = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="δ of the budget, at least 1e-12 (1e-10 for unit example).  [default: min(1e-5, 1/clients^1.1)]",
    ),
]
Unit = Annotated[
    str | None,
    Option(help="Whom the budget protects: client or example (one image).  [default: client]", metavar="UNIT"),
]
ExampleRate = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="Unit example: probability of an image to enter a round, by a secret coin, at least 1e-4.  [default: 0.1]",
    ),
]
DropoutTolerance = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="Fraction of dropped clients that the noise allows for.  [default: the larger of 0.1 and dropout]",
    ),
]
Bits = Annotated[
    int | None,
    Option(parser=whole, metavar="COUNT", help="Bits a value on the wire, 8…32.  [default: solved for]"),
]
ClipNorm = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="NUMBER",
        help="L2 norm that updates, or the gradients of examples, are clipped to.  [default: tuned for the unit]",
    ),
]
AdaptiveClip = Annotated[
    float | None,
    Option(
        parser=number,
        metavar="QUANTILE",
        help="Let the clip norm follow this quantile of the updates' norms, estimated privately.  [default: off]",
    ),
]
