"""Tests of uniform uploads: how often they are wrong where masks are right, and what they find where they are not."""

import math

import numpy as np
import pytest

from flora_protocols import lane, pack
from flora_secure.auditing.transcript.notes import Notes
from flora_secure.auditing.transcript.uniformity import FALSE_ALARM, Uniformity, Upload, tail

RNG = np.random.default_rng


def judged(rounds: list[dict[int, np.ndarray]], bits: int) -> tuple[Notes, Uniformity]:
    notes, uniformity = Notes(), Uniformity()
    for number, vectors in enumerate(rounds, 1):
        uploads = [Upload(client, pack(vector.astype(lane(bits)), bits)) for client, vector in vectors.items()]
        uniformity.take(f"round {number}", uploads, len(next(iter(vectors.values()))), bits, notes)
    uniformity.judge(notes)
    return notes, uniformity


def masked(rng: np.random.Generator, clients: int, dimension: int, bits: int) -> dict[int, np.ndarray]:
    return {client: rng.integers(0, 1 << bits, dimension, np.uint32) for client in range(clients)}


@pytest.mark.parametrize(("bits", "dimension"), [(8, 1000), (9, 77), (13, 4000), (16, 301), (22, 100), (32, 5)])
def test_uniform_uploads_raise_no_alarm(bits: int, dimension: int) -> None:
    """60 transcripts of each shape: with at most 1e-3 each, no alarm in any of all 360 with probability 0.7 or more;
    the bounds are far from tight, and the seeds are fixed."""
    for seed in range(60):
        rng = RNG([seed, bits])
        notes, _ = judged([masked(rng, 6, dimension, bits) for _ in range(3)], bits)
        assert not notes.met("T-13")
        assert not notes.met("T-14")


@pytest.mark.parametrize("bits", [8, 12, 13, 16, 21, 32])
@pytest.mark.parametrize("spread", [3, 5])  # binary digits that the ring has beyond a standard deviation
def test_one_upload_without_a_mask_is_found(bits: int, spread: int) -> None:
    rng = RNG([bits, spread])
    rounds = [masked(rng, 8, 2000, bits) for _ in range(3)]
    plain = np.round(rng.normal(0, 2.0 ** (bits - spread), 2000)).astype(np.int64) % (1 << bits)
    rounds[1][5] = plain.astype(np.uint32)
    notes, _ = judged(rounds, bits)
    assert notes.met("T-13")
    assert "client 5" in next(f.evidence for f in notes.findings() if f.check == "T-13")


@pytest.mark.parametrize("bits", [8, 13, 16, 32])
@pytest.mark.parametrize("where", ["rounds", "clients"])
def test_one_mask_that_serves_twice_is_found(bits: int, where: str) -> None:
    """Over two rounds of a client, or for two clients of a round; what is under it has an eighth of the ring."""
    rng = RNG([bits, len(where)])
    rounds = [masked(rng, 8, 2000, bits) for _ in range(3)]
    other = np.round(rng.normal(0, 2.0 ** (bits - 3), 2000)).astype(np.int64)
    again = ((rounds[0][2].astype(np.int64) + other) % (1 << bits)).astype(np.uint32)
    rounds[2 if where == "rounds" else 0][2 if where == "rounds" else 7] = again
    notes, _ = judged(rounds, bits)
    assert notes.met("T-14")
    assert not notes.met("T-13")


def test_a_small_bias_shows_in_all_uploads_of_a_client() -> None:
    """A random source whose bytes below 32 come half as often: no upload by itself shows it."""
    rng = RNG(9)
    rounds = []
    for _ in range(30):
        vectors = masked(rng, 4, 1000, 8)
        drawn = vectors[3]
        again = (drawn < 32) & (rng.random(1000) < 0.5)
        vectors[3] = np.where(again, rng.integers(32, 256, 1000), drawn).astype(np.uint32)
        rounds.append(vectors)
    notes, _ = judged(rounds, 8)
    evidence = next(f.evidence for f in notes.findings() if f.check == "T-13")
    assert evidence.startswith("all uploads of client 3 together")


def test_the_bound_holds_where_it_can_be_counted() -> None:
    """Two cells: N·KL of a coin's N flips, whose tail is a sum of binomial terms."""
    flips = 40
    for heads in range(flips // 2, flips + 1):
        share = heads / flips
        terms = [x * math.log(2 * x) for x in (share, 1 - share) if x > 0]
        exact = 2 * sum(math.comb(flips, more) for more in range(heads, flips + 1)) / 2**flips
        assert exact <= tail(flips * sum(terms), 2) + 1e-12 or heads == flips // 2
    assert tail(15.0, 16) == 1.0
    assert tail(100.0, 16) == pytest.approx(math.exp(15 - 100 + 15 * math.log(100 / 15)))


def test_what_was_measured_says_what_it_rests_on() -> None:
    _, uniformity = judged([masked(RNG(1), 5, 500, 12) for _ in range(2)], 12)
    first, second = uniformity.measurements()
    assert first.false_alarm + second.false_alarm == pytest.approx(FALSE_ALARM)
    assert uniformity.tests == 10 + 2 + 5
    assert uniformity.pairs == 2 * 10 + 5
    assert "17 tests" in first.assumption
