"""The bodies of all messages: one encoder and one decoder each. Frames are in codec.

What comes out of a decoder has been checked as far as the message alone allows: lengths, canonical form, public keys,
signatures. Lists are in ascending order of the index and carry no indices: who is meant follows from the graph, the
roster and a bitmap.

    ADVERTISEMENT  client → server  entry = mask key 32 · transport key 32 [· signature 64, malicious-server profile]
    ROSTER         server → client  bitmap over all clients · [SHA-256 of all entries, Harary graph]
                                    · the entries of the recipient and its neighbours
    SHARES         client → server  for each neighbour in the roster: 50 bytes, its sealed pair of shares
    INBOX          server → client  bitmap over the recipient and its neighbours: who shared · their sealed pairs
    UPLOAD         client → server  the masked vector, packed
    SURVIVORS      server → client  bitmap over all clients: whose vector arrived
    ENDORSEMENT    client → server  signature 64 of session id · SHA-256 of the survivors' bitmap
    AGREEMENT      server → client  bitmap over the recipient and its neighbours · their signatures
    REVEAL         client → server  for each client whose shares the sender holds, 17 bytes: of its self-mask seed if it
                                    survived, of its mask key's secret if it dropped
                                    [· for each of those that dropped: pair key 32, with direct reveal]
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flora_protocols import keys
from flora_protocols.codec import Bitmap, Kind, decode_frame, encode_frame, encode_long_frame, encode_subset
from flora_protocols.errors import Code, Culprit, PeerError
from flora_protocols.graph import Members
from flora_protocols.params import SessionParams
from flora_protocols.ring import Lanes, packed_view, unpack
from flora_protocols.shamir import SHARE, Raw, canonical_bytes

SEALED = 2 * SHARE + keys.TAG
_ENTRY = struct.Struct(f"{keys.KEY}s{keys.KEY}s0s")
_SIGNED_ENTRY = struct.Struct(f"{keys.KEY}s{keys.KEY}s{keys.SIGNATURE}s")


class Advertisement(NamedTuple):
    """A client's public keys for one session, and its signature over them (empty in the semi-honest profile)."""

    mask: bytes
    transport: bytes
    signature: bytes

    @property
    def entry(self) -> bytes:
        """The entry's bytes as they are on the wire."""
        return self.mask + self.transport + self.signature

    @staticmethod
    def signed_text(params: SessionParams, index: int, mask: bytes, transport: bytes) -> bytes:
        """What the signature covers, beside its purpose."""
        return params.setup_id + index.to_bytes(4, "little") + mask + transport


class Roster(NamedTuple):
    """What a client learns from the roster: all who advertised, its members' keys, and the session id."""

    present: Bitmap
    entries: dict[int, Advertisement]
    session: bytes


def encode_advertisement(params: SessionParams, advertisement: Advertisement) -> bytes:
    """The frame of a client's advertisement, of the set-up's id."""
    return encode_frame(Kind.ADVERTISEMENT, params.setup_id, advertisement.entry)


def decode_advertisement(params: SessionParams, message: bytes, client: int) -> Advertisement:
    """The advertisement of `client`. Raises PeerError naming it for any other bytes, bad keys or a bad signature."""
    size = _entry_bytes(params)
    reader = decode_frame(message, Kind.ADVERTISEMENT, params.setup_id, client, size)
    (advertisement,) = _parsed_entries(params, reader.take(size))
    reader.finish()
    keys.check_publics(advertisement[:2], client)
    if advertisement.mask == advertisement.transport:
        raise PeerError(client, f"client {client}'s mask key and transport key are the same", Code.BAD_KEY)
    if params.malicious:
        _check_signature(params, advertisement, client, client)
    return advertisement


def encode_rosters(params: SessionParams, entries: Mapping[int, Advertisement]) -> tuple[bytes, dict[int, bytes]]:
    """The session id, and a roster for each client in `entries`."""
    everybody = range(params.clients)
    present = encode_subset(everybody, entries)
    raw = {index: entries[index].entry for index in sorted(entries)}
    joined = b"".join(raw.values())
    digest = hashlib.sha256(joined).digest()
    session = params.session_id(present, digest)
    if params.graph.complete:
        return session, dict.fromkeys(raw, encode_frame(Kind.ROSTER, params.setup_id, present + joined))
    advertised = params.graph.flags(raw)
    place = np.cumsum(advertised) - 1  # of a client's entry among all
    near = params.graph.neighbourhoods[advertised]
    kept = advertised[near]
    whose, ends = place[near[kept]], np.cumsum(kept.sum(axis=1)).tolist()
    table = np.frombuffer(joined, np.dtype((np.void, _entry_bytes(params))))
    rosters = {}
    for index, first, last in zip(raw, [0, *ends], ends, strict=False):
        body = b"".join((present, digest, table[whose[first:last]].tobytes()))
        rosters[index] = encode_frame(Kind.ROSTER, params.setup_id, body)
    return session, rosters


