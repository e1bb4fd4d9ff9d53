"""Cipher suites: how two clients come to the secret of their channel. All else is the same in both.

X25519 (RFC 7748) alone, or together with ML-KEM-768 (FIPS 203), so that whoever records a session and has a quantum
computer later must break both. The secrets are combined by HKDF over their concatenation, and all public values that
led to them go in too (Giacon, Heuer, Poettering, PKC 2018, eprint 2018/024; as in TLS,
draft-ietf-tls-hybrid-design, with the transcripts bound as Barbosa et al., eprint 2024/039, ask for where the parts are
not known to bind their own).

ML-KEM comes with `cryptography` from release 48 on, where its OpenSSL has it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from cryptography.exceptions import UnsupportedAlgorithm

from flora_protocols.errors import Code, Culprit, MisuseError, PeerError

try:
    from cryptography.hazmat.primitives.asymmetric import mlkem as _mlkem
except ImportError:  # a release before 48
    _mlkem = None  # type: ignore[assignment]

KEM_KEY = 1184
CIPHERTEXT = 1088
KEM_SEED = 64
KEM_SECRET = 32

Encapsulate = Callable[[bytes], tuple[bytes, bytes]]
"""From a public key of 1184 bytes: a fresh secret of 32 bytes, and its ciphertext of 1088."""


class Suite(IntEnum):
    """What the channels between clients rest on. The number is the suite's byte on the wire."""

    X25519 = 1
    X25519_MLKEM768 = 2

    @property
    def hybrid(self) -> bool:
        """Whether ML-KEM-768 stands beside X25519."""
        return self is Suite.X25519_MLKEM768

    @property
    def available(self) -> bool:
        """Whether this installation can speak it."""
        return not self.hybrid or _kem_works()

    def require(self) -> None:
        """MisuseError, with what to do, unless the suite is `available`."""
        if not self.available:
            raise MisuseError(
                f"suite {self.name} needs ML-KEM-768, which this installation's cryptography lacks; install "
                "cryptography 48 or later, or use Suite.X25519",
                Code.OTHER_SUITE,
            )


def _kem_works() -> bool:
    if _mlkem is None:
        return False
    try:
        _mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes(KEM_SEED))
    except UnsupportedAlgorithm:
        return False
    return True


def kem_public(seed: bytes) -> bytes:
    """The public key, 1184 bytes, that grows from a secret seed of 64 bytes (d and z of FIPS 203)."""
    return _mlkem.MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh secret and its ciphertext for the holder of `public`; the randomness is the library's own.

    Raises ValueError for what is no public key: of another length, or with coefficients beyond q (FIPS 203, 7.2).
    """
    secret, ciphertext = _mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    return secret, ciphertext


def decapsulator(seed: bytes) -> Callable[[bytes], bytes]:
    """What turns ciphertexts into secrets, for the key that grows from `seed`.

    A ciphertext that nobody made for this key gives a secret that nobody has (implicit rejection, FIPS 203, 7.3).
    """
    return _mlkem.MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate


def check_kem_key(public: bytes, culprit: Culprit) -> None:
    """PeerError unless `public` is an ML-KEM-768 public key."""
    try:
        _mlkem.MLKEM768PublicKey.from_public_bytes(public)
    except ValueError:  # its text speaks of the length, whatever is wrong
        raise PeerError(culprit, "not an ML-KEM-768 public key", Code.BAD_KEY) from None
