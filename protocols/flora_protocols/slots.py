"""What a client prepares for the rounds of a session, and what it keeps of it.

For every slot a client has two secrets of 16 bytes, shared among its holders: the *seed* of its self mask, which they
reveal if its vector is in the sum, and the *opener*, which they reveal if it dropped out. What the opener opens is the
slot's *blob*, deposited at the server: the slot's keys of the client's pairwise masks. So the server never has to agree
on a key, and opens no other slot than the one that a client dropped out of.

Of each pair, both ends expand the root that they agree on into one key a slot, and forget the root. A used slot's keys,
seed and shares are gone: what is kept says nothing about rounds that are over.

Of the t shares that fix a secret, t - 1 need not travel: the first holders, its *derivers*, and the client derive them
from what they agree on, and the secret does the rest.

All that a client deals follows from its own secret and from what was said while the session was set up: told the same
again, it deals the same bytes, and told anything else, other secrets altogether.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from flora_protocols import keys
from flora_protocols.codec import Bitmap, Reader, encode_subset
from flora_protocols.errors import Code, PeerError
from flora_protocols.keystream import keystream
from flora_protocols.params import SessionParams
from flora_protocols.shamir import LIMBS, SHARE, Raw, canonical_bytes, encode, split, uniform

_PAIR = 2 * SHARE  # a share of a seed, a share of an opener


class Dealt(NamedTuple):
    """What a client deals: the pairs of shares, 34 bytes a slot, of each holder that does not derive them; `blobs`
    (slots, recipients, 16); `commitments` of 16 bytes, joined; and its own `seeds` of 16 bytes, joined."""

    pairs: dict[int, bytes]
    blobs: Raw
    commitments: bytes
    seeds: bytes

    def __repr__(self) -> str:
        return "<Dealt>"


def deal(
    params: SessionParams,
    index: int,
    own: bytes,
    session: bytes,
    heard: bytes,
    pair_keys: Mapping[int, bytes],
    derived: Mapping[int, bytes],
) -> Dealt:
    """Make and share the secrets of all slots.

    `own`: the client's own secret of 32 bytes. `heard`: digest of all that was said while the session was set up, on
    which the channels depend. `pair_keys`: by peer that is left, ascending, 16 bytes a slot. `derived`: by each of the
    derivers among them, the key that its shares follow from, as `derived_pairs` has them; of derivers that are not
    left, the client draws the shares itself.
    """
    slots, stream = params.slots, _Stream(keys.derive(own, keys.SHARING, heard, index, index))
    secrets = np.frombuffer(stream(2 * keys.SECRET * slots), np.uint8).reshape(slots, 2, keys.SECRET)
    limbs, derivers = 2 * LIMBS * slots, params.graph.derivers(index, params.threshold)
    streams = (_Stream(derived[peer]) if peer in derived else stream for peer in derivers)
    values = uniform(limbs, streams)
    holders = [peer for peer in params.graph.holders(index) if peer == index or peer in pair_keys]
    others = [holder for holder in holders if holder not in derivers]
    points, given = tuple([other + 1 for other in others]), tuple([peer + 1 for peer in derivers])
    rows = split(secrets.tobytes(), given, values, points) if points else ()
    seeds, openers = (secrets[:, which].tobytes() for which in (0, 1))
    masks = [_blob_bytes(_of_slot(openers, slot), session, index, slot, len(pair_keys)) for slot in range(slots)]
    blobs = _by_slot(pair_keys.values(), slots, keys.SECRET)
    blobs ^= np.frombuffer(b"".join(masks), np.uint8).reshape(blobs.shape)
    return Dealt(
        {holder: row.tobytes() for holder, row in zip(others, rows, strict=True)},
        blobs,
        b"".join(keys.commitment(_of_slot(seeds, slot), session, index, slot) for slot in range(slots)),
        seeds,
    )


def derived_pairs(derived: Mapping[int, bytes], slots: int) -> dict[int, bytes]:
    """The pairs of shares, 34 bytes a slot, that a deriver holds, by dealer, from the keys that it shares with them."""
    values = uniform(2 * LIMBS * slots, map(_Stream, derived.values()))
    rows = encode(values.reshape(len(derived), 2 * slots, LIMBS))
    return {dealer: row.tobytes() for dealer, row in zip(derived, rows, strict=True)}


def blob_stream(opener: bytes, session: bytes, index: int, slot: int, recipients: int) -> Raw:
    """What a client's blob of a slot is masked with, uint8 (recipients, 16)."""
    stream = _blob_bytes(opener, session, index, slot, recipients)
    return np.frombuffer(stream, np.uint8).reshape(recipients, keys.SECRET)


def _blob_bytes(opener: bytes, session: bytes, index: int, slot: int, recipients: int) -> bytes:
    return keystream(keys.derive(opener, keys.OPENER, session, index, slot), keys.SECRET * recipients)


def _of_slot(joined: bytes, slot: int) -> bytes:
    return joined[keys.SECRET * slot : keys.SECRET * (slot + 1)]


