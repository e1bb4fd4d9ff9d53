"""What an attacker does to a message: takes it apart, changes it, and mends the checksum."""

from flora_protocols.codec import CHECKSUM, HEADER, checksum


def body_of(message):
    """What is inside the frame."""
    return message[HEADER:-CHECKSUM]


def reframed(message, body):
    """``message`` with another body and the checksum that belongs to it: what a tampering server sends."""
    frame = message[:HEADER] + body
    return frame + checksum(frame[:HEADER], memoryview(frame)[HEADER:])
