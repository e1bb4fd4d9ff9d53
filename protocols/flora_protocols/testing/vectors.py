"""The test vectors of SPEC.md, section 13, made by running the protocol with randomness that is not random.

`vectors()` gives name -> JSON text; whoever calls it reads or writes the files, as `flora-secure vectors` does.
`vector_scripts` says what happens in each, `recorder` writes it down; here are also the vectors without parties.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from flora_protocols import keys, shamir
from flora_protocols.codec import HEADER, checksum
from flora_protocols.graph import Graph
from flora_protocols.keystream import TILE, apply_masks, keystream
from flora_protocols.ring import lane, pack
from flora_protocols.slots import blob_stream, derived_pairs
from flora_protocols.suites import kem_public
from flora_protocols.testing import kem
from flora_protocols.testing.recorder import Json, stream
from flora_protocols.testing.vector_scripts import SCRIPTS


def vectors() -> dict[str, str]:
    """Every vector: file name -> JSON text. The same bytes at every call and on every machine."""
    texts = {"primitives.json": json.dumps(_primitives(), indent=1) + "\n"}
    for name, write in SCRIPTS.items():
        recorder = write(name)
        head = json.dumps(recorder.head, indent=1)[:-2]
        steps = ",\n  ".join(json.dumps(step) for step in recorder.steps)
        texts[f"{name}.json"] = f'{head},\n "script": [\n  {steps}\n ]\n}}\n'
    return texts


def differences(found: Mapping[str, bytes]) -> tuple[list[str], dict[str, str]]:
    """Compares files, name -> contents, with what `vectors` makes: the names of those that are the same, and for each
    other name what is the matter with it, in one line."""
    made = {name: text.encode() for name, text in vectors().items()}
    same = [name for name in sorted(made) if found.get(name) == made[name]]
    different = {}
    for name in sorted((made.keys() | found.keys()).difference(same)):
        if name not in found:
            different[name] = f"{name} is missing"
        elif name not in made:
            different[name] = f"{name} is not one of the vectors"
        else:
            different[name] = f"{name} differs, first in line {_first_difference(found[name], made[name])}"
    return same, different


def _first_difference(one: bytes, other: bytes) -> int:
    """The first line, from 1, in which two texts differ."""
    lines = zip_longest(one.splitlines(keepends=True), other.splitlines(keepends=True))
    return next(number for number, (mine, yours) in enumerate(lines, start=1) if mine != yours)


def _primitives() -> Json:
    """What makes up the messages, on its own, some of it at sizes that a whole round would make too long to print."""
    return {
        "name": "primitives",
        "says": "checksums of long bodies; keystream over several tiles; packing at every b; shares with values of "
        "2^16; derived shares; Harary graphs; commitment, tag, blob; what two clients agree on, in either suite",
        "checksum": [_checksum(size) for size in (0, 4071, 4072, 8155, 8156, 10_001, 100_003)],
        "keystream": list(_keystreams()),
        "packing": [_packing(bits) for bits in range(8, 33)],
        "shamir": [_sharing(*how) for how in (((1,), (2, 3)), ((2, 300, 65535), (1, 7, 65536)))],
        "derived": [_derived(slots) for slots in (1, 3)],
        "graph": [_graph(n, k) for n, k in ((4, 2), (9, 4), (50, 12))],
        "commitment": [_commitment(index, slot) for index, slot in ((0, 0), (65535, 1023))],
        "tag": [_tag(*pair) for pair in ((0, 1), (700, 3))],
        "blob": [_blob(index, slot, count) for index, slot, count in ((0, 0, 1), (9, 1023, 5))],
        "agreed": [_agreed(kem_used) for kem_used in (False, True)],
    }


def _checksum(size: int) -> Json:
    header, body = stream(b"checksum", size, HEADER), bytes(place % 251 for place in range(size))
    found = checksum(header + body).hex()
    return {"header": header.hex(), "size": size, "body": "byte j is j mod 251", "checksum": found}


def _keystreams() -> Iterator[Json]:
    key = stream(b"keystream", 0, 32)
    for size in (1, 17, TILE, TILE + 1, 2 * TILE + 33):
        values = np.zeros(size, np.uint8)
        apply_masks(values, [key], [])
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        yield {"key": key.hex(), "size": size, "last": values[-16:].tobytes().hex(), "sha256": digest}


def _packing(bits: int) -> Json:
    values = np.frombuffer(stream(b"packing", bits, 4 * 11), "<u4") & np.uint32((1 << bits) - 1)
    values[0] = (1 << bits) - 1
    return {"bits": bits, "values": values.tolist(), "packed": pack(values.astype(lane(bits)), bits).hex()}


def _sharing(given: tuple[int, ...], points: tuple[int, ...]) -> Json:
    """Shares at `points` from values drawn at `given`; the first limb's at the first of `points` is 2^16."""
    secrets, threshold = stream(b"secrets", len(given), 32), len(given) + 1
    words = np.frombuffer(stream(b"values", len(given), 64 * len(given)), "<u4").astype(np.int64) % shamir.P
    values = words.reshape(len(given), 16)
    first = np.frombuffer(secrets, "<u2").astype(np.int64)[0]
    slope = (shamir.P - 1 - first) * pow(points[0], -1, shamir.P)
    values[:, 0] = [(first + slope * point) % shamir.P for point in given]
    shares = shamir.split(secrets, given, values, points)
    return {
        "secrets": secrets.hex(),
        "threshold": threshold,
        "drawn": {str(point): row.tolist() for point, row in zip(given, values, strict=True)},
        "shares": {str(point): row.tobytes().hex() for point, row in zip(points, shares, strict=True)},
    }


