"""Whole batches on a thread a core, instead of torch's threads inside every operation.

The batches here are small: torch's own threads get too little work to share, and a busy neighbour on one core stalls
all of them (measured: a sixth of the speed of one thread beside one busy process).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def batch_threads(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """A pool with as many threads as torch would use on the CPU, one on an accelerator (it has a queue of its own).

    torch's threads inside operations are off until the pool is left. ``no_grad`` does not reach the pool's threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # the setting belongs to the thread that makes it, so each worker makes it too
        workers = threads if device.type == "cpu" else 1
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
