"""The server's steps taken again from the released sums: of every rule, and what one who exchanges a part meets."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from falsifying import Table, chained, read, small, written
from federations import few_images, task_of
from safetensors.numpy import load_file, save_file

from flora_secure.auditing.findings import OK, VIOLATION, WARNING, Block
from flora_secure.auditing.folder import audit
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.sums.checks import block
from flora_secure.auditing.sums.noise import least_noise
from flora_secure.client import upload
from flora_secure.records.reading import read_unverified
from flora_secure.records.record import RoundRecord


def audited(folder: Path) -> Block:
    run, breaks = read_unverified(folder)
    assert not breaks  # the chain holds: only the sums can show what is wrong
    return block(Case(folder, run.config, run.records, run.report, breaks))


def severities(folder: Path) -> dict[str, str]:
    return {f.check: f.severity for f in audited(folder).findings}


def found(folder: Path) -> dict[str, str]:
    return {f.check: f.evidence for f in audited(folder).findings if f.severity == VIOLATION}


def test_a_genuine_folder_is_replayed(genuine) -> None:
    assert severities(genuine) == dict.fromkeys(("S-01", "S-02", "S-03", "S-04", "S-05"), OK)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__rule": "alternate"},
        {"model__rule": "ab", "privacy__adaptive_clip": 0.5, "privacy__epsilon": 50.0},
        pytest.param(
            {"aggregation__secagg": "off", "privacy__unit": "example", "privacy__epsilon": 20.0}, marks=pytest.mark.slow
        ),
        {"participation__rate": 0.5, "participation__sampling": "fixed", "aggregation__corrupt": 0.0},
    ],
    ids=["alternate", "adaptive", "example", "cohorts"],
)
def test_rules_and_units_on_the_projection(changes, tmp_path) -> None:
    config = small(**changes)
    assert set(severities(written(config, task_of(config), tmp_path / "run")).values()) == {OK}


@pytest.mark.parametrize(
    ("placement", "rule"),
    [
        ("text-attention-full", "ab"),
        pytest.param("text-attention", "alternate", marks=pytest.mark.slow),
        pytest.param("text-mlp", "frozen-a", marks=pytest.mark.slow),
        ("both-projections", "local-alternate"),
    ],
)
def test_placements(placement, rule, tmp_path) -> None:
    changes = {"model__placement": placement, "model__rule": rule, "model__rank": 2, "privacy__epsilon": 50.0}
    task = few_images(**changes)
    few = {"training__rounds": 2, "training__local_steps": 2, "data__clients": 10}
    assert set(severities(written(small(**few, **changes), task, tmp_path / "run")).values()) == {OK}


def npy(values: object, **how: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **how)
    return stream.getvalue()


def with_sum(folder: Path, number: int, raw: bytes, lines: list[Table], *, mended: bool) -> None:
    """Exchange the sum of a round; where it is `mended`, the log knows its hash."""
    (folder / "sums" / f"round-{number:05d}.npy").write_bytes(raw)
    if mended:
        lines[number - 1]["sum_hash"] = hashlib.sha256(raw).hexdigest()


def moved(folder: Path, lines: list[Table]) -> None:
    values = np.load(folder / "sums/round-00002.npy")
    values[3] += 1
    with_sum(folder, 2, npy(values), lines, mended=True)


def swapped(folder: Path, lines: list[Table]) -> None:
    first, second = (folder / f"sums/round-0000{n}.npy" for n in (1, 2))
    a, b = first.read_bytes(), second.read_bytes()
    with_sum(folder, 1, b, lines, mended=True)
    with_sum(folder, 2, a, lines, mended=True)


def started_elsewhere(folder: Path, lines: list[Table]) -> None:
    values = np.load(folder / "sums/initial.npy")
    (folder / "sums/initial.npy").write_bytes(npy(values + np.float16(0.5)))


def started_at(values: np.ndarray) -> Callable[[Path, list[Table]], None]:
    def cheat(folder: Path, lines: list[Table]) -> None:
        (folder / "sums/initial.npy").write_bytes(npy(values.astype(np.float16)))

    return cheat


def set_to(key: str, value: float) -> Callable[[Path, list[Table]], None]:
    def cheat(folder: Path, lines: list[Table]) -> None:
        for line in lines:
            line[key] = value

    return cheat


def last_adapter(folder: Path, lines: list[Table]) -> None:
    """Another adapter, with every hash of it mended."""
    path = folder / "adapter/adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    tensors[name].flat[0] += 1e-3
    save_file(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    card = json.loads((folder / "adapter/flora.json").read_text())
    (folder / "adapter/flora.json").write_text(json.dumps({**card, "adapter_hash": digest}))


ATTACKS = {
    "one value moved": (moved, "S-02"),
    "two rounds swapped": (swapped, "S-02"),
    "another beginning": (started_elsewhere, "S-02"),
    "a beginning that no step leads on from": (started_at(np.full(1020, 65504)), "S-02"),
    "a shorter beginning": (started_at(np.zeros(5)), "S-01"),
    "a longer beginning": (started_at(np.zeros(100_000)), "S-01"),
    "another step": (set_to("server_step", 0.25), "S-02"),
    "another divisor": (set_to("divisor", 5.0), "S-02"),
    "no divisor": (set_to("divisor", 0.0), None),
    "a count where there is none": (set_to("released_count", 3.0), "S-04"),
    "another adapter": (last_adapter, "S-03"),
    "the noise of larger shares claimed": (set_to("sigma_local", 400.0), "S-05"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_whoever_mends_the_hashes_is_found(attack, genuine, tmp_path) -> None:
    cheat, check = ATTACKS[attack]
    folder = shutil.copytree(genuine, tmp_path / "run")
    lines, report = read(folder)
    cheat(folder, lines)
    card = json.loads((folder / "adapter/flora.json").read_text())
    report["provenance"]["adapter_hash"] = card["adapter_hash"]
    chained(folder, lines, report)
    if check is None:  # nothing to divide by: the steps cannot be taken, which is said
        assert severities(folder)["S-02"] == WARNING
    else:
        assert check in found(folder)


def test_single_files_are_named(genuine, tmp_path) -> None:
    folder = shutil.copytree(genuine, tmp_path / "run")
    (folder / "sums/round-00002.npy").write_bytes(b"no array")
    (folder / "sums/round-00009.npy").write_bytes(b"")
    (folder / "sums/round-00003.npy").unlink()
    evidence = found(folder)["S-01"]
    assert all(name in evidence for name in ("round-00002.npy", "round-00003.npy", "round-00009.npy"))
    assert severities(folder)["S-02"] == WARNING


@pytest.mark.parametrize(
    "raw",
    [
        npy(np.zeros(3, np.int32)),
        npy(np.zeros((2, 2), np.int32)),
        npy(np.full(2_000, 2**31 - 1, np.int32)),
        npy(np.zeros(3)),
        npy(np.array([{}], object), allow_pickle=True),
        b"\x93NUMPY\x01\x00\xff\xff{",
        npy(np.zeros(3, np.int32)) + b"!",
        b"",
    ],
    ids=["short", "flat", "outside", "floats", "pickled", "cut", "longer", "empty"],
)
def test_hostile_files_are_findings(raw, genuine, tmp_path) -> None:
    folder = shutil.copytree(genuine, tmp_path / "run")
    lines, report = read(folder)
    with_sum(folder, 1, raw, lines, mended=True)
    chained(folder, lines, report)
    assert "round-00001.npy" in found(folder)["S-01"]


def test_withheld_sums_are_said(genuine, tmp_path) -> None:
    folder = shutil.copytree(genuine, tmp_path / "run")
    shutil.rmtree(folder / "sums")
    assert "not in the folder" in str(audited(folder).left_out)
    rows = {what.strip() for what, _ in audit(folder, opacus=False).rows()}
    assert "released sums" in rows  # where people look
    config = small(evidence__keep_sums=False)
    unkept = written(config, task_of(config), tmp_path / "unkept")
    assert audited(unkept).left_out == "none were kept"


def test_sums_that_the_configuration_keeps_and_the_log_does_not_know(genuine, tmp_path) -> None:
    folder = shutil.copytree(genuine, tmp_path / "run")
    shutil.rmtree(folder / "sums")
    lines, report = read(folder)
    for line in lines:
        line["sum_hash"] = None
    chained(folder, lines, report)
    assert "round 1: has no hash of its sum, and the configuration keeps sums" in found(folder)["S-01"]
    assert "asks for them" in str(audited(folder).left_out)


@pytest.mark.parametrize("name", ["initial.npy", "round-00002.npy"])
def test_no_more_of_a_file_is_read_than_its_values_take(name, genuine, tmp_path) -> None:
    folder = shutil.copytree(genuine, tmp_path / "run")
    with (folder / "sums" / name).open("r+b") as stream:
        stream.truncate(1_900_000_000)
    assert f"sums/{name}: it cannot be read: it has 1,900,000,000 bytes" in found(folder)["S-01"]


def test_a_folder_that_cannot_be_listed_is_a_finding(genuine, tmp_path, monkeypatch) -> None:
    folder = shutil.copytree(genuine, tmp_path / "run")

    def denied(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", denied)
    assert "sums: cannot be listed: Permission denied" in found(folder)["S-01"]


def test_missing_noise_is_seen_in_the_folder_alone(tmp_path, monkeypatch) -> None:
    """Clients that add nine tenths of their noise. With noise as wide as ε = 1 asks for, the sums are little else."""
    config = small(privacy__epsilon=1.0, training__rounds=10)
    task = task_of(config)
    assert severities(written(config, task, tmp_path / "honest"))["S-05"] == OK
    encode = upload.encode_rows

    def quieter(contributions, plan, *rest, **more):
        object.__setattr__(plan, "sigma_local", plan.sigma_local * 0.9)
        try:
            return encode(contributions, plan, *rest, **more)
        finally:
            object.__setattr__(plan, "sigma_local", plan.sigma_local / 0.9)

    monkeypatch.setattr(upload, "encode_rows", quieter)
    assert "S-05" in found(written(config, task, tmp_path / "cheated"))


def test_noise_alone_seldom_raises_an_alarm(genuine) -> None:
    """2,000 sums of noise alone. At a rate of 1e-3, more than 9 alarms come up in 5e-5 of such tests (binomial), and
    with 3 % of the noise missing 99.9 % are found."""
    lines, _ = read(genuine)
    lines[0].pop("previous")
    record = RoundRecord.from_dict(lines[0])
    rng = np.random.default_rng(5)
    deviation = np.sqrt(len(record.survivors) * (record.sigma_local**2 + 1 / 12))
    length, ring = 20 * record.dimension, 1 << record.bits

    def alarms(share: float) -> int:
        draws = (np.rint(rng.normal(0, deviation * share, (200, length))).astype(np.int64) % ring).astype(np.uint32)
        several = [least_noise([(record, part) for part in np.split(draw, 20)]) for draw in draws]
        return sum(one is not None and one.alarm for one in several)

    assert sum(alarms(1.0) for _ in range(10)) <= 9
    assert alarms(0.95) >= 195


def test_accuracies_are_measured_again(genuine, digits, tmp_path) -> None:
    def measure(values: np.ndarray) -> float:
        return digits.evaluator.accuracy(digits.factors(values))

    def asked(folder: Path) -> dict[str, str]:
        run, breaks = read_unverified(folder)
        case = Case(folder, run.config, run.records, run.report, breaks)
        return {f.check: f.severity for f in block(case, measure).findings}

    assert asked(genuine)["S-06"] == OK
    folder = shutil.copytree(genuine, tmp_path / "run")
    lines, report = read(folder)
    lines[1]["accuracy"] += 0.02
    chained(folder, lines, report)
    assert asked(folder)["S-06"] == VIOLATION


def test_a_ring_that_there_is_not_is_a_finding(genuine, tmp_path) -> None:
    folder = shutil.copytree(genuine, tmp_path / "run")
    lines, report = read(folder)
    set_to("bits", 7)(folder, lines)
    chained(folder, lines, report)
    assert "a ring of 7 bits" in found(folder)["S-01"]
