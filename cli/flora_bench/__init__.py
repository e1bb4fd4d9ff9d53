"""Benchmarks: our figures beside a peer's or beside a limit, taken in one run. Nothing else imports this package.

`measure` says how medians and ratios are taken; `masking` and `noise` yield the rows.
"""
