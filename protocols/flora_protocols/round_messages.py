"""The bodies of a round's messages: one encoder and one decoder each, as in `setup_messages`. START is in round_params.

UPLOAD         client → server  the masked vector, packed · bitmap over the sender and its neighbours: whose box did
                                not open
SURVIVORS      server → client  bitmap over all clients: whose vector arrived
ENDORSEMENT    client → server  signature 64 of round id · SHA-256 of the survivors' bitmap
AGREEMENT      server → client  bitmap over the recipient and its neighbours · their signatures
REVEAL         client → server  for each invited client whose shares the sender holds, 17 bytes: of its self-mask
                                seed if it survived, of its opener if it did not · for each neighbour that the
                                sender masked with and that did not survive: tag 8 of the pair's mask
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from flora_protocols import keys
from flora_protocols.codec import Bitmap, Kind, decode_frame, encode_frame, encode_long_frame, encode_subset
from flora_protocols.errors import Code, PeerError
from flora_protocols.graph import Members
from flora_protocols.params import SessionParams
from flora_protocols.ring import Lanes, packed_view, unpack
from flora_protocols.shamir import SHARE, Raw, canonical_bytes


def encode_upload(
    params: SessionParams, scope: bytes, tiles: Iterable[Lanes], members: Members, unopened: Collection[int]
) -> bytes:
    """`tiles`: the vector in parts, in order; each is packed before the next is asked for."""
    end = np.frombuffer(encode_subset(members, frozenset(unopened)), np.uint8)

    def parts() -> Iterable[Raw]:
        for tile in tiles:
            yield packed_view(tile, params.bits)
        yield end

    return encode_long_frame(Kind.UPLOAD, params.suite, scope, parts())


def decode_upload(params: SessionParams, scope: bytes, message: bytes, client: int) -> tuple[Lanes, tuple[int, ...]]:
    """The masked vector of `client`, lanes of (d,), and whose boxes did not open there. PeerError naming the client for
    anything else."""
    members, size = params.graph.members(client), params.payload_bytes
    reader = decode_frame(message, Kind.UPLOAD, params.suite, scope, client, size + (len(members) + 7) // 8)
    raw = reader.view(size)
    unopened = reader.subset(members)
    reader.finish()
    values = unpack(raw, params.dimension, params.bits)
    if values is None:
        raise PeerError(client, "the padding after the packed vector is not zero", Code.BAD_BODY)
    return values, unopened


def encode_survivors(params: SessionParams, scope: bytes, survivors: Iterable[int]) -> bytes:
    """The frame that tells the survivors, as a bitmap over all clients."""
    return encode_frame(Kind.SURVIVORS, params.suite, scope, encode_subset(range(params.clients), survivors))


def decode_survivors(params: SessionParams, scope: bytes, message: bytes) -> Bitmap:
    """The survivors' bitmap. Raises PeerError naming the server for anything else."""
    reader = decode_frame(message, Kind.SURVIVORS, params.suite, scope, "server", (params.clients + 7) // 8)
    survivors = reader.bitmap(params.clients)
    reader.finish()
    return survivors


def endorsed_text(params: SessionParams, scope: bytes, survivors: Iterable[int]) -> bytes:
    """What an endorsement's signature covers, beside its purpose."""
    return scope + hashlib.sha256(encode_subset(range(params.clients), survivors)).digest()


def encode_endorsement(params: SessionParams, scope: bytes, signature: bytes) -> bytes:
    """The frame of a signature over the survivors."""
    return encode_frame(Kind.ENDORSEMENT, params.suite, scope, signature)


def decode_endorsement(params: SessionParams, scope: bytes, message: bytes, client: int, text: bytes) -> bytes:
    """The signature; it verifies over `text`, which `endorsed_text` gives for the survivors."""
    reader = decode_frame(message, Kind.ENDORSEMENT, params.suite, scope, client, keys.SIGNATURE)
    signature = reader.take(keys.SIGNATURE)
    reader.finish()
    keys.verify(params.identities[client], signature, keys.SURVIVORS, text, client)
    return signature


def encode_agreement(params: SessionParams, scope: bytes, members: Members, signatures: Mapping[int, bytes]) -> bytes:
    """The frame of `signatures` by member, and which of the `members` they are of."""
    body = encode_subset(members, signatures) + b"".join(signatures[index] for index in sorted(signatures))
    return encode_frame(Kind.AGREEMENT, params.suite, scope, body)


def decode_agreement(
    params: SessionParams, scope: bytes, message: bytes, index: int, survivors: Bitmap
) -> tuple[int, ...]:
    """The neighbours whose signatures over `survivors` were given; all of them verify."""
    members = params.graph.members(index)
    limit = (len(members) + 7) // 8 + keys.SIGNATURE * len(members)
    reader = decode_frame(message, Kind.AGREEMENT, params.suite, scope, "server", limit)
    signers = reader.subset(members)
    signatures = reader.chunks(keys.SIGNATURE, len(signers))
    reader.finish()
    if index in signers or not all(signer in survivors for signer in signers):
        raise reader.refusal("the agreement is signed by others than surviving neighbours", Code.BAD_SIGNATURE)
    text = endorsed_text(params, scope, survivors)
    for signer, signature in zip(signers, signatures, strict=True):
        keys.verify(params.identities[signer], signature, keys.SURVIVORS, text, "server")
    return signers


def encode_reveal(params: SessionParams, scope: bytes, shares: Iterable[bytes], tags: Iterable[bytes]) -> bytes:
    """The frame of the shares that a client reveals, and of its tags of the masks with those that did not survive."""
    return encode_frame(Kind.REVEAL, params.suite, scope, b"".join((*shares, *tags)))


def decode_reveal(
    params: SessionParams, scope: bytes, message: bytes, client: int, owners: int, dropped: int
) -> tuple[Raw, list[bytes]]:
    """The shares of so many `owners`, uint8 (owners, 17), canonical, and so many tags of `dropped` neighbours."""
    size = SHARE * owners + keys.PAIR_TAG_BYTES * dropped
    reader = decode_frame(message, Kind.REVEAL, params.suite, scope, client, size)
    shares = reader.take(SHARE * owners)
    tags = reader.chunks(keys.PAIR_TAG_BYTES, dropped)
    reader.finish()
    if not canonical_bytes(shares):
        raise PeerError(client, "a share is not canonically encoded", Code.BAD_SHARE)
    return np.frombuffer(shares, np.uint8).reshape(-1, SHARE), tags
