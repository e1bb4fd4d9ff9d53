"""What carries bytes between the server of a federation and its sites, whatever the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol


class Transport(Protocol):
    """A way to each client. It looks into no message."""

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        """Deliver each message of `outbox` to the client of that number of the enrolment, and give the replies.

        Yields (client, reply) as they come, in any order; it ends when everybody has replied, or after `patience`
        seconds. Who has not replied by then has dropped out; its late reply must never be taken for the reply to a
        later message.
        """
        ...

    def close(self) -> None:
        """Let go of the network."""
        ...
