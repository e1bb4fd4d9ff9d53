"""What happens in each bad test vector of the set-up: which mistake of an implementation it hunts.

A bad step stands where a careless party would take it; the session then goes on as if it had not been. Those of the
rounds are in `vector_rounds`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from flora_protocols import keys
from flora_protocols.codec import HEADER, encode_subset
from flora_protocols.suites import CIPHERTEXT, KEM_KEY
from flora_protocols.testing.recorder import LEAST, Recorder, body_of, mended, reframed


def bad_frames(name: str) -> Recorder:
    """The attack in which a client takes what is not one well-formed frame of its session."""
    r = Recorder(name, "a client takes what is not one well-formed frame of its session", clients=4, threshold=3).trip()
    good = r.mail[0]
    body = body_of(good)
    for bad in (b"", good[:16], good + bytes(200)):
        r.step(0, bad, check="C-10")
    for at in (0, 1, 2):
        r.step(0, mended(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 : -4]), check="C-11")
    for suite in (0, 2, 255):
        r.step(0, mended(good[:3] + bytes((suite,)) + good[4:-4]), check="C-11")
    for at in (HEADER, len(good) - 1):
        r.step(0, good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :], check="C-12")
    r.step(0, mended(good[:4] + b"\6" + good[5:-4]), check="C-13")
    r.step(0, mended(good[:12] + bytes((good[12] ^ 128,)) + good[13:-4]), check="C-14")
    for wrong in (b"", body[:-1], body[:1], encode_subset(range(4), (0, 1, 2)) + body[1:], body + b"\0"):
        r.step(0, reframed(good, wrong), check="C-15")
    r.step(0, reframed(good, b"\x1f" + body[1:]), check="C-16")
    return r.set_up().finish()


def bad_roster(name: str) -> Recorder:
    """The attack that this vector records: a client takes keys that are not canonical."""
    says = "a client takes keys that are not canonical, of small order, doubled or its own but changed; a small cohort"
    r = Recorder(name, says, clients=5, threshold=3, floors=replace(LEAST, clients=3)).trip()
    good = r.mail[0]
    raw = [body_of(good)[at : at + 32] for at in range(1, 1 + 5 * 32, 32)]

    def with_key(index: int, key: bytes) -> bytes:
        return reframed(good, b"\x1f" + b"".join([*raw[:index], key, *raw[index + 1 :]]))

    for above in (2**255 - 19, 2**255 - 18, 2**255 + 9, 2**256 - 1):
        r.step(0, with_key(2, above.to_bytes(32, "little")), check="C-20")
    for point in sorted(keys.SMALL_ORDER):
        r.step(0, with_key(4, point), check="C-21")
    r.step(0, with_key(0, raw[1]), check="C-30")
    r.step(0, reframed(good, encode_subset(range(5), (1, 2, 3, 4)) + b"".join(raw[1:])), check="C-30")
    r.step(0, with_key(2, raw[1]), check="C-31")
    r.step(0, with_key(2, raw[0]), check="C-31")
    r.step(0, reframed(good, b"\x03" + raw[0] + raw[1]), check="C-32")
    return r.set_up().finish()


def bad_signed_roster(name: str) -> Recorder:
    """The attack in which a client takes keys that their owner did not sign."""
    r = Recorder(name, "a client takes keys that their owner did not sign", clients=4, threshold=3, malicious=True)
    other = Recorder(name, "", clients=4, threshold=3, malicious=True, number=8)
    r.move()
    other.move()
    r.receive(1, r.sent[2], check="C-23")
    r.receive(1, reframed(r.sent[1], body_of(other.sent[1])), check="C-23")
    r.deliver()
    good, size = r.mail[0], 96
    entries = [body_of(good)[at : at + size] for at in range(1, 1 + 4 * size, size)]
    swapped = entries[1][:32] + entries[3][32:]
    for bad in (swapped, body_of(other.sent[1])):
        r.step(0, reframed(good, b"\x0f" + entries[0] + bad + b"".join(entries[2:])), check="C-23")
    r.step(0, reframed(good, b"\x0f" + entries[0] + entries[2] + entries[1] + entries[3]), check="C-23")
    return r.set_up().finish()


def bad_kem_keys(name: str) -> Recorder:
    """The attack in which a party takes a KEM key that is none, or not its owner's."""
    says = "a party takes a KEM key that is none, is there twice or is not the one of its owner's entry"
    r = Recorder(name, says, clients=3, threshold=2, hybrid=True)
    r.move()
    advertised = body_of(r.sent[1])
    for at in (32, 32 + 1149):  # coefficients beyond q, the first and the last
        wrong = advertised[:at] + b"\xff\xff\xff" + advertised[at + 3 :]
        r.receive(1, reframed(r.sent[1], wrong), check="C-22")
    r.receive(1, reframed(r.sent[1], advertised[:-1]), check="C-15")
    r.receive(0, r.sent[0])
    r.receive(1, reframed(r.sent[1], advertised[:32] + body_of(r.sent[0])[32:]), check="C-63")
    r.receive(1, reframed(r.sent[1], body_of(r.sent[0])[:32] + advertised[32:]), check="C-63")
    r.deliver()
    good, size = r.mail[0], 64
    body, first = body_of(good), 1 + 3 * size
    key = body[first:]  # of client 1, to which client 0 encapsulates
    for wrong in (key[:-1] + bytes((key[-1] ^ 1,)), body_of(r.sent[2])[32:]):
        r.step(0, reframed(good, body[:first] + wrong), check="C-22")
    none = b"\xff\xff\xff" + key[3:]
    entry = body[1 + size : 33 + size] + hashlib.sha256(none).digest()
    r.step(0, reframed(good, body[: 1 + size] + entry + body[1 + 2 * size : first] + none), check="C-22")
    doubled = body[1 + size : 33 + size] + body[33 : 1 + size]
    r.step(0, reframed(good, body[: 1 + size] + doubled + body[1 + 2 * size :]), check="C-31")
    own = body[1:33] + bytes(32)
    r.step(0, reframed(good, body[:1] + own + body[1 + size :]), check="C-30")
    r.step(0, reframed(good, body[:-KEM_KEY]), check="C-15")
    return r.set_up().finish()


