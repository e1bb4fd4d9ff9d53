"""Whole batches on a thread a core, instead of torch's threads inside every operation.

The batches here are small: torch's own threads get too little work to share, and a busy neighbour on one core stalls
all of them (measured: a sixth of the speed of one thread beside one busy process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from flora_secure.errors import ConfigError, did_you_mean

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
    """The torch device "cpu", "cuda", "cuda:1", …. Raises `ConfigError`, which names the devices that there are, where
    this machine has no such one."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    try:
        device = torch.device(name)
        if device.type != "cuda" or (device.index or 0) < torch.cuda.device_count():
            torch.zeros(1, device=device).item()  # "meta" makes tensors, but holds no values
            return device
    except (RuntimeError, AssertionError):  # torch's own words are an essay
        pass
    why = " (torch is built without CUDA)" if name.startswith("cuda") and torch.version.cuda is None else ""
    near = did_you_mean(name.lower(), there[1:])
    raise ConfigError(
        f"`training.device` {name!r:.60} is no device of this machine{why}, which has {', '.join(there)}{near}"
    )
