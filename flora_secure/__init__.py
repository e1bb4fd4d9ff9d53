"""Federated LoRA on CLIP with distributed differential privacy and secure aggregation."""

__version__ = "0.1.0"
