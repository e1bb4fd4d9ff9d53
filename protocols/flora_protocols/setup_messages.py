"""The bodies of the messages that set a session up: one encoder and one decoder each. Frames are in codec.

What comes out of a decoder has been checked as far as the message alone allows: lengths, canonical form, public keys,
signatures. Lists are in ascending order of the index and carry no indices: who is meant follows from the graph, the
roster and a bitmap. H is SHA-256; what is in brackets is there in the hybrid suite, or in the malicious-server profile.

    ADVERTISEMENT  client → server  channel key 32 [· KEM key 1184] [· signature 64]
    ROSTER         server → client  bitmap over all clients · [H of all entries, Harary graph] · the entries of the
                                    recipient and its neighbours [· KEM keys of those that it encapsulates to]
                                    entry = channel key 32 [· H(KEM key) 32] [· signature 64]
    CIPHERTEXTS    client → server  [for each of them: ciphertext 1088]
    DELIVERY       server → client  [bitmap over the recipient and its neighbours: who encapsulated · the ciphertexts
                                    for the recipient]
    SHARES         client → server  for each neighbour that is left the tag of its box, 16 · for each of them that
                                    does not derive its shares what the box seals, 34 bytes a slot
                                    · for each slot and each of them 16 bytes of blob · for each slot a commitment 16
    INBOX          server → client  bitmap over the recipient and its neighbours: who shared · their tags
                                    · of each of them whose shares the recipient does not derive what it sealed
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flora_protocols import keys
from flora_protocols.codec import Bitmap, Kind, Reader, decode_frame, encode_frame, encode_subset
from flora_protocols.errors import Code, Culprit
from flora_protocols.params import SessionParams
from flora_protocols.shamir import SHARE, Raw
from flora_protocols.suites import CIPHERTEXT, KEM_KEY, check_kem_key

_HASH = 32


class Advertisement(NamedTuple):
    """A client's entry in the roster: its channel key, the hash of its KEM key (empty in the X25519 suite), and its
    signature over them (empty in the semi-honest profile)."""

    channel: bytes
    kem_hash: bytes
    signature: bytes

    @property
    def entry(self) -> bytes:
        """The entry's bytes as they are on the wire."""
        return self.channel + self.kem_hash + self.signature

    def signed_text(self, params: SessionParams, index: int) -> bytes:
        """What the signature covers, beside its purpose."""
        return params.setup_id + index.to_bytes(4, "little") + self.channel + self.kem_hash


class Roster(NamedTuple):
    """What a client learns from the roster: all who advertised, its members' entries, the KEM keys of those that it
    encapsulates to, and the session id."""

    present: Bitmap
    entries: dict[int, Advertisement]
    kem_keys: dict[int, bytes]
    session: bytes


class Shares(NamedTuple):
    """What a client sent of its secrets, uint8: `tags` (recipients, 16), `sealed` (those that do not derive, bytes),
    `blobs` (slots, recipients, 16), `commitments` (slots, 16)."""

    tags: Raw
    sealed: Raw
    blobs: Raw
    commitments: Raw


def entry_bytes(params: SessionParams) -> int:
    """Length of an entry."""
    return keys.KEY + _HASH * params.suite.hybrid + keys.SIGNATURE * params.malicious


def sealed_bytes(params: SessionParams) -> int:
    """Length of what a box seals, beside its tag, for a holder that does not derive its shares: two shares a slot."""
    return 2 * SHARE * params.slots


def shares_bytes(params: SessionParams, recipients: int, sealed: int) -> int:
    """Length of the body of SHARES, for so many recipients, to so many of whom something is sealed."""
    slots = params.slots
    boxes = keys.TAG * recipients + sealed_bytes(params) * sealed
    return boxes + keys.SECRET * slots * recipients + keys.COMMITMENT_BYTES * slots


def encode_advertisement(params: SessionParams, own: Advertisement, kem_key: bytes) -> bytes:
    """The frame of a client's advertisement, of the set-up's id. `kem_key`: b"" in the X25519 suite."""
    body = own.channel + kem_key + own.signature
    return encode_frame(Kind.ADVERTISEMENT, params.suite, params.setup_id, body)


def decode_advertisement(params: SessionParams, message: bytes, client: int) -> tuple[Advertisement, bytes]:
    """The advertisement of `client` and its KEM key. PeerError naming it for other bytes, bad keys, a bad signature."""
    kem = KEM_KEY * params.suite.hybrid
    size = keys.KEY + kem + keys.SIGNATURE * params.malicious
    reader = decode_frame(message, Kind.ADVERTISEMENT, params.suite, params.setup_id, client, size)
    channel, kem_key = reader.take(keys.KEY), reader.take(kem)
    own = Advertisement(channel, hash_of_kem(kem_key), reader.take(keys.SIGNATURE * params.malicious))
    reader.finish()
    keys.check_publics((channel,), client)
    if kem:
        check_kem_key(kem_key, client)
    if params.malicious:
        _check_signature(params, own, client, client)
    return own, kem_key


