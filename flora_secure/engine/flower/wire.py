"""How our bytes lie in a message of Flower's: one record of one value. Whoever sent it may be hostile."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

from flora_secure.errors import ForeignError

MOST_MESSAGE = 1 << 31
"""Bytes of the longest message; Flower itself carries a few less."""
ANSWER, HELLO = "secure", "hello"
"""What a site is asked by `query`: to answer a message of the server, and its number of the enrolment."""
FAILED = b""
"""The reply of a site that could not even make an envelope. It says nothing of why, and no envelope is empty."""
_RECORD, _KEY = "flora-secure", "message"
_NUMBER_BYTES = 4


def packed(message: bytes, beside: RecordDict | None = None) -> RecordDict:
    """The content of a message of Flower's that carries `message`, and the records `beside` it.

    Raises `ValueError` beyond `MOST_MESSAGE` bytes and for a record of our name beside it, and `TypeError` for what is
    not bytes, which Flower would carry all the same.
    """
    if not isinstance(message, bytes):
        raise TypeError(f"a message is bytes, got {type(message).__name__}")
    if len(message) > MOST_MESSAGE:
        raise ValueError(f"a message has at most {MOST_MESSAGE} bytes, got {len(message)}")
    records = {} if beside is None else dict(beside)
    if _RECORD in records:
        raise ValueError(f"the record {_RECORD!r} is ours; call yours otherwise")
    return RecordDict({**records, _RECORD: ConfigRecord({_KEY: message})})


def is_ours(carrier: Message) -> bool:
    """Whether a message of Flower's claims to carry one of ours."""
    return carrier.has_content() and _RECORD in carrier.content


def beside(carrier: Message) -> RecordDict:
    """The records of a message of Flower's that are not ours: new, and of the same objects."""
    return RecordDict({name: record for name, record in carrier.content.items() if name != _RECORD})


def unpacked(carrier: Message, *, alone: bool = True) -> bytes:
    """The bytes that `carrier` carries, `alone` or beside records of others; raises `ForeignError` where it is no
    message that `packed` made.

    Flower has taken the memory for it by then, and holds no message of 2 GiB.
    """
    content = carrier.content if carrier.has_content() else None
    if not isinstance(content, RecordDict) or _RECORD not in content or (alone and len(content) > 1):
        raise ForeignError("it has other records than ours")
    record = content[_RECORD]
    if list(record) != [_KEY]:
        raise ForeignError("its record is none of ours")
    message = record[_KEY]
    if not isinstance(message, bytes):
        raise ForeignError("its value is not bytes")
    if len(message) > MOST_MESSAGE:
        raise ForeignError(f"it has more than {MOST_MESSAGE} bytes")
    return message


def number_packed(number: int) -> bytes:
    """What a site says when it is asked for its number; raises `OverflowError` for one that is none."""
    return number.to_bytes(_NUMBER_BYTES, "big")


def number_unpacked(reply: bytes, clients: int) -> int:
    """The number that a site says it has, of an enrolment of `clients`; raises `ForeignError` for another reply."""
    number = int.from_bytes(reply, "big")
    if len(reply) != _NUMBER_BYTES or number >= clients:
        raise ForeignError(f"it names no client of the {clients}")
    return number
