"""Sections 4, 5, 7, 8 and 16 of protocols/SPEC.md: what both sides do with parameters, frames and keys."""

from __future__ import annotations

import struct

from secagg import (
    FIELD,
    SMALL,
    Refused,
    bitmap,
    checksum,
    circle,
    derive,
    identity_possible,
    kem_key_possible,
    peer,
    sha,
    tiled,
    u32,
    verifies,
)

ADVERTISEMENT, ROSTER, CIPHERTEXTS, DELIVERY, SHARES, INBOX, START = range(1, 8)
UPLOAD, SURVIVORS, ENDORSEMENT, AGREEMENT, REVEAL = range(8, 13)
KEM_KEY, CIPHERTEXT = 1184, 1088


class Session:
    """Sections 4 and 7: parameters, ids, graph; and what both sides do with frames and keys."""

    def __init__(self, params):
        self.n, self.k, self.t = params["clients"], params["neighbours"], params["threshold"]
        self.b, self.d, self.slots = params["bits"], params["dimension"], params["slots"]
        self.suite, self.hybrid = params["suite"], params["suite"] == 2
        self.corrupt, self.liars = params["corrupt"], max(params["corrupt"], 1)
        self.malicious = params["profile"] == "malicious-server"
        self.identities = [bytes.fromhex(key) for key in params["identities"]]
        self.complete = self.k == self.n - 1
        self.check(params["number"])
        cohort = bytes((2, self.suite, self.malicious, self.b)) + struct.pack("<H", self.slots)
        cohort += struct.pack("<IIIIIQ", self.n, self.k, self.t, self.corrupt, self.d, params["number"])
        self.cohort, joined = cohort, sha(b"".join(self.identities))
        self.setup = sha(b"flora-secure/2 set-up\0" + cohort + joined)
        self.everybody = list(range(self.n))
        self.entry_size = 32 + 32 * self.hybrid + 64 * self.malicious
        self.sealed_size = 34 * self.slots
        self.packed = (self.d * self.b + 7) // 8
        seed = struct.pack("<IIQ", self.n, self.k, params["number"]) + joined
        self.circle = self.everybody
        if not self.complete:
            self.circle = circle(self.n, sha(b"flora-secure/2 graph\0" + seed))

    def check(self, number):
        n, k, holders = self.n, self.k, self.k + self.complete
        fine = 2 <= n <= 65536 and (k == n - 1 or (k % 2 == 0 and 2 <= k <= n - 2)) and 2 <= self.t <= 65536
        fine = fine and 8 <= self.b <= 32 and 1 <= self.d <= 2**30 and 1 <= self.slots <= 1024
        fine = fine and self.slots * holders <= 2**20 and 0 <= number < 2**64 and 0 <= self.corrupt <= n
        if not fine or self.suite not in (1, 2):
            raise Refused("C-01", "parameters")
        if not self.corrupt < self.t <= holders:
            raise Refused("C-02", "parameters")
        if self.malicious and 2 * self.t <= holders + self.corrupt:
            raise Refused("C-03", "parameters")
        if len(set(self.identities)) < len(self.identities) or len(self.identities) != n * self.malicious:
            raise Refused("C-04", "parameters")
        if not all(map(identity_possible, self.identities)):
            raise Refused("C-25", "parameters")

    def members(self, i):
        if self.complete:
            return self.everybody
        at = self.circle.index(i)
        return sorted(self.circle[(at + step) % self.n] for step in range(-self.k // 2, self.k // 2 + 1))

    def holders(self, i):
        return [j for j in self.members(i) if self.complete or j != i]

    def derivers(self, i):
        return [j for j in self.members(i) if j != i][: self.t - 1]

    def encapsulates(self, i, j):
        steps = (self.circle.index(j) - self.circle.index(i)) % self.n
        return i != j and (2 * steps < self.n or (2 * steps == self.n and i < j))

    def session_id(self, present, entries_hash):
        return sha(b"flora-secure/2 session\0" + self.setup + bitmap(self.everybody, present) + entries_hash)

    def size(self, members):
        return (len(members) + 7) // 8

    # Section 16

    def start(self, session, slot, number, model, invited):
        body = struct.pack("<HQ", slot, number) + model + bitmap(self.everybody, invited)
        return self.frame(START, session, body)

    def read_start(self, message, session):
        """(slot, invited, round id)"""
        body = self.open(message, START, session, "server", 42 + self.size(self.everybody))
        raw = body.raw
        (slot,) = struct.unpack("<H", body.take(2))
        body.take(40)
        invited = body.subset(self.everybody)
        body.end()
        if slot >= self.slots:
            raise peer("C-26", "server")
        return slot, invited, sha(b"flora-secure/2 round\0" + session + raw)

    # Section 5

    def frame(self, kind, ident, body):
        frame = b"fS" + bytes((2, self.suite, kind)) + ident[:8] + body
        return frame + checksum(frame)

    def open(self, message, kind, ident, culprit, longest):
        if not 17 <= len(message) <= 17 + longest:
            raise peer("C-10", culprit)
        if message[:4] != b"fS\2" + bytes((self.suite,)):
            raise peer("C-11", culprit)
        if checksum(message[:-4]) != message[-4:]:
            raise peer("C-12", culprit)
        if message[4] != kind:
            raise peer("C-13", culprit)
        if message[5:13] != ident[:8]:
            raise peer("C-14", culprit)
        return Body(message[13:-4], culprit)

    # Sections 8 and 10

    def signed(self, index, entry):
        return b"flora-secure/2 advertisement\0" + self.setup + u32(index) + entry[: 32 + 32 * self.hybrid]

    def check_entries(self, entries, kem_keys, culprit):
        """C-20 to C-23. `entries`: by index; `kem_keys`: of some of them."""
        keys = [int.from_bytes(entry[:32], "little") for entry in entries.values()]
        if any(key >= FIELD for key in keys):
            raise peer("C-20", culprit)
        if any(key in SMALL for key in keys):
            raise peer("C-21", culprit)
        for j, key in kem_keys.items():
            if not kem_key_possible(key) or sha(key) != entries[j][32:64]:
                raise peer("C-22", culprit)
        if self.malicious:
            for j, entry in entries.items():
                if not verifies(self.identities[j], entry[-64:], self.signed(j, entry)):
                    raise peer("C-23", culprit)

    def endorsed(self, round_id, survivors):
        return b"flora-secure/2 survivors\0" + round_id + sha(bitmap(self.everybody, survivors))

    def mask_key(self, slot_key, round_id, i, j):
        return derive(slot_key, b"pairwise mask", round_id, min(i, j), max(i, j))

    def pack(self, vector):
        return sum(x << (e * self.b) for e, x in enumerate(vector)).to_bytes(self.packed, "little")

    def mask(self, key):
        lane = 1 if self.b <= 8 else 2 if self.b <= 16 else 4
        stream = tiled(key, self.d * lane)
        return [int.from_bytes(stream[e * lane : e * lane + lane], "little") % 2**self.b for e in range(self.d)]

    def add(self, vector, mask, sign):
        return [(x + sign * m) % 2**self.b for x, m in zip(vector, mask, strict=True)]


class Body:
    """Reads a body from the front."""

    def __init__(self, raw, culprit):
        self.raw, self.culprit = raw, culprit

    def take(self, size):
        if len(self.raw) < size:
            raise peer("C-15", self.culprit)
        part, self.raw = self.raw[:size], self.raw[size:]
        return part

    def list(self, size, count):
        return [self.take(size) for _ in range(count)]

    def subset(self, members):
        number = int.from_bytes(self.take((len(members) + 7) // 8), "little")
        if number >> len(members):
            raise peer("C-16", self.culprit)
        return [member for at, member in enumerate(members) if number >> at & 1]

    def end(self):
        if self.raw:
            raise peer("C-15", self.culprit)
