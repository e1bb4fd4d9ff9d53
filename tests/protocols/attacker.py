"""What an attacker does to a message: takes it apart, changes it, and mends the checksum; and that it is refused."""

import pytest
from cohorts import duplicate

from flora_protocols import ClientCollect, ClientReady, PeerError, ServerPrepared, Trip
from flora_protocols.codec import CHECKSUM, HEADER, checksum
from flora_protocols.keys import TAG
from flora_protocols.setup_messages import decode_inbox, entry_bytes


def at(cohort, trip, dropping=()):
    """The cohort before `trip`; who is `dropping` vanishes before it uploads."""
    while cohort.server.trip is not trip:
        cohort.trip(dropping if cohort.server.trip is Trip.MASK else ())
    return cohort


def body_of(message):
    """What is inside the frame."""
    return message[HEADER:-CHECKSUM]


def reframed(message, body):
    """`message` with another body and the checksum that belongs to it: what a tampering server sends."""
    frame = message[:HEADER] + body
    return frame + checksum(frame)


def under(message, header):
    """The body of `message` under the header of another one: what a server makes of a message of another round."""
    return reframed(header, body_of(message))


def entries_of(cohort, index=0):
    """What is in a roster of the complete graph, where everybody is present: the bitmap, the entries, the KEM keys."""
    size, everybody = entry_bytes(cohort.params), cohort.params.clients
    body, first = body_of(cohort.mail[index]), (everybody + 7) // 8
    end = first + size * everybody
    return body[:first], [body[at : at + size] for at in range(first, end, size)], body[end:]


def boxes_of(cohort, index):
    """What is in an inbox: by sender, the tag of its box, and what it has sealed, if anything."""
    return decode_inbox(cohort.params, cohort.prepared.session, cohort.mail[index], index)


def inbox(cohort, index, boxes, present=None):
    """The inbox of client `index` with other `boxes`, in order. `present`: the bitmap, if it is to be another one."""
    first = (len(cohort.params.graph.members(index)) + 7) // 8
    present = body_of(cohort.mail[index])[:first] if present is None else present
    parts = [present, *(box[:TAG] for box in boxes), *(box[TAG:] for box in boxes)]
    return reframed(cohort.mail[index], b"".join(parts))


def collected(cohort, index):
    """Client `index` opens its inbox, before it is asked to mask; the position."""
    if not isinstance(cohort.clients[index], ClientReady):
        cohort.clients[index] = cohort.clients[index].collect(cohort.mail[index])
    return cohort.clients[index]


def step(cohort, index):
    """One transition of client `index`, without changing the cohort: as `Cohort.move`, but the inbox by itself."""
    client = cohort.clients[index]
    return client.collect(cohort.mail[index]) if isinstance(client, ClientCollect) else cohort.move(index)


def others_send(cohort, *done, absent=()):
    """Everybody moves and is heard but those that are `done` or `absent`."""
    for index in sorted(set(cohort.clients) & set(cohort.mail) - {*done, *absent}):
        cohort.clients[index], cohort.sent[index] = cohort.move(index)
        cohort.server.receive(index, cohort.sent[index])
    return cohort


def closed(cohort):
    """The server closes the trip; after the set-up it begins a round."""
    cohort.server, cohort.mail = cohort.server.close()
    if isinstance(cohort.server, ServerPrepared):
        cohort.prepared = cohort.server
        cohort.begin()
    return cohort


def secrets_of(position):
    """All that a client holds and must not tell, as bytes."""
    held = vars(position)
    found = [held[name] for name in ("_seeds", "_own_pairs", "_identity") if isinstance(held.get(name), bytes)]
    found += held.get("_own", ())
    for name in ("_box_keys", "_pair_keys", "_derived", "_made"):
        found += held.get(name, {}).values()
    uploaded = held.get("_uploaded")
    slots = uploaded.left if uploaded else held.get("_slots")
    found += [*uploaded.held.values(), *uploaded.tags.values()] if uploaded else []
    found += [part.tobytes() for part in (slots.seeds, slots.pair_keys, slots.held)] if slots else []
    assert found or type(position).__name__ in ("ClientAdvertise", "ClientDone")
    return found


def replaced(cohort, index, mail):
    """What client `index` does when it gets `mail`; the cohort stays."""
    truth = cohort.mail
    cohort.mail = dict(truth) | {index: mail}
    original = cohort.clients[index]
    cohort.clients[index] = duplicate(original)
    try:
        return step(cohort, index)
    finally:
        cohort.mail, cohort.clients[index] = truth, original


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
