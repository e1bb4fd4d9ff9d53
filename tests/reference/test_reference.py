"""The test vectors: what the library makes is what is on file, and two implementations agree with it."""

import ast
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import aggregator
import numpy as np
import pytest
import secagg
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from library import Library
from replay import Reference, replay
from session import Session

import flora_protocols as ours
from flora_protocols import codec, decoding, shamir, suites
from flora_protocols.testing import vectors as generator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "protocols/vectors"
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.json"))}
VECTORS = {name: json.loads(text) for name, text in FILES.items()}
SCRIPTS = [name for name, vector in VECTORS.items() if "script" in vector]
PRIMITIVES = VECTORS["primitives.json"]
OURS = {"library.py", "test_reference.py", "test_mixed.py"}  # the rest knows nothing of the package
scripts = pytest.mark.parametrize("name", SCRIPTS)


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
    cases = {"good-complete": "gives", "bad-roster": "refused", "bad-survivors": "randomness", "good-hybrid": "kem"}
    for name, wrong in cases.items():
        vector = json.loads(FILES[f"{name}.json"])
        step = next(step for step in vector["script"] if wrong in step)
        if wrong == "refused":
            step["refused"]["culprit"] = 1
        elif wrong == "kem":
            step["kem"][0]["secret"] = "00" * 32
        else:
            step[wrong] = step[wrong][:-1] + ("0" if step[wrong][-1] != "0" else "1")
        with pytest.raises(AssertionError, match="step"):
            replay(vector, implementation, checks=False)


def test_every_remote_check_is_in_a_bad_vector():
    """All checks of messages and rounds but those that no message can provoke."""
    text = (ROOT / "protocols/SPEC.md").read_text(encoding="utf-8")
    numbered = set(re.findall(r"^- \*\*(C-\d\d)\*\*", text, re.MULTILINE))
    shown = {step["refused"]["check"] for name in SCRIPTS for step in VECTORS[name]["script"] if "refused" in step}
    local = {f"C-{number:02}" for number in (1, 2, 3, 4, 5, 6, 7, 9, 17, 25, 51, 71, 72)}
    unreachable = {"C-24"}  # C-21 has refused every point that could give zero
    complaints = {"C-36", "C-37"}  # no refusal, but what good-complaint.json is about
    invisible = {"C-52", "C-53"}  # properties of every REVEAL, and of what is kept
    beside = {f"C-{number}" for number in (*range(80, 83), *range(85, 94))}  # parameters as bytes, and the loops
    assert numbered - shown == local | unreachable | complaints | invisible | beside
    assert shown <= numbered


@pytest.mark.parametrize("case", PRIMITIVES["checksum"], ids=lambda case: str(case["size"]))
def test_checksums_of_long_bodies(case):
    frame = bytes.fromhex(case["header"]) + bytes(place % 251 for place in range(case["size"]))
    assert secagg.checksum(frame).hex() == case["checksum"]
    assert codec.checksum(frame).hex() == case["checksum"]


@pytest.mark.parametrize("case", PRIMITIVES["keystream"], ids=lambda case: str(case["size"]))
def test_reference_keystream(case):
    session = object.__new__(Session)
    session.b, session.d = 8, case["size"]
    stream = bytes(session.mask(bytes.fromhex(case["key"])))
    assert hashlib.sha256(stream).hexdigest() == case["sha256"]
    assert stream[-16:].hex() == case["last"]


@pytest.mark.parametrize("case", PRIMITIVES["packing"], ids=lambda case: str(case["bits"]))
def test_reference_packing(case):
    session = object.__new__(Session)
    session.b, session.d = case["bits"], len(case["values"])
    session.packed = (session.b * session.d + 7) // 8
    assert session.pack(case["values"]).hex() == case["packed"]


@pytest.mark.parametrize("case", PRIMITIVES["shamir"], ids=lambda case: str(case["threshold"]))
def test_reference_sharing(case):
    secrets, t = bytes.fromhex(case["secrets"]), case["threshold"]
    drawn = {int(point): values for point, values in case["drawn"].items()}
    dealt = secagg.share_secrets(secrets, drawn, [int(point) for point in case["shares"]])
    assert {str(point): pair.hex() for point, pair in dealt.items()} == case["shares"]
    assert any(secagg.decode_share(pair[:17])[0] == 65536 for pair in dealt.values())
    dealt |= {point: secagg.encode_shares(values) for point, values in drawn.items()}
    for half in (0, 17):
        values = {point: secagg.decode_share(pair[half : half + 17]) for point, pair in dealt.items()}
        assert secagg.reconstruct(values, t) == (secrets[:16] if half == 0 else secrets[16:], True)


@pytest.mark.parametrize("case", PRIMITIVES["derived"], ids=lambda case: str(case["slots"]))
def test_reference_derived_shares(case):
    key = bytes.fromhex(case["key"])
    values = secagg.draw_values(secagg.counter_stream(key), 16 * case["slots"])
    assert secagg.encode_shares(values).hex() == case["shares"]
    assert secagg.confirmation(key).hex() == case["confirmation"]


def test_values_are_drawn_again():
    """A word of 2^32 - 1 and all that came with it are passed over, by both."""
    raw = b"\1\0\0\0" + b"\xff" * 4 + b"\0\0\1\0\2\0\1\0"

    def source():
        left = bytearray(raw)

        def take(size):
            part = bytes(left[:size])
            del left[:size]
            return part

        return take

    assert secagg.draw_values(source(), 2) == shamir.uniform(2, [source()])[0].tolist() == [65536, 1]


