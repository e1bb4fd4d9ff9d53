"""Receipts of a run: its log in a Merkle tree, whose root a server signs. docs/audits/receipt.md.

Nothing is imported here.
"""
