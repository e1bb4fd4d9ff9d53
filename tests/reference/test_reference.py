"""The test vectors: what the library makes is what is on file, and two implementations agree with it."""

import ast
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import parties
import pytest
import secagg
from replay import Reference, replay
from secagg import Refused

import flora_protocols as ours
from flora_protocols import codec, decoding, shamir
from flora_protocols.testing import vectors as generator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "protocols/vectors"
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.json"))}
VECTORS = {name: json.loads(text) for name, text in FILES.items()}
SCRIPTS = [name for name, vector in VECTORS.items() if "script" in vector]
PRIMITIVES = VECTORS["primitives.json"]
scripts = pytest.mark.parametrize("name", SCRIPTS)


class Library:
    """flora_protocols, as `replay` wants it. A step that was made before is tried on the position that made it."""

    def client(self, vector, index):
        return LibraryClient(vector, index)

    def server(self, vector):
        return LibraryServer(vector)


def params_of(vector):
    fields = dict(vector["params"])
    fields["profile"] = ours.Profile(fields["profile"])
    fields["model_hash"] = bytes.fromhex(fields["model_hash"])
    fields["identities"] = tuple(bytes.fromhex(key) for key in fields["identities"])
    return ours.SessionParams(**fields)


def translated(act):
    try:
        return act()
    except ours.PeerError as error:
        raise Refused(None, "peer", error.culprit) from None
    except ours.TooFewSurvivors:
        raise Refused(None, "too few") from None
    except ours.UnsoundShares:
        raise Refused(None, "unsound") from None
    except ours.MisuseError:
        raise Refused(None, "misuse") from None


class LibraryClient:
    def __init__(self, vector, index):
        identity = bytes.fromhex(vector["identity_keys"][index]) if vector["identity_keys"] else None
        floors = ours.Floors(**vector["floors"])
        self.positions = [ours.ClientAdvertise(params_of(vector), index, floors=floors, identity=identity)]

    def step(self, do, *arguments):
        position = next(position for position in reversed(self.positions) if hasattr(position, do))
        if do == "mask":
            arguments = (arguments[0], np.array(arguments[1], np.uint32))
        after, message = translated(lambda: getattr(position, do)(*arguments))
        self.positions.append(after)
        return message


class LibraryServer:
    def __init__(self, vector):
        self.position = ours.ServerAdvertise(params_of(vector))

    def step(self, do, *arguments):
        result = translated(lambda: getattr(self.position, do)(*arguments))
        if isinstance(result, ours.RoundResult):
            assert not result.refused  # a matter of `conduct`, which is no part of the vectors
            assert not result.left
            told = {name: getattr(result, name) for name in ("survivors", "dropped", "recovered")}
            return told | {"sum": result.sum.tolist()}
        if result is None:
            return None
        self.position, outbox = result
        return outbox


def test_files_are_what_the_library_makes():
    """Byte for byte. After a change of the wire format, write them again and raise the version."""
    assert generator.vectors() == FILES


@scripts
def test_library_replays(name):
    replay(VECTORS[name], Library(), checks=False)


@scripts
def test_reference_replays(name):
    replay(VECTORS[name], Reference())


@pytest.mark.parametrize("implementation", [Library(), Reference()])
def test_a_wrong_vector_is_noticed(implementation):
    """The replay itself: any expectation changed, and it fails."""
    for name, wrong in (("good-complete", "gives"), ("bad-roster", "refused"), ("bad-survivors", "randomness")):
        vector = json.loads(FILES[f"{name}.json"])
        step = next(step for step in vector["script"] if wrong in step)
        if wrong == "refused":
            step["refused"]["culprit"] = 1
        else:
            step[wrong] = step[wrong][:-1] + ("0" if step[wrong][-1] != "0" else "1")
        with pytest.raises(AssertionError, match="step"):
            replay(vector, implementation, checks=False)


def test_every_remote_check_is_in_a_bad_vector():
    """All checks of messages (C-10 .. C-70) but those that no message can provoke."""
    text = (ROOT / "protocols/SPEC.md").read_text(encoding="utf-8")
    numbered = set(re.findall(r"^- \*\*(C-\d\d)\*\*", text, re.MULTILINE))
    shown = {step["refused"]["check"] for name in SCRIPTS for step in VECTORS[name]["script"] if "refused" in step}
    local = {"C-01", "C-02", "C-03", "C-04", "C-05", "C-06", "C-07", "C-09", "C-25", "C-51", "C-71", "C-72"}
    unreachable = {"C-24"}  # C-21 has refused every point that could give zero
    invisible = {"C-52", "C-53"}  # properties of every REVEAL
    beside = {
        "C-80",
        "C-81",
        "C-82",
        "C-85",
        "C-86",
        "C-87",
        "C-88",
        "C-89",
        "C-90",
        "C-91",
        "C-92",
    }  # parameters as bytes and the server's loop: no steps
    assert numbered - shown == local | unreachable | invisible | beside
    assert shown <= numbered


