"""The last messages of a federation, for the sites to keep: the trained adapter, then each site's receipt.

"fE" · version u8 · the adapter's trained values, little-endian float16
"fH" · version u8 · the receipt, JSON in UTF-8 (records/receipts/receipt.py)

A site answers each with nothing, or refuses.
"""

from __future__ import annotations

import numpy as np

from flora_protocols import Code, PeerError
from flora_secure.planning.rules import TrainedValues
from flora_secure.rounds.float16 import from_wire

_MAGIC, _VERSION = b"fE", 1
_RECEIPT = b"fH\1"


def encode_farewell(adapter: bytes) -> bytes:
    """Returns the message that carries the adapter's float16 bytes."""
    return _MAGIC + bytes([_VERSION]) + adapter


def decode_farewell(message: bytes, trained: TrainedValues) -> bytes:
    """The adapter's float16 bytes. Raises PeerError naming the server for other bytes than `trained` values, and for
    values that are no finite numbers."""
    if not is_farewell(message) or message[2:3] != bytes([_VERSION]):
        raise PeerError("server", "these bytes are no farewell of this version", Code.OTHER_VERSION)
    adapter = message[3:]
    try:
        finite = np.isfinite(from_wire(adapter, trained.dimension)).all()
    except ValueError as error:
        raise PeerError("server", f"sends no adapter: {error}", Code.BAD_BODY) from None
    if not finite:
        raise PeerError("server", "sends an adapter with values that are no finite numbers", Code.PARAMETERS)
    return adapter


def is_farewell(message: bytes) -> bool:
    """Whether a message is the last of a federation."""
    return message[:2] == _MAGIC


def encode_receipt(receipt: str) -> bytes:
    """Returns the message that carries a site's receipt."""
    return _RECEIPT + receipt.encode()


def decode_receipt(message: bytes) -> str:
    """The receipt's text. Raises PeerError naming the server for other bytes."""
    if not message.startswith(_RECEIPT):
        raise PeerError("server", "these bytes are no receipt of this version", Code.OTHER_VERSION)
    try:
        return message[len(_RECEIPT) :].decode()
    except UnicodeDecodeError:
        raise PeerError("server", "sends a receipt that is no text", Code.BAD_BODY) from None


def is_receipt(message: bytes) -> bool:
    """Whether a message is a site's receipt."""
    return message[:2] == _RECEIPT[:2]
