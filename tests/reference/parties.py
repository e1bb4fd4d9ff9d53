"""The client and the server of protocols/SPEC.md, sections 10 and 11, on top of `secagg`. Objects with mutable state:
a step that raises `Refused` has changed nothing, because every step checks before it assigns."""

from __future__ import annotations

from itertools import combinations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from secagg import (
    ADVERTISEMENT,
    AGREEMENT,
    ENDORSEMENT,
    INBOX,
    REVEAL,
    ROSTER,
    SHARES,
    SURVIVORS,
    UPLOAD,
    Refused,
    Session,
    agree,
    bitmap,
    decode_share,
    derive,
    peer,
    reconstruct,
    sha,
    share_secrets,
    u32,
    verifies,
)

FOLLOWS = {"advertise": "share", "share": "mask", "mask": "unmask", "agree": "unmask", "unmask": None}


class Client:
    def __init__(self, params, index, floors, identity):
        self.s, self.i, self.floors = Session(params), index, floors
        self.identity = identity and Ed25519PrivateKey.from_private_bytes(identity)
        self.next = "advertise"

    def step(self, do, *args):
        if do != self.next:
            raise Refused("C-50", "misuse")
        result = getattr(self, do)(*args)
        self.next = "agree" if do == "mask" and self.s.malicious else FOLLOWS[do]
        return result

    def advertise(self, randomness):
        s, self.mask_secret = self.s, randomness(16)
        self.mask_key = X25519PrivateKey.from_private_bytes(
            derive(self.mask_secret, b"mask key", s.setup, self.i, self.i)
        )
        self.transport = X25519PrivateKey.from_private_bytes(randomness(32))
        self.entry = self.mask_key.public_key().public_bytes_raw() + self.transport.public_key().public_bytes_raw()
        if s.malicious:
            self.entry += self.identity.sign(b"flora-secure/2 advertisement\0" + s.setup + u32(self.i) + self.entry)
        return s.frame(ADVERTISEMENT, s.setup, self.entry)

    def share(self, message, randomness):
        s, i = self.s, self.i
        members = s.members(i)
        longest = (s.n + 7) // 8 + 32 + len(members) * s.entry_size
        body = s.open(message, ROSTER, s.setup, "server", longest)
        present = body.subset(s.everybody)
        claimed = None if s.complete else body.take(32)
        near = [j for j in members if j in present]
        entries = dict(zip(near, body.list(s.entry_size, len(near)), strict=True))
        body.end()
        if entries.get(i) != self.entry:
            raise peer("C-30", "server")
        for j in near:
            if j != i:
                s.check_entry(entries[j], j, "server")
        both = [key for entry in entries.values() for key in (entry[:32], entry[32:64])]
        if len(set(both)) < len(both):
            raise peer("C-31", "server")
        if len(present) < self.floors["clients"]:
            raise Refused("C-32", "too few")
        holders = [j for j in s.holders(i) if j in present]
        if len(holders) < s.t:
            raise Refused("C-33", "too few")
        session = s.session_id(present, claimed or sha(b"".join(entries[j] for j in near)))

        seed = randomness(16)
        pairs = share_secrets(self.mask_secret + seed, [j + 1 for j in holders], s.t, randomness)
        channels, sealed = {}, b""
        for j in near:
            if j != i:
                shared = agree(self.transport, entries[j][32:64], j)
                shared += entries[min(i, j)][:32] + entries[max(i, j)][:32]
                channels[j] = AESGCM(derive(shared, b"transport", session, min(i, j), max(i, j)))
                data = session + u32(i) + u32(j)
                sealed += channels[j].encrypt(i.to_bytes(12, "little"), pairs[j + 1], data)
        self.own_pair = {i: pairs[i + 1]} if i in holders else {}
        self.present, self.entries, self.session, self.seed, self.channels = present, entries, session, seed, channels
        return s.frame(SHARES, session, sealed)

    def mask(self, message, vector):
        s, i = self.s, self.i
        if len(vector) != s.d or not all(0 <= x < 2**s.b for x in vector):
            raise Refused("C-08", "misuse")
        members = s.members(i)
        body = s.open(message, INBOX, self.session, "server", (len(members) + 7) // 8 + 50 * len(members))
        shared = body.subset(members)
        if i not in shared:
            raise peer("C-34", "server")
        senders = [j for j in shared if j != i]
        boxes = body.list(50, len(senders))
        body.end()
        if not set(senders) <= set(self.present):
            raise peer("C-35", "server")
        held = dict(self.own_pair)
        for j, box in zip(senders, boxes, strict=True):
            try:
                held[j] = self.channels[j].decrypt(j.to_bytes(12, "little"), box, self.session + u32(j) + u32(i))
            except InvalidTag:
                raise peer("C-36", j) from None
            if decode_share(held[j][:17]) is None or decode_share(held[j][17:]) is None:
                raise peer("C-37", j)
        if len(held) < s.t:
            raise Refused("C-38", "too few")
        x = s.add(vector, s.mask(derive(self.seed, b"self mask", self.session, i, i)), 1)
        pair_keys = {}
        for j in senders:
            shared_key = agree(self.mask_key, self.entries[j][:32], j)
            pair_keys[j] = derive(shared_key, b"pairwise mask", self.session, min(i, j), max(i, j))
            x = s.add(x, s.mask(pair_keys[j]), 1 if j > i else -1)
        self.held, self.pair_keys = held, pair_keys
        return s.frame(UPLOAD, self.session, s.pack(x))

    def read_survivors(self, message):
        s, i = self.s, self.i
        body = s.open(message, SURVIVORS, self.session, "server", (s.n + 7) // 8)
        survivors = body.subset(s.everybody)
        body.end()
        if i not in survivors:
            raise peer("C-40", "server")
        for j in survivors:
            if j not in self.present or (j in s.members(i) and j != i and j not in self.held):
                raise peer("C-41", "server")
        if len(survivors) < self.floors["survivors"]:
            raise Refused("C-42", "too few")
        if sum(j in survivors for j in s.holders(i)) < s.t:
            raise Refused("C-43", "too few")
        return survivors

    def agree(self, message):
        survivors = self.read_survivors(message)
        self.survivors = survivors
        return self.s.frame(ENDORSEMENT, self.session, self.identity.sign(self.s.endorsed(self.session, survivors)))

    def unmask(self, message):
        s, i = self.s, self.i
        if s.malicious:
            members, survivors = s.members(i), self.survivors
            body = s.open(message, AGREEMENT, self.session, "server", (len(members) + 7) // 8 + 64 * len(members))
            signers = body.subset(members)
            signatures = body.list(64, len(signers))
            body.end()
            if i in signers or not set(signers) <= set(survivors):
                raise peer("C-44", "server")
            for j, signature in zip(signers, signatures, strict=True):
                if not verifies(s.identities[j], signature, s.endorsed(self.session, survivors)):
                    raise peer("C-45", "server")
            if len(signers) + (i in s.holders(i)) < s.t:
                raise Refused("C-46", "too few")
        else:
            survivors = self.read_survivors(message)
        shares = [self.held[j][17:] if j in survivors else self.held[j][:17] for j in sorted(self.held)]
        if s.direct:
            shares += [self.pair_keys[j] for j in sorted(self.held) if j not in survivors]
        return s.frame(REVEAL, self.session, b"".join(shares))


class Server:
    def __init__(self, params):
        self.s = Session(params)
        self.trip = "ADVERTISE"
        self.expected, self.heard = set(self.s.everybody), {}

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

    def take_ADVERTISE(self, client, message):
        body = self.s.open(message, ADVERTISEMENT, self.s.setup, client, self.s.entry_size)
        entry = body.take(self.s.entry_size)
        body.end()
        self.s.check_entry(entry, client, client)
        seen = [key for other in self.heard.values() for key in (other[:32], other[32:64])]
        if entry[:32] in seen or entry[32:64] in seen:
            raise peer("C-63", client)
        return entry

    def close_ADVERTISE(self, entries):
        s, self.entries = self.s, entries
        digest = sha(b"".join(entries.values()))
        self.session = s.session_id(entries, digest)
        rosters = {}
        for i in entries:
            near = b"".join(entries[j] for j in s.members(i) if j in entries)
            body = bitmap(s.everybody, entries) + (b"" if s.complete else digest) + near
            rosters[i] = s.frame(ROSTER, s.setup, body)
        return rosters, "SHARE", entries

    def take_SHARE(self, client, message):
        recipients = [j for j in self.s.members(client) if j != client and j in self.entries]
        body = self.s.open(message, SHARES, self.session, client, 50 * len(recipients))
        sealed = dict(zip(recipients, body.list(50, len(recipients)), strict=True))
        body.end()
        return sealed

    def close_SHARE(self, sealed):
        s, self.shared = self.s, set(sealed)
        inboxes = {}
        for i in sealed:
            body = bitmap(s.members(i), self.shared)
            body += b"".join(sealed[j][i] for j in s.members(i) if j in sealed and j != i)
            inboxes[i] = s.frame(INBOX, self.session, body)
        return inboxes, "MASK", sealed

    def take_MASK(self, client, message):
        s = self.s
        body = s.open(message, UPLOAD, self.session, client, s.packed)
        number = int.from_bytes(body.take(s.packed), "little")
        body.end()
        if number >> (s.d * s.b):
            raise peer("C-64", client)
        return [number >> (e * s.b) & (2**s.b - 1) for e in range(s.d)]

    def close_MASK(self, uploads):
        s, self.survivors = self.s, set(uploads)
        self.enough_holders(uploads)
        self.total = [sum(column) % 2**s.b for column in zip(*uploads.values(), strict=True)]
        told = s.frame(SURVIVORS, self.session, bitmap(s.everybody, uploads))
        return dict.fromkeys(uploads, told), "AGREE" if s.malicious else "UNMASK", uploads

    def near(self, owner):
        return [j for j in self.s.members(owner) if j in self.survivors]

    def needed(self, there):
        for owner in sorted(self.shared):
            if owner in self.survivors or any(not self.s.direct or j not in there for j in self.near(owner)):
                yield owner

    def enough_holders(self, there):
        for owner in self.needed(there):
            if sum(j in there for j in self.s.holders(owner)) < self.s.t:
                raise Refused("C-68", "too few")

    def take_AGREE(self, client, message):
        body = self.s.open(message, ENDORSEMENT, self.session, client, 64)
        signature = body.take(64)
        body.end()
        if not verifies(self.s.identities[client], signature, self.s.endorsed(self.session, self.survivors)):
            raise peer("C-65", client)
        return signature

    def close_AGREE(self, signatures):
        s, out = self.s, {}
        for i in signatures:
            need = s.t - (i in s.holders(i))
            signers = [j for j in s.members(i) if j != i and j in signatures][:need]
            if len(signers) == need:
                body = bitmap(s.members(i), signers) + b"".join(signatures[j] for j in signers)
                out[i] = s.frame(AGREEMENT, self.session, body)
        self.enough_holders(out)
        return out, "UNMASK", out

    def owners(self, holder):
        return [o for o in self.s.holders(holder) if o in self.shared]

    def take_UNMASK(self, client, message):
        owners = self.owners(client)
        dropped = [owner for owner in owners if self.s.direct and owner not in self.survivors]
        body = self.s.open(message, REVEAL, self.session, client, 17 * len(owners) + 32 * len(dropped))
        shares = {owner: decode_share(body.take(17)) for owner in owners}
        pair_keys = {owner: body.take(32) for owner in dropped}
        body.end()
        if None in shares.values():
            raise peer("C-66", client)
        return shares, pair_keys

    def close_UNMASK(self, revealed):
        s = self.s
        self.enough_holders(revealed)
        total, key_of, secrets, unsound = self.total, {}, {}, {}
        for owner in self.needed(revealed):
            shares = {j + 1: revealed[j][0][owner] for j in s.holders(owner) if j in revealed}
            secrets[owner], sound = reconstruct(shares, s.t)
            if not sound:
                unsound[owner] = self.found_out(shares)
        if unsound:
            found = [holder for holders in unsound.values() for holder in holders]
            raise peer("C-69", min(found)) if found else Refused("C-69", "unsound")
        for owner, secret in secrets.items():
            if owner in self.survivors:
                total = s.add(total, s.mask(derive(secret, b"self mask", self.session, owner, owner)), -1)
                continue
            key = X25519PrivateKey.from_private_bytes(derive(secret, b"mask key", s.setup, owner, owner))
            if key.public_key().public_bytes_raw() != self.entries[owner][:32]:
                m = sum(j in revealed for j in s.holders(owner))
                raise peer("C-70", owner) if s.liars <= m - s.t else Refused("C-70", "unsound")
            key_of[owner] = key
        recovered = [owner for owner in sorted(self.shared - self.survivors) if self.near(owner)]
        for owner in recovered:
            for j in self.near(owner):
                if j in revealed and s.direct:
                    pair_key = revealed[j][1][owner]
                else:
                    shared = agree(key_of[owner], self.entries[j][:32], j)
                    pair_key = derive(shared, b"pairwise mask", self.session, min(owner, j), max(owner, j))
                total = s.add(total, s.mask(pair_key), -1 if j < owner else 1)
        survivors = sorted(self.survivors)
        dropped = [i for i in s.everybody if i not in survivors]
        result = {"sum": total, "survivors": survivors, "dropped": dropped, "recovered": recovered}
        return result, "DONE", ()

    def found_out(self, shares):
        surplus = len(shares) - self.s.t
        for size in range(1, surplus // 2 + 1):
            for wrong in combinations(sorted(shares), size):
                rest = {x: share for x, share in shares.items() if x not in wrong}
                if reconstruct(rest, self.s.t)[1] and size + self.s.liars <= surplus:
                    return [x - 1 for x in wrong]
        return []
