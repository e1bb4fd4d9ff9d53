"""What all parties of a session agree on, and what a client insists on by itself.

Both ids are SHA-256 digests. The *set-up id* covers the parameters (round number, hash of the model being trained and
identity keys included); it exists before any message. The *session id* covers the set-up id and the whole roster.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from flora_protocols.codec import SUITE, VERSION
from flora_protocols.errors import Code, MisuseError, ParameterError, PeerError
from flora_protocols.graph import Graph
from flora_protocols.keys import KEY, identity_fault
from flora_protocols.ranges import integer, shown, whole
from flora_protocols.ring import MAX_BITS, MIN_BITS, packed_bytes

MAX_CLIENTS = 1 << 16  # a share's x-coordinate, index + 1, must stay below p
MAX_DIMENSION = 1 << 30
_MAGIC = b"fP"
_NUMBERS = struct.Struct("<BBBBBIIIIIQ")  # from the wire version to the round
_GRAPH = struct.Struct("<IIQ")  # clients, neighbours, round
_MODEL_HASH = 32
_SETUP_TAG = 8
PARAMS_BYTES = len(_MAGIC) + _NUMBERS.size + _MODEL_HASH + _SETUP_TAG


class Profile(Enum):
    """Whom the protocol is secure against, beside the corrupt clients."""

    SEMI_HONEST = "semi-honest"
    MALICIOUS_SERVER = "malicious-server"


@dataclass(frozen=True, kw_only=True)
class Floors:
    """A client's own policy, never sent and never taken from the server. Nothing of it has a default: what protects a
    client in its federation nobody else can say.

    `clients`: smallest cohort that it joins. `threshold`: smallest t that it accepts, above all who may be corrupt.
    `survivors`: smallest number of vectors, its own included, in whose sum it lets its own disappear.
    """

    clients: int
    threshold: int
    survivors: int

    def __post_init__(self) -> None:
        _make_int(self, "clients", "threshold", "survivors")
        for name in ("clients", "threshold", "survivors"):
            whole(name, getattr(self, name), 2, MAX_CLIENTS)


@dataclass(frozen=True, kw_only=True)
class SessionParams:
    """One session: one round of one cohort.

    clients      n, the roster's size: indices 0 .. n - 1, whether or not all of them turn up
    neighbours   k: n - 1 (complete graph), or an even number below it (Harary graph)
    threshold    t, the number of shares that reveal a secret
    bits         b: vectors live in Z_{2^b}
    dimension    d, the vectors' length
    profile      whom to be secure against
    round        number of the round; never use one twice with the same model and cohort
    model_hash   32 bytes: clients that train different models must not share a sum
    corrupt      the largest number of corrupt holders of one client's shares that t must resist
    direct_reveal  survivors reveal the keys of the pairwise masks they share with dropped clients, beside the shares:
                 much less work for the server; what it costs is in SPEC.md, section 14
    identities   everyone's Ed25519 public key by index (malicious-server profile), otherwise empty

    Numbers are whole; numpy's integers become ints. Raises ParameterError (impossible together) or MisuseError (wrong
    type).
    """

    clients: int
    neighbours: int
    threshold: int
    bits: int
    dimension: int
    profile: Profile = Profile.SEMI_HONEST
    round: int = 0
    model_hash: bytes = bytes(32)
    corrupt: int = 0
    direct_reveal: bool = False
    identities: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _make_int(self, "clients", "neighbours", "threshold", "bits", "dimension", "round", "corrupt")
        n, k, t = self.clients, self.neighbours, self.threshold
        whole("clients", n, 2, MAX_CLIENTS)
        whole("neighbours", k, 1, n - 1)
        if k != n - 1 and k % 2:
            raise ParameterError(f"neighbours {k} of {n} clients: use {n - 1} (everybody) or an even number")
        whole("threshold", t, 2, MAX_CLIENTS)
        whole("bits", self.bits, MIN_BITS, MAX_BITS)
        whole("dimension", self.dimension, 1, MAX_DIMENSION)
        whole("round", self.round, 0, 2**64 - 1)
        whole("corrupt", self.corrupt, 0, n)
        if not isinstance(self.profile, Profile):
            names = " or ".join(f"Profile.{profile.name}" for profile in Profile)
            raise MisuseError(f"profile must be a Profile, not {shown(self.profile)}; pass {names}")
        if not isinstance(self.direct_reveal, bool):
            raise MisuseError(f"direct_reveal must be a bool, not {shown(self.direct_reveal)}; pass True or False")
        if not isinstance(self.model_hash, bytes) or len(self.model_hash) != 32:
            raise MisuseError(
                f"model_hash must be 32 bytes, such as the SHA-256 of the model, not {_kind(self.model_hash)}"
            )
        self._check_threshold()
        self._check_identities()

    def to_bytes(self) -> bytes:
        """These parameters in 75 bytes, identity keys left out: whoever reads them has those already (SPEC.md, 16)."""
        return _MAGIC + self._numbers + self.model_hash + self.setup_id[:_SETUP_TAG]

    @classmethod
    def from_bytes(cls, data: bytes, identities: tuple[bytes, ...] = ()) -> SessionParams:
        """The parameters that the server proposes.

        `identities`: in the malicious-server profile, everyone's public key by index, as they were enrolled; never
        what the server says. Raises PeerError naming the server for anything but bytes of `to_bytes` with the same
        identities; MisuseError or ParameterError for `identities` that no session can have.
        """
        check_identities(identities)
        if not isinstance(data, bytes):
            raise MisuseError(f"parameters are bytes, not {type(data).__name__}")
        if len(data) < 4 or data[:2] != _MAGIC:
            raise PeerError("server", "these bytes are no session parameters", Code.NOT_A_MESSAGE)
        if data[2] != VERSION:
            raise PeerError("server", f"wire version {data[2]}; this side speaks {VERSION}", Code.OTHER_VERSION)
        if data[3] != SUITE:
            raise PeerError("server", f"cipher suite {data[3]}; this side speaks {SUITE}", Code.OTHER_SUITE)
        if len(data) != PARAMS_BYTES:
            raise PeerError("server", f"parameters of {len(data)} bytes; {PARAMS_BYTES} expected", Code.NOT_A_MESSAGE)
        _, _, malicious, direct, bits, n, k, t, corrupt, d, number = _NUMBERS.unpack_from(data, len(_MAGIC))
        if malicious > 1 or direct > 1:
            raise PeerError("server", "profile and direct reveal are 0 or 1 each", Code.BAD_BODY)
        try:
            params = cls(
                clients=n,
                neighbours=k,
                threshold=t,
                bits=bits,
                dimension=d,
                profile=Profile.MALICIOUS_SERVER if malicious else Profile.SEMI_HONEST,
                round=number,
                model_hash=data[-_SETUP_TAG - _MODEL_HASH : -_SETUP_TAG],
                corrupt=corrupt,
                direct_reveal=bool(direct),
                identities=identities,
            )
        except ParameterError as error:
            raise PeerError("server", f"proposes what cannot be: {error}", Code.PARAMETERS) from None
        if data[-_SETUP_TAG:] != params.setup_id[:_SETUP_TAG]:
            reason = "the parameters were damaged, or are of a session among other identities than those enrolled here"
            raise PeerError("server", reason, Code.OTHER_SESSION)
        return params

    def _check_threshold(self) -> None:
        holders, t, corrupt = self.holders, self.threshold, self.corrupt
        if t > holders:
            raise ParameterError(
                f"threshold {t}, but only {holders} clients hold shares of a secret; lower it or add neighbours"
            )
        if t <= corrupt:
            raise ParameterError(
                f"threshold {t}: {corrupt} corrupt holders could reveal a secret alone; use more than {corrupt}"
            )
        if self.malicious and 2 * t <= holders + corrupt:
            raise ParameterError(
                f"threshold {t}: a server may tell two halves of {holders} holders two stories; with {corrupt} corrupt "
                f"holders use at least {(holders + corrupt) // 2 + 1}"
            )

    def _check_identities(self) -> None:
        keys = self.identities
        check_identities(keys)
        if self.malicious and len(keys) != self.clients:
            raise ParameterError(f"malicious-server profile: {len(keys)} identity keys for {self.clients} clients")
        if not self.malicious and keys:
            raise ParameterError("the semi-honest profile has no identity keys; leave identities empty")

    @property
    def malicious(self) -> bool:
        """Whether the profile is malicious-server."""
        return self.profile is Profile.MALICIOUS_SERVER

    @property
    def holders(self) -> int:
        """How many clients hold shares of one client's secrets (see graph)."""
        return self.neighbours + (self.neighbours == self.clients - 1)

    @property
    def payload_bytes(self) -> int:
        """Bytes of a packed vector."""
        return packed_bytes(self.dimension, self.bits)

    @cached_property
    def setup_id(self) -> bytes:
        """32 bytes that bind every field of this object, the wire version and the suite."""
        return hashlib.sha256(
            b"flora-secure/2 set-up\0" + self._numbers + self._identities_hash + self.model_hash
        ).digest()

    @cached_property
    def graph(self) -> Graph:
        """Who is whose neighbour. Its seed is of size, round and identities alone: among as many values as it binds of
        what the server proposes, the server could look for a graph that it likes."""
        drawn = _GRAPH.pack(self.clients, self.neighbours, self.round) + self._identities_hash
        return Graph(self.clients, self.neighbours, hashlib.sha256(b"flora-secure/2 graph\0" + drawn).digest())

    @property
    def _numbers(self) -> bytes:
        """Everything but the keys and the model, as in the ids and as `to_bytes` has it."""
        small = (VERSION, SUITE, self.malicious, self.direct_reveal, self.bits)
        large = (self.clients, self.neighbours, self.threshold, self.corrupt, self.dimension, self.round)
        return _NUMBERS.pack(*small, *large)

    @cached_property
    def _identities_hash(self) -> bytes:
        return hashlib.sha256(b"".join(self.identities)).digest()

    def session_id(self, present: bytes, entries_hash: bytes) -> bytes:
        """32 bytes. `present`: the roster's bitmap. `entries_hash`: SHA-256 of all its entries, in order."""
        return hashlib.sha256(b"flora-secure/2 session\0" + self.setup_id + present + entries_hash).digest()


