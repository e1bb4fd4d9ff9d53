"""A second implementation of protocols/SPEC.md, slow and plain: integers and bytes, nothing from flora_protocols.

Written from the specification's text alone, so that an error in one of the two shows. Only the primitives that the
specification takes from standards (X25519, ML-KEM, Ed25519, HKDF, AES) come from a library. It stays close to the
text's order, carries the text's check numbers, and protects no secret: it is good for tests only.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
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
COEFFICIENTS, Q = 768, 3329


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


def tiled(key, size):
    """Section 6: the keystream in tiles, at least `size` bytes of it."""
    tiles = range((size + 131071) // 131072)
    return b"".join(keystream(key, tile.to_bytes(12, "big") + b"\0\0\0\2", 131072) for tile in tiles)


def slot_keys(secret, ident, i, j, slots):
    """The 16-byte keys of a pair, one a slot."""
    stream = tiled(derive(secret, b"pair root", ident, i, j), 16 * slots)
    return [stream[16 * r : 16 * r + 16] for r in range(slots)]


def commitment(seed, session, i, r):
    return sha(b"flora-secure/2 commitment\0" + session + u32(i) + u32(r) + seed)[:16]


def confirmation(key):
    return sha(b"flora-secure/2 confirmation\0" + key)[:16]


def box(key):
    """AES-256-SIV of section 8."""
    return AESSIV(key + sha(b"flora-secure/2 box\0" + key))


def tag(mask_key):
    return sha(b"flora-secure/2 pair tag\0" + mask_key)[:8]


def blob(pieces, opener, session, i, r):
    """The slot keys `pieces` under the opener; or, from a blob, the slot keys again."""
    mask = tiled(derive(opener, b"opener", session, i, r), 16 * len(pieces))
    return [bytes(x ^ y for x, y in zip(piece, mask[16 * at :], strict=False)) for at, piece in enumerate(pieces)]


def combined(x25519, low, high, kem_secret=b"", kem_key=b"", ciphertext=b""):
    """agreed(i, j) of section 6; without a KEM in suite 1."""
    bound = sha(kem_key + ciphertext) if kem_key else b""
    return x25519 + low + high + kem_secret + bound


def kem_public(seed):
    return MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def encapsulate(key):
    return MLKEM768PublicKey.from_public_bytes(key).encapsulate()


def decapsulate(seed, ciphertext):
    return MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)


def kem_key_possible(key):
    """FIPS 203, section 7.2: 768 numbers of 12 bits, each below q."""
    number = int.from_bytes(key[:1152], "little")
    return all(number >> 12 * at & 4095 < Q for at in range(COEFFICIENTS))


def circle(n, seed):
    """Section 7: the clients in the order of the Harary graph."""
    raw = keystream(seed, bytes(16), 8 * n)
    return sorted(range(n), key=lambda i: (int.from_bytes(raw[8 * i : 8 * i + 8], "little"), i))


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


def draw_values(stream, count):
    """So many uniform values mod p from a stream; `stream(size)` goes on where it was."""
    while True:
        raw = stream(4 * count)
        words = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
        if 2**32 - 1 not in words:
            return [word % P for word in words]


def counter_stream(key):
    """An AES-256-CTR keystream from counter zero, taken piece by piece."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return lambda size: encryptor.update(bytes(size))


def encode_shares(values):
    return b"".join(encode_share(values[at : at + 8]) for at in range(0, len(values), 8))


def share_secrets(secrets, drawn, points):
    """For each of `points` the shares, 17 bytes each, joined, of all `secrets`, joined, of 16 bytes each. `drawn`:
    {point: values} of the t - 1 points at which the polynomials' values were drawn."""
    limbs, result = limbs_of(secrets), {}
    for x in points:
        values = []
        for at, limb in enumerate(limbs):
            values.append(interpolate([(0, limb)] + [(point, row[at]) for point, row in drawn.items()], x))
        result[x] = encode_shares(values)
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
