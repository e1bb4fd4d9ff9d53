"""Federations that train nothing, over real engines: what carrying, masking and keeping cost, and whether they hold."""
