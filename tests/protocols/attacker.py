"""What an attacker does to a message: takes it apart, changes it, and mends the checksum; and that it is refused."""

import pytest

from flora_protocols import PeerError
from flora_protocols.codec import CHECKSUM, HEADER, checksum


def body_of(message):
    """What is inside the frame."""
    return message[HEADER:-CHECKSUM]


def reframed(message, body):
    """`message` with another body and the checksum that belongs to it: what a tampering server sends."""
    frame = message[:HEADER] + body
    return frame + checksum(frame)


def entries_of(cohort, index=0):
    size = 128 if cohort.params.malicious else 64
    body = body_of(cohort.mail[index])
    return body[:1], [body[1 + at : 1 + at + size] for at in range(0, len(body) - 1, size)]


def refused(cohort, index, mail, culprit="server", match="", error=PeerError):
    """Client `index` refuses `mail`; afterwards the round goes on with the true message."""
    truth = cohort.mail[index]
    cohort.mail = dict(cohort.mail) | {index: mail}
    with pytest.raises(error, match=match) as caught:
        cohort.move(index)
    if error is PeerError:
        assert caught.value.culprit == culprit
    cohort.mail[index] = truth
    return cohort.finish()
