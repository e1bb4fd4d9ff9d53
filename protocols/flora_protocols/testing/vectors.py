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

from flora_protocols import shamir
from flora_protocols.codec import HEADER, checksum
from flora_protocols.graph import Graph
from flora_protocols.keystream import TILE, apply_masks
from flora_protocols.ring import lane, pack
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
    """Keystream, packing, sharing and graph on their own, at sizes that a whole round would make too long to print."""
    return {
        "name": "primitives",
        "says": "checksums of long bodies; keystream over several tiles; packing at every b; "
        "shares with values of 2^16; Harary graphs",
        "checksum": [_checksum(size) for size in (0, 4071, 4072, 8155, 8156, 10_001, 100_003)],
        "keystream": list(_keystreams()),
        "packing": [_packing(bits) for bits in range(8, 33)],
        "shamir": [_sharing(points, t) for points, t in (((1, 2, 3), 2), ((1, 7, 300, 65535, 65536), 4))],
        "graph": [_graph(n, k) for n, k in ((4, 2), (9, 4), (50, 12))],
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


def _sharing(points: tuple[int, ...], threshold: int) -> Json:
    raw = bytearray(stream(b"sharing", threshold, 64 * (threshold - 1)))
    raw[:4] = (65536 - 65535).to_bytes(4, "little")  # with the first limb 65535: the share at point 1 is 2^16 ...
    for degree in range(1, threshold - 1):
        raw[64 * degree : 64 * degree + 4] = bytes(4)  # ... for all other coefficients of that limb are zero
    secrets = b"\xff\xff" + stream(b"secrets", threshold, 30)
    shares = shamir.split(secrets, points, threshold, lambda size: bytes(raw))
    return {
        "secrets": secrets.hex(),
        "threshold": threshold,
        "randomness": raw.hex(),
        "shares": {str(point): row.tobytes().hex() for point, row in zip(points, shares, strict=True)},
    }


def _graph(clients: int, neighbours: int) -> Json:
    seed = stream(b"graph", clients, 32)
    graph = Graph(clients, neighbours, seed)
    members = [list(graph.members(index)) for index in range(clients)]
    return {"clients": clients, "neighbours": neighbours, "seed": seed.hex(), "members": members}
