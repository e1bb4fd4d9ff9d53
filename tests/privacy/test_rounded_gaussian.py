import hashlib
import math
import subprocess

import mpmath
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc, ndtr

from flora_secure.boundary.processes import fresh_python, surroundings
from flora_secure.privacy import rounded_gaussian
from flora_secure.privacy.precise import making, quantile, tail_table
from flora_secure.privacy.rounded_gaussian import RoundedGaussian

KEY = bytes(range(32))
KNOWN = [-5, 4, -3, -13, -4, -6, -13, -9, -21, 12, 7, 2]
CTX = mpmath.MPContext()
CTX.prec = 400


def keystream(key: bytes, number: int, length: int) -> bytes:
    return (
        Cipher(algorithms.AES(key), modes.CTR(number.to_bytes(8, "big") + bytes(8))).encryptor().update(bytes(length))
    )


def gaussians(key: bytes, count: int) -> list[mpmath.mpf]:
    """G of the first draws, from the definition alone: 64 + 192 digits of U, Φ⁻¹ by mpmath's erfinv."""
    stream = keystream(key, 0, 8 * count)
    found = []
    for i in range(count):
        word = int.from_bytes(stream[8 * i : 8 * i + 8], "little")
        digits = (word >> 1) << 192 | int.from_bytes(keystream(key, i + 1, 24), "big")
        x = CTX.sqrt(2) * CTX.erfinv(1 - CTX.ldexp(2 * digits + 1, -256))
        found.append(x if word & 1 else -x)
    return found


class ChiSquare:
    """χ² of draws against the exact mass function, in cells of expectation >= 20."""

    def __init__(self, y: float, sigma: float) -> None:
        reach = math.ceil(6 * sigma)
        self.k = np.arange(math.floor(y) - reach, math.floor(y) + reach + 1)
        left = ndtr((self.k - 0.5 - y) / sigma)
        right = ndtr(-(self.k + 0.5 - y) / sigma)
        self.mass = np.where(
            self.k > y, ndtr(-(self.k - 0.5 - y) / sigma) - right, ndtr((self.k + 0.5 - y) / sigma) - left
        )
        self.mass[0] += left[0]
        self.mass[-1] += right[-1]
        self.counts = np.zeros(self.k.size, dtype=np.int64)

    def add(self, draws: np.ndarray) -> None:
        self.counts += np.bincount(np.clip(draws - self.k[0], 0, self.k.size - 1), minlength=self.k.size)

    def p_value(self) -> float:
        expected = self.mass * self.counts.sum()
        keep = expected >= 20
        pooled_expected = np.append(expected[keep], expected[~keep].sum())
        pooled_counts = np.append(self.counts[keep], self.counts[~keep].sum())
        some = pooled_expected > 0
        statistic = np.sum((pooled_counts[some] - pooled_expected[some]) ** 2 / pooled_expected[some])
        return float(chdtrc(np.count_nonzero(some) - 1, statistic))


def chi_square_p(draws: np.ndarray, y: float, sigma: float) -> float:
    test = ChiSquare(y, sigma)
    test.add(draws)
    return test.p_value()


@pytest.mark.parametrize(("y", "sigma"), [(0.0, 2.04), (0.3, 2.04), (-7.5, 0.5), (1000.77, 30.0), (0.49, 3000.0)])
def test_mass_function(y: float, sigma: float) -> None:
    # A correct sampler fails for 1 key in 10^5; the key is fixed, so this verdict never changes.
    draws = RoundedGaussian(KEY).sample(np.full(1_000_000, y), sigma)
    assert chi_square_p(draws, y, sigma) > 1e-5


@pytest.mark.parametrize(("shift", "stretch"), [(0.02, 1.0), (0.0, 1.01)])
def test_the_chi_square_test_sees_a_wrong_mean_or_deviation(shift: float, stretch: float) -> None:
    draws = RoundedGaussian(KEY).sample(np.full(1_000_000, 0.3 + shift), 2.04 * stretch)
    assert chi_square_p(draws, 0.3, 2.04) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("y", "sigma"), [(0.3, 2.04), (0.0, 40.0)])
def test_mass_function_over_1e8_draws(y: float, sigma: float) -> None:
    # False-alarm rate 10^-5, as above.
    sampler, test = RoundedGaussian(KEY), ChiSquare(y, sigma)
    for _ in range(100):
        test.add(sampler.sample(np.full(10**6, y), sigma))
    assert test.counts.sum() == 10**8
    assert test.p_value() > 1e-5