@pytest.mark.parametrize("case", PRIMITIVES["checksum"], ids=lambda case: str(case["size"]))
def test_checksums_of_long_bodies(case):
    frame = bytes.fromhex(case["header"]) + bytes(place % 251 for place in range(case["size"]))
    assert secagg.checksum(frame).hex() == case["checksum"]
    assert codec.checksum(frame).hex() == case["checksum"]


@pytest.mark.parametrize("case", PRIMITIVES["keystream"], ids=lambda case: str(case["size"]))
def test_reference_keystream(case):
    session = object.__new__(secagg.Session)
    session.b, session.d = 8, case["size"]
    stream = bytes(session.mask(bytes.fromhex(case["key"])))
    assert hashlib.sha256(stream).hexdigest() == case["sha256"]
    assert stream[-16:].hex() == case["last"]


@pytest.mark.parametrize("case", PRIMITIVES["packing"], ids=lambda case: str(case["bits"]))
def test_reference_packing(case):
    session = object.__new__(secagg.Session)
    session.b, session.d = case["bits"], len(case["values"])
    session.packed = (session.b * session.d + 7) // 8
    assert session.pack(case["values"]).hex() == case["packed"]


@pytest.mark.parametrize("case", PRIMITIVES["shamir"], ids=lambda case: str(case["threshold"]))
def test_reference_sharing(case):
    points, raw = [int(point) for point in case["shares"]], bytes.fromhex(case["randomness"])
    secrets, t = bytes.fromhex(case["secrets"]), case["threshold"]
    shares = secagg.share_secrets(secrets, points, t, lambda size: raw)
    assert {str(point): pair.hex() for point, pair in shares.items()} == case["shares"]
    assert any(secagg.decode_share(pair[:17])[0] == 65536 for pair in shares.values())
    for half in (0, 17):
        values = {point: secagg.decode_share(pair[half : half + 17]) for point, pair in shares.items()}
        assert secagg.reconstruct(values, t) == (secrets[:16] if half == 0 else secrets[16:], True)


@pytest.mark.parametrize("case", PRIMITIVES["graph"], ids=lambda case: str(case["clients"]))
def test_reference_graph(case):
    session = object.__new__(secagg.Session)
    session.n, session.k, session.complete = case["clients"], case["neighbours"], False
    session.circle = secagg.circle(session.n, bytes.fromhex(case["seed"]))
    assert [session.members(index) for index in range(session.n)] == case["members"]


@pytest.mark.parametrize("wrong", [(0,), (6,), (2, 5), (1, 3), (0, 1, 2), (2, 4, 6)])
def test_reference_finds_the_same_liars(wrong):
    """Seven shares of threshold three: up to two wrong ones are found, by trying all pairs and by decoding."""
    rng, points = np.random.default_rng(len(wrong)), np.arange(1, 8, dtype=np.int64)
    rows = shamir.split(rng.bytes(16), tuple(points.tolist()), 3, rng.bytes)
    rows[list(wrong)] = shamir.encode(rng.integers(0, 65537, (len(wrong), 8)))
    server = object.__new__(parties.Server)
    server.s = SimpleNamespace(t=3, liars=1)
    holders = server.found_out({x: secagg.decode_share(rows[x - 1].tobytes()) for x in points.tolist()})
    found = decoding.misfits(points, rows, 3)
    assert (None if found is None else tuple(found)) == (wrong if len(wrong) < 3 else None)
    assert holders == (list(wrong) if len(wrong) < 3 else [])


def test_both_refuse_the_same_identities():
    """All 32-byte encodings of points of small order, the second encodings of others, and some sound keys."""
    low = (0, 1, 2**255 - 21, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255 - 1, *secagg.TORSION, 3, 2**200)
    for number in low:
        for sign in (0, 1 << 255):
            key = (number | sign).to_bytes(32, "little")
            if secagg.identity_possible(key):
                ours.check_identities((key,))
                continue
            with pytest.raises(ours.ParameterError) as caught:
                ours.check_identities((key,))
            assert caught.value.code is ours.Code.BAD_KEY


def test_the_reference_is_independent():
    for path in (ROOT / "tests/reference").glob("*.py"):
        if path.name == Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith(("flora", "numpy")) for name in names), path.name
