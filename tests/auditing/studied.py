"""The studies whose small versions are tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/studies"))

import auditing_noise

__all__ = ["auditing_noise"]