def bad_delivery(name: str) -> Recorder:
    """The attack in which a client takes ciphertexts that are not for it."""
    says = "a client takes a delivery without itself, of the absent or of too few; the server takes one ciphertext less"
    r = Recorder(name, says, clients=4, threshold=3, hybrid=True).trip({3})
    r.move()
    r.receive(0, reframed(r.sent[0], body_of(r.sent[0])[:CIPHERTEXT]), check="C-15")
    r.deliver()
    good = r.mail[2]
    body = body_of(good)
    r.step(2, reframed(good, b"\x03" + body[1:]), check="C-34")
    r.step(2, reframed(good, b"\x0f" + body[1:]), check="C-35")
    r.step(2, reframed(good, b"\x05" + body[1 : 1 + CIPHERTEXT]), check="C-38")
    r.step(2, reframed(good, body[: 1 + CIPHERTEXT]), check="C-15")
    return r.set_up().finish()


def bad_inbox(name: str) -> Recorder:
    """The attack that this vector records: a client goes on with too few shares."""
    says = "a client takes an inbox without itself or of the absent, or goes on with too few shares or good ones"
    r = Recorder(name, says, clients=5, threshold=3).trip({4}).trip()
    good = r.inboxes[2]  # which derives its shares of 0 and of 1
    body, tag = body_of(good), keys.TAG
    tags, sealed = [body[at : at + tag] for at in (1, 1 + tag, 1 + 2 * tag)], body[1 + 3 * tag :]
    r.step(2, reframed(good, b"\x0b" + body[1:]), check="C-34")
    r.step(2, reframed(good, b"\x1f" + b"".join(tags) + bytes(tag) + sealed + bytes(len(sealed))), check="C-35")
    r.step(2, reframed(good, b"\x05" + tags[0]), check="C-38")
    for wrong in (body[:-1], body[:1] + b"".join(tags)):
        r.step(2, reframed(good, wrong), check="C-15")
    r.step(2, reframed(good, body[:1] + tags[1] + tags[0] + tags[2] + sealed), check="C-39")
    bent = bytes((tags[0][0] ^ 1,)) + tags[0][1:]
    for box in (tags[2] + sealed[:-1] + bytes((sealed[-1] ^ 1,)), tags[1] + sealed):
        r.step(2, reframed(good, body[:1] + bent + tags[1] + box), check="C-39")
    r.step(2, good)
    for values in ([0] * 4, [0] * 6, [0, 0, 0, 0, 512]):
        r.step(2, r.mail[2], vector=values, check="C-08")
    return r.finish()


def bad_clients(name: str) -> Recorder:
    """The attack that this vector records: the server takes bad keys."""
    says = "the server takes bad keys, second messages, strangers, dirty padding, shares that are not canonical"
    r = Recorder(name, says, clients=5, threshold=3, slots=3, dimension=3)
    r.move()
    good = r.sent[1]
    for bad, check in (
        (good[:-5], "C-12"),
        (reframed(good, body_of(good)[:-1]), "C-15"),
        (reframed(good, b"\xff" * 32), "C-20"),
        (reframed(good, bytes(32)), "C-21"),
    ):
        r.receive(1, bad, check=check)
    r.receive(5, good, check="C-60")
    r.receive(0, r.sent[0])
    r.receive(0, r.sent[0], check="C-61")
    r.receive(1, r.sent[0], check="C-63")
    r.close(check="C-67")
    del r.sent[4]
    r.deliver()
    r.move()
    r.receive(4, r.sent[0], check="C-62")
    r.receive(0, good, check="C-13")
    r.receive(0, reframed(r.sent[0], body_of(r.sent[0])[:-16]), check="C-15")
    r.deliver()
    r.begin(invited={0, 1, 4}, check="C-74")
    r.begin(invited={0, 1, 2, 3})
    r.move({3})
    body, first = body_of(r.sent[0]), r.sent[0]
    r.receive(0, reframed(first, body[:-2] + bytes((body[-2] | 128, body[-1]))), check="C-64")
    for complained in (0, 4):
        r.receive(0, reframed(first, body[:-1] + bytes((1 << complained,))), check="C-73")
    r.receive(0, reframed(first, body[:-1] + b"\x20"), check="C-16")
    r.receive(4, first, check="C-62")
    r.deliver()
    r.move()
    revealed = body_of(r.sent[0])
    share = bytearray(revealed)
    share[0:2], share[16] = b"\1\0", share[16] | 1
    r.receive(0, reframed(r.sent[0], bytes(share)), check="C-66")
    r.receive(0, reframed(r.sent[0], revealed[:-8]), check="C-15")
    r.receive(0, first, check="C-13")
    r.receive(3, r.sent[0], check="C-62")
    r.deliver()
    r.close()
    r.begin(slot=0, check="C-74")
    r.begin(round=4, invited={0, 1, 2})
    r.receive(3, r.sent[1], check="C-62")
    r.receive(0, first, check="C-14")
    return r.finish()
