"""Transcripts of servers, clients and keepers that do what they must not: each is found by the check that is for it.

Checksums, the files' hashes and the log's chain are mended, as one who falsifies would.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from falsifying import chained, read, small, written
from transcripts import (
    audited,
    body_of,
    down,
    flipped,
    put,
    recorded,
    renamed,
    serialised,
    tampered,
    unclean,
    up,
    violations,
    with_body,
)

from flora_protocols import Direction, Trip, lane, pack
from flora_protocols.codec import HEADER
from flora_secure.engine.task import Task
from flora_secure.records.receipts.head import Signer
from flora_secure.records.receipts.receipt import signed as signed_by
from flora_secure.records.transcript.reading import Sent, path_of
from flora_secure.rounds.invitation import Invitation

Sents = list[Sent]
NEIGHBOURS, SLOTS, BITS = 4, 4, 8  # of these runs


@pytest.fixture(scope="module")
def semi(digits: Task, tmp_path_factory) -> Path:
    """Semi-honest, one session, with the released sums."""
    config = small(evidence__transcript=True, aggregation__suite="x25519")
    return written(config, digits, tmp_path_factory.mktemp("semi") / "run")


@pytest.fixture(scope="module")
def signed(digits: Task, tmp_path_factory) -> Path:
    """Malicious-server, one session."""
    config = small(evidence__transcript=True, aggregation__suite="x25519", aggregation__secagg="malicious-server")
    return written(config, digits, tmp_path_factory.mktemp("signed") / "run")


@pytest.fixture(scope="module")
def apart(digits: Task, tmp_path_factory) -> Path:
    """Semi-honest and hybrid, a session a round, nobody drops out."""
    config = small(evidence__transcript=True, aggregation__slots=1, aggregation__dropout=0.0)
    return written(config, digits, tmp_path_factory.mktemp("apart") / "run")


def test_what_is_tampered_with_was_clean(semi: Path, signed: Path, apart: Path) -> None:
    line = read(semi)[0][0]
    assert (line["neighbours"], line["bits"]) == (NEIGHBOURS, BITS)
    assert f"slots = {SLOTS}\n" in (semi / "config.toml").read_text()
    assert unclean(semi) == unclean(signed) == unclean(apart) == {}
    sums = next(f for f in audited(semi).findings if f.check == "T-11")
    assert (sums.severity, sums.evidence) == ("ok", "3 sums")


def swap(sent: Sents, at: int, message: bytes) -> None:
    sent[at] = replace(sent[at], message=message)


# --- what a server does ---------------------------------------------------------------------------------------------


def split(sent: Sents, trip: Trip) -> int:
    """Have the first of those who were told alike told by itself; where that is."""
    at = down(sent, trip)
    one = sent[at]
    if one.positions[1:]:
        sent[at : at + 1] = [replace(one, positions=one.positions[:1]), replace(one, positions=one.positions[1:])]
    return at


def without(bitmap: bytes, position: int) -> bytes:
    raw = bytearray(bitmap)
    raw[position // 8] &= ~(1 << position % 8)
    return bytes(raw)


def two_stories(sent: Sents) -> None:
    """One client is told that another has dropped out."""
    at = split(sent, Trip.UNMASK)
    other = sent[at + 1].positions[0]
    swap(sent, at, with_body(sent[at].message, without(body_of(sent[at].message), other)))


def both_secrets(sent: Sents) -> None:
    """… and reveals a share of that one's opener, with its tag, where the others reveal the seed's."""
    two_stories(sent)
    at = up(sent, Trip.UNMASK)
    swap(sent, at, with_body(sent[at].message, body_of(sent[at].message) + b"\5" * 8))


def few_survivors(sent: Sents) -> None:
    """All are told of two survivors alone."""
    at = down(sent, Trip.UNMASK)
    body = body_of(sent[at].message)
    for position in sent[at].positions[2:]:
        body = without(body, position)
    swap(sent, at, with_body(sent[at].message, body))


def other_key(sent: Sents) -> None:
    """One client is told another key of somebody: the server's own."""
    at = split(sent, Trip.SHARE)
    body = body_of(sent[at].message)
    swap(sent, at, with_body(sent[at].message, body[:40] + bytes(range(32)) + body[72:]))


def old_slot(sent: Sents) -> None:
    at = down(sent, Trip.MASK)
    body = body_of(sent[at].message)
    swap(sent, at, with_body(sent[at].message, b"\0\0" + body[2:]))


