"""Keys: X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), AES-256-SIV (RFC 5297), Ed25519 (RFC 8032).

Every derived key is bound to a purpose, to the session or round and to two roster indices, so that no key can serve
twice. A client has one channel key, fresh in each session (in the hybrid suite two, see `suites`): what it agrees on
with a neighbour seals the shares between them, and is the root of the keys of their pairwise masks, one for each slot.

Secrets that are shared, and slots' keys, have 16 bytes: 128 bits is the strength of X25519 itself, binding to session
and index keeps one search from covering several secrets, and shares are half as long as with 32 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import cast

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.serialization import load_der_public_key

from flora_protocols.errors import Code, Culprit, MisuseError, PeerError

Randomness = Callable[[int], bytes]
"""Gives that many fresh, uniform, secret bytes; `os.urandom` unless a test or a vector replays a session."""

KEY = 32
SECRET = 16
SIGNATURE = 64
TAG = 16
PAIR_TAG_BYTES = 8
COMMITMENT_BYTES = 16

# Purposes: the first part of every HKDF info and of every signed text.
BOX = b"flora-secure/2 box\0"
PAIR_ROOT = b"flora-secure/2 pair root\0"
SHARING = b"flora-secure/2 sharing\0"
DERIVED = b"flora-secure/2 derived shares\0"
CONFIRMATION = b"flora-secure/2 confirmation\0"
OPENER = b"flora-secure/2 opener\0"
COMMITMENT = b"flora-secure/2 commitment\0"
SELF_MASK = b"flora-secure/2 self mask\0"
PAIR_MASK = b"flora-secure/2 pairwise mask\0"
PAIR_TAG = b"flora-secure/2 pair tag\0"
ADVERTISEMENT = b"flora-secure/2 advertisement\0"
SURVIVORS = b"flora-secure/2 survivors\0"

_INDICES = struct.Struct("<II")
# HMAC (RFC 2104) as four plain hashes: half the time of an HKDF object, of which a client needs two a neighbour.
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_NO_SALT = sha256(bytes(64).translate(_INNER)), sha256(bytes(64).translate(_OUTER))  # to be copied
_KEY_INFO = bytes.fromhex("302a300506032b656e032100")  # before an X25519 public key (RFC 8410, section 4)
_FIELD = 2**255 - 19
# All u-coordinates of order 1, 2, 4 or 8, on the curve and its twist: X25519 with any of them gives zero.
SMALL_ORDER = frozenset(
    point.to_bytes(32, "little")
    for point in (
        0,
        1,
        _FIELD - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
# y-coordinates of all points of order 1, 2, 4 or 8 on edwards25519: what they sign anybody can sign.
_SMALL_IDENTITIES = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        _FIELD - 2707385501144840649318225287225658788936804267575313519463743609750303402022,
    )
)


def draw(randomness: Randomness, size: int) -> bytes:
    """`size` bytes from `randomness`; MisuseError if it gives anything else."""
    raw = randomness(size)
    if not isinstance(raw, bytes) or len(raw) != size:
        raise MisuseError(f"the source of randomness must give exactly {size} bytes")
    return raw


def extract(secret: bytes) -> bytes:
    """The first half of HKDF-SHA256 without salt: what several keys may be expanded from, padded to a block."""
    inner, outer = _NO_SALT[0].copy(), _NO_SALT[1].copy()
    inner.update(secret)
    outer.update(inner.digest())
    return outer.digest().ljust(64, b"\0")


def hkdf(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 without salt, 32 bytes."""
    return _expand(extract(secret), info)


def derive(secret: bytes, purpose: bytes, scope: bytes, low: int, high: int) -> bytes:
    """A 32-byte key from `hkdf` with info = purpose · scope · low u32 · high u32. `scope`: id of a session or round."""
    return _expand(extract(secret), purpose + scope + _INDICES.pack(low, high))


def expand(extracted: bytes, purpose: bytes, scope: bytes, low: int, high: int) -> bytes:
    """The same key as `derive` makes, of a secret whose `extract` is given."""
    return _expand(extracted, purpose + scope + _INDICES.pack(low, high))


def _expand(extracted: bytes, info: bytes) -> bytes:
    expanded = sha256(extracted.translate(_INNER) + info + b"\1").digest()
    return sha256(extracted.translate(_OUTER) + expanded).digest()


def pair_mask(key: bytes, scope: bytes, own: int, other: int) -> bytes:
    """The key of the pairwise mask of two clients in the round of id `scope`, from their 16-byte key of its slot."""
    low, high = (own, other) if own < other else (other, own)
    return _expand(extract(key), PAIR_MASK + scope + _INDICES.pack(low, high))


def pair_tag(mask: bytes) -> bytes:
    """8 bytes by which the keys of a pairwise mask are compared, without telling them."""
    return sha256(PAIR_TAG + mask).digest()[:PAIR_TAG_BYTES]