def hash_of_kem(key: bytes) -> bytes:
    """What an entry has in the place of a KEM key; b"" for none."""
    return hashlib.sha256(key).digest() if key else b""


def encode_rosters(
    params: SessionParams, entries: Mapping[int, Advertisement], kem_keys: Mapping[int, bytes]
) -> tuple[bytes, dict[int, bytes]]:
    """The session id, and a roster for each client in `entries`."""
    present = encode_subset(range(params.clients), entries)
    raw = {index: entries[index].entry for index in sorted(entries)}
    joined = b"".join(raw.values())
    digest = hashlib.sha256(joined).digest()
    session = params.session_id(present, digest)

    def roster(*parts: bytes) -> bytes:
        return encode_frame(Kind.ROSTER, params.suite, params.setup_id, b"".join((present, *parts)))

    if params.graph.complete and not kem_keys:
        return session, dict.fromkeys(raw, roster(joined))
    advertised = params.graph.flags(raw)
    place = np.cumsum(advertised) - 1  # of a client's entry among all
    near = params.graph.neighbourhoods[advertised]
    claimed = b"" if params.graph.complete else digest
    found = _rows(joined, entry_bytes(params), place, near, advertised[near])
    keyed = [b""] * len(raw)
    if kem_keys:
        all_keys = b"".join(kem_keys[index] for index in raw)
        keyed = _rows(all_keys, KEM_KEY, place, near, advertised[near] & params.graph.clockwise[advertised])
    return session, {index: roster(claimed, own, kem) for index, own, kem in zip(raw, found, keyed, strict=True)}


def _rows(
    joined: bytes, size: int, place: NDArray[np.intp], near: NDArray[np.uint16], kept: NDArray[np.bool_]
) -> list[bytes]:
    """For each row of `near` the items of the clients that are `kept`, joined; `joined` are those of all in `place`."""
    whose, ends = place[near[kept]], np.cumsum(kept.sum(axis=1)).tolist()
    table = np.frombuffer(joined, np.dtype((np.void, size)))
    return [table[whose[first:last]].tobytes() for first, last in zip([0, *ends], ends, strict=False)]


def decode_roster(params: SessionParams, message: bytes, index: int, own: Advertisement) -> Roster:
    """The roster that client `index` was told, which holds its `own` entry. Raises PeerError naming the server."""
    members, size = params.graph.members(index), entry_bytes(params)
    limit = (params.clients + 7) // 8 + _HASH + len(members) * (size + KEM_KEY * params.suite.hybrid)
    reader = decode_frame(message, Kind.ROSTER, params.suite, params.setup_id, "server", limit)
    present = reader.bitmap(params.clients)
    claimed = b"" if params.graph.complete else reader.take(_HASH)
    near = present.among(members)
    joined = reader.take(size * len(near))
    entries = dict(zip(near, _parsed(params, joined), strict=True))
    kem_keys = {}
    if params.suite.hybrid:
        wanted = [member for member in near if member != index and params.graph.encapsulates(index, member)]
        kem_keys = dict(zip(wanted, reader.chunks(KEM_KEY, len(wanted)), strict=True))
    reader.finish()
    if entries.get(index) != own:
        reason = f"the roster lacks client {index}'s own advertisement, or changes it"
        raise reader.refusal(reason, Code.BAD_ROSTER)
    for name in ("channel", "kem_hash"):
        publics = [getattr(entry, name) for entry in entries.values()]
        if len(set(publics)) < len(publics) and publics[0]:
            raise reader.refusal("the roster holds one public key twice", Code.BAD_KEY)
    keys.check_publics([entry.channel for entry in entries.values()], "server")
    for member, key in kem_keys.items():
        if hash_of_kem(key) != entries[member].kem_hash:
            raise reader.refusal(f"client {member}'s KEM key is not the one of its entry", Code.BAD_KEY)
        check_kem_key(key, "server")
    if params.malicious:
        for member, entry in entries.items():
            if member != index:
                _check_signature(params, entry, "server", member)
    digest = claimed or hashlib.sha256(joined).digest()
    return Roster(present, entries, kem_keys, params.session_id(present.raw, digest))


def encode_ciphertexts(params: SessionParams, session: bytes, ciphertexts: Iterable[bytes]) -> bytes:
    """The frame of a client's ciphertexts, one after another."""
    return encode_frame(Kind.CIPHERTEXTS, params.suite, session, b"".join(ciphertexts))


