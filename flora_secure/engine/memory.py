"""How much memory this process has needed."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.platform == "win32":

    def _most() -> int | None:
        return None
else:
    import resource

    def _most() -> int | None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, kilobytes elsewhere


def peak_memory() -> int | None:
    """Most bytes of memory that this process has held, `None` where the platform does not tell (Windows)."""
    try:
        # what getrusage says on Linux is never less than what the parent held when it started this process
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return _most()
