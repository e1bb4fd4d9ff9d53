"""What happens in each bad test vector of a round, as in `vector_attacks`."""

from __future__ import annotations

from dataclasses import replace

from flora_protocols import keys, round_messages
from flora_protocols.codec import Bitmap, encode_subset
from flora_protocols.testing.recorder import LEAST, Recorder, body_of, reframed


def bad_start(name: str) -> Recorder:
    """The attack in which a client masks in a round that it must not be in."""
    says = "a client masks in a slot there is not, in a round without it or with strangers, or among too few"
    r = Recorder(name, says, clients=6, threshold=3, slots=2, floors=replace(LEAST, clients=4)).trip({5}).trip({4})
    good = r.mail[0]
    r.step(0, r.inboxes[0])
    body = body_of(good)
    for slot in (2, 65535):
        r.step(0, reframed(good, slot.to_bytes(2, "little") + body[2:]), check="C-26")
    r.step(0, reframed(good, body[:-1] + b"\x4f"), check="C-16")
    r.step(0, r.start(invited={1, 2, 3, 4}), check="C-28")
    r.step(0, r.start(invited={0, 1, 2, 3, 5}), check="C-28")
    r.step(0, r.start(invited={0, 1, 2}), check="C-29")
    r.step(0, r.start(session=bytes(32)), check="C-14")
    r.step(0, r.inboxes[0], do="collect", check="C-50")
    return r.finish()


def bad_slots(name: str) -> Recorder:
    """The attack in which a client answers twice under one slot."""
    says = "a client masks twice under a slot, or answers in a round that is over, or that it has left"
    r = Recorder(name, says, clients=5, threshold=3, slots=4, dimension=3).set_up()
    first = r.mail[0]
    r.trip()
    old = r.mail[0]
    r.step(0, first, do="mask", check="C-50")
    r.finish()
    for other in ({0, 1, 2}, range(5)):
        r.step(0, r.start(slot=0, round=5, invited=other), check="C-27")
    r.step(0, old, do="unmask", check="C-50")
    r.begin(round=4, slot=2).trip({4})
    r.step(0, old, check="C-14")
    r.step(0, do="leave")
    r.step(0, r.mail[0], do="unmask", check="C-50")
    for slot in (1, 2):
        r.step(0, r.start(slot=slot, round=6), check="C-27")
    r.trip({0})
    r.close()
    return r.begin(round=7).trip().finish()


def bad_survivors(name: str) -> Recorder:
    """The attack that this vector records: a client takes survivors without itself."""
    says = "a client takes survivors without itself, with others than were invited, or too few; or answers twice"
    floors = replace(LEAST, survivors=4)
    r = Recorder(name, says, clients=7, threshold=3, slots=2, dimension=3, floors=floors).trip().trip({4})
    r.begin(invited={0, 1, 2, 3, 5}).trip({5})
    good = r.mail[0]
    r.step(0, reframed(good, encode_subset(range(7), (1, 2, 3, 5))), check="C-40")
    for stranger in (4, 6):
        r.step(0, reframed(good, encode_subset(range(7), (0, 1, 2, 3, stranger))), check="C-41")
    r.step(0, reframed(good, encode_subset(range(7), (0, 1, 2))), check="C-42")
    r.step(0, reframed(good, b"\x8f"), check="C-16")
    r.move()
    r.step(0, good, do="unmask", check="C-50")
    r.step(0, reframed(good, encode_subset(range(7), (0, 1, 2, 3, 5))), do="unmask", check="C-50")
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
    body, members = body_of(r.mail[0]), r.params.graph.members(0)
    entries = {member: body[33 + 32 * at : 65 + 32 * at] for at, member in enumerate(members)}
    some = b"".join(entries[member] for member in sorted([0, *near[:2]]))
    r.step(0, reframed(r.mail[0], encode_subset(range(8), present) + body[1:33] + some), check="C-33")
    r.trip()
    r.ready(0)
    r.step(0, r.start(slot=0, invited=sorted({0, *near[:2], *far[1:]})), check="C-29")
    r.trip()
    r.step(0, reframed(r.mail[0], encode_subset(range(8), range(8))), check="C-41")
    few = sorted({*present} - {far[0]})
    r.step(0, reframed(r.mail[0], encode_subset(range(8), few)), check="C-43")
    return r.finish()


def bad_agreement(name: str) -> Recorder:
    """The attack that this vector records: a client takes a false survivor set."""
    says = "a client takes a false survivor set, or signatures that are its own, of the dropped, of others or too few"
    r = Recorder(name, says, clients=6, threshold=4, malicious=True, slots=2, dimension=3).trip().trip({5})
    r.begin(invited={0, 1, 2, 3, 4}, slot=0, check="C-74")
    r.trip({4})
    told, params = r.mail[0], r.params
    r.step(0, reframed(told, encode_subset(range(6), (1, 2, 3))), check="C-40")
    r.step(0, reframed(told, encode_subset(range(6), (0, 1, 2, 5))), check="C-41")
    r.step(0, reframed(told, encode_subset(range(6), (0, 1, 2))), check="C-43")
    scope = r.clients[0]._uploaded.scope
    members = range(6)
    text = round_messages.endorsed_text(params, scope, Bitmap.of(6, (0, 1, 2, 3)))
    other = round_messages.endorsed_text(params, scope, Bitmap.of(6, (0, 1, 2, 3, 4)))
    r.move()
    r.receive(1, r.sent[2], check="C-65")
    for purpose, false in ((keys.SURVIVORS, other), (keys.ADVERTISEMENT, text)):
        signature = keys.sign(r.keys[1], purpose, false)
        r.receive(1, round_messages.encode_endorsement(params, scope, signature), check="C-65")
    r.receive(4, r.sent[1], check="C-62")
    r.deliver()
    r.step(0, told, do="agree", check="C-50")
    r.step(0, reframed(told, encode_subset(range(6), (0, 1, 2, 3, 4))), do="agree", check="C-50")
    signed = {i: keys.sign(r.keys[i], keys.SURVIVORS, text) for i in members}

    def agreement(signatures: dict[int, bytes]) -> bytes:
        return round_messages.encode_agreement(params, scope, members, signatures)

    honest = {i: signed[i] for i in (1, 2, 3)}
    for signers in ((0, 1, 2), (1, 2, 4)):
        r.step(0, agreement({i: signed[i] for i in signers}), check="C-44")
    for wrong in (signed[2], keys.sign(r.keys[1], keys.SURVIVORS, other)):
        r.step(0, agreement(honest | {1: wrong}), check="C-45")
    r.step(0, agreement({i: signed[i] for i in (1, 2)}), check="C-46")
    late = r.mail[0]
    r.finish().begin(round=4).trip({4})
    r.move()
    r.deliver()
    r.step(0, late, check="C-14")
    r.step(0, reframed(r.mail[0], body_of(late)), check="C-45")
    return r.finish()


def bad_holders(name: str) -> Recorder:
    """Enough clients upload or reveal, but too few of them hold one client's shares."""
    r = Recorder(name, "the server goes on though a needed secret is lost", clients=8, neighbours=2, threshold=2)
    r.set_up()
    r.move()
    late = r.params.graph.holders(0)[0]
    for index, message in r.sent.items():
        if index != late:
            r.receive(index, message)
    r.close(check="C-68")
    r.deliver()
    r.move()
    for index, message in r.sent.items():
        if index != late:
            r.receive(index, message)
    r.close(check="C-68")
    r.receive(late, r.sent[late])
    r.close()
    return r
