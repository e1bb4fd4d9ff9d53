"""The server of protocols/SPEC.md, section 11, on top of `secagg`; as the client in `parties`."""

from __future__ import annotations

from itertools import combinations

from secagg import (
    Refused,
    bitmap,
    blob,
    commitment,
    decode_share,
    derive,
    peer,
    reconstruct,
    sha,
    tag,
    verifies,
)
from session import (
    ADVERTISEMENT,
    AGREEMENT,
    CIPHERTEXT,
    CIPHERTEXTS,
    DELIVERY,
    ENDORSEMENT,
    INBOX,
    KEM_KEY,
    REVEAL,
    ROSTER,
    SHARES,
    SURVIVORS,
    UPLOAD,
    Session,
)


class Server:
    def __init__(self, params):
        self.s = Session(params)
        self.trip = "ADVERTISE"
        self.expected, self.heard = set(self.s.everybody), {}

    def step(self, do, *args):
        return getattr(self, do)(*args)

    def receive(self, client, message):
        if not 0 <= client < self.s.n:
            raise Refused("C-60", "misuse")
        if client in self.heard:
            raise peer("C-61", client)
        if client not in self.expected:
            raise peer("C-62", client)
        self.heard[client] = getattr(self, "take_" + self.trip)(client, message)

    def close(self):
        if len(self.heard) < self.s.t:
            raise Refused("C-67", "too few")
        heard = {client: self.heard[client] for client in sorted(self.heard)}
        result, trip, expected = getattr(self, "close_" + self.trip)(heard)
        self.trip, self.expected, self.heard = trip, set(expected), {}
        return result

    # The set-up

    def take_ADVERTISE(self, client, message):
        s = self.s
        body = s.open(message, ADVERTISEMENT, s.setup, client, 32 + KEM_KEY * s.hybrid + 64 * s.malicious)
        channel, kem_key = body.take(32), body.take(KEM_KEY * s.hybrid)
        entry = channel + (sha(kem_key) if s.hybrid else b"") + body.take(64 * s.malicious)
        body.end()
        s.check_entries({client: entry}, {client: kem_key} if s.hybrid else {}, client)
        if any(channel == other[:32] or (s.hybrid and kem_key == key) for other, key in self.heard.values()):
            raise peer("C-63", client)
        return entry, kem_key

    def close_ADVERTISE(self, heard):
        s = self.s
        entries = {i: entry for i, (entry, _) in heard.items()}
        digest = sha(b"".join(entries.values()))
        self.session = s.session_id(entries, digest)
        rosters = {}
        for i in entries:
            body = bitmap(s.everybody, entries) + (b"" if s.complete else digest)
            body += b"".join(entries[j] for j in s.members(i) if j in entries)
            if s.hybrid:
                body += b"".join(heard[j][1] for j in s.members(i) if j in entries and s.encapsulates(i, j))
            rosters[i] = s.frame(ROSTER, s.setup, body)
        self.there = list(entries)
        return rosters, "ENCAPSULATE" if s.hybrid else "SHARE", entries

    def targets(self, client):
        return [j for j in self.s.members(client) if j in self.there and self.s.encapsulates(client, j)]

    def take_ENCAPSULATE(self, client, message):
        targets = self.targets(client)
        body = self.s.open(message, CIPHERTEXTS, self.session, client, CIPHERTEXT * len(targets))
        ciphertexts = dict(zip(targets, body.list(CIPHERTEXT, len(targets)), strict=True))
        body.end()
        return ciphertexts

    def close_ENCAPSULATE(self, heard):
        self.there = list(heard)
        return self.passed_on(DELIVERY, heard), "SHARE", heard

    def passed_on(self, kind, *parts):
        """What each of those that sent gets: the parts, each {sender: {recipient: bytes}}, turned around."""
        s, out = self.s, {}
        for i in parts[0]:
            near = [j for j in s.members(i) if j in parts[0]]
            body = b"".join(sent[j].get(i, b"") for sent in parts for j in near)
            out[i] = s.frame(kind, self.session, bitmap(s.members(i), near) + body)
        return out

    def recipients(self, client):
        return [j for j in self.s.members(client) if j != client and j in self.there]

    def take_SHARE(self, client, message):
        s, to = self.s, self.recipients(client)
        sealed_to = [j for j in to if j not in s.derivers(client)]
        longest = len(to) * (16 + 16 * s.slots) + len(sealed_to) * s.sealed_size + 16 * s.slots
        body = s.open(message, SHARES, self.session, client, longest)
        tags = dict(zip(to, body.list(16, len(to)), strict=True))
        sealed = dict(zip(sealed_to, body.list(s.sealed_size, len(sealed_to)), strict=True))
        blobs = [dict(zip(to, body.list(16, len(to)), strict=True)) for _ in range(s.slots)]
        commitments = body.list(16, s.slots)
        body.end()
        return tags, sealed, blobs, commitments

    def close_SHARE(self, heard):
        tags, sealed, self.blobs, self.commitments = ({i: sent[at] for i, sent in heard.items()} for at in range(4))
        self.shared, self.first, self.complaints = set(heard), 0, {}
        return self.passed_on(INBOX, tags, sealed), "NONE", ()

    # A round

    def accused(self):
        said = [owner for owners in self.complaints.values() for owner in owners]
        return {owner for owner in said if said.count(owner) > self.s.liars}

    def begin(self, message):
        slot, invited, round_id = self.s.read_start(message, self.session)
        if slot < self.first or not set(invited) <= self.shared:
            raise Refused("C-74", "misuse")
        if self.accused().intersection(invited):
            raise Refused("C-76", "misuse")
        self.slot, self.first, self.invited, self.round_id = slot, slot + 1, invited, round_id
        self.trip, self.expected, self.heard = "MASK", set(invited), {}

    def take_MASK(self, client, message):
        s = self.s
        members = s.members(client)
        body = s.open(message, UPLOAD, self.round_id, client, s.packed + s.size(members))
        number = int.from_bytes(body.take(s.packed), "little")
        complaints = body.subset(members)
        body.end()
        if number >> (s.d * s.b):
            raise peer("C-64", client)
        if client in complaints or not set(complaints) <= self.shared:
            raise peer("C-73", client)
        self.complaints[client] = self.complaints.get(client, set()) | set(complaints)
        return [number >> (e * s.b) & (2**s.b - 1) for e in range(s.d)]

    def close_MASK(self, uploads):
        s = self.s
        self.survivors = set(uploads)
        self.enough_holders(uploads)
        if any(i in self.complaints.get(j, ()) and j in self.complaints.get(i, ()) for i in uploads for j in uploads):
            raise Refused("C-77", "unsound")
        self.total = [sum(column) % 2**s.b for column in zip(*uploads.values(), strict=True)]
        told = s.frame(SURVIVORS, self.round_id, bitmap(s.everybody, uploads))
        return dict.fromkeys(uploads, told), "AGREE" if s.malicious else "UNMASK", uploads

    def near(self, client):
        """A client's neighbours that were invited."""
        return [j for j in self.s.members(client) if j != client and j in self.invited]

    def needed(self):
        """Survivors, and those that did not survive but have a surviving neighbour."""
        return [i for i in self.invited if i in self.survivors or any(j in self.survivors for j in self.near(i))]

    def left(self, owner, there):
        return [j for j in self.s.holders(owner) if j in there and owner not in self.complaints.get(j, ())]

    def enough_holders(self, there):
        if any(len(self.left(owner, there)) < self.s.t for owner in self.needed()):
            raise Refused("C-68", "too few")

    def take_AGREE(self, client, message):
        body = self.s.open(message, ENDORSEMENT, self.round_id, client, 64)
        signature = body.take(64)
        body.end()
        if not verifies(self.s.identities[client], signature, self.s.endorsed(self.round_id, self.survivors)):
            raise peer("C-65", client)
        return signature

    def close_AGREE(self, signatures):
        s, out = self.s, {}
        for i in signatures:
            need = s.t - (i in s.holders(i))
            signers = [j for j in s.members(i) if j != i and j in signatures][:need]
            if len(signers) == need:
                body = bitmap(s.members(i), signers) + b"".join(signatures[j] for j in signers)
                out[i] = s.frame(AGREEMENT, self.round_id, body)
        self.enough_holders(out)
        return out, "UNMASK", out

    def take_UNMASK(self, client, message):
        owners = [i for i in self.s.holders(client) if i in self.invited and i not in self.complaints.get(client, ())]
        gone = [j for j in self.near(client) if j not in self.survivors]
        body = self.s.open(message, REVEAL, self.round_id, client, 17 * len(owners) + 8 * len(gone))
        shares = {owner: decode_share(body.take(17)) for owner in owners}
        tags = {owner: body.take(8) for owner in gone}
        body.end()
        if None in shares.values():
            raise peer("C-66", client)
        return shares, tags

    def close_UNMASK(self, revealed):
        s = self.s
        self.enough_holders(revealed)
        secrets, found, unsound = {}, set(), False
        for owner in self.needed():
            shares = {j + 1: revealed[j][0][owner] for j in self.left(owner, revealed)}
            secrets[owner], sound = reconstruct(shares, s.t)
            if not sound:
                unsound = True
                found.update(self.found_out(shares))
        if unsound:
            raise peer("C-69", min(found)) if found else Refused("C-69", "unsound")
        total = self.total
        for owner in sorted(self.survivors):
            if commitment(secrets[owner], self.session, owner, self.slot) != self.commitments[owner][self.slot]:
                told = s.liars <= len(self.left(owner, revealed)) - s.t
                raise peer("C-70", owner) if told else Refused("C-70", "unsound")
            total = s.add(total, s.mask(derive(secrets[owner], b"self mask", self.round_id, owner, owner)), -1)
        recovered = [owner for owner in self.needed() if owner not in self.survivors]
        for owner in recovered:
            locked = self.blobs[owner][self.slot]
            opened = blob(list(locked.values()), secrets[owner], self.session, owner, self.slot)
            keys, wrong = dict(zip(locked, opened, strict=True)), 0
            for j in self.near(owner):
                if j in self.survivors:
                    mask_key = s.mask_key(keys[j], self.round_id, owner, j)
                    wrong += j in revealed and revealed[j][1][owner] != tag(mask_key)
                    total = s.add(total, s.mask(mask_key), -1 if j < owner else 1)
            if wrong:
                told = s.liars < wrong and s.liars <= len(self.left(owner, revealed)) - s.t
                raise peer("C-75", owner) if told else Refused("C-75", "unsound")
        survivors = sorted(self.survivors)
        dropped = [i for i in self.invited if i not in survivors]
        result = {"sum": total, "survivors": survivors, "dropped": dropped, "recovered": recovered}
        return result, "NONE", ()

    def found_out(self, shares):
        surplus = len(shares) - self.s.t
        for size in range(1, surplus // 2 + 1):
            for wrong in combinations(sorted(shares), size):
                rest = {x: share for x, share in shares.items() if x not in wrong}
                if reconstruct(rest, self.s.t)[1] and size + self.s.liars <= surplus:
                    return [x - 1 for x in wrong]
        return []
