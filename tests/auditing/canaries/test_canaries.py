"""Canaries: their directions, the runs they are in, and what the audit finds by them where clients are broken."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import flora_here
from studied import auditing_noise as study

from flora_secure.auditing.canaries import checks
from flora_secure.auditing.canaries.scores import scores_of
from flora_secure.auditing.canaries.secret import LENGTH, Canaries, beside, largest_order, read_canaries
from flora_secure.auditing.findings import VIOLATION
from flora_secure.auditing.folder import audit
from flora_secure.engine import run as engine_run
from flora_secure.engine.deployed.deployable import deployable
from flora_secure.engine.evidence.canaries import coins_of, keep
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.errors import CheckpointError, ConfigError, RunFolderError
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.masking import settled

SECRET = "1f" * 32
COUNT = 400


def canaries(count: int = 120, first: int = 10, values: int = 200, secret: str = SECRET) -> Canaries:
    return Canaries(count=count, first=first, values=values, secret=secret)


def with_canaries(**changes: object) -> RunConfig:
    """Noise and coins follow from seeds: a test of these runs raises the same alarms each time."""
    from falsifying import small

    given = {"aggregation__masking": "counted", "aggregation__dropout": 0.0, "privacy__epsilon": 4.0, **changes}
    return settled(small(evidence__canaries=COUNT, training__rounds=4, **given))


@pytest.fixture(autouse=True)
def known_coins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: bytes([31]) * size)


@pytest.fixture(scope="module")
def run(digits: Task) -> Iterator[tuple]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", lambda size: bytes([31]) * size)
        with study.audited(with_canaries(), digits, None) as found:
            yield found


@pytest.mark.parametrize("values", [16, 200, 1536, 2040])
def test_directions_are_orthonormal_fresh_and_read_as_they_are_made(values: int) -> None:
    some = canaries(count=min(16, values), values=values)
    which = np.arange(some.count)
    vectors = some.directions(3).vectors(which)
    assert np.allclose(vectors @ vectors.T, np.eye(some.count), atol=1e-12)
    update = np.random.default_rng(0).normal(size=values)
    assert np.allclose(some.directions(3).along(update), vectors @ update, atol=1e-12)
    assert not np.allclose(np.abs(vectors @ some.directions(4).vectors(which).T), np.eye(some.count), atol=0.5)


def test_all_follows_from_the_secret() -> None:
    assert np.array_equal(canaries().inside, canaries().inside)
    other = canaries(secret="2f" * 32)
    assert not np.array_equal(canaries().inside, other.inside)
    assert canaries().commitment != other.commitment
    # a fair coin: 4 standard deviations of 10,000
    assert abs(int(canaries(count=10_000, values=20_000).inside.sum()) - 5000) < 200


@pytest.mark.parametrize(("values", "order"), [(1, 1), (11, 8), (13, 12), (2040, 1536), (2048, 2048), (100, 96)])
def test_largest_order(values: int, order: int) -> None:
    assert largest_order(values) == order


def test_more_canaries_than_directions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"evidence.canaries 97 .* of 100 values there are 96"):
        canaries(count=97, values=100)


def test_the_secret_is_in_no_repr() -> None:
    assert SECRET not in repr(canaries())


def test_a_correct_run_is_as_claimed(run: tuple) -> None:
    case, place = run
    block = checks.block(case, place)
    assert {f.check: f.severity for f in block.findings} == dict.fromkeys(("C-01", "C-02", "C-03", "C-04"), "ok")
    figures = {one.name: one for one in block.measurements}
    assert len(figures) == 6
    assert all(one.assumption for one in figures.values())
    assert figures["ε, one-shot estimate"].false_alarm is None
    assert not any(one.alarm for one in figures.values())
    lower = figures["ε, lower bound by f-DP"]
    assert lower.value < case.server
    assert lower.ceiling > lower.value


def test_scores_are_those_of_the_vectors_themselves(run: tuple) -> None:
    """By the definition: each sum, taken back from the grid and the rotation, times the vector that the client gave."""
    from flora_secure.privacy.rotation import Rotation

    case, place = run
    kept, scores = read_canaries(place), scores_of(case, read_canaries(place))
    total = np.zeros(COUNT)
    for record in case.records:
        values = np.load(case.path / "sums" / f"round-{record.round:05d}.npy") / record.scale
        update = Rotation(kept.values, case.config.seed, record.round).inverse(values) if record.rotated else values
        sigma = np.sqrt(len(record.survivors) * (record.sigma_local**2 + 1 / 12)) / record.scale
        total += kept.directions(record.round).vectors(np.arange(COUNT)) @ update / sigma
    assert np.allclose(scores.values, total / 2)  # √4 rounds
    assert np.allclose(scores.shifts, 2 * record.clip_norm / sigma)
    assert np.array_equal(scores.inside, kept.inside)


@pytest.mark.parametrize("kind", [kind for kind in study.CANARIES if kind != "correct"])
def test_broken_clients_are_found(digits: Task, kind: str) -> None:
    with study.audited(with_canaries(), digits, study.CANARIES[kind]) as (case, place):
        found = checks.block(case, place)
    assert [f.check for f in found.findings if f.severity == VIOLATION] == ["C-03", "C-04"]
    measured = {one.name: one.value for one in found.measurements}
    if kind == "clip off":
        assert measured["canaries in: shift ÷ clip norm"] == pytest.approx(LENGTH, rel=0.1)
    else:
        assert measured["noise along canaries ÷ claim"] < 0.7


def test_other_coins_than_those_committed_to(run: tuple, tmp_path: Path) -> None:
    case, place = run
    table = json.loads(place.read_text())
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps({**table, "secret": "3f" * 32}))
    found = checks.block(case, forged)
    assert [f.check for f in found.findings if f.severity == VIOLATION] == ["C-01"]
    assert not found.measurements


def test_an_edited_sum_is_named_and_left_out(run: tuple) -> None:
    case, place = run
    path = case.path / "sums" / "round-00002.npy"
    kept = path.read_bytes()
    try:
        path.write_bytes(kept[:-4] + bytes([kept[-4] ^ 1]) + kept[-3:])  # by one grid unit
        found = {f.check: f for f in checks.block(case, place).findings}
        assert found["C-02"].severity == VIOLATION
        assert found["C-02"].where == "sums/round-00002.npy"
        assert found["C-03"].severity == "ok"  # by the others
        path.unlink()
        assert {f.check: f for f in checks.block(case, place).findings}["C-02"].severity == VIOLATION
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "flora-secure/canaries/1"}', "\x00", '{"schema": "flora-secure/canaries/2"}']
)
def test_hostile_files_are_named(run: tuple, tmp_path: Path, text: str) -> None:
    case, _ = run
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(RunFolderError, match=r"bad\.json"):
        read_canaries(path)
    assert "bad.json" in (checks.block(case, path).left_out or "")


def test_huge_numbers_in_a_file_take_neither_time_nor_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    table = json.loads(canaries().to_bytes())
    for key in ("count", "values", "first"):
        path.write_text(json.dumps({**table, key: 1 << 60}))
        with pytest.raises(RunFolderError):
            read_canaries(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"privacy.unit": "example"}, "privacy.unit example"),
        ({"privacy.epsilon": float("inf")}, "privacy.epsilon inf"),
        ({"privacy.adaptive_clip": 0.5}, "privacy.adaptive_clip would"),
        ({"evidence.keep_sums": False}, "evidence.keep_sums false"),
    ],
)
def test_what_canaries_do_not_go_with_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        override(RunConfig(), {"evidence.canaries": 5, **changes})


def test_a_run_goes_on_with_its_own_coins_alone(tmp_path: Path) -> None:
    config = override(RunConfig(), {"evidence.canaries": 12})
    drawn = coins_of(config, tmp_path / "run", 200, new=True)
    place = keep(drawn, tmp_path / "run")
    begun = override(config, {"evidence.canary_commitment": drawn.commitment})
    assert coins_of(begun, tmp_path / "run", 200, new=False) == drawn
    with pytest.raises(ConfigError, match="exists already"):
        keep(drawn, tmp_path / "run")
    place.write_bytes(canaries(count=12, first=drawn.first, secret="2f" * 32).to_bytes())
    with pytest.raises(CheckpointError, match="bring that back"):
        coins_of(begun, tmp_path / "run", 200, new=False)
    place.unlink()
    with pytest.raises(RunFolderError):
        coins_of(begun, tmp_path / "run", 200, new=False)


def test_a_run_with_canaries_goes_on_in_no_other_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = SimpleNamespace(config=override(RunConfig(), {"evidence.canaries": 12}), checkpoint=None, records=[])
    monkeypatch.setattr(engine_run, "reopen", lambda folder: interrupted)
    with pytest.raises(ConfigError, match="engine in this process"):
        engine_run.resume_run(tmp_path, engine_run.Surroundings(engine=lambda: None))


def test_real_federations_refuse_canaries() -> None:
    config = override(RunConfig(), {"evidence.canaries": 5, "aggregation.secagg": "malicious-server"})
    with pytest.raises(ConfigError, match=r"evidence\.canaries 5 are for simulations"):
        deployable(config, 9)


def test_a_simulation_without_the_canaries_that_are_configured(digits: Task) -> None:
    with pytest.raises(ValueError, match="400 canaries are configured"):
        Simulation(with_canaries(), digits)


def test_the_command_keeps_coins_beside_the_folder_and_says_what_canaries_are(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.undo()  # the real coins
    flags = ["--dataset", "digits", "--clients", "8", "--rounds", "2", "--canaries", "12", "--masking", "counted"]
    done = flora_here("simulate", *flags, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    place = tmp_path / "run.canaries.json"
    assert place == beside(tmp_path / "run")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    secret = read_canaries(place).secret
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()
    config = (tmp_path / "run" / "config.toml").read_text()
    assert read_canaries(place).commitment in config
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["aggregation"]["clients"] == 20
    assert "Canaries. 12 of the clients" in report["privacy"]["statement"]
    assert any("12 of the 20 clients are canaries" in line for line in report["warnings"])
    found = audit(tmp_path / "run", opacus=False)
    assert [f.check for f in found.findings if f.severity == VIOLATION and f.check.startswith("A-")] == []
    assert {b.name: b.left_out for b in found.blocks}["canaries"] is None
    place.rename(tmp_path / "elsewhere.json")
    assert "run.canaries.json" in {b.name: b.left_out for b in audit(tmp_path / "run", opacus=False).blocks}["canaries"]
    shown = flora_here("audit", "run", "--no-opacus", "--canaries", "elsewhere.json", cwd=tmp_path)
    assert "canaries in: shift ÷ clip norm" in shown.stdout
