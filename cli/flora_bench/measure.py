"""How figures are taken: CPU time of this process, both sides alternating in one run, medians.

CPU time counts all threads, so that nobody looks faster by keeping more cores busy. Where an accelerator does the work
it says nothing, and a clock stands in that waits for the accelerator. A *trial* prepares one run and
returns the action to be timed, so that what may be used once (a position, a cold cache) is made anew each time.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from flora_secure import __version__

Trial = Callable[[], Callable[[], object]]
Clock = Callable[[], float]


class Scale(Enum):
    """How much is measured: sizes that only show that it runs; a few minutes; nothing scaled up from a part."""

    QUICK = "quick"
    DEFAULT = "default"
    FULL = "full"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of a comparison: a line of the table.

    Attributes:
        figure: what is compared.
        setting: at which sizes.
        ours: median of our side, in `unit`; None when it was not measured.
        other: median of the peer, or the limit, in `unit`; None for a figure by itself or when the peer is missing.
        against: who or what `other` is.
        unit: "s" of CPU time, "B", or "" for what is counted.
        at_least: target of other ÷ ours.
        at_most: target of ours ÷ other.
        note: what a reader must know, such as that a peer's figure was scaled up from a part.
    """

    figure: str
    setting: str
    ours: float | None
    other: float | None = None
    against: str = ""
    unit: str = "s"
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The ratio other ÷ ours for a target that is a minimum; ours ÷ other for a maximum, or without a target."""
        if self.ours is None or self.other is None:
            return None
        return self.ours / self.other if self.at_least is None else self.other / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or without a ratio."""
        if self.ratio is None:
            return None
        if self.at_most is not None:
            return self.ratio <= self.at_most
        return None if self.at_least is None else self.ratio >= self.at_least

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data for JSON: every field, the ratio and the verdict."""
        return {**vars(self), "ratio": self.ratio, "met": self.met}


def medians(repeats: int, *trials: Trial, clock: Clock = time.process_time) -> list[float]:
    """Median seconds of each trial's action by `clock`, the trials taking turns `repeats` times (after one turn
    unseen, if there are several turns). The cyclic garbage collector rests meanwhile, as in `timeit`."""
    seconds: list[list[float]] = [[] for _ in trials]
    for turn in range(repeats + (repeats > 1)):
        for trial, taken in zip(trials, seconds, strict=True):
            action = trial()
            with Stopwatch(clock) as watch:
                action()
            if turn or repeats == 1:
                taken.append(watch.seconds)
    return [median(taken) for taken in seconds]


class Stopwatch:
    """Seconds inside its `with` blocks, added up: of the process's CPU time, or by another `clock`."""

    def __init__(self, clock: Clock = time.process_time) -> None:
        self.seconds = 0.0
        self._clock = clock

    def __enter__(self) -> Stopwatch:
        self._collecting = gc.isenabled()
        gc.disable()
        self._since = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += self._clock() - self._since
        if self._collecting:
            gc.enable()


def installed(package: str) -> str | None:
    """The version of a package, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures depend on: processor, cores, versions, and the accelerator if `device` is one."""
    from cryptography.hazmat.backends.openssl import backend

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "openssl": backend.openssl_version_text(),
        "flora-secure": __version__,
        **{name: installed(name) for name in ("numpy", "torch", "cryptography", "flwr", "opendp")},
        **({} if device == "cpu" else {"accelerator": _accelerator(device)}),
    }


def _accelerator(device: str) -> str | None:
    if installed("torch") is None:
        return None
    import torch

    return torch.cuda.get_device_name(device)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
