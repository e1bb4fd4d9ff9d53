"""Federated LoRA on CLIP with distributed differential privacy and secure aggregation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flora_secure.model.trained.classifier import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is first asked for."""
    if name == "load":
        from flora_secure.model.trained.classifier import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
