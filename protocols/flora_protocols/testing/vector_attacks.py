"""What happens in each bad test vector: which mistake of an implementation it hunts.

A bad step stands where a careless party would take it; the round then goes on as if it had not been.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flora_protocols import keys, messages
from flora_protocols.codec import HEADER, encode_subset
from flora_protocols.shamir import SHARE, P, decode, encode, split
from flora_protocols.testing.recorder import LEAST, Recorder, body_of, mended, reframed


def around(r: Recorder) -> list[int]:
    """Client 0 and the two next to it on either side: dropped, they leave it 2 of its 6 holders, and all others 3."""
    near = set(r.params.graph.members(0))
    return sorted(near, key=lambda member: -len(near.intersection(r.params.graph.members(member))))[:5]


def bad_frames(name: str) -> Recorder:
    """The attack in which a client takes what is not one well-formed frame of its session."""
    r = Recorder(name, "a client takes what is not one well-formed frame of its session", clients=4, threshold=3).trip()
    good = r.mail[0]
    body = body_of(good)
    for bad in (b"", good[:16], good + bytes(200)):
        r.step(0, bad, check="C-10")
    for at in (0, 1, 2, 3):
        r.step(0, mended(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 : -4]), check="C-11")
    for at in (HEADER, len(good) - 1):
        r.step(0, good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :], check="C-12")
    r.step(0, mended(good[:4] + b"\4" + good[5:-4]), check="C-13")
    r.step(0, mended(good[:12] + bytes((good[12] ^ 128,)) + good[13:-4]), check="C-14")
    for wrong in (b"", body[:-1], body[:1], encode_subset(range(4), (0, 1, 2)) + body[1:], body + b"\0"):
        r.step(0, reframed(good, wrong), check="C-15")
    r.step(0, reframed(good, b"\x1f" + body[1:]), check="C-16")
    return r.finish()


def bad_roster(name: str) -> Recorder:
    """The attack that this vector records: a client takes keys that are not canonical."""
    says = "a client takes keys that are not canonical, of small order, doubled or its own but changed; a small cohort"
    r = Recorder(name, says, clients=5, threshold=3, floors=replace(LEAST, clients=3)).trip()
    good = r.mail[0]
    entries = messages.decode_roster(r.params, good, 1, r.clients[1]._advertisement).entries
    raw = [entries[i].entry for i in range(5)]

    def with_entry(index: int, entry: bytes) -> bytes:
        changed = [*raw[:index], entry, *raw[index + 1 :]]
        return reframed(good, b"\x1f" + b"".join(changed))

    for above in (2**255 - 19, 2**255 - 18, 2**255 + 9, 2**256 - 1):
        r.step(0, with_entry(2, above.to_bytes(32, "little") + raw[2][32:]), check="C-20")
        r.step(0, with_entry(2, raw[2][:32] + above.to_bytes(32, "little")), check="C-20")
    for point in sorted(keys.SMALL_ORDER):
        r.step(0, with_entry(4, point + raw[4][32:]), check="C-21")
        r.step(0, with_entry(4, raw[4][:32] + point), check="C-21")
    r.step(0, with_entry(2, raw[2][:32] * 2), check="C-22")
    r.step(0, with_entry(0, raw[0][32:] + raw[0][:32]), check="C-30")
    r.step(0, reframed(good, encode_subset(range(5), (1, 2, 3, 4)) + b"".join(raw[1:])), check="C-30")
    r.step(0, with_entry(2, raw[1]), check="C-31")
    r.step(0, with_entry(2, raw[1][32:] + raw[2][32:]), check="C-31")
    r.step(0, with_entry(2, raw[2][:32] + raw[0][32:]), check="C-31")
    r.step(0, reframed(good, b"\x03" + raw[0] + raw[1]), check="C-32")
    return r.finish()


def bad_signed_roster(name: str) -> Recorder:
    """The attack in which a client takes keys that their owner did not sign."""
    r = Recorder(name, "a client takes keys that their owner did not sign", clients=4, threshold=3, malicious=True)
    other = Recorder(name, "", clients=4, threshold=3, malicious=True, round=8)
    r.move()
    other.move()
    r.receive(1, r.sent[2], check="C-23")
    r.receive(1, reframed(r.sent[1], body_of(other.sent[1])), check="C-23")
    r.deliver()
    good = r.mail[0]
    body = body_of(good)
    for bad in (body[129:193] + body[321:385], body_of(other.sent[1]), body[257:385]):
        r.step(0, reframed(good, body[:129] + bad + body[257:]), check="C-23")
    return r.finish()


def bad_inbox(name: str) -> Recorder:
    """The attack that this vector records: a client takes shares that are not for it."""
    says = "a client takes shares that are not for it, not from the roster, changed, not canonical, or too few"
    r = Recorder(name, says, clients=5, threshold=3).trip({4}).trip()
    good, box = r.mail[0], messages.SEALED
    body = body_of(good)
    boxes = [body[at : at + box] for at in range(1, len(body), box)]
    r.step(0, reframed(good, b"\x0e" + b"".join(boxes)), check="C-34")
    r.step(0, reframed(good, b"\x1f" + body[1:] + bytes(box)), check="C-35")
    r.step(0, reframed(good, body[:1] + boxes[1] + boxes[0] + boxes[2]), check="C-36")
    r.step(0, reframed(good, body_of(r.mail[1])), check="C-36")
    r.step(0, reframed(good, body[:-1] + bytes((body[-1] ^ 1,))), check="C-36")
    channel = r.clients[0]._channels[1]
    for at in (0, SHARE):  # limb 0 would be 65537
        pair = bytearray(channel.open(boxes[0], 1, 0))
        pair[at], pair[at + 16] = 1, pair[at + 16] | 1
        r.step(0, reframed(good, body[:1] + channel.seal(bytes(pair), 1, 0) + body[1 + box :]), check="C-37")
    r.step(0, reframed(good, b"\x03" + boxes[0]), check="C-38")
    for values in ([0] * 4, [0] * 6, [0, 0, 0, 0, 512]):
        r.step(0, good, vector=values, check="C-08")
    return r.finish()


def bad_survivors(name: str) -> Recorder:
    """The attack that this vector records: a client takes survivors without itself."""
    says = "a client takes survivors without itself, with others than shared, or too few; or answers twice"
    r = Recorder(name, says, clients=5, threshold=3, floors=replace(LEAST, survivors=4)).trip().trip({4}).trip()
    good = r.mail[0]
    r.step(0, reframed(good, encode_subset(range(5), (1, 2, 3))), check="C-40")
    r.step(0, reframed(good, b"\x1f"), check="C-41")
    r.step(0, reframed(good, encode_subset(range(5), (0, 1, 2))), check="C-42")
    r.move()
    r.step(0, good, do="unmask", check="C-50")
    r.step(0, reframed(good, encode_subset(range(5), (0, 1, 2, 3))), do="unmask", check="C-50")
    r.deliver()
    r.close()
    return r


def bad_harary(name: str) -> Recorder:
    """Many are present, but too few of those who hold the client's shares."""
    says = "a client in a Harary graph counts others than its holders towards t; a survivor far away is not present"
    r = Recorder(name, says, clients=8, neighbours=4, threshold=3)
    near = [member for member in r.params.graph.members(0) if member != 0]
    far = [member for member in range(1, 8) if member not in near]
    r.trip({far[0]})
    present = sorted([0, *near[:2], *far])
    roster = messages.decode_roster(r.params, r.mail[0], 0, r.clients[0]._advertisement)
    entries = b"".join(roster.entries[member].entry for member in sorted([0, *near[:2]]))
    hashed = body_of(r.mail[0])[1:33]
    r.step(0, reframed(r.mail[0], encode_subset(range(8), present) + hashed + entries), check="C-33")
    r.trip().trip()
    r.step(0, reframed(r.mail[0], encode_subset(range(8), range(8))), check="C-41")
    r.step(0, reframed(r.mail[0], encode_subset(range(8), sorted({*present} - {far[0]}))), check="C-43")
    return r.finish()


