"""The client of protocols/SPEC.md, section 10, on top of `secagg`; the server is in `aggregator`.

An object with mutable state: a step that raises `Refused` has changed nothing, because every step checks before it
assigns.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from secagg import (
    Refused,
    agree,
    bitmap,
    blob,
    box,
    combined,
    commitment,
    confirmation,
    counter_stream,
    decapsulate,
    decode_share,
    derive,
    draw_values,
    encapsulate,
    encode_shares,
    kem_public,
    peer,
    sha,
    share_secrets,
    slot_keys,
    tag,
    u32,
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


class Client:
    def __init__(self, params, index, floors, identity):
        self.s, self.i, self.floors = Session(params), index, floors
        if any(params[name] < floors[name] for name in ("clients", "threshold", "suite")):
            raise Refused("C-05", "parameters")
        self.identity = identity and Ed25519PrivateKey.from_private_bytes(identity)
        if self.s.malicious and self.identity.public_key().public_bytes_raw() != self.s.identities[index]:
            raise Refused("C-06", "misuse")
        self.steps = ("advertise",)

    def step(self, do, *args):
        if do not in self.steps:
            raise Refused("C-50", "misuse")
        result, self.steps = getattr(self, do)(*args)
        return result

    # The set-up

    def advertise(self, randomness):
        s = self.s
        self.own, self.channel = randomness(32), X25519PrivateKey.from_private_bytes(randomness(32))
        self.kem_seed = randomness(64) if s.hybrid else b""
        self.kem_key = kem_public(self.kem_seed) if s.hybrid else b""
        channel_key = self.channel.public_key().public_bytes_raw()
        self.entry, signature = channel_key + (sha(self.kem_key) if s.hybrid else b""), b""
        if s.malicious:
            signature = self.identity.sign(s.signed(self.i, self.entry))
        self.entry += signature
        message = s.frame(ADVERTISEMENT, s.setup, channel_key + self.kem_key + signature)
        return message, ("encapsulate" if s.hybrid else "share",)

    def read_roster(self, message):
        """(present, entries, KEM keys, session id)"""
        s, i = self.s, self.i
        members = s.members(i)
        longest = s.size(s.everybody) + 32 + len(members) * (s.entry_size + KEM_KEY * s.hybrid)
        body = s.open(message, ROSTER, s.setup, "server", longest)
        present = body.subset(s.everybody)
        claimed = None if s.complete else body.take(32)
        near = [j for j in members if j in present]
        entries = dict(zip(near, body.list(s.entry_size, len(near)), strict=True))
        targets = [j for j in near if s.hybrid and s.encapsulates(i, j)]
        kem_keys = dict(zip(targets, body.list(KEM_KEY, len(targets)), strict=True))
        body.end()
        if entries.get(i) != self.entry:
            raise peer("C-30", "server")
        for part in (slice(0, 32), slice(32, 64)) if s.hybrid else (slice(0, 32),):
            if len({entry[part] for entry in entries.values()}) < len(entries):
                raise peer("C-31", "server")
        s.check_entries({j: entry for j, entry in entries.items() if j != i}, kem_keys, "server")
        if len(present) < self.floors["clients"]:
            raise Refused("C-32", "too few")
        if sum(j in present for j in s.holders(i)) < s.t:
            raise Refused("C-33", "too few")
        return present, entries, kem_keys, s.session_id(present, claimed or sha(b"".join(entries.values())))

    def encapsulate(self, message, kem=encapsulate):
        s = self.s
        present, entries, kem_keys, session = self.read_roster(message)
        self.made, sent = {}, b""
        for j, key in kem_keys.items():
            secret, ciphertext = kem(key)
            self.made[j] = secret, key, ciphertext
            sent += ciphertext
        sent = s.frame(CIPHERTEXTS, session, sent)
        self.present, self.entries, self.session, self.heard = present, entries, session, sha(message + sent)
        return sent, ("share",)

    def share(self, message):
        s, i = self.s, self.i
        if not s.hybrid:
            present, entries, _, session = self.read_roster(message)
            peers, kem, heard = [j for j in entries if j != i], {}, sha(message)
        else:
            present, entries, session = self.present, self.entries, self.session
            members = s.members(i)
            body = s.open(message, DELIVERY, session, "server", s.size(members) + CIPHERTEXT * len(members))
            senders = body.subset(members)
            makers = [j for j in senders if s.encapsulates(j, i)]
            ciphertexts = dict(zip(makers, body.list(CIPHERTEXT, len(makers)), strict=True))
            body.end()
            if i not in senders:
                raise peer("C-34", "server")
            if not set(senders) <= set(present):
                raise peer("C-35", "server")
            if sum(j in senders for j in s.holders(i)) < s.t:
                raise Refused("C-38", "too few")
            peers, heard = [j for j in senders if j != i], sha(self.heard + message)
            kem = {j: self.made[j] for j in peers if j in self.made}
            for j, ciphertext in ciphertexts.items():
                kem[j] = decapsulate(self.kem_seed, ciphertext), self.kem_key, ciphertext

        keys, pair, told, derived = {}, {}, {}, {}
        for j in peers:
            shared = agree(self.channel, entries[j][:32], j)
            secret = combined(shared, entries[min(i, j)][:32], entries[max(i, j)][:32], *kem.get(j, ()))
            keys[j] = derive(secret, b"box", session, min(i, j), max(i, j))
            pair[j] = slot_keys(secret, session, min(i, j), max(i, j), s.slots)
            if j in s.derivers(i):
                told[j] = derive(secret, b"derived shares", session, i, j)
            if i in s.derivers(j):
                derived[j] = derive(secret, b"derived shares", session, j, i)
        stream = counter_stream(derive(self.own, b"sharing", heard, i, i))
        secrets = stream(32 * s.slots)
        seeds = [secrets[32 * r : 32 * r + 16] for r in range(s.slots)]
        openers = [secrets[32 * r + 16 : 32 * r + 32] for r in range(s.slots)]
        drawn = {}
        for j in s.derivers(i):
            drawn[j + 1] = draw_values(counter_stream(told[j]) if j in told else stream, 16 * s.slots)
        points = [j + 1 for j in s.holders(i) if (j == i or j in peers) and j not in told]
        dealt = share_secrets(secrets, drawn, points)
        boxes = {j: confirmation(told[j]) for j in told}
        for j in peers:
            if j not in told:
                boxes[j] = box(keys[j]).encrypt(dealt[j + 1], [session + u32(i) + u32(j)])
        sent = b"".join(boxes[j][:16] for j in peers) + b"".join(boxes[j][16:] for j in peers)
        for r in range(s.slots):
            sent += b"".join(blob([pair[j][r] for j in peers], openers[r], session, i, r))
        for r in range(s.slots):
            sent += commitment(seeds[r], session, i, r)
        self.present, self.session, self.seeds, self.keys, self.pair = present, session, seeds, keys, pair
        self.derived, self.own_shares = derived, {i: dealt[i + 1]} if s.complete else {}
        return s.frame(SHARES, session, sent), ("collect",)

    def collect(self, message):
        s, i = self.s, self.i
        members = s.members(i)
        longest = s.size(members) + (16 + s.sealed_size) * len(members)
        body = s.open(message, INBOX, self.session, "server", longest)
        shared = body.subset(members)
        senders = [j for j in shared if j != i]
        boxes = dict(zip(senders, body.list(16, len(senders)), strict=True))
        for j in senders:
            if i not in s.derivers(j):
                boxes[j] += body.take(s.sealed_size)
        body.end()
        if i not in shared:
            raise peer("C-34", "server")
        if not all(j in self.keys for j in senders):
            raise peer("C-35", "server")
        if sum(j in shared for j in s.holders(i)) < s.t:
            raise Refused("C-38", "too few")
        held = dict(self.own_shares)
        for j in senders:
            if j in self.derived:
                if boxes[j] == confirmation(self.derived[j]):
                    held[j] = encode_shares(draw_values(counter_stream(self.derived[j]), 16 * s.slots))
                continue
            try:
                shares = box(self.keys[j]).decrypt(boxes[j], [self.session + u32(j) + u32(i)])
            except InvalidTag:
                continue  # C-36
            if all(decode_share(shares[at : at + 17]) is not None for at in range(0, len(shares), 17)):  # C-37
                held[j] = shares
        if len(held) < s.t:
            raise Refused("C-39", "too few")
        self.inbox, self.held, self.first = senders, held, 0
        return None, ("mask",)

    # A round

    def mask(self, message, vector):
        s, i = self.s, self.i
        if len(vector) != s.d or not all(0 <= x < 2**s.b for x in vector):
            raise Refused("C-08", "misuse")
        slot, invited, round_id = s.read_start(message, self.session)
        if slot < self.first:
            raise peer("C-27", "server")
        if i not in invited or not set(invited) <= set(self.present):
            raise peer("C-28", "server")
        holders = [j for j in s.holders(i) if j in invited and (j == i or j in self.inbox)]
        if len(invited) < self.floors["clients"] or len(holders) < s.t:
            raise Refused("C-29", "too few")
        x = s.add(vector, s.mask(derive(self.seeds[slot], b"self mask", round_id, i, i)), 1)
        self.tags = {}
        for j in self.inbox:
            if j in invited:
                key = s.mask_key(self.pair[j][slot], round_id, i, j)
                x = s.add(x, s.mask(key), 1 if j > i else -1)
                self.tags[j] = tag(key)
        complaints = bitmap(s.members(i), [j for j in self.inbox if j not in self.held])
        self.slot, self.first, self.invited, self.round_id = slot, slot + 1, invited, round_id
        return s.frame(UPLOAD, round_id, s.pack(x) + complaints), ("agree" if s.malicious else "unmask", "leave")

    def leave(self):
        return None, self.after()

    def after(self):
        return ("mask",) if self.first < self.s.slots else ()

    def read_survivors(self, message):
        s, i = self.s, self.i
        body = s.open(message, SURVIVORS, self.round_id, "server", s.size(s.everybody))
        survivors = body.subset(s.everybody)
        body.end()
        if i not in survivors:
            raise peer("C-40", "server")
        for j in survivors:
            if j not in self.invited or (j in s.members(i) and j != i and j not in self.tags):
                raise peer("C-41", "server")
        if len(survivors) < self.floors["survivors"]:
            raise Refused("C-42", "too few")
        if sum(j in survivors for j in s.holders(i)) < s.t:
            raise Refused("C-43", "too few")
        return survivors

    def agree(self, message):
        self.survivors = self.read_survivors(message)
        signature = self.identity.sign(self.s.endorsed(self.round_id, self.survivors))
        return self.s.frame(ENDORSEMENT, self.round_id, signature), ("unmask", "leave")

    def unmask(self, message):
        s, i = self.s, self.i
        if s.malicious:
            members, survivors = s.members(i), self.survivors
            body = s.open(message, AGREEMENT, self.round_id, "server", s.size(members) + 64 * len(members))
            signers = body.subset(members)
            signatures = body.list(64, len(signers))
            body.end()
            if i in signers or not set(signers) <= set(survivors):
                raise peer("C-44", "server")
            for j, signature in zip(signers, signatures, strict=True):
                if not verifies(s.identities[j], signature, s.endorsed(self.round_id, survivors)):
                    raise peer("C-45", "server")
            if len(signers) + (i in s.holders(i)) < s.t:
                raise Refused("C-46", "too few")
        else:
            survivors = self.read_survivors(message)
        sent = b""
        for j in sorted(self.held):
            if j in self.invited:
                at = 34 * self.slot + (0 if j in survivors else 17)
                sent += self.held[j][at : at + 17]
        sent += b"".join(self.tags[j] for j in sorted(self.tags) if j not in survivors)
        return s.frame(REVEAL, self.round_id, sent), self.after()
