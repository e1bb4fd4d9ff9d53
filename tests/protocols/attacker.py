"""What an attacker does to a message: takes it apart, changes it, and mends the checksum."""

import zlib

from flora_protocols.codec import CHECKSUM, HEADER


def body_of(message):
    """What is inside the frame."""
    return message[HEADER:-CHECKSUM]


def reframed(message, body):
    """``message`` with another body and the checksum that belongs to it: what a tampering server sends."""
    frame = message[:HEADER] + body
    return frame + zlib.crc32(frame).to_bytes(CHECKSUM, "little")