def bad_agreement(name: str) -> Recorder:
    """The attack that this vector records: a client takes a false survivor set."""
    says = "a client takes a false survivor set, or signatures that are its own, of the dropped, of others or too few"
    r = Recorder(name, says, clients=6, threshold=4, malicious=True).trip().trip({5}).trip({4})
    told = r.mail[0]
    r.step(0, reframed(told, encode_subset(range(6), (1, 2, 3))), check="C-40")
    r.step(0, reframed(told, encode_subset(range(6), (0, 1, 2, 5))), check="C-41")
    r.step(0, reframed(told, encode_subset(range(6), (0, 1, 2))), check="C-43")
    session = r.clients[0]._uploaded.session
    members, text = range(6), messages.endorsed_text(r.params, session, (0, 1, 2, 3))
    other = messages.endorsed_text(r.params, session, (0, 1, 2, 3, 4))
    r.move()
    r.receive(1, r.sent[2], check="C-65")
    r.receive(1, messages.encode_endorsement(session, keys.sign(r.keys[1], keys.SURVIVORS, other)), check="C-65")
    r.receive(1, messages.encode_endorsement(session, keys.sign(r.keys[1], keys.ADVERTISEMENT, text)), check="C-65")
    r.deliver()
    r.step(0, told, do="agree", check="C-50")
    r.step(0, reframed(told, encode_subset(range(6), (0, 1, 2, 3, 4))), do="agree", check="C-50")
    signed = {i: keys.sign(r.keys[i], keys.SURVIVORS, text) for i in members}
    honest = {i: signed[i] for i in (1, 2, 3)}
    for signers in ((0, 1, 2), (1, 2, 4)):
        r.step(0, messages.encode_agreement(session, members, {i: signed[i] for i in signers}), check="C-44")
    for false in (signed[2], keys.sign(r.keys[1], keys.SURVIVORS, other)):
        r.step(0, messages.encode_agreement(session, members, honest | {1: false}), check="C-45")
    r.step(0, messages.encode_agreement(session, members, {i: signed[i] for i in (1, 2)}), check="C-46")
    return r.finish()