def test_known_answer() -> None:
    # The definition evaluated by mpmath for these draws; every platform must agree.
    y = np.linspace(-3.0, 3.0, 12)
    assert RoundedGaussian(KEY).sample(y, 10.0).tolist() == KNOWN
    assert [int(CTX.floor(v + 10 * g + 0.5)) for v, g in zip(y.tolist(), gaussians(KEY, 12), strict=True)] == KNOWN


@pytest.mark.parametrize(
    ("sigma", "digest"),
    [
        (2.04, "79f17f3926d8794cbd63ec0c7b9e590c29fac9f4977bf0d6b9e3057f07156d2f"),
        (40.0, "89745dad97c9f7194b7e312f1028179950234c5bbe044ec39df737f417f0a279"),
    ],
)
def test_two_hundred_thousand_known_draws(sigma: float, digest: str) -> None:
    """Any platform whose float64, byte order or AES differed in one draw would differ here."""
    draws = RoundedGaussian(KEY).sample(np.arange(-100_000, 100_001) / 2000, sigma)
    assert hashlib.sha256(draws.astype("<i8").tobytes()).hexdigest() == digest


@pytest.mark.parametrize("sigma", [0.3, 2.04, 977.1, 2.0**20])
def test_draws_follow_the_definition(sigma: float) -> None:
    y = np.random.default_rng(5).normal(size=300) * 50
    expected = [
        int(CTX.floor(CTX.mpf(v) + CTX.mpf(sigma) * g + 0.5))
        for v, g in zip(y.tolist(), gaussians(KEY, 300), strict=True)
    ]
    assert RoundedGaussian(KEY).sample(y, sigma).tolist() == expected


def test_the_refined_path_and_the_fast_path_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(6).normal(size=400) * 9
    fast = RoundedGaussian(KEY).sample(y, 2.04)
    calls = count_refinements(monkeypatch)
    monkeypatch.setattr(rounded_gaussian, "X_ERROR", 0.06)
    np.testing.assert_array_equal(RoundedGaussian(KEY).sample(y, 2.04), fast)
    assert 50 < len(calls) < 200


