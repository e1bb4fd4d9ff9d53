"""Options that say what is trained, of every command that has them."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from flora_cli.values import number, whole

Placement = Annotated[
    str | None,
    Option(
        help="Where LoRA sits: text-projection, text-attention (q, v), text-attention-full (q, k, v, out), text-mlp, "
        "visual-projection, both-projections or visual-attention.  [default: text-projection]",
        metavar="PLACE",
    ),
]
Rule = Annotated[
    str | None,
    Option(
        help="What trains: prompt-basis, frozen-a (B only), ab (both), alternate (in turn by round) or "
        "local-alternate (in turn by local step).  [default: prompt-basis, off the text projection frozen-a]",
        metavar="RULE",
    ),
]
Rank = Annotated[
    int | None,
    Option(
        parser=whole,
        metavar="COUNT",
        help="LoRA rank.  [default: one for each class, off the text projection 4]",
    ),
]
Alpha = Annotated[
    float | None,
    Option(parser=number, metavar="NUMBER", help="LoRA alpha: A B is added alpha ÷ rank times.  [default: the rank]"),
]
LastLayers = Annotated[
    int | None,
    Option(parser=whole, metavar="COUNT", help="Adapt only the last so many blocks of the tower.  [default: all]"),
]