def decode_roster(params: SessionParams, message: bytes, index: int, own: Advertisement) -> Roster:
    """The roster that client `index` was told, which holds its `own` entry. Raises PeerError naming the server."""
    members, size = params.graph.members(index), _entry_bytes(params)
    limit = (params.clients + 7) // 8 + keys.KEY + len(members) * size
    reader = decode_frame(message, Kind.ROSTER, params.setup_id, "server", limit)
    present = reader.bitmap(params.clients)
    claimed = b"" if params.graph.complete else reader.take(32)
    near = present.among(members)
    joined = reader.take(size * len(near))
    reader.finish()
    entries = dict(zip(near, _parsed_entries(params, joined), strict=True))
    if entries.get(index) != own:
        raise PeerError(
            "server", f"the roster lacks client {index}'s own advertisement, or changes it", Code.BAD_ROSTER
        )
    publics = [key for entry in entries.values() for key in entry[:2]]
    keys.check_publics(publics, "server")
    if len(set(publics)) < len(publics):
        for member, entry in entries.items():
            if entry.mask == entry.transport:
                raise PeerError("server", f"client {member}'s mask key and transport key are the same", Code.BAD_KEY)
        raise PeerError("server", "the roster holds one public key twice", Code.BAD_KEY)
    if params.malicious:
        for member, entry in entries.items():
            if member != index:
                _check_signature(params, entry, "server", member)
    digest = claimed or hashlib.sha256(joined).digest()
    return Roster(present, entries, params.session_id(present.raw, digest))


def encode_shares(session: bytes, sealed: Iterable[bytes]) -> bytes:
    """The frame of a client's sealed shares, one box after another."""
    return encode_frame(Kind.SHARES, session, b"".join(sealed))


def decode_shares(session: bytes, message: bytes, client: int, recipients: int) -> Raw:
    """The sealed pair for each of so many `recipients`, uint8 (recipients, 50)."""
    reader = decode_frame(message, Kind.SHARES, session, client, SEALED * recipients)
    sealed = np.frombuffer(reader.take(SEALED * recipients), np.uint8).reshape(-1, SEALED)
    reader.finish()
    return sealed


def encode_inbox(session: bytes, shared: bytes, sealed: bytes) -> bytes:
    """`shared`: the bitmap of who shared, the recipient too; `sealed`: what its neighbours sent, joined."""
    return encode_frame(Kind.INBOX, session, shared + sealed)


def decode_inbox(session: bytes, message: bytes, index: int, members: Members) -> dict[int, bytes]:
    """The sealed pair of each neighbour that shared."""
    limit = (len(members) + 7) // 8 + SEALED * len(members)
    reader = decode_frame(message, Kind.INBOX, session, "server", limit)
    shared = reader.subset(members)
    if index not in shared:
        raise PeerError("server", f"the inbox says that client {index} did not share, but it did", Code.BAD_INBOX)
    senders = [member for member in shared if member != index]
    sealed = reader.chunks(SEALED, len(senders))
    reader.finish()
    return dict(zip(senders, sealed, strict=True))


def encode_upload(params: SessionParams, session: bytes, tiles: Iterable[Lanes]) -> bytes:
    """`tiles`: the vector in parts, in order; each is packed before the next is asked for."""
    return encode_long_frame(Kind.UPLOAD, session, (packed_view(tile, params.bits) for tile in tiles))


def decode_upload(params: SessionParams, session: bytes, message: bytes, client: int) -> Lanes:
    """The masked vector of `client`, lanes of (d,). Raises PeerError naming it for anything else."""
    reader = decode_frame(message, Kind.UPLOAD, session, client, params.payload_bytes)
    raw = reader.view(params.payload_bytes)
    reader.finish()
    values = unpack(raw, params.dimension, params.bits)
    if values is None:
        raise PeerError(client, "the padding after the packed vector is not zero", Code.BAD_BODY)
    return values


