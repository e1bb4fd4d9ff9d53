"""Audits of finished runs, from what a run wrote down: docs/audit.md.

Nothing is imported here. No module of this package needs torch; opacus, which does, is asked last and can be left out.
"""
