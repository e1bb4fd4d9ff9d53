"""A federation over Flower: its Grid carries the server's messages, its ClientApps answer them.

Flower starts a fresh process for every message, so nothing is kept in one; its `context.state` is left alone, since
Flower stores it after the reply has left, once and without a retry.

Flower's telemetry and its look for a newer release are off unless somebody has set their variables: a federation is
nobody's business.
"""

import os

for variable, value in (("FLWR_TELEMETRY_ENABLED", "0"), ("FLWR_DISABLE_UPDATE_CHECK", "1")):
    os.environ.setdefault(variable, value)  # before Flower is imported, which reads them then