def decode_ciphertexts(params: SessionParams, session: bytes, message: bytes, client: int, recipients: int) -> Raw:
    """The ciphertext for each of so many `recipients`, uint8 (recipients, 1088)."""
    size = CIPHERTEXT * recipients
    reader = decode_frame(message, Kind.CIPHERTEXTS, params.suite, session, client, size)
    found = np.frombuffer(reader.take(size), np.uint8).reshape(-1, CIPHERTEXT)
    reader.finish()
    return found


def decode_delivery(params: SessionParams, session: bytes, message: bytes, index: int) -> dict[int, bytes]:
    """The ciphertext for client `index` of each neighbour that is left; b"" of those that `index` encapsulated to."""
    reader, senders = _passed_on(Kind.DELIVERY, params, session, message, index, CIPHERTEXT)
    makers = [peer for peer in senders if params.graph.encapsulates(peer, index)]
    made = dict(zip(makers, reader.chunks(CIPHERTEXT, len(makers)), strict=True))
    reader.finish()
    return {peer: made.get(peer, b"") for peer in senders}


def decode_inbox(params: SessionParams, session: bytes, message: bytes, index: int) -> dict[int, bytes]:
    """The box of each neighbour that shared: its tag, and what it sealed, if anything."""
    size = sealed_bytes(params)
    reader, senders = _passed_on(Kind.INBOX, params, session, message, index, size + keys.TAG)
    tags = dict(zip(senders, reader.chunks(keys.TAG, len(senders)), strict=True))
    derived = params.graph.derives_from(index, params.threshold)
    sealers = [peer for peer in senders if peer not in derived]
    sealed = dict(zip(sealers, reader.chunks(size, len(sealers)), strict=True))
    reader.finish()
    return {peer: tag + sealed.get(peer, b"") for peer, tag in tags.items()}


def _passed_on(
    kind: Kind, params: SessionParams, session: bytes, message: bytes, index: int, size: int
) -> tuple[Reader, list[int]]:
    """A reader of what neighbours sent, `size` bytes each at most, and who they are."""
    members = params.graph.members(index)
    limit = (len(members) + 7) // 8 + size * len(members)
    reader = decode_frame(message, kind, params.suite, session, "server", limit)
    there = reader.subset(members)
    if index not in there:
        reason = f"{kind.name} says that client {index} sent nothing, but it did"
        raise reader.refusal(reason, Code.BAD_INBOX)
    return reader, [member for member in there if member != index]


def encode_shares(
    params: SessionParams, session: bytes, boxes: Sequence[bytes], blobs: Raw, commitments: bytes
) -> bytes:
    """The frame of a client's boxes, its blobs and its commitments."""
    tags, sealed = [box[: keys.TAG] for box in boxes], [box[keys.TAG :] for box in boxes]
    body = b"".join((*tags, *sealed, blobs.tobytes(), commitments))
    return encode_frame(Kind.SHARES, params.suite, session, body)


def decode_shares(
    params: SessionParams, session: bytes, message: bytes, client: int, recipients: int, sealed: int
) -> Shares:
    """What `client` sends for so many `recipients`, to so many of whom it seals something."""
    slots, size = params.slots, sealed_bytes(params)
    limit = shares_bytes(params, recipients, sealed)
    reader = decode_frame(message, Kind.SHARES, params.suite, session, client, limit)
    tags = np.frombuffer(reader.take(keys.TAG * recipients), np.uint8).reshape(-1, keys.TAG)
    texts = np.frombuffer(reader.take(size * sealed), np.uint8).reshape(-1, size)
    blobs = np.frombuffer(reader.take(keys.SECRET * slots * recipients), np.uint8).reshape(slots, -1, keys.SECRET)
    commitments = np.frombuffer(reader.take(keys.COMMITMENT_BYTES * slots), np.uint8).reshape(slots, -1)
    reader.finish()
    return Shares(tags, texts, blobs, commitments)


@lru_cache(maxsize=4)
def _layout(hybrid: bool, malicious: bool) -> struct.Struct:
    return struct.Struct(f"{keys.KEY}s{_HASH * hybrid}s{keys.SIGNATURE * malicious}s")


def _parsed(params: SessionParams, joined: bytes) -> Sequence[Advertisement]:
    layout = _layout(params.suite.hybrid, params.malicious)
    return list(map(Advertisement._make, layout.iter_unpack(joined)))


def _check_signature(params: SessionParams, own: Advertisement, culprit: Culprit, index: int) -> None:
    text = own.signed_text(params, index)
    keys.verify(params.identities[index], own.signature, keys.ADVERTISEMENT, text, culprit)