def confirmation(key: bytes) -> bytes:
    """16 bytes that show a deriver that its dealer has the same key to derive shares from."""
    return sha256(CONFIRMATION + key).digest()[:TAG]


def commitment(seed: bytes, session: bytes, index: int, slot: int) -> bytes:
    """16 bytes that bind a client to its self-mask seed of a slot."""
    return sha256(COMMITMENT + session + _INDICES.pack(index, slot) + seed).digest()[:COMMITMENT_BYTES]


def check_publics(publics: Sequence[bytes], culprit: Culprit) -> None:
    """PeerError unless all of `publics` are canonical encodings of X25519 keys of large order."""
    for raw in publics:
        if raw[31] >= 0x7F and int.from_bytes(raw, "little") >= _FIELD:  # the first test spares most keys the second
            raise PeerError(culprit, "public key is not canonically encoded", Code.BAD_KEY)
    if not SMALL_ORDER.isdisjoint(publics):
        raise PeerError(culprit, "public key has small order", Code.BAD_KEY)


def public_key(raw: bytes) -> X25519PublicKey:
    """The X25519 key of 32 bytes, canonical or not; ValueError for any other length.

    Parsed as SubjectPublicKeyInfo: `from_public_bytes` is not all compiled and takes half as long again.
    """
    return cast(X25519PublicKey, load_der_public_key(_KEY_INFO + raw))


def exchange(private: X25519PrivateKey, public: bytes, culprit: Culprit) -> bytes:
    """The X25519 shared secret, 32 bytes; PeerError if it is zero."""
    try:
        return private.exchange(public_key(public))
    except ValueError:
        raise PeerError(culprit, "public key has small order", Code.BAD_KEY) from None


Exchange = Callable[[X25519PrivateKey, Mapping[int, bytes]], dict[int, bytes]]
"""As `exchange_all`, which it is everywhere but in a simulation, whose one process holds both ends of a pair."""


def exchange_all(private: X25519PrivateKey, publics: Mapping[int, bytes]) -> dict[int, bytes]:
    """The X25519 shared secrets with peers, in their order, from their public keys; PeerError as `exchange`."""
    return {peer: exchange(private, public, peer) for peer, public in publics.items()}


def sign(identity: bytes, purpose: bytes, text: bytes) -> bytes:
    """An Ed25519 signature (64 bytes) of purpose · text by the 32-byte secret key `identity`."""
    return Ed25519PrivateKey.from_private_bytes(identity).sign(purpose + text)


def identity_public(identity: bytes) -> bytes:
    """The 32-byte public key of the Ed25519 secret key `identity`; MisuseError unless that has 32 bytes."""
    if not isinstance(identity, bytes) or len(identity) != KEY:
        raise MisuseError(f"an identity is an Ed25519 secret key of {KEY} bytes")
    return Ed25519PrivateKey.from_private_bytes(identity).public_key().public_bytes_raw()


def identity_fault(public: bytes) -> str | None:
    """What is wrong with an Ed25519 public key of 32 bytes; None for one that may be an identity."""
    height = int.from_bytes(public, "little") & (1 << 255) - 1
    if height >= _FIELD:
        return "is not canonically encoded"
    return "has small order: anybody could sign for it" if height in _SMALL_IDENTITIES else None


def verify(public: bytes, signature: bytes, purpose: bytes, text: bytes, culprit: Culprit) -> None:
    """PeerError unless `signature` signs purpose · text under the identity key `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, purpose + text)
    except (InvalidSignature, ValueError):
        raise PeerError(
            culprit, "signature does not verify under the identity key of the roster", Code.BAD_SIGNATURE
        ) from None


class Box:
    """What seals the shares between two clients: AES-256-SIV (RFC 5297), which needs no nonce.

    Two texts that one client seals for another in a session (from a dump that is loaded twice and told two rosters)
    show no more than that they differ. Its key grows from 32 bytes.
    """

    __slots__ = ("_cipher", "_session")

    def __init__(self, key: bytes, session: bytes) -> None:
        self._cipher = AESSIV(key + sha256(BOX + key).digest())
        self._session = session

    def __repr__(self) -> str:
        return "<Box>"

    def seal(self, plaintext: bytes, sender: int, recipient: int) -> bytes:
        """16-byte tag and ciphertext; session, sender and recipient are authenticated with it."""
        return self._cipher.encrypt(plaintext, [self._session + _INDICES.pack(sender, recipient)])

    def open(self, sealed: bytes, sender: int, recipient: int) -> bytes | None:
        """The plaintext; None if it was not sealed for this session, sender and recipient."""
        try:
            return self._cipher.decrypt(sealed, [self._session + _INDICES.pack(sender, recipient)])
        except InvalidTag:
            return None
