"""Derivatives of functions of one tensor, with the types that `torch.func` leaves open."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def pullback(function: Function, at: Tensor) -> tuple[Tensor, Function]:
    """The value at ``at``, and Jᵀ as a function: cotangents of the value → gradients."""
    found = torch.func.vjp(function, at)
    back = cast(Callable[[Tensor], tuple[Tensor]], found[1])
    return cast(Tensor, found[0]), lambda cotangent: back(cotangent)[0]


def pushforward(function: Function, at: Tensor, direction: Tensor) -> Tensor:
    """J times ``direction``."""
    return cast(Tensor, torch.func.jvp(function, (at,), (direction,))[1])