def _derived(slots: int) -> Json:
    key = stream(b"derived", slots, 32)
    shares = derived_pairs({0: key}, slots)[0]
    return {"key": key.hex(), "slots": slots, "confirmation": keys.confirmation(key).hex(), "shares": shares.hex()}


def _commitment(index: int, slot: int) -> Json:
    seed, session = stream(b"seed", index, 16), stream(b"session", 0, 32)
    found = keys.commitment(seed, session, index, slot).hex()
    return {"seed": seed.hex(), "session": session.hex(), "index": index, "slot": slot, "commitment": found}


def _tag(one: int, other: int) -> Json:
    slot_key, scope = stream(b"slot key", one, 16), stream(b"round id", 0, 32)
    mask = keys.pair_mask(slot_key, scope, one, other)
    given = {"slot_key": slot_key.hex(), "round_id": scope.hex(), "pair": [one, other]}
    return given | {"mask_key": mask.hex(), "tag": keys.pair_tag(mask).hex()}


def _blob(index: int, slot: int, count: int) -> Json:
    opener, session = stream(b"opener", index, 16), stream(b"session", 0, 32)
    slot_keys = stream(b"slot keys", index, 16 * count)
    masked = np.frombuffer(slot_keys, np.uint8).reshape(count, 16) ^ blob_stream(opener, session, index, slot, count)
    given = {"opener": opener.hex(), "session": session.hex(), "index": index, "slot": slot}
    return given | {"slot_keys": slot_keys.hex(), "blob": masked.tobytes().hex()}


def _agreed(kem_used: bool) -> Json:
    """What clients 3 and 8 agree on; in suite 2, client 8 made the ciphertext."""
    session = stream(b"session", 0, 32)
    secrets = [X25519PrivateKey.from_private_bytes(stream(b"channel", index, 32)) for index in (3, 8)]
    publics = [secret.public_key().public_bytes_raw() for secret in secrets]
    agreed = keys.exchange(secrets[0], publics[1], 8) + publics[0] + publics[1]
    case: Json = {"session": session.hex(), "pair": [3, 8], "channel_secrets": []}
    case["channel_secrets"] = [secret.private_bytes_raw().hex() for secret in secrets]
    if kem_used:
        seed = stream(b"kem seed", 3, 64)
        public = kem_public(seed)
        secret, ciphertext = kem.encapsulate(public, stream(b"kem", 8, 32))
        agreed += secret + hashlib.sha256(public + ciphertext).digest()
        case |= {"kem_seed_of_3": seed.hex(), "ciphertext_of_8": ciphertext.hex()}
    root = keys.derive(agreed, keys.PAIR_ROOT, session, 3, 8)
    return case | {
        "agreed": agreed.hex(),
        "box_key": keys.derive(agreed, keys.BOX, session, 3, 8).hex(),
        "slot_keys": [keystream(root, 32)[:16].hex(), keystream(root, 32)[16:].hex()],
        "derived_key_8_to_3": keys.derive(agreed, keys.DERIVED, session, 8, 3).hex(),
    }


def _graph(clients: int, neighbours: int) -> Json:
    seed = stream(b"graph", clients, 32)
    graph = Graph(clients, neighbours, seed)
    members = [list(graph.members(index)) for index in range(clients)]
    return {"clients": clients, "neighbours": neighbours, "seed": seed.hex(), "members": members}
