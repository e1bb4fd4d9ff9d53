"""How fresh interpreters are started: with the modules that this one has, and none of the working directory.

Python puts the working directory first on a child's path for `-m` and `-c`, and in an interactive parent it stands on
its own. A `numpy.py` that lies beside a data set would run with all that the child is sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SAFE = "PYTHONSAFEPATH"  # what -P says, for interpreters that others start


def fresh_python(*arguments: str) -> list[str]:
    """The command of a fresh interpreter with these arguments; its surroundings are those of `surroundings`."""
    return [sys.executable, "-P", *arguments]


def surroundings(**extra: str) -> dict[str, str]:
    """The environment of a fresh interpreter: it finds the same modules however this one was started."""
    return {**os.environ, _SAFE: "1", "PYTHONPATH": os.pathsep.join(module_path()), **extra}


def module_path() -> list[str]:
    """This process's path without the working directory, unless a package of ours was imported from there."""
    here = os.path.realpath(os.curdir)
    files = [module.__file__ for name, module in sys.modules.items() if name.startswith("flora_") and "." not in name]
    own = any(here == os.path.realpath(Path(file).parents[1]) for file in files if file is not None)
    return [place for place in sys.path if place and (own or os.path.realpath(place) != here)]


@contextmanager
def safely_started() -> Iterator[None]:
    """What `multiprocessing` starts in this block is started as by `fresh_python` in `surroundings`."""
    path, before = sys.path, os.environ.get(_SAFE)
    sys.path, os.environ[_SAFE] = module_path(), "1"
    try:
        yield
    finally:
        sys.path = path
        if before is None:
            del os.environ[_SAFE]
        else:
            os.environ[_SAFE] = before
