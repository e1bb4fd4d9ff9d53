"""What attacks came to, as audits read it: judged by its figures, refused where it is not what was written."""

import dataclasses
import json
from pathlib import Path

import pytest

from flora_secure import attack, audit, simulate
from flora_secure.auditing.attacked import PLACE, Attacks, Outcome, blocks_of, json_schema, last_line_hash, read
from flora_secure.errors import RunFolderError

OUTCOME = Outcome(
    attack="reconstruction", target="clients of 1 image", object="clean update", measure="right image first", value=0.9,
    low=0.7, high=0.99, chance=0.001, allowed=None, role="control", trials=40, candidates=1000, rank=1.0,
    rank_by_chance=500.0, p=None,
)  # fmt: skip


def outcome(**changes: object) -> Outcome:
    return dataclasses.replace(OUTCOME, **changes)


def severity(one: Outcome) -> tuple[str, str]:
    block = Attacks(rounds_hash="", seed=0, shadows=0, outcomes=[one]).blocks[0]
    assert len(block.findings) == 1
    return block.findings[0].check, block.findings[0].severity


@pytest.mark.parametrize(
    ("changes", "found", "says"),
    [
        ({}, ("X-01", "ok"), "succeeds"),
        ({"value": 0.01, "low": 0.0005}, ("X-01", "warning"), "shows nothing"),
        ({"role": "hidden", "value": 0.0, "low": 0.0}, ("X-02", "ok"), "at chance"),
        ({"role": "hidden", "value": 0.1, "low": 0.0011}, ("X-02", "violation"), "masks should hide"),
        ({"role": "bounded", "allowed": 0.05, "low": 0.04}, ("X-03", "ok"), "better than chance, within ε"),
        ({"role": "bounded", "allowed": 0.05, "low": 0.051}, ("X-03", "violation"), "more than ε allows"),
        ({"attack": "membership", "role": "bounded", "allowed": 0.05, "low": 0.06}, ("X-05", "violation"), "more than"),
        ({"attack": "sites", "role": "hidden", "value": 0.1, "low": 0.01}, ("X-07", "violation"), "masks should hide"),
    ],
)
def test_what_an_interval_says(changes: dict[str, object], found: tuple[str, str], says: str) -> None:
    one = outcome(**changes)
    assert severity(one) == found
    assert says in one.line
    assert one.measurement.alarm == (found[1] == "violation")


def test_the_schema_is_the_one_in_the_docs() -> None:
    kept = Path(__file__).parents[3] / "docs/attacks.schema.json"
    assert json_schema() == json.loads(kept.read_text(encoding="utf-8"))


@pytest.fixture
def attacked_run(counted_run: Path, tmp_path: Path) -> Path:
    """The figures of attacks on that run, beside it."""
    path = tmp_path / "attacks.json"
    path.write_text(Attacks(rounds_hash=last_line_hash(counted_run), seed=0, shadows=0, outcomes=[OUTCOME]).to_json())
    return path


def test_an_audit_includes_what_attacks_found(counted_run: Path, attacked_run: Path) -> None:
    without, beside = audit(counted_run, opacus=False), audit(counted_run, opacus=False, attacks=attacked_run)
    assert [block.left_out for block in without.blocks if block.name == "attacks"] != [None]
    block = next(block for block in beside.blocks if block.name == "reconstruction")
    assert [finding.check for finding in block.findings] == ["X-01"]
    assert [one.value for one in block.measurements] == [0.9]
    assert beside.passed == without.passed


def test_a_violation_that_attacks_found_fails_the_audit(counted_run: Path, attacked_run: Path) -> None:
    bad = outcome(role="hidden", value=0.5, low=0.4)
    attacked_run.write_text(
        Attacks(rounds_hash=last_line_hash(counted_run), seed=0, shadows=0, outcomes=[bad]).to_json()
    )
    assert not audit(counted_run, opacus=False, attacks=attacked_run).passed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.update(schema="flora-secure/attacks/9"), "this release reads flora-secure/attacks/1"),
        (lambda table: table.update(rounds_hash="0" * 64), "of another run"),
        (lambda table: table.pop("seed"), "key 'seed' is missing"),
        (lambda table: table["outcomes"][0].update(value=2.0), "no attack comes to this"),
        (lambda table: table["outcomes"][0].update(low=0.95), "no attack comes to this"),
        (lambda table: table["outcomes"][0].update(role="other"), "no attack comes to this"),
        (lambda table: table["outcomes"][0].update(trials="many"), "must be of type int"),
    ],
)
def test_other_figures_are_refused_and_the_audit_goes_on(counted_run, attacked_run, change, says) -> None:
    table = json.loads(attacked_run.read_text())
    change(table)
    attacked_run.write_text(json.dumps(table))
    with pytest.raises(RunFolderError, match=says):
        read(attacked_run, counted_run)
    assert says in str(blocks_of(attacked_run, counted_run)[0].left_out)
    assert audit(counted_run, opacus=False, attacks=attacked_run).passed == audit(counted_run, opacus=False).passed


def test_hostile_files_are_refused(counted_run: Path, tmp_path: Path) -> None:
    for name, data in (
        ("cut", b'{"schema": "flora-sec'),
        ("nan", b'{"seed": NaN}'),
        ("list", b"[]"),
        ("zip", b"PK\3\4"),
    ):
        place = tmp_path / name
        place.write_bytes(data)
        with pytest.raises(RunFolderError, match="attacks"):
            read(place, counted_run)
    with pytest.raises(RunFolderError, match="cannot be read"):
        read(tmp_path / "missing", counted_run)
    assert blocks_of(None, counted_run)[0].left_out is not None
    assert not (counted_run / PLACE).exists()


def test_a_run_with_canaries_is_attacked_without_them(tmp_path: Path) -> None:
    small = {"dataset": "digits", "clients": 24, "rounds": 1, "masking": "counted", "simulation_noise": True}
    simulate(**small, canaries=10, out=tmp_path / "run")
    assert {one.attack for one in attack(tmp_path / "run", attacks=("sites",)).outcomes} == {"sites"}