def other_model(sent: Sents) -> None:
    """One client is told another model."""
    at = split(sent, Trip.MASK)
    swap(sent, at, flipped(sent[at].message, 12))


def cheaper_agreement(sent: Sents) -> None:
    """One client is told fewer signatures than t."""
    at = down(sent, Trip.UNMASK)
    body = body_of(sent[at].message)
    first = next(place for place in range(NEIGHBOURS + 1) if body[0] >> place & 1)
    swap(sent, at, with_body(sent[at].message, without(body[:1], first) + body[1 + 64 :]))


def damaged(sent: Sents) -> None:
    at = down(sent, Trip.UNMASK)
    swap(sent, at, sent[at].message[:-1] + bytes([sent[at].message[-1] ^ 1]))


def trips_turned(sent: Sents) -> None:
    """The uploads stand before the set-up."""
    set_up = [one for one in sent if one.trip < Trip.MASK]
    sent[:] = [one for one in sent if one.trip >= Trip.MASK] + set_up


def told_twice(sent: Sents) -> None:
    at = down(sent, Trip.UNMASK)
    sent.insert(at + 1, sent[at])


# --- what clients do ------------------------------------------------------------------------------------------------


def changed_upload(sent: Sents) -> None:
    at = up(sent, Trip.MASK)
    swap(sent, at, flipped(sent[at].message, 5))


def unmasked(sent: Sents) -> None:
    at, rng = up(sent, Trip.MASK), np.random.default_rng(3)
    body = body_of(sent[at].message)
    count = (len(body) - 1) * 8 // BITS
    values = np.round(rng.normal(0, 2 ** (BITS - 5), count)).astype(np.int64) % (1 << BITS)
    packed = pack(values.astype(lane(BITS)), BITS)
    swap(sent, at, with_body(sent[at].message, packed.ljust(len(body) - 1, b"\0") + body[-1:]))


def upload_of_another(sent: Sents) -> None:
    first, second = up(sent, Trip.MASK), up(sent, Trip.MASK, 1)
    swap(sent, second, sent[first].message)


def two_uploads(sent: Sents) -> None:
    at = up(sent, Trip.MASK)
    sent.insert(at + 1, replace(sent[at], message=flipped(sent[at].message, 9)))


def upload_withheld(sent: Sents) -> None:
    del sent[up(sent, Trip.MASK)]


def old_blob(sent: Sents) -> None:
    """A client's blobs of two slots are the same bytes."""
    at = up(sent, Trip.SHARE)
    body = body_of(sent[at].message)
    size = 16 * NEIGHBOURS
    start = len(body) - 16 * SLOTS - size * SLOTS
    swap(
        sent,
        at,
        with_body(sent[at].message, body[: start + size] + body[start : start + size] + body[start + 2 * size :]),
    )


def forged_signature(sent: Sents) -> None:
    at = up(sent, Trip.AGREE)
    swap(sent, at, flipped(sent[at].message, 3))


def revealed_twice(sent: Sents) -> None:
    at = up(sent, Trip.UNMASK)
    sent.insert(at + 1, replace(sent[at], message=flipped(sent[at].message, 0)))