def encode_survivors(params: SessionParams, session: bytes, survivors: Iterable[int]) -> bytes:
    """The frame that tells the survivors, as a bitmap over all clients."""
    return encode_frame(Kind.SURVIVORS, session, encode_subset(range(params.clients), survivors))


def decode_survivors(params: SessionParams, session: bytes, message: bytes) -> Bitmap:
    """The survivors' bitmap. Raises PeerError naming the server for anything else."""
    reader = decode_frame(message, Kind.SURVIVORS, session, "server", (params.clients + 7) // 8)
    survivors = reader.bitmap(params.clients)
    reader.finish()
    return survivors


def endorsed_text(params: SessionParams, session: bytes, survivors: Iterable[int]) -> bytes:
    """What an endorsement's signature covers, beside its purpose."""
    return session + hashlib.sha256(encode_subset(range(params.clients), survivors)).digest()


def encode_endorsement(session: bytes, signature: bytes) -> bytes:
    """The frame of a signature over the survivors."""
    return encode_frame(Kind.ENDORSEMENT, session, signature)


def decode_endorsement(params: SessionParams, session: bytes, message: bytes, client: int, text: bytes) -> bytes:
    """The signature; it verifies over `text`, which `endorsed_text` gives for the survivors."""
    reader = decode_frame(message, Kind.ENDORSEMENT, session, client, keys.SIGNATURE)
    signature = reader.take(keys.SIGNATURE)
    reader.finish()
    keys.verify(params.identities[client], signature, keys.SURVIVORS, text, client)
    return signature


def encode_agreement(session: bytes, members: Members, signatures: Mapping[int, bytes]) -> bytes:
    """The frame of `signatures` by member, and which of the `members` they are of."""
    body = encode_subset(members, signatures) + b"".join(signatures[index] for index in sorted(signatures))
    return encode_frame(Kind.AGREEMENT, session, body)


def decode_agreement(
    params: SessionParams, session: bytes, message: bytes, index: int, survivors: Bitmap
) -> tuple[int, ...]:
    """The neighbours whose signatures over `survivors` were given; all of them verify."""
    members = params.graph.members(index)
    limit = (len(members) + 7) // 8 + keys.SIGNATURE * len(members)
    reader = decode_frame(message, Kind.AGREEMENT, session, "server", limit)
    signers = reader.subset(members)
    signatures = reader.chunks(keys.SIGNATURE, len(signers))
    reader.finish()
    if index in signers or not all(signer in survivors for signer in signers):
        raise PeerError("server", "the agreement is signed by others than surviving neighbours", Code.BAD_SIGNATURE)
    text = endorsed_text(params, session, survivors)
    for signer, signature in zip(signers, signatures, strict=True):
        keys.verify(params.identities[signer], signature, keys.SURVIVORS, text, "server")
    return signers


def encode_reveal(session: bytes, shares: Iterable[bytes], pair_keys: Iterable[bytes]) -> bytes:
    """The frame of the shares that a client reveals, and of the pair keys where it tells some."""
    return encode_frame(Kind.REVEAL, session, b"".join((*shares, *pair_keys)))


def decode_reveal(
    session: bytes, message: bytes, client: int, owners: int, direct: Sequence[int]
) -> tuple[Raw, dict[int, bytes]]:
    """The shares of so many `owners`, uint8 (owners, 17), canonical; and the pair keys with those of `direct`."""
    reader = decode_frame(message, Kind.REVEAL, session, client, SHARE * owners + keys.KEY * len(direct))
    shares = reader.take(SHARE * owners)
    pair_keys = reader.chunks(keys.KEY, len(direct)) if direct else []
    reader.finish()
    if not canonical_bytes(shares):
        raise PeerError(client, "a share is not canonically encoded", Code.BAD_SHARE)
    return np.frombuffer(shares, np.uint8).reshape(-1, SHARE), dict(zip(direct, pair_keys, strict=True))


def _entry_bytes(params: SessionParams) -> int:
    return (_SIGNED_ENTRY if params.malicious else _ENTRY).size


def _parsed_entries(params: SessionParams, joined: bytes) -> Iterator[Advertisement]:
    layout = _SIGNED_ENTRY if params.malicious else _ENTRY
    return map(Advertisement._make, layout.iter_unpack(joined))


def _check_signature(params: SessionParams, advertisement: Advertisement, culprit: Culprit, index: int) -> None:
    text = Advertisement.signed_text(params, index, advertisement.mask, advertisement.transport)
    keys.verify(params.identities[index], advertisement.signature, keys.ADVERTISEMENT, text, culprit)
