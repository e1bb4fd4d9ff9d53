"""The audit of a run's receipt, and of those that its clients kept: docs/audit.md, "Receipt".

Nothing is imported here.
"""