@pytest.mark.parametrize("case", PRIMITIVES["commitment"], ids=lambda case: str(case["slot"]))
def test_reference_commitment(case):
    seed, session = bytes.fromhex(case["seed"]), bytes.fromhex(case["session"])
    assert secagg.commitment(seed, session, case["index"], case["slot"]).hex() == case["commitment"]


@pytest.mark.parametrize("case", PRIMITIVES["tag"], ids=lambda case: str(case["pair"]))
def test_reference_tag(case):
    session = object.__new__(Session)
    mask_key = session.mask_key(bytes.fromhex(case["slot_key"]), bytes.fromhex(case["round_id"]), *case["pair"])
    assert (mask_key.hex(), secagg.tag(mask_key).hex()) == (case["mask_key"], case["tag"])


@pytest.mark.parametrize("case", PRIMITIVES["blob"], ids=lambda case: str(case["slot"]))
def test_reference_blob(case):
    keys, opener, session = (bytes.fromhex(case[name]) for name in ("slot_keys", "opener", "session"))
    pieces = [keys[at : at + 16] for at in range(0, len(keys), 16)]
    locked = secagg.blob(pieces, opener, session, case["index"], case["slot"])
    assert b"".join(locked).hex() == case["blob"]
    assert secagg.blob(locked, opener, session, case["index"], case["slot"]) == pieces


@pytest.mark.parametrize("case", PRIMITIVES["agreed"], ids=["suite 1", "suite 2"])
def test_reference_agreement_of_keys(case):
    secrets = [X25519PrivateKey.from_private_bytes(bytes.fromhex(secret)) for secret in case["channel_secrets"]]
    publics = [secret.public_key().public_bytes_raw() for secret in secrets]
    session, kem = bytes.fromhex(case["session"]), ()
    if "ciphertext_of_8" in case:
        seed, ciphertext = bytes.fromhex(case["kem_seed_of_3"]), bytes.fromhex(case["ciphertext_of_8"])
        kem = secagg.decapsulate(seed, ciphertext), secagg.kem_public(seed), ciphertext
    agreed = secagg.combined(secagg.agree(secrets[1], publics[0], 3), *publics, *kem)
    assert agreed.hex() == case["agreed"]
    assert secagg.derive(agreed, b"box", session, 3, 8).hex() == case["box_key"]
    assert [key.hex() for key in secagg.slot_keys(agreed, session, 3, 8, 2)] == case["slot_keys"]
    assert secagg.derive(agreed, b"derived shares", session, 8, 3).hex() == case["derived_key_8_to_3"]


@pytest.mark.parametrize("case", PRIMITIVES["graph"], ids=lambda case: str(case["clients"]))
def test_reference_graph(case):
    session = object.__new__(Session)
    session.n, session.k, session.complete = case["clients"], case["neighbours"], False
    session.circle = secagg.circle(session.n, bytes.fromhex(case["seed"]))
    assert [session.members(index) for index in range(session.n)] == case["members"]


@pytest.mark.parametrize("wrong", [(0,), (6,), (2, 5), (1, 3), (0, 1, 2), (2, 4, 6)])
def test_reference_finds_the_same_liars(wrong):
    """Seven shares of threshold three: up to two wrong ones are found, by trying all pairs and by decoding."""
    rng, points = np.random.default_rng(len(wrong)), np.arange(1, 8, dtype=np.int64)
    drawn = {1: rng.integers(0, 65537, 8).tolist(), 2: rng.integers(0, 65537, 8).tolist()}
    dealt = secagg.share_secrets(rng.bytes(16), drawn, range(3, 8))
    dealt |= {point: secagg.encode_shares(values) for point, values in drawn.items()}
    rows = np.array([np.frombuffer(dealt[point], np.uint8) for point in points.tolist()])
    rows[list(wrong)] = shamir.encode(rng.integers(0, 65537, (len(wrong), 8)))
    server = object.__new__(aggregator.Server)
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


@pytest.mark.parametrize("key", [bytes(1184), b"\x00\x0d\xd0" + bytes(1181), b"\x01\x0d\x00" + bytes(1181)])
def test_both_take_the_same_kem_keys(key):
    """The modulus check: coefficients of 0, of q - 1 and of q."""
    possible = secagg.kem_key_possible(key)
    assert possible == (key[:1] != b"\1")
    try:
        suites.check_kem_key(key, "server")
    except ours.PeerError:
        assert not possible
    else:
        assert possible


def test_both_refuse_the_same_parameters():
    """Anything near the edges: both take it, or both refuse it."""
    rng, taken = np.random.default_rng(5), 0
    for _ in range(2000):
        n, malicious = int(rng.integers(1, 9)), bool(rng.integers(2))
        identities = [ours.identity_public(bytes([index]) * 32) for index in range(n)]
        fields = {
            "clients": n,
            "neighbours": int(rng.integers(0, n + 1)),
            "threshold": int(rng.integers(1, n + 2)),
            "bits": int(rng.integers(7, 34)),
            "dimension": int(rng.integers(0, 3)),
            "slots": int(rng.choice([0, 1, 2, 1024, 1025])),
            "number": int(rng.choice([0, 1])),
            "corrupt": int(rng.integers(0, 4)),
        }
        profile = "malicious-server" if malicious else "semi-honest"
        given = {"suite": 1, "profile": profile, "identities": [key.hex() for key in identities * malicious]}
        try:
            read = ours.SessionParams(**fields, profile=ours.Profile(profile), identities=tuple(identities * malicious))
        except ours.ParameterError:
            with pytest.raises(secagg.Refused):
                Session(fields | given)
        else:
            assert Session(fields | given).setup == read.setup_id
            taken += 1
    assert taken > 20


def test_the_reference_is_independent():
    for path in (ROOT / "tests/reference").glob("*.py"):
        if path.name in OURS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith(("flora", "numpy")) for name in names), path.name