def bad_clients(name: str) -> Recorder:
    """The attack that this vector records: the server takes bad keys."""
    says = "the server takes bad keys, second messages, strangers, dirty padding, shares that are not canonical"
    r = Recorder(name, says, clients=5, threshold=3)
    r.move()
    good = r.sent[1]
    for bad, check in (
        (good[:-5], "C-12"),
        (reframed(good, body_of(good)[:-1]), "C-15"),
        (reframed(good, b"\xff" * 32 + body_of(good)[32:]), "C-20"),
        (reframed(good, bytes(32) + body_of(good)[32:]), "C-21"),
        (reframed(good, body_of(good)[:32] * 2), "C-22"),
    ):
        r.receive(1, bad, check=check)
    r.receive(5, good, check="C-60")
    r.receive(0, r.sent[0])
    r.receive(0, r.sent[0], check="C-61")
    r.receive(1, r.sent[0], check="C-63")
    r.receive(1, reframed(good, body_of(good)[:32] + body_of(r.sent[0])[:32]), check="C-63")
    r.close(check="C-67")
    del r.sent[4]
    r.deliver()
    r.move()
    r.receive(4, r.sent[0], check="C-62")
    r.receive(0, good, check="C-13")
    r.deliver()
    r.move({3})
    dirty = body_of(r.sent[0])
    r.receive(0, reframed(r.sent[0], dirty[:-1] + bytes((dirty[-1] | 128,))), check="C-64")
    r.deliver()
    r.move()
    share = bytearray(body_of(r.sent[0]))
    share[0:2], share[16] = b"\1\0", share[16] | 1
    r.receive(0, reframed(r.sent[0], bytes(share)), check="C-66")
    r.deliver()
    r.close()
    return r