class _Stream:
    """A source of randomness: the AES-256-CTR keystream under a key, from counter zero on."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def __call__(self, size: int) -> bytes:
        return self._encryptor.update(bytes(size))


@dataclass(frozen=True)
class Slot:
    """One slot's secrets: the seed; by peer, the key of 16 bytes; by owner, the pair of shares, 34 bytes."""

    seed: bytes
    pair_keys: dict[int, bytes]
    held: dict[int, bytes]

    def __repr__(self) -> str:
        return "<Slot>"


@dataclass(frozen=True)
class Slots:
    """What is left of a client's prepared slots.

    Attributes:
        session: the session id.
        present: who advertised.
        first: the first slot that is left.
        seeds: uint8 (left, 16).
        peers: the neighbours that shared, ascending; `pair_keys`: uint8 (left, peers, 16).
        owners: whose shares are held, ascending; `held`: uint8 (left, owners, 34).
    """

    session: bytes
    present: Bitmap
    first: int
    seeds: Raw
    peers: tuple[int, ...]
    pair_keys: Raw
    owners: tuple[int, ...]
    held: Raw

    def __repr__(self) -> str:
        return f"<Slots, {len(self.seeds)} left from {self.first}>"

    @classmethod
    def of(
        cls,
        session: bytes,
        present: Bitmap,
        seeds: bytes,
        pair_keys: Mapping[int, bytes],
        held: Mapping[int, bytes],
    ) -> Slots:
        """All slots of a session, of which each value has joined what belongs to one client."""
        owners, slots = tuple(sorted(held)), len(seeds) // keys.SECRET
        return cls(
            session,
            present,
            0,
            np.frombuffer(seeds, np.uint8).reshape(slots, keys.SECRET),
            tuple(pair_keys),
            _by_slot(pair_keys.values(), slots, keys.SECRET),
            owners,
            _by_slot([held[owner] for owner in owners], slots, _PAIR),
        )

    @property
    def unopened(self) -> frozenset[int]:
        """The neighbours that shared, but whose box did not open."""
        return frozenset(self.peers).difference(self.owners)

    def take(self, slot: int) -> tuple[Slot, Slots]:
        """The secrets of a slot that is left, and what is left after it; those before it are gone."""
        at = slot - self.first
        pair_keys, held = self.pair_keys[at].tobytes(), self.held[at].tobytes()
        taken = Slot(
            self.seeds[at].tobytes(),
            {peer: _of_slot(pair_keys, place) for place, peer in enumerate(self.peers)},
            {owner: held[_PAIR * place : _PAIR * (place + 1)] for place, owner in enumerate(self.owners)},
        )
        after = at + 1
        left = self.seeds[after:], self.pair_keys[after:], self.held[after:]
        seeds, keys_left, held_left = (part.copy() for part in left)  # not views: those would keep what is gone
        rest = Slots(self.session, self.present, slot + 1, seeds, self.peers, keys_left, self.owners, held_left)
        return taken, rest

    def contents(self, params: SessionParams, index: int) -> bytes:
        """These slots as bytes of a dump."""
        members = params.graph.members(index)
        parts = (self.session, self.present.raw, self.first.to_bytes(2, "little"), self.seeds.tobytes())
        peers = encode_subset(members, self.peers) + self.pair_keys.tobytes()
        return b"".join((*parts, peers, encode_subset(members, self.owners), self.held.tobytes()))

    @classmethod
    def restored(cls, params: SessionParams, index: int, contents: Reader) -> Slots:
        """The inverse of `contents`; PeerError for what they cannot be."""
        members, session, present = params.graph.members(index), contents.take(32), contents.bitmap(params.clients)
        first = int.from_bytes(contents.take(2), "little")
        left = params.slots - first
        if left < 0:
            raise contents.refusal(f"slot {first} of {params.slots}", Code.BAD_DUMP)
        seeds = np.frombuffer(contents.take(keys.SECRET * left), np.uint8).reshape(left, keys.SECRET)
        peers = contents.subset(members)
        pair_keys = np.frombuffer(contents.take(keys.SECRET * left * len(peers)), np.uint8)
        owners = contents.subset(members)
        held = contents.take(_PAIR * left * len(owners))
        if not canonical_bytes(held):
            raise PeerError("server", "a share is not canonically encoded", Code.BAD_DUMP)
        pair_keys = pair_keys.reshape(left, len(peers), keys.SECRET)
        shares = np.frombuffer(held, np.uint8).reshape(left, len(owners), _PAIR)
        return cls(session, present, first, seeds, peers, pair_keys, owners, shares)


def _by_slot(joined: Collection[bytes], slots: int, size: int) -> Raw:
    """What belongs to each client for all slots, `size` bytes a slot, as uint8 (slots, clients, size): a slot's in one
    piece, so that it is soon taken, and what is left soon copied."""
    return np.frombuffer(b"".join(joined), np.uint8).reshape(len(joined), slots, size).swapaxes(0, 1).copy()
