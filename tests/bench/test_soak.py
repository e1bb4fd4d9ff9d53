"""A federation over TLS whose processes are killed and whose messages are spoiled holds; and the check would tell."""

from pathlib import Path

import pytest

from flora_bench.federation.soak import Soak


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Soak:
    found = Soak(tmp_path_factory.mktemp("soak"), rounds=3, seed=5, mean_life=1e9, hits=5)
    found.run()
    return found


def test_a_short_soak_holds(soak: Soak) -> None:
    assert soak.found.violations == []
    assert soak.found.rounds == 3
    assert soak.found.sums >= 1


def test_what_the_ledgers_lack_is_found(soak: Soak) -> None:
    survivors = [line for line in (soak.folder / "sums").read_text().splitlines() if '"right": true' in line]
    assert survivors
    for path in soak.folder.glob("sites/*/state/ledger.jsonl"):
        path.write_bytes(b"")
    before = list(soak.found.violations)
    soak._verify()
    assert any("own ledger lacks it" in line for line in soak.found.violations)
    soak.found.violations[:] = before


def test_a_wrong_sum_is_found(soak: Soak) -> None:
    path = soak.folder / "sums"
    path.write_text(path.read_text().replace('"right": true', '"right": false', 1))
    soak._verify()
    assert any("the sum is not that of" in line for line in soak.found.violations)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_longer_soak_holds(tmp_path: Path, seed: int) -> None:
    found = Soak(tmp_path, rounds=6, seed=seed).run()
    assert found.violations == []
    assert found.rounds == 6
