"""The device that trains: the processor, or an accelerator that torch knows."""

from __future__ import annotations

import torch

from flora_secure.config import ConfigError


def device_named(name: str) -> torch.device:
    """torch's device "cpu", "cuda", "cuda:1", …; ConfigError where this machine has no such device."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" makes tensors, but holds no values
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device