def bad_holders(name: str) -> Recorder:
    """Enough clients upload, but too few of them hold one survivor's shares."""
    r = Recorder(name, "the server goes on though a needed secret is lost", clients=8, neighbours=2, threshold=2)
    r.trip().trip()
    r.move()
    late = r.params.graph.holders(0)[0]
    for index, message in r.sent.items():
        if index != late:
            r.receive(index, message)
    r.close(check="C-68")
    r.deliver()
    return r.finish()


def bad_direct(name: str) -> Recorder:
    """The attack that this vector records: the server takes too few or too many pair keys."""
    says = "the server takes too few or too many pair keys; a client reveals twice; a needed secret is lost"
    r = Recorder(name, says, clients=12, neighbours=6, threshold=3, direct_reveal=True).trip().trip()
    r.trip(around(r))
    r.move()
    near = [member for member in r.params.graph.members(0) if member in r.sent]
    far = next(index for index in r.sent if index not in near)
    good = r.sent[near[0]]
    for wrong in (body_of(good)[:-32], body_of(good)[:-1]):
        r.receive(near[0], reframed(good, wrong), check="C-15")
    r.receive(near[0], reframed(good, body_of(good) + bytes(32)), check="C-10")
    r.step(near[0], r.mail[near[0]], do="unmask", check="C-50")
    others = encode_subset(range(12), set(r.sent) - {far})
    r.step(near[0], reframed(r.mail[near[0]], others), do="unmask", check="C-50")
    for index, message in r.sent.items():
        if index != near[0]:
            r.receive(index, message)
    r.close(check="C-68")
    r.deliver()
    r.close()
    return r


def _with_wrong_share(r: Recorder, liar: int, owner: int) -> Recorder:
    r.move()
    body = bytearray(body_of(r.sent[liar]))
    body[owner * SHARE] ^= 1
    r.deliver({liar: reframed(r.sent[liar], bytes(body))})
    r.close(check="C-69")
    return r


def bad_share_of_a_holder(name: str) -> Recorder:
    """The attack in which six shares where four are needed: the holder of the wrong one is named."""
    r = Recorder(name, "six shares where four are needed: the holder of the wrong one is named", clients=7, threshold=4)
    return _with_wrong_share(r.trip().trip().trip({5}), liar=4, owner=5)


def bad_share_of_somebody(name: str) -> Recorder:
    """The attack in which five shares where four are needed: it may be anybody's."""
    r = Recorder(name, "five shares where four are needed: nobody can be named", clients=6, threshold=4)
    return _with_wrong_share(r.trip().trip().trip({5}), liar=1, owner=2)


def bad_forged_blame(name: str) -> Recorder:
    """Three of nine holders, all that may be corrupt, agree on another polynomial that goes through four true shares:
    seven fit, and the two that do not are innocent."""
    says = "three agree on shares that make two others look wrong, and `corrupt` is three: nobody can be named"
    r = Recorder(name, says, clients=9, threshold=5, corrupt=3).trip().trip().trip()
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


def _other_secret(r: Recorder, liar: int, threshold: int) -> Recorder:
    r.move()
    client, others = r.clients[liar], [index for index in r.clients if index != liar]
    rows = split(bytes(32), tuple(index + 1 for index in r.clients), threshold, bytes)
    sealed = [client._channels[peer].seal(rows[peer].tobytes(), liar, peer) for peer in others]
    r.deliver({liar: messages.encode_shares(client._session, sealed)})
    r.trip({liar})
    return r.finish(check="C-70")


def bad_mask_secret(name: str) -> Recorder:
    """The attack in which a client shares another secret than its mask key's, and drops."""
    says = "a client shares another secret than its mask key's, and drops; one share more than needed tells that it did"
    return _other_secret(Recorder(name, says, clients=5, threshold=3).trip(), 4, 3)


def bad_mask_secret_of_somebody(name: str) -> Recorder:
    """The same without surplus: a holder may have made it look so."""
    says = "a dropped client's shares do not give its mask key, just as many as are needed: nobody can be named"
    return _other_secret(Recorder(name, says, clients=4, threshold=3).trip(), 3, 3)
