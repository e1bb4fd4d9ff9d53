"""A federation over Flower: its Grid carries the server's messages, its ClientApps answer them.

Flower starts a fresh process for every message, so nothing is kept in one; its `context.state` is left alone, since
Flower stores it after the reply has left, once and without a retry.
"""
