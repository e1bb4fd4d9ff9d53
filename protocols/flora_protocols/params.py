"""What all parties of a session agree on, and what a client insists on by itself.

A *session* is one cohort and one graph, set up once for so many rounds as it has *slots*. Its *set-up id* is a SHA-256
digest of the parameters, identity keys included; it exists before any message. The *session id* covers the set-up id
and the whole roster. What a round adds is in `round_params`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache

from flora_protocols.codec import VERSION
from flora_protocols.errors import Code, MisuseError, ParameterError, PeerError
from flora_protocols.graph import Graph
from flora_protocols.keys import KEY, identity_fault
from flora_protocols.ranges import integer, shown, whole
from flora_protocols.ring import MAX_BITS, MIN_BITS, packed_bytes
from flora_protocols.suites import Suite

MAX_CLIENTS = 1 << 16  # a share's x-coordinate, index + 1, must stay below p
MAX_DIMENSION = 1 << 30
MAX_SLOTS = 1 << 10
MAX_HELD = 1 << 20  # slots times holders: what a client prepares and keeps is some 60 bytes each
_MAGIC = b"fP"
_NUMBERS = struct.Struct("<BBBBHIIIIIQ")  # from the wire version to the session's number
_GRAPH = struct.Struct("<IIQ")  # clients, neighbours, number
_SETUP_TAG = 8
PARAMS_BYTES = len(_MAGIC) + _NUMBERS.size + _SETUP_TAG


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
    `suite`: weakest suite that it speaks.
    """

    clients: int
    threshold: int
    survivors: int
    suite: Suite

    def __post_init__(self) -> None:
        _make_int(self, "clients", "threshold", "survivors")
        for name in ("clients", "threshold", "survivors"):
            whole(name, getattr(self, name), 2, MAX_CLIENTS)
        _require_suite(self.suite)


@dataclass(frozen=True, kw_only=True)
class SessionParams:
    """One session: one cohort, prepared for some rounds.

    clients      n, the roster's size: indices 0 .. n - 1, whether or not all of them turn up
    neighbours   k: n - 1 (complete graph), or an even number below it (Harary graph)
    threshold    t, the number of shares that reveal a secret
    bits         b: vectors live in Z_{2^b}
    dimension    d, the vectors' length
    profile      whom to be secure against
    suite        what the channels between clients rest on
    slots        B, how many rounds the set-up prepares
    number       of the session; never use one twice with the same cohort
    corrupt      the largest number of holders of one client's shares, corrupt at any time of the session, that t
                 resists
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
    suite: Suite = Suite.X25519
    slots: int = 1
    number: int = 0
    corrupt: int = 0
    identities: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _make_int(self, "clients", "neighbours", "threshold", "bits", "dimension", "slots", "number", "corrupt")
        n, k, t = self.clients, self.neighbours, self.threshold
        whole("clients", n, 2, MAX_CLIENTS)
        whole("neighbours", k, 1, n - 1)
        if k != n - 1 and k % 2:
            raise ParameterError(f"neighbours {k} of {n} clients: use {n - 1} (everybody) or an even number")
        whole("threshold", t, 2, MAX_CLIENTS)
        whole("bits", self.bits, MIN_BITS, MAX_BITS)
        whole("dimension", self.dimension, 1, MAX_DIMENSION)
        whole("slots", self.slots, 1, MAX_SLOTS)
        whole("number", self.number, 0, 2**64 - 1)
        whole("corrupt", self.corrupt, 0, n)
        if not isinstance(self.profile, Profile):
            names = " or ".join(f"Profile.{profile.name}" for profile in Profile)
            raise MisuseError(f"profile must be a Profile, not {shown(self.profile)}; pass {names}")
        _require_suite(self.suite)
        if self.slots * self.holders > MAX_HELD:
            raise ParameterError(
                f"{self.slots} slots among {self.holders} holders: a client prepares at most {MAX_HELD} shares; "
                "lower one of them"
            )
        self._check_threshold()
        self._check_identities()

    def to_bytes(self) -> bytes:
        """These parameters in 44 bytes, identity keys left out: whoever reads them has those already (SPEC.md, 16)."""
        return _MAGIC + self._numbers + self.setup_id[:_SETUP_TAG]

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
        if data[3] not in set(Suite) or not Suite(data[3]).available:
            raise PeerError("server", f"cipher suite {data[3]}, which this side cannot speak", Code.OTHER_SUITE)
        if len(data) != PARAMS_BYTES:
            raise PeerError("server", f"parameters of {len(data)} bytes; {PARAMS_BYTES} expected", Code.NOT_A_MESSAGE)
        _, suite, malicious, bits, slots, n, k, t, corrupt, d, number = _NUMBERS.unpack_from(data, len(_MAGIC))
        if malicious > 1:
            raise PeerError("server", "the profile is 0 or 1", Code.BAD_BODY)
        try:
            params = cls(
                clients=n,
                neighbours=k,
                threshold=t,
                bits=bits,
                dimension=d,
                profile=Profile.MALICIOUS_SERVER if malicious else Profile.SEMI_HONEST,
                suite=Suite(suite),
                slots=slots,
                number=number,
                corrupt=corrupt,
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
        """32 bytes that bind every field of this object and the wire version."""
        return hashlib.sha256(b"flora-secure/2 set-up\0" + self._numbers + self._identities_hash).digest()

    @cached_property
    def graph(self) -> Graph:
        """Who is whose neighbour. Its seed is of size, number and identities alone: among as many values as it binds of
        what the server proposes, the server could look for a graph that it likes."""
        drawn = _GRAPH.pack(self.clients, self.neighbours, self.number) + self._identities_hash
        return Graph(self.clients, self.neighbours, hashlib.sha256(b"flora-secure/2 graph\0" + drawn).digest())

    @property
    def _numbers(self) -> bytes:
        """Everything but the identity keys, as in the ids and as `to_bytes` has it."""
        small = (VERSION, self.suite, self.malicious, self.bits, self.slots)
        large = (self.clients, self.neighbours, self.threshold, self.corrupt, self.dimension, self.number)
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
    _require_trusted(keys)


@lru_cache(maxsize=4)  # parameters are read with every message, and the enrolment stays
def _require_trusted(keys: tuple[bytes, ...]) -> None:
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


def _require_suite(suite: object) -> None:
    if not isinstance(suite, Suite):
        names = " or ".join(f"Suite.{known.name}" for known in Suite)
        raise MisuseError(f"suite must be a Suite, not {shown(suite)}; pass {names}")


def _make_int(of: Floors | SessionParams, *names: str) -> None:
    """Make these attributes of a frozen object ints."""
    for name in names:
        object.__setattr__(of, name, integer(name, getattr(of, name)))


def _kind(value: object) -> str:
    """What was given in the place of bytes, without its content: it may be somebody's private key."""
    return shown(value) if isinstance(value, bytes) else f"of type {type(value).__name__}"
