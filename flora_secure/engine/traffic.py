"""Bytes on the wire, counted from encoded messages.

Every message that a client sends or receives in a round is counted in full, whatever became of the round. ``payload``
is what the round is for (the adapter going down, the packed update going up); all the rest is masking.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Traffic:
    """Running totals of one round, in bytes, over all clients."""

    upload: int = 0
    download: int = 0
    payload: int = 0
    clients: set[int] = field(default_factory=set)

    def sent_up(self, client: int, message: bytes, payload: int = 0) -> None:
        """``client`` → server; ``payload`` of the message's bytes are the update itself."""
        self._count(client, message, payload)
        self.upload += len(message)

    def sent_down(self, client: int, message: bytes, payload: int = 0) -> None:
        """Server → ``client``; ``payload`` of the message's bytes are the adapter itself."""
        self._count(client, message, payload)
        self.download += len(message)

    @property
    def masking(self) -> int:
        return self.upload + self.download - self.payload

    def _count(self, client: int, message: bytes, payload: int) -> None:
        if not 0 <= payload <= len(message):
            raise ValueError(f"payload of {payload} bytes in a message of {len(message)}")
        self.clients.add(client)
        self.payload += payload
