"""A second implementation of protocols/SPEC.md, slow and plain: integers and bytes, nothing from flora_protocols.

Written from the specification's text alone, so that an error in one of the two shows. Only the primitives that the
specification takes from standards (X25519, Ed25519, HKDF, AES) come from a library. It stays close to the text's order,
carries the text's check numbers, and protects no secret: it is good for tests only.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

P = 65537
FIELD = 2**255 - 19
SMALL = (
    0,
    1,
    2**255 - 20,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
TORSION = (
    0,
    1,
    2**255 - 20,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    2**255 - 19 - 2707385501144840649318225287225658788936804267575313519463743609750303402022,
)
ADVERTISEMENT, ROSTER, SHARES, INBOX, UPLOAD, SURVIVORS, ENDORSEMENT, AGREEMENT, REVEAL = range(1, 10)


class Refused(Exception):  # noqa: N818
    """A check failed: its number, "peer" or "too few" or "unsound" or "misuse", and whose message it was."""

    def __init__(self, check, error, culprit=None):
        super().__init__(check)
        self.check, self.error, self.culprit = check, error, culprit


def checksum(frame):
    if len(frame) <= 4084:
        return u32(zlib.crc32(frame))
    folded = [0] * 1021
    for row, first in enumerate(range(0, len(frame), 4084)):
        words = struct.unpack("<1021I", frame[first : first + 4084].ljust(4084, b"\0"))
        folded = [(total + (2 * row + 1) * word) % 2**32 for total, word in zip(folded, words, strict=True)]
    return u32(zlib.crc32(struct.pack("<1021I", *folded)))


def peer(check, culprit):
    return Refused(check, "peer", culprit)


def u32(x):
    return struct.pack("<I", x)


def sha(data):
    return hashlib.sha256(data).digest()


def bitmap(members, chosen):
    number = sum(1 << at for at, member in enumerate(members) if member in chosen)
    return number.to_bytes((len(members) + 7) // 8, "little")


def keystream(key, counter, size):
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(size))


def derive(secret, purpose, ident, i, j):
    info = b"flora-secure/2 " + purpose + b"\0" + ident + u32(i) + u32(j)
    return HKDF(SHA256(), 32, None, info).derive(secret)


def circle(n, seed):
    """Section 7: the clients in the order of the Harary graph."""
    raw = keystream(seed, bytes(16), 8 * n)
    return sorted(range(n), key=lambda i: (int.from_bytes(raw[8 * i : 8 * i + 8], "little"), i))


class Session:
    """Sections 4 and 7: parameters, ids, graph; and what both sides do with frames and keys."""

    def __init__(self, params):
        self.n, self.k, self.t = params["clients"], params["neighbours"], params["threshold"]
        self.b, self.d = params["bits"], params["dimension"]
        self.liars = max(params["corrupt"], 1)
        self.malicious = params["profile"] == "malicious-server"
        self.direct = params["direct_reveal"]
        self.identities = [bytes.fromhex(key) for key in params["identities"]]
        if not all(map(identity_possible, self.identities)):
            raise Refused("C-25", "parameters")
        cohort = bytes((2, 1, self.malicious, self.direct, self.b))
        cohort += struct.pack("<IIIII", self.n, self.k, self.t, params["corrupt"], self.d)
        cohort += struct.pack("<Q", params["round"]) + sha(b"".join(self.identities))
        self.setup = sha(b"flora-secure/2 set-up\0" + cohort + bytes.fromhex(params["model_hash"]))
        self.complete = self.k == self.n - 1
        self.everybody = list(range(self.n))
        self.entry_size = 128 if self.malicious else 64
        self.packed = (self.d * self.b + 7) // 8
        seed = struct.pack("<IIQ", self.n, self.k, params["round"]) + sha(b"".join(self.identities))
        self.circle = circle(self.n, sha(b"flora-secure/2 graph\0" + seed))

    def members(self, i):
        if self.complete:
            return self.everybody
        at = self.circle.index(i)
        return sorted(self.circle[(at + step) % self.n] for step in range(-self.k // 2, self.k // 2 + 1))

    def holders(self, i):
        return [j for j in self.members(i) if self.complete or j != i]

    def session_id(self, present, entries_hash):
        return sha(b"flora-secure/2 session\0" + self.setup + bitmap(self.everybody, present) + entries_hash)

    # Section 5

    def frame(self, kind, ident, body):
        frame = b"fS" + bytes((2, 1, kind)) + ident[:8] + body
        return frame + checksum(frame)

    def open(self, message, kind, ident, culprit, longest):
        if not 17 <= len(message) <= 17 + longest:
            raise peer("C-10", culprit)
        if message[:4] != b"fS\2\1":
            raise peer("C-11", culprit)
        if checksum(message[:-4]) != message[-4:]:
            raise peer("C-12", culprit)
        if message[4] != kind:
            raise peer("C-13", culprit)
        if message[5:13] != ident[:8]:
            raise peer("C-14", culprit)
        return Body(message[13:-4], culprit)

    # Sections 8 and 10

    def check_entry(self, entry, index, culprit):
        mask, transport = entry[:32], entry[32:64]
        for key in (mask, transport):
            if int.from_bytes(key, "little") >= FIELD:
                raise peer("C-20", culprit)
            if int.from_bytes(key, "little") in SMALL:
                raise peer("C-21", culprit)
        if mask == transport:
            raise peer("C-22", culprit)
        if self.malicious:
            text = b"flora-secure/2 advertisement\0" + self.setup + u32(index) + mask + transport
            if not verifies(self.identities[index], entry[64:], text):
                raise peer("C-23", culprit)

    def endorsed(self, session, survivors):
        return b"flora-secure/2 survivors\0" + session + sha(bitmap(self.everybody, survivors))

    def pack(self, vector):
        return sum(x << (e * self.b) for e, x in enumerate(vector)).to_bytes(self.packed, "little")

    def mask(self, key):
        lane = 1 if self.b <= 8 else 2 if self.b <= 16 else 4
        size, stream = self.d * lane, b""
        for tile in range((size + 131071) // 131072):
            stream += keystream(key, tile.to_bytes(12, "big") + b"\0\0\0\2", 131072)
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


def identity_possible(key):
    y = int.from_bytes(key, "little") % 2**255
    return y < FIELD and y not in TORSION


def verifies(public, signature, text):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def agree(private, public, owner):
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise peer("C-24", owner) from None


# Section 9


def limbs_of(secret):
    return [int.from_bytes(secret[at : at + 2], "little") for at in range(0, len(secret), 2)]


def encode_share(values):
    top = sum(1 << at for at, value in enumerate(values) if value == P - 1)
    return b"".join(struct.pack("<H", value % (P - 1)) for value in values) + bytes((top,))


def decode_share(raw):
    """The eight values, or None if the share is not canonical."""
    values = limbs_of(raw[:16])
    for at in range(8):
        if raw[16] >> at & 1:
            if values[at]:
                return None
            values[at] = P - 1
    return values


def share_secrets(secrets, points, t, randomness):
    """The pair (17 + 17 bytes) for each point."""
    while True:
        raw = randomness(64 * (t - 1))
        words = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
        if 2**32 - 1 not in words:
            break
    result = {}
    for x in points:
        values = []
        for at, limb in enumerate(limbs_of(secrets)):
            row = [limb] + [words[16 * (m - 1) + at] for m in range(1, t)]
            values.append(sum(c * pow(x, m, P) for m, c in enumerate(row)) % P)
        result[x] = encode_share(values[:8]) + encode_share(values[8:])
    return result


def interpolate(known, x):
    """The value at x of the polynomial through `known`: [(x, value)]."""
    total = 0
    for xi, value in known:
        for xj, _ in known:
            if xj != xi:
                value = value * (x - xj) * pow(xi - xj, -1, P) % P
        total += value
    return total % P


def reconstruct(shares, t):
    """`shares`: {point: eight values}. The secret, and whether everything fits."""
    points = sorted(shares)
    secret, sound = b"", True
    for at in range(8):
        known = [(x, shares[x][at]) for x in points[:t]]
        limb = interpolate(known, 0)
        sound = sound and limb < 65536 and all(interpolate(known, x) == shares[x][at] for x in points[t:])
        secret += struct.pack("<H", limb % 65536)
    return secret, sound