def check_identities(keys: object) -> None:
    """Raise MisuseError unless `keys` is a tuple of Ed25519 public keys, such as an enrolment has.

    ParameterError if one is there twice, or is none that a signature could be trusted under: of small order, or not
    canonically encoded.
    """
    if not isinstance(keys, tuple):
        raise MisuseError(f"identities must be a tuple of Ed25519 public keys of {KEY} bytes, not {_kind(keys)}")
    for index, key in enumerate(keys):
        if not isinstance(key, bytes) or len(key) != KEY:
            raise MisuseError(
                f"identities must be Ed25519 public keys of {KEY} bytes; that of client {index} is {_kind(key)}"
            )
    if len(set(keys)) != len(keys):
        raise ParameterError("two clients have the same identity key")
    for index, key in enumerate(keys):
        fault = identity_fault(key)
        if fault is not None:
            raise ParameterError(f"the identity key of client {index} {fault}; enrol another", Code.BAD_KEY)


def require_params(params: object) -> SessionParams:
    """`params` itself; MisuseError for anything else than SessionParams."""
    if not isinstance(params, SessionParams):
        raise MisuseError(f"params must be SessionParams, not {type(params).__name__}")
    return params


def _make_int(of: Floors | SessionParams, *names: str) -> None:
    """Make these attributes of a frozen object ints."""
    for name in names:
        object.__setattr__(of, name, integer(name, getattr(of, name)))


def _kind(value: object) -> str:
    """What was given in the place of bytes, without its content: it may be somebody's private key."""
    return shown(value) if isinstance(value, bytes) else f"of type {type(value).__name__}"
