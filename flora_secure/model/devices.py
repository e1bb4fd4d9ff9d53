"""Whole batches on a thread a core, instead of torch's threads inside every operation.

The batches here are small: torch's own threads get too little work to share, and a busy neighbour on one core stalls
all of them (measured: a sixth of the speed of one thread beside one busy process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from flora_secure.errors import ConfigError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def batch_map(function: Callable[[_Item], _Result], items: Sequence[_Item], device: torch.device) -> Iterator[_Result]:
    """`function` of each item, in order: on the CPU on as many threads as torch would use, whose own are off
    meanwhile. `no_grad` does not reach these threads.

    An accelerator has a queue of its own, which the caller's thread fills: a new thread would set it up anew.
    """
    if device.type != "cpu":
        yield from map(function, items)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # the setting belongs to the thread that makes it, so each worker makes it too
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(function, items)
    finally:
        torch.set_num_threads(threads)


def device_named(name: str) -> torch.device:
    """The torch device "cpu", "cuda", "cuda:1", …. Raises `ConfigError` where this machine has no such device."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" makes tensors, but holds no values
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"`training.device` {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device
