"""Messages on their way to Flower's nodes, and the replies to them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from flora_secure.engine.flower.wire import FAILED, packed, unpacked
from flora_secure.errors import ForeignError

MARGIN = 60.0
"""Seconds that a message lives beyond the patience of who sent it: as far may a site's clock be ahead."""
POLL, LONGEST_POLL = 0.05, 1.0
"""Seconds between two looks for replies, at first and after a long wait."""
_WAITED = 50  # a look costs a request a node: after a wait of 50 seconds there is one each second


class _Letter(NamedTuple):
    node: int
    name: str  # what the log calls the node


class Letters:
    """The letters of one exchange: each is sent to a node, and has one reply or none. `asked`: the nodes so far.

    A letter is asked for alone, by its id. So a reply that Flower cannot unpack, or that claims to be another node's,
    costs nobody else theirs; and since an exchange knows no ids but its own, no reply of an earlier one is in it.
    """

    def __init__(self, grid: Grid, kind: str, patience: float, log: Callable[[str], None]) -> None:
        """Letters of the message type `kind`, that the sites answer within `patience` seconds; `log` is told who does
        not."""
        self._grid, self._log = grid, log
        self._type, self._life = kind, patience + MARGIN
        # the id of a message is a hash of all that is in it: with this, no two exchanges have one in common
        self._exchange = secrets.token_hex(8)
        self._waiting: dict[str, _Letter] = {}
        self.asked: set[int] = set()  # nodes that a letter was for
        self._began = time.monotonic()
        self._deadline = self._began + patience

    @property
    def waiting(self) -> bool:
        """Whether a letter has neither a reply nor failed."""
        return bool(self._waiting)

    @property
    def late(self) -> bool:
        """Whether patience is over."""
        return time.monotonic() >= self._deadline

    def send(self, node: int, message: bytes, name: str, beside: RecordDict | None = None) -> None:
        """Push `message` to `node`, which the log calls `name`, and the records `beside` it. Where Flower does not take
        it, the log is told.

        Raises `ValueError` for a message that is too long, and what Flower raises where its server cannot be reached.
        """
        letter = Message(packed(message, beside), node, self._type, ttl=self._life, group_id=self._exchange)
        self.asked.add(node)
        taken = list(self._grid.push_messages([letter]))
        if len(taken) == 1 and taken[0]:
            self._waiting[taken[0]] = _Letter(node, name)
        else:
            self._log(f"{name}: Flower did not take the message for it")

    def collect(self) -> Iterator[tuple[int, bytes]]:
        """Look once for the reply to every letter that waits for one, and give (node, reply) of those that came."""
        for letter_id, letter in list(self._waiting.items()):
            try:
                carriers = list(self._grid.pull_messages([letter_id]))
            except Exception as error:  # a hostile reply breaks inside Flower, wherever it likes
                del self._waiting[letter_id]
                self._log(f"{letter.name}: Flower could not read its reply ({type(error).__name__})")
                continue
            for carrier in carriers:
                if not self._belongs(carrier, letter_id, letter):
                    self._log(f"{letter.name}: a reply to something else, or by another node, is left out")
                    continue
                del self._waiting[letter_id]
                reply = self._read(carrier, letter.name)
                if reply is not None:
                    yield letter.node, reply
                break

    def give_up(self) -> frozenset[int]:
        """Wait for no more replies; gives the nodes whose did not come, and the log is told."""
        silent = frozenset(letter.node for letter in self._waiting.values())
        for letter in self._waiting.values():
            self._log(f"{letter.name}: no answer within {self._deadline - self._began:g} s")
        self._waiting.clear()
        return silent

    def rest(self, began: float) -> None:
        """Sleep between two looks, of which the last began at `began` of the monotonic clock, and not past the
        deadline.

        Longer the longer nothing has come, and as long as a look takes, so that at most half of the time is spent on
        looking.
        """
        now = time.monotonic()
        pause = max(POLL, now - began, min((now - self._began) / _WAITED, LONGEST_POLL))
        time.sleep(max(0.0, min(pause, self._deadline - now)))

    @staticmethod
    def _belongs(carrier: Message, letter_id: str, letter: _Letter) -> bool:
        head = carrier.metadata  # as its sender wrote it: Flower's server has compared no more than a copy
        # errors may be Flower's own, from the server's node, where a node is gone or a message has expired
        by_node = carrier.has_error() or head.src_node_id == letter.node
        return bool(by_node and head.reply_to_message_id == letter_id)

    def _read(self, carrier: Message, name: str) -> bytes | None:
        """The bytes of a reply, None for none; of an error the log is told the code, and never its sender's words."""
        if carrier.has_error():
            self._log(f"{name}: no answer, error {carrier.error.code:d} of Flower")
            return None
        try:
            reply = unpacked(carrier)
        except ForeignError as error:
            self._log(f"{name}: its reply is not read, {error}")
            return None
        if reply == FAILED:
            self._log(f"{name}: no answer, its site failed; the site's own log says why")
            return None
        return reply
