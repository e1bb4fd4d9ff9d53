"""What happens in the test vectors in which somebody deals or reveals what is wrong, and who is named for it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from flora_protocols import setup_messages
from flora_protocols.keys import COMMITMENT_BYTES, SECRET, TAG, Box
from flora_protocols.shamir import SHARE, P, decode, encode
from flora_protocols.testing.recorder import Recorder, body_of, reframed


def good_complaint(name: str) -> Recorder:
    """Who cannot open a box says so with each upload, and the sum is right."""
    says = "one confirmation is bent, one box, and one share in a box is not canonical: all sums are right"
    r = Recorder(name, says, clients=6, threshold=3, slots=2, dimension=3).trip()
    r.move()
    body, size = bytearray(body_of(r.sent[3])), setup_messages.sealed_bytes(r.params)
    tag, sealed = slice(2 * TAG, 3 * TAG), slice(5 * TAG, 5 * TAG + size)  # for 2, the first that derives no shares
    box = Box(r.clients[3]._box_keys[2], r.clients[3].session)
    shares = bytearray(box.open(bytes(body[tag] + body[sealed]), 3, 2) or b"")
    shares[SHARE : SHARE + 2], shares[2 * SHARE - 1] = b"\1\0", shares[2 * SHARE - 1] | 1  # its first limb were 65537
    sealed_again = box.seal(bytes(shares), 3, 2)
    body[tag], body[sealed] = sealed_again[:TAG], sealed_again[TAG:]
    r.deliver({3: reframed(r.sent[3], bytes(body)), 4: _bent(r, 4, (0,)), 5: _bent(r, 5, (4,))})
    r.trip({4}).finish()
    return r.begin(round=4).trip({3}).finish()


def bad_dealer(name: str) -> Recorder:
    """A dealer of whom two complain, where nobody is to be corrupt, is not invited any more."""
    says = (
        "of whom two complain is in no other round, also where they complain in different ones; one alone is no reason"
    )
    r = Recorder(name, says, clients=6, threshold=3, slots=3, dimension=3).trip()
    r.move()
    r.deliver({5: _bent(r, 5, (0, 1)), 4: _bent(r, 4, (0,))})
    r.finish()
    r.begin(round=4, invited=range(6), check="C-76")
    r.begin(round=4)
    r.move()
    for liar, complaints in ((0, 1 << 3), (1, 1 << 4 | 1 << 5)):  # of 4 client 0 has complained before
        r.sent[liar] = reframed(r.sent[liar], body_of(r.sent[liar])[:-1] + bytes((complaints,)))
    r.deliver()
    r.move()
    for liar in (0, 1):
        r.receive(liar, r.sent.pop(liar), check="C-10")  # with shares of whom it holds none, by its own word
    r.deliver()
    r.close()
    return r.begin(round=5, invited=range(5), check="C-76")


def bad_channel(name: str) -> Recorder:
    """The attack in which a client spoils a box, and says that it cannot open that one's either."""
    says = "two who complain of each other have masks that do not cancel: nobody is announced, and both are left out"
    r = Recorder(name, says, clients=6, threshold=3, slots=2, dimension=3).trip()
    r.move()
    r.deliver({5: _bent(r, 5, (0,))})
    r.move()
    r.sent[5] = reframed(r.sent[5], body_of(r.sent[5])[:-1] + bytes((1,)))
    for client, message in r.sent.items():
        r.receive(client, message)
    r.close(check="C-77")
    return r.begin(round=4).finish()


def bad_seed(name: str) -> Recorder:
    """The attack in which a client shares another seed than it committed to."""
    says = "a client shares another seed than it committed to: it is named if more reveal than needed, else nobody"
    r = Recorder(name, says, clients=4, threshold=3, slots=2, dimension=3).trip()
    r.move()
    body = bytearray(body_of(r.sent[3]))
    for slot in (0, 1):
        body[-COMMITMENT_BYTES * (2 - slot)] ^= 1
    r.deliver({3: reframed(r.sent[3], bytes(body))})
    r.finish(check="C-70")
    r.begin(round=4).trip().trip({0})
    r.close(check="C-70")
    return r


def bad_blob(name: str) -> Recorder:
    """The attack in which a client leaves other keys than it masks with."""
    says = "a client leaves other keys than it masks with, and drops: named where two say so; of one it may be a lie"
    r = Recorder(name, says, clients=5, threshold=3, slots=3, dimension=3).trip()
    r.move()
    body = bytearray(body_of(r.sent[4]))
    blobs = len(body) - 3 * COMMITMENT_BYTES - 3 * 4 * SECRET
    for slot, peers in ((0, (0, 1)), (1, (2,)), (2, (3,))):
        for peer in peers:
            body[blobs + SECRET * (4 * slot + peer)] ^= 1
    r.deliver({4: reframed(r.sent[4], bytes(body))})
    r.trip({4}).finish(check="C-75")
    r.begin(round=4).trip({4}).finish(check="C-75")
    return r.begin(round=5).finish()


def _bent(r: Recorder, dealer: int, recipients: Iterable[int]) -> bytes:
    """What `dealer` sent, in the complete graph, the boxes for `recipients`, all below it, spoiled."""
    body = bytearray(body_of(r.sent[dealer]))
    for recipient in recipients:
        body[TAG * recipient] ^= 1
    return reframed(r.sent[dealer], bytes(body))


def _with_wrong_share(r: Recorder, liar: int, owner: int) -> Recorder:
    r.move()
    body = bytearray(body_of(r.sent[liar]))
    body[owner * SHARE] ^= 1
    r.deliver({liar: reframed(r.sent[liar], bytes(body))})
    r.close(check="C-69")
    return r


def bad_share_of_a_holder(name: str) -> Recorder:
    """The attack in which six shares where four are needed: the holder of the wrong one is named."""
    says = "six shares where four are needed: the holder of the wrong one is named"
    return _with_wrong_share(Recorder(name, says, clients=7, threshold=4).set_up().trip({5}), liar=4, owner=5)


def bad_share_of_somebody(name: str) -> Recorder:
    """The attack in which five shares where four are needed: it may be anybody's."""
    says = "five shares where four are needed: nobody can be named"
    return _with_wrong_share(Recorder(name, says, clients=6, threshold=4).set_up().trip({5}), liar=1, owner=2)


def bad_forged_blame(name: str) -> Recorder:
    """Three of nine holders, all that may be corrupt, agree on another polynomial that goes through four true shares:
    seven fit, and the two that do not are innocent."""
    says = "three agree on shares that make two others look wrong, and `corrupt` is three: nobody can be named"
    r = Recorder(name, says, clients=9, threshold=5, corrupt=3, dimension=3).set_up().trip()
    r.move()
    owner, forged = 0, dict(r.sent)
    for liar in (6, 7, 8):
        body = bytearray(body_of(r.sent[liar]))
        place = slice(owner * SHARE, (owner + 1) * SHARE)
        values = decode(np.frombuffer(bytes(body[place]), np.uint8)[None])
        zero_at_four = np.prod([liar - true for true in (0, 1, 2, 3)])
        body[place] = encode((values + zero_at_four) % P).tobytes()
        forged[liar] = reframed(r.sent[liar], bytes(body))
    r.deliver(forged)
    r.close(check="C-69")
    return r