@pytest.mark.parametrize("nudge", [-1, 0, 1])
def test_ambiguous_draws_are_refined_and_right(nudge: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # y is chosen so that y + σG + ½ is an integer up to half a unit in the last place of y, then moved by such units.
    sigma, gs = 8.0, gaussians(KEY, 40)
    y = np.array([float(CTX.mpf(7) - 0.5 - CTX.mpf(sigma) * g) for g in gs])
    y += nudge * np.spacing(y)
    calls = count_refinements(monkeypatch)
    draws = RoundedGaussian(KEY).sample(y, sigma)
    assert calls == list(range(40))
    expected = [int(CTX.floor(CTX.mpf(v) + CTX.mpf(sigma) * g + 0.5)) for v, g in zip(y.tolist(), gs, strict=True)]
    assert draws.tolist() == expected
    assert set(expected) <= {6, 7}
    assert nudge != 0 or set(expected) == {6, 7}


class FixedStream:
    def __init__(self, words: list[int]) -> None:
        self.data = b"".join(w.to_bytes(8, "little") for w in words)

    def update(self, zeros: bytes) -> bytes:
        assert len(zeros) == len(self.data)
        return self.data


def test_the_rarest_words_are_finite_and_symmetric() -> None:
    top = (1 << 64) - 1
    words = [0, 1, 2, 3, 12345, 12344, top, top - 1, 1 << 41, (1 << 41) - 1, 1 << 42]
    sampler = RoundedGaussian(KEY)
    sampler._stream = FixedStream(words)  # type: ignore[assignment]
    draws = sampler.sample(np.zeros(len(words)), 1e6)
    for i, (word, q) in enumerate(zip(words, draws.tolist(), strict=True)):
        digits = (word >> 1) << 192 | int.from_bytes(keystream(KEY, i + 1, 24), "big")
        x = CTX.sqrt(2) * CTX.erfinv(1 - CTX.ldexp(2 * digits + 1, -256))
        assert q == int(CTX.floor(1e6 * (x if word & 1 else -x) + 0.5))
    assert draws[0] < -9e6 < 9e6 < draws[1]


@settings(max_examples=60)
@given(st.integers(0, 2**63 - 1), st.integers(1, 63))
def test_brackets_enclose_the_quantile(word: int, shrink: int) -> None:
    digits, known = (word >> shrink) + 1, 64
    bracket = quantile.bracket(digits << 192, known + 192)
    assert bracket is not None
    low, high = (CTX.mpf(b.numerator) / b.denominator for b in bracket)
    assert CTX.ncdf(-low) >= CTX.ldexp(digits, -64) + CTX.ldexp(1, -256)
    assert CTX.ncdf(-high) <= CTX.ldexp(digits, -64)
    assert high - low < 2.0**-150


def test_a_bracket_that_proves_nothing_asks_for_more_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quantile.bracket(0, 256) is None
    real, refusals = quantile.bracket, iter([None, None])
    monkeypatch.setattr(quantile, "bracket", lambda d, k: next(refusals) if k < 500 else real(d, k))
    monkeypatch.setattr(rounded_gaussian, "X_ERROR", 0.06)
    few = RoundedGaussian(KEY).sample(np.array([0.0] * 3), 2.0)
    monkeypatch.undo()
    np.testing.assert_array_equal(few, RoundedGaussian(KEY).sample(np.array([0.0] * 3), 2.0))


def test_draws_do_not_depend_on_how_calls_are_split() -> None:
    y = np.linspace(-100, 100, 50_001)
    whole = RoundedGaussian(KEY).sample(y, 3.0)
    sampler = RoundedGaussian(KEY)
    parts = [sampler.sample(p, 3.0) for p in np.split(y, [1, 8, 8, 20_000])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(RoundedGaussian(KEY).sample(y.reshape(3, -1), 3.0).reshape(-1), whole)
    assert not np.array_equal(sampler.sample(y, 3.0), whole)


def test_refinement_uses_the_digits_of_its_own_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounded_gaussian, "X_ERROR", 1e-4)
    y = np.linspace(-100, 100, 50_001)
    calls = count_refinements(monkeypatch)
    RoundedGaussian(KEY).sample(y, 3.0)
    whole = calls.copy()
    calls.clear()
    sampler = RoundedGaussian(KEY)
    for part in np.split(y, [1, 8, 8, 20_000]):
        sampler.sample(part, 3.0)
    assert calls == whole
    assert whole[-1] > 40_000
    assert len(set(whole)) == len(whole)


def test_keys_come_from_the_operating_system_by_default_and_stay_secret() -> None:
    y = np.zeros(50)
    assert not np.array_equal(RoundedGaussian().sample(y, 9.0), RoundedGaussian().sample(y, 9.0))
    for text in (repr(RoundedGaussian(KEY)), str(RoundedGaussian(KEY)), f"{RoundedGaussian(KEY)}"):
        assert KEY.hex() not in text
        assert repr(KEY) not in text
    with pytest.raises(ValueError, match="32 bytes") as caught:
        RoundedGaussian(b"secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 1e12])
def test_a_bad_sigma_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma"):
        RoundedGaussian(KEY).sample(np.zeros(3), sigma)


@pytest.mark.parametrize("y", [math.nan, math.inf, 1e18])
def test_a_bad_centre_is_refused(y: float) -> None:
    with pytest.raises(ValueError, match="y"):
        RoundedGaussian(KEY).sample(np.array([0.0, y]), 1.0)


def test_no_draws_of_no_coordinates() -> None:
    assert RoundedGaussian(KEY).sample(np.zeros(0), 1.0).shape == (0,)


def count_refinements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    real = RoundedGaussian._refine

    def counted(self: RoundedGaussian, index: int, word: int, y: float, sigma: float) -> int:
        calls.append(index)
        return real(self, index, word, y, sigma)

    monkeypatch.setattr(RoundedGaussian, "_refine", counted)
    return calls


def test_the_float64_quantile_is_within_its_bound() -> None:
    """At both ends and the middle of cells all over the table, against mpmath. The remainder peaks at the ends."""
    found = 0.0
    for octave in range(41, 63):
        width = 1 << (octave - 6)
        cells = [(1 << octave) + width * j for j in (0, 1, 21, 63)]
        words = [w + k for w in cells for k in (0, width // 2, width - 1)]
        for word, x in zip(words, rounded_gaussian._tail_quantile(np.array(words)).tolist(), strict=True):
            for end in (word, word + 1):
                exact = CTX.sqrt(2) * CTX.erfinv(1 - CTX.ldexp(end, -63))
                found = max(found, abs(float(x - exact)))
    assert found < rounded_gaussian.X_ERROR
    assert found > rounded_gaussian.X_ERROR / 4  # the bound is not a blank cheque either


def test_the_table_that_ships_is_the_one_that_is_made() -> None:
    assert tail_table.FILE.read_bytes() == making.npy_bytes(making.made_table())


def test_draws_need_no_multiple_precision_until_one_is_undecided() -> None:
    """In a fresh interpreter, as a client's process that lives for one message is."""
    script = (
        "import sys, numpy as np\n"
        "from flora_secure.privacy.rounded_gaussian import RoundedGaussian\n"
        "RoundedGaussian(bytes(32)).sample(np.zeros(1000), 3.0)\n"
        "sys.exit('mpmath' in sys.modules)\n"
    )
    assert subprocess.run(fresh_python("-c", script), env=surroundings(), check=False).returncode == 0