CHEATS = {
    "two stories": ("semi", {2: two_stories}, {"T-08", "T-10"}),
    "both secrets": ("semi", {2: both_secrets}, {"T-07", "T-08", "T-10"}),
    "few survivors": ("semi", {2: few_survivors}, {"T-08", "T-10"}),
    "another key in a roster": ("semi", {1: other_key}, {"T-04", "T-10"}),
    "a slot again": ("semi", {2: old_slot}, {"T-04", "T-10"}),
    "another model for one": ("semi", {2: other_model}, {"T-03", "T-04", "T-10"}),
    "fewer signatures": ("signed", {2: cheaper_agreement}, {"T-09", "T-10"}),
    "a damaged message": ("semi", {3: damaged}, {"T-02", "T-10"}),
    "trips out of order": ("apart", {2: trips_turned}, {"T-04", "T-10"}),
    "told twice": ("semi", {2: told_twice}, {"T-02"}),
    "a changed upload": ("semi", {2: changed_upload}, {"T-11"}),
    "no masks": ("semi", {2: unmasked}, {"T-11", "T-13"}),
    "another's upload": ("semi", {2: upload_of_another}, {"T-11", "T-14"}),
    "two uploads": ("semi", {2: two_uploads}, {"T-12", "T-15"}),
    "an upload left out": ("semi", {2: upload_withheld}, {"T-08", "T-10", "T-15"}),
    "a blob again": ("semi", {1: old_blob}, {"T-06"}),
    "a forged signature": ("signed", {2: forged_signature}, {"T-09"}),
    "revealed twice": ("signed", {2: revealed_twice}, {"T-07", "T-15"}),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_tampered_transcript_is_found(cheat: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    which, changes, checks = CHEATS[cheat]
    source = request.getfixturevalue(which)
    found = violations(tampered(source, tmp_path / "run", changes))
    assert checks <= found.keys()
    assert "T-01" not in found  # the hashes are mended


# --- over rounds, and files -----------------------------------------------------------------------------------------


def test_a_mask_that_serves_two_rounds_is_found(semi: Path, tmp_path: Path) -> None:
    """A client's upload of round 3 is that of round 2 with another small vector under the same mask."""
    before, bits = recorded(semi, 2), BITS
    first = before.sent[up(before.sent, Trip.MASK)]
    body = body_of(first.message)
    count, rng = (len(body) - 1) * 8 // bits, np.random.default_rng(4)
    number = int.from_bytes(body[:-1], "little")
    values = np.array([number >> bits * at & (1 << bits) - 1 for at in range(count)], np.int64)
    other = (values + np.round(rng.normal(0, 2 ** (bits - 4), count)).astype(np.int64)) % (1 << bits)
    packed = pack(other.astype(lane(bits)), bits).ljust(len(body) - 1, b"\0")

    def again(sent: Sents) -> None:
        at = next(
            place for place, one in enumerate(sent)
            if one.trip is Trip.MASK and one.direction is Direction.UP and one.positions == first.positions
        )  # fmt: skip
        swap(sent, at, with_body(sent[at].message, packed + body_of(sent[at].message)[-1:]))

    found = violations(tampered(semi, tmp_path / "run", {3: again}))
    assert {"T-14", "T-11"} <= found.keys()
    assert "uploads as in transcript/round-00002.bin" in found["T-14"]


def test_a_key_that_serves_two_sessions_is_found(apart: Path, tmp_path: Path) -> None:
    first = recorded(apart, 1).sent
    own = first[up(first, Trip.ADVERTISE)]

    def again(sent: Sents) -> None:
        at = up(sent, Trip.ADVERTISE)
        scope = sent[at].message[HEADER - 8 : HEADER]
        swap(sent, at, renamed(own.message, scope))

    found = violations(tampered(apart, tmp_path / "run", {2: again}))
    assert {"T-05", "T-04"} <= found.keys()


def test_shares_that_serve_two_slots_are_found(semi: Path, tmp_path: Path) -> None:
    before = recorded(semi, 2).sent
    own = before[up(before, Trip.UNMASK)]

    def again(sent: Sents) -> None:
        at = up(sent, Trip.UNMASK)
        here = body_of(sent[at].message)
        size = 17 * (min(len(here), len(body_of(own.message))) // 17)
        swap(sent, at, with_body(sent[at].message, body_of(own.message)[:size][: len(here)] + here[size:]))

    assert "T-06" in violations(tampered(semi, tmp_path / "run", {3: again}))


def test_a_session_that_is_begun_twice_is_found(apart: Path, tmp_path: Path) -> None:
    target = shutil.copytree(apart, tmp_path / "run")
    put(target, 2, path_of(apart / "transcript", 1).read_bytes())
    assert "T-03" in violations(target)


def test_other_identity_keys_are_found(signed: Path, tmp_path: Path) -> None:
    target, found = shutil.copytree(signed, tmp_path / "run"), recorded(signed, 1)
    keys = (*found.enrolment.identities[1:], found.enrolment.identities[0])
    put(target, 1, serialised(replace(found, enrolment=replace(found.enrolment, identities=keys))))
    assert "T-03" in violations(target)


CLAIMS: dict[str, tuple[Callable[[list[dict]], None], str]] = {
    "threshold": (lambda lines: [line.update(threshold=line["threshold"] + 1) for line in lines], "T-03"),
    "neighbours": (lambda lines: [line.update(neighbours=6) for line in lines], "T-03"),
    "bits": (lambda lines: [line.update(bits=line["bits"] + 1) for line in lines], "T-03"),
    "noise": (lambda lines: [line.update(sigma_local=2 * line["sigma_local"]) for line in lines], "T-03"),
    "clip norm": (lambda lines: lines[1].update(clip_norm=0.5), "T-03"),
    "model": (lambda lines: lines[1].update(model_hash="ab" * 32), "T-03"),
    "survivors": (lambda lines: lines[1]["survivors"].pop(), "T-08"),
    "no sum": (lambda lines: lines[1].update(aborted="too few", survivors=[], noise_multiplier=None), "T-10"),
    "recovered": (lambda lines: lines[1].update(recovered=0), "T-10"),
    "bytes up": (lambda lines: lines[1].update(upload_bytes=lines[1]["upload_bytes"] - 1), "T-15"),
    "bytes down": (lambda lines: lines[1].update(download_bytes=lines[1]["download_bytes"] + 1), "T-15"),
    "no hash": (lambda lines: lines[1].update(transcript_hash=None), "T-01"),
    "sum": (lambda lines: lines[1].update(sum_hash="cd" * 32), ""),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_log_that_says_otherwise_is_found(claim: str, semi: Path, tmp_path: Path) -> None:
    target, (change, check) = shutil.copytree(semi, tmp_path / "run"), CLAIMS[claim]
    lines, report = read(target)
    change(lines)
    chained(target, lines, report)
    if not check:  # the file is what was unmasked: only without it the hash alone speaks
        assert violations(target) == {}
        shutil.rmtree(target / "sums")
        check = "T-11"
    assert check in violations(target)


def test_another_sum_is_found(semi: Path, tmp_path: Path) -> None:
    target = shutil.copytree(semi, tmp_path / "run")
    path = target / "sums" / "round-00002.npy"
    total = np.load(path)
    total[7] += 1
    np.save(path, total)
    assert "1 of " in violations(target)["T-11"]


@pytest.mark.parametrize("how", ["edited", "cut", "missing", "stray", "hostile", "folder", "head"])
def test_files_that_are_not_those_of_the_log_are_found(how: str, semi: Path, tmp_path: Path) -> None:
    target = shutil.copytree(semi, tmp_path / "run")
    path = path_of(target / "transcript", 2)
    data = path.read_bytes()
    if how == "edited":
        path.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    elif how == "cut":
        put(target, 2, data[:-200])
    elif how == "missing":
        path.unlink()
    elif how == "stray":
        path_of(target / "transcript", 4).write_bytes(data)
    elif how == "hostile":
        put(target, 2, data[:26] + b"\0" + b"\xff" * 200)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        put(target, 2, data[:30])
    assert "T-01" in violations(target)


def test_every_byte_of_a_transcript_counts(signed: Path, tmp_path: Path) -> None:
    """One bit anywhere, the hash in the log mended: a finding; of damaged shares that were not needed, a warning."""
    source = path_of(signed / "transcript", 2).read_bytes()
    target, rng = shutil.copytree(signed, tmp_path / "run"), np.random.default_rng(5)
    missed = 0
    for at in rng.choice(len(source), 40, replace=False).tolist():
        data = bytearray(source)
        data[at] ^= 1 << int(rng.integers(8))
        put(target, 2, bytes(data))
        missed += not unclean(target)
    assert missed == 0


def test_a_transcript_of_another_folder_is_none_of_this_run(semi: Path, signed: Path, tmp_path: Path) -> None:
    target = shutil.copytree(semi, tmp_path / "run")
    put(target, 2, path_of(signed / "transcript", 2).read_bytes())
    assert "T-03" in violations(target)


def test_a_transcript_that_the_configuration_keeps_and_the_log_does_not_bind(semi: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(semi, tmp_path / "run"))
    shutil.rmtree(folder / "transcript")
    lines, report = read(folder)
    for line in lines:
        line["transcript_hash"] = None
    chained(folder, lines, report)
    assert "round 1: binds no transcript, and the configuration keeps them" in violations(folder)["T-01"]
    assert "asks for them" in str(audited(folder).left_out)


def test_a_receipt_of_another_run_than_clients_were_invited_to(semi: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(semi, tmp_path / "run"))
    told = recorded(folder, 1)
    own = Invitation.from_bytes(told.invitation, told.enrolment).session
    for session, there in ((own, False), (bytes(16), True)):
        raw = (folder / "report.json").read_bytes()
        paper = signed_by(folder, raw, "0" * 64, session, Signer(bytes(32), lasting=True))
        (folder / "receipt.json").write_text(paper.to_json())
        assert ("receipt.json: is of run" in violations(folder).get("T-03", "")) is there
