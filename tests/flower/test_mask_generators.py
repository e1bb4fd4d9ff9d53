"""Flower's SecAgg+ makes masks of seeds folded to 32 bits; ours of all 256 (docs/flower-secure-sum.md)."""

import numpy as np
import pytest

from flora_protocols.keystream import apply_masks, keystream

generator = pytest.importorskip("flwr.common.secure_aggregation.secaggplus_utils").pseudo_rand_gen
ZERO = bytes(32)
TWICE = bytes([7, 0, 0, 0, 7, 0, 0, 0]) + bytes(24)  # its 32-bit words xor to nothing, as those of ZERO


def test_two_seeds_have_one_mask_in_flower_and_two_here():
    (first,), (second,) = (generator(seed, 1 << 32, [(1000,)]) for seed in (ZERO, TWICE))
    assert np.array_equal(first, second)
    assert keystream(ZERO, 4000) != keystream(TWICE, 4000)
    masked = [np.zeros(1000, np.uint32) for _ in range(2)]
    for values, seed in zip(masked, (ZERO, TWICE), strict=True):
        apply_masks(values, [seed], [])
    assert not np.array_equal(*masked)
    assert np.mean(masked[0] == masked[1]) < 0.01


def test_any_seed_has_a_short_one_with_its_mask_in_flower():
    """So 2^32 trials find every mask, whatever the seeds were."""
    seed = bytes(range(100, 132))
    folded = np.bitwise_xor.reduce(np.frombuffer(seed, "<u4")).astype("<u4").tobytes() + bytes(28)
    (mask,), (found,) = (generator(one, 1 << 20, [(100,)]) for one in (seed, folded))
    assert np.array_equal(mask, found)
    assert keystream(seed, 400) != keystream(folded, 400)


def test_the_stream_is_aes_256_of_the_whole_key():
    """The first block of AES-256-GCM's stream of the zero key (NIST's test case 14: what zeros become)."""
    assert keystream(ZERO, 16).hex() == "cea7403d4d606b6e074ec5d3baf39d18"
