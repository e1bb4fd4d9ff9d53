"""The audit of a run's receipt, and of those that its clients kept: docs/audits/receipt.md.

Nothing is imported here.
"""
