"""Receipts of a run: its log in a Merkle tree, whose root a server signs. docs/audit.md, "Receipt".

Nothing is imported here.
"""
