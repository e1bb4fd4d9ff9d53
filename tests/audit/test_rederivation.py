"""The re-derivation audit: genuine runs pass, and logs that were falsified consistently, hashes included, do not."""

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from flora_secure.audit.findings import OK, VIOLATION, WARNING, Audit, json_schema
from flora_secure.audit.rederivation import audit
from flora_secure.config import RunConfig, override
from flora_secure.data.federation import load_federation
from flora_secure.privacy.accounting import gaussian_epsilon
from flora_secure.privacy.amplification import poisson_epsilon
from flora_secure.run_folder import RunFolder, RunFolderError
from flora_secure.simulation import Simulation
from flora_secure.summary import summarise
from flora_secure.task import Task, prepare

DOCS = Path(__file__).parents[2] / "docs"
SMALL = {
    "data.dataset": "digits",
    "data.clients": 10,
    "training.rounds": 3,
    "aggregation.dropout": 0.1,
    "privacy.dropout_tolerance": 0.2,
    "privacy.simulation_noise": True,
}
Table = dict[str, Any]
Cheat = Callable[[Table, list[Table], Table], None]  # config (nested), lines, report; changed in place


def small(**changes: Any) -> RunConfig:
    return override(RunConfig(), {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}})


@pytest.fixture(scope="session")
def digits() -> Task:
    torch.set_num_threads(1)
    config = small()
    return prepare(config, load_federation(config.data, config.seed))


def written(config: RunConfig, task: Task, path: Path) -> Path:
    simulation, folder = Simulation(config, task), RunFolder(path, config)
    for record in simulation.rounds():
        folder.append_round(record)
    folder.write_report(summarise(simulation, total_seconds=1.0, rounds_hash=folder.last_hash))
    return path


@pytest.fixture(scope="session")
def genuine(digits, tmp_path_factory) -> Path:
    return written(small(), digits, tmp_path_factory.mktemp("audit") / "run")


@pytest.fixture(scope="session")
def open_run(digits, tmp_path_factory) -> Path:
    return written(small(aggregation__secagg="off"), digits, tmp_path_factory.mktemp("audit") / "off")


def chained(folder: Path, lines: list[Table], report: Table | None, config: str | None = None) -> None:
    """Write lines and report with hashes that fit, as one who falsifies them would."""
    if config is not None:
        (folder / "config.toml").write_text(config)
    first = previous = hashlib.sha256((folder / "config.toml").read_bytes()).hexdigest()
    text = ""
    for table in lines:
        line = json.dumps({**table, "previous": previous}, ensure_ascii=False)
        text, previous = text + line + "\n", hashlib.sha256(line.encode()).hexdigest()
    (folder / "rounds.jsonl").write_text(text)
    if report is not None:
        report["provenance"] |= {"config_hash": first, "rounds_hash": previous}
        (folder / "report.json").write_text(json.dumps(report))


def read(folder: Path) -> tuple[list[Table], Table]:
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / "report.json").read_text())


def falsified(source: Path, target: Path, cheat: Callable[[list[Table], Table], None]) -> Path:
    shutil.copytree(source, target)
    lines, report = read(target)
    cheat(lines, report)
    chained(target, lines, report)
    return target


def found(folder: Path, severity: str = VIOLATION) -> dict[str, str]:
    return {f.check: f.evidence for f in audit(folder, opacus=False).findings if f.severity == severity}


def total(lines: list[Table], key: str = "noise_multiplier") -> float:
    return gaussian_epsilon(math.sqrt(sum(line[key] ** -2 for line in lines)), lines[0]["delta"])


def z_of(line: Table) -> float:
    honest = len(line["survivors"]) - line["colluders"]
    return line["sigma_local"] * math.sqrt(honest) / (line["scale"] * line["clip_norm"])


# --- genuine runs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aggregation__secagg": "malicious-server"},
        {"aggregation__secagg": "off"},
        {"privacy__epsilon": math.inf},
        {"aggregation__corrupt": 0.2},
        {"privacy__bits": 12, "privacy__clip_norm": 0.3},
        {"privacy__epsilon": 0.5, "aggregation__dropout": 0.0},
    ],
    ids=str,
)
def test_a_genuine_run_passes(digits, tmp_path, changes) -> None:
    result = audit(written(small(**changes), digits, tmp_path / "run"), opacus=False)
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}
    assert result.passed
    noisy = changes.get("privacy__epsilon") != math.inf
    assert [f.check for f in result.findings if f.severity == WARNING] == (["A-16"] if noisy else [])
    claims = json.loads((tmp_path / "run" / "report.json").read_text())["privacy"]
    figures = {figure.name: figure for figure in result.figures}
    assert figures["epsilon"].claimed == claims["epsilon"]
    if noisy:
        assert figures["epsilon"].derived == pytest.approx(claims["epsilon"], rel=1e-9)
        assert len(result.clients) == 10
        for client in result.clients:
            assert client.second == pytest.approx(client.epsilon, abs=0.02)


def test_a_genuine_run_passes_where_a_rotation_would_lengthen_nothing(tmp_path) -> None:
    """Of 8 × 192 values the length of an upload does not tell whether updates were rotated; the statement does."""
    config = small(model__rank=8)
    run = written(config, prepare(config, load_federation(config.data, config.seed)), tmp_path / "run")
    assert {line["dimension"] for line in read(run)[0]} == {1536}
    assert found(run) == {}


FIXED = {"participation__rate": 0.5, "participation__sampling": "fixed"}
COHORTS = [
    FIXED,
    {"participation__rate": 0.6, "participation__sampling": "poisson"},
    {"participation__rate": 0.3, "participation__sampling": "fixed", "participation__min_separation": 2},
    {**FIXED, "aggregation__secagg": "off"},
    {"privacy__adaptive_clip": 0.5, "privacy__epsilon": 50.0},
    {"privacy__unit": "example"},
    {**FIXED, "privacy__unit": "example"},
    {"privacy__unit": "example", "aggregation__secagg": "off"},
    {"privacy__unit": "example", "privacy__epsilon": math.inf},
]


@pytest.fixture(scope="module")
def twenty() -> Task:
    config = small(data__clients=20)
    return prepare(config, load_federation(config.data, config.seed))


def test_a_rotated_run_passes_where_the_rotation_adds_no_coordinate(tmp_path) -> None:
    changes = {"data.dataset": "digits", "data.clients": 20, "training.rounds": 3, "privacy.simulation_noise": True}
    config = override(RunConfig(), {**changes, "model.rule": "alternate", "model.rank": 2})  # d = 384 = 3 · 2^7
    task = prepare(config, load_federation(config.data, config.seed))
    result = audit(written(config, task, tmp_path / "run"), opacus=False)
    assert "rotated" in json.loads((tmp_path / "run" / "report.json").read_text())["privacy"]["statement"]
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}


@pytest.mark.parametrize("changes", COHORTS, ids=str)
def test_genuine_cohorts_and_examples_pass(twenty, tmp_path, changes) -> None:
    result = audit(
        written(small(data__clients=20, training__rounds=4, **changes), twenty, tmp_path / "run"), opacus=False
    )
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}
    if changes is FIXED:
        assert len({(client.rounds, client.epsilon) for client in result.clients}) > 1


def test_what_outsiders_may_claim_is_no_headline(twenty, tmp_path) -> None:
    few = {"participation__rate": 0.2, "participation__sampling": "fixed"}
    config = small(
        data__clients=20, training__rounds=1, privacy__epsilon=1.0, privacy__delta=1e-3, aggregation__corrupt=0.0, **few
    )
    folder = written(config, twenty, tmp_path / "run")

    def cheat(lines, report) -> None:
        report["privacy"]["epsilon"] = report["privacy"]["epsilon_outsider"]

    claims = json.loads((folder / "report.json").read_text())["privacy"]
    assert claims["epsilon_outsider"] < claims["epsilon"] - 0.03
    assert "amplified by the draw of cohorts" in found(falsified(folder, tmp_path / "false", cheat))["A-23"]


def test_rounds_that_were_aborted_are_not_paid_for(digits, tmp_path) -> None:
    # more vanish than the noise allows for: every round is aborted, nothing is released
    config = small(aggregation__dropout=0.5, privacy__dropout_tolerance=0.1)
    result = audit(written(config, digits, tmp_path / "run"), opacus=False)
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}
    assert {client.epsilon for client in result.clients} == {0.0}


def test_opacus_is_asked_where_it_is_installed(genuine) -> None:
    pytest.importorskip("opacus")
    result = audit(genuine)
    assert result.passed
    assert not result.left_out
    assert "opacus" in result.accountants
    assert "opacus PRV" in next(f.evidence for f in result.findings if f.check == "A-27")
    assert audit(genuine, opacus=False).left_out == {"opacus PRV": "not asked for"}


def test_an_interrupted_run_says_what_could_not_be_checked(genuine, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(genuine, folder)
    (folder / "report.json").unlink()
    result = audit(folder, opacus=False)
    assert result.passed
    assert "not checked" in found(folder, WARNING)["A-01"]
    assert "not checked" in found(folder, WARNING)["A-31"]


# --- the chain


def edit(lines: list[str]) -> None:
    lines[1] = lines[1].replace('"clipped": ', '"clipped": 1')


def swap(lines: list[str]) -> None:
    lines[0], lines[1] = lines[1], lines[0]


def edit_last(lines: list[str]) -> None:
    lines[-1] = lines[-1].replace('"clipped": ', '"clipped": 1')


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (edit, "line 3: does not follow line 2"),
        (edit_last, "line 3: is not the last line"),
        (swap, "line 1: does not follow config.toml"),
        (lambda lines: lines.pop(), "line 2: is not the last line"),
        (lambda lines: lines.append(lines[-1]), "line 4: does not follow line 3"),
    ],
    ids=["edited", "edited last", "reordered", "truncated", "appended"],
)
def test_a_log_with_hashes_that_do_not_fit_is_found(genuine, tmp_path, tamper, says) -> None:
    folder = tmp_path / "run"
    shutil.copytree(genuine, folder)
    log = folder / "rounds.jsonl"
    lines = log.read_text().splitlines()
    tamper(lines)
    log.write_text("".join(line + "\n" for line in lines))
    assert says in found(folder)["A-01"]


def test_half_a_line_and_another_config_are_found(genuine, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(genuine, folder)
    log = folder / "rounds.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    assert "ends without a newline" in found(folder)["A-01"]
    shutil.copy(genuine / "rounds.jsonl", log)
    assert "A-01" not in found(folder)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    assert "line 1: does not follow config.toml" in found(folder)["A-01"]


# --- consistent falsifications: the chain holds, the arithmetic must find them


def half_sigma(lines, report) -> None:
    for line in lines:
        line["sigma_local"] /= 2


def half_sigma_told(lines, report) -> None:
    """σ/2 everywhere, z too: only ε does not fit."""
    for line in lines:
        line["sigma_local"] /= 2
        line["noise_multiplier"] /= 2
    report["privacy"]["noise_multiplier"] /= 2


def wrong_n(lines, report) -> None:
    """Shares for all n clients, not for the fewest honest ones, and the planned z still claimed."""
    for line in lines:
        line["sigma_local"] *= math.sqrt(line["honest_minimum"] / line["clients"])
        line["noise_multiplier"] = z_of(line)
        line["epsilon"] = total(lines[: line["round"]])
    report["privacy"]["epsilon"] = total(lines)


def dropped_not_counted(lines, report) -> None:
    for line in lines:
        line |= {"survivors": line["participants"], "dropped": [], "recovered": 0}
        line["noise_multiplier"] = z_of(line)
        line["contributions"] = len(line["survivors"])
    for line in lines:
        line["epsilon"] = total(lines[: line["round"]])
    report["aggregation"] |= {"dropped": [0] * 3, "recovered": [0] * 3}
    report["privacy"]["epsilon"] = total(lines)


def a_round_missing(lines, report) -> None:
    del lines[1]


def a_round_missing_renumbered(lines, report) -> None:
    del lines[1]
    lines[1]["round"] = 2


def one_round_sold_as_total(lines, report) -> None:
    for line in lines:
        line["epsilon"] = total([line])
    report["privacy"]["epsilon"] = total(lines[:1])


def amplified(lines, report) -> None:
    """Half the clients a round, and the accountant told that this was a secret."""
    for line in lines:
        line["participants"] = line["participants"][::2] if line["round"] % 2 else line["participants"][1::2]
        line |= {"survivors": line["participants"], "dropped": [], "recovered": 0}
        line["noise_multiplier"] = z_of(line)
    # everybody is worst off who is in rounds 1 and 3
    counts = [(line["noise_multiplier"], 0.5) for line in lines]
    report["privacy"]["epsilon"] = poisson_epsilon({pair: counts.count(pair) for pair in counts}, lines[0]["delta"])


def sampled_clients(lines, report) -> None:
    for line in lines:
        line["sampling_rate"] = 0.5


def another_view(lines, report) -> None:
    report["privacy"]["view"] = "outsider"


def large_delta(lines, report) -> None:
    for line in lines:
        line["delta"] = 0.1
    for line in lines:
        line["epsilon"] = total(lines[: line["round"]])
    report["privacy"] |= {"delta": 0.1, "epsilon": total(lines)}


def clip_understated(lines, report) -> None:
    for line in lines:
        line["clip_norm"] /= 2
        line["noise_multiplier"] = z_of(line)
    for line in lines:
        line["epsilon"] = total(lines[: line["round"]])
    report["privacy"]["clip_norm"] /= 2
    report["privacy"]["epsilon"] = total(lines)


def not_charged(lines, report) -> None:
    for line in lines[1:]:
        line["participants"].remove(0)


def not_charged_nor_seen(lines, report) -> None:
    for who in ("participants", "survivors", "dropped"):
        for line in lines[1:]:
            line[who] = [client for client in line[who] if client != 0]


def too_few_honest(lines, report) -> None:
    line = lines[1]
    gone = line["survivors"][:4]
    line["survivors"] = line["survivors"][4:]
    line["dropped"] = sorted(line["dropped"] + gone)
    line["payload_bytes"] -= 4 * -(-line["dimension"] * line["bits"] // 8)
    line["contributions"] -= 4
    line["clipped"] = min(line["clipped"], line["contributions"])
    line["noise_multiplier"] = z_of(line)


def honest_minimum_lowered(lines, report) -> None:
    for line in lines:
        line["honest_minimum"] = 3
    report["privacy"]["honest_minimum"] = 3


def fainter_third(lines, report) -> None:
    """The last round too loud: its ε is told, and it was not refused."""
    line = lines[2]
    line["sigma_local"] *= 0.5
    line["noise_multiplier"] = z_of(line)
    line["epsilon"] = report["privacy"]["epsilon"] = total(lines)


def noise_called_secret(lines, report) -> None:
    report["provenance"]["secret_noise"] = True


def seed_not_mentioned(lines, report) -> None:
    report["privacy"]["statement"] = report["privacy"]["statement"].partition("\n\n")[2]


def finer_grid(lines, report) -> None:
    """The same noise on a grid four times as fine: z and ε stay, sums do not fit."""
    for line in lines:
        line["sigma_local"] *= 4
        line["scale"] *= 4


def fewer_bits(lines, report) -> None:
    for line in lines:
        line["bits"] = 6
    report["communication"]["bits"] = 6


def coarse_grid(lines, report) -> None:
    """So little noise in grid units that rounding before summing is seen."""
    for line in lines:
        line["sigma_local"] /= 10
        line["scale"] /= 10


def dropped_client_in_the_sum(lines, report) -> None:
    lines[1]["survivors"] = sorted(lines[1]["survivors"] + lines[1]["dropped"])


def negative_noise(lines, report) -> None:
    lines[1]["sigma_local"] *= -1


def change(section: str, key: str, value: Any) -> Callable[[list[Table], Table], None]:
    def cheat(lines: list[Table], report: Table) -> None:
        before = report[section][key]
        report[section][key] = value(before) if callable(value) else value
        assert report[section][key] != before

    return cheat


def lost_with_everybody(lines: list[Table], report: Table) -> None:
    """A round called lost so that nobody asks for its uploads, with more noise than it is sure to have had."""
    lines[1] |= {"lost": True, "survivors": lines[1]["participants"], "dropped": []}


def lost_and_dropped(lines: list[Table], report: Table) -> None:
    lines[1]["lost"] = True


CHEATS = [
    (lost_with_everybody, "A-12", "more than the fewest, 8"),
    (lost_and_dropped, "A-04", "lost in a crash, yet it says how it ended"),
    (half_sigma, "A-10", "·√"),
    (half_sigma, "A-11", "planned is"),
    (half_sigma, "A-20", "3 rounds cost"),
    (half_sigma_told, "A-20", "3 rounds cost"),
    (half_sigma_told, "A-21", "so far"),
    (wrong_n, "A-11", "dividing by √n = √10"),
    (dropped_not_counted, "A-05", "10 survivors of 10 participants, but"),
    (a_round_missing, "A-02", "is round 3, not 2"),
    (a_round_missing_renumbered, "A-02", "counts 3 rounds, rounds.jsonl has 2"),
    (one_round_sold_as_total, "A-22", "round 1 alone; 3 rounds cost"),
    (one_round_sold_as_total, "A-20", "3 rounds cost"),
    (amplified, "A-23", "amplified by Poisson sampling of clients"),
    (sampled_clients, "A-23", "for whole clients"),
    (another_view, "A-23", "outsider view"),
    (large_delta, "A-25", "not below 1/N = 0.1 for N = 10 clients"),
    (large_delta, "A-03", "delta 0.1"),
    (clip_understated, "A-13", "clip norm 0.075, config.toml says 0.15"),
    (not_charged, "A-06", "clients [0] are in the sum and not charged"),
    (not_charged_nor_seen, "A-05", "uploads of"),
    (not_charged_nor_seen, "A-06", "1 of 10 clients are not charged"),
    (too_few_honest, "A-12", "and not aborted"),
    (honest_minimum_lowered, "A-12", "honest minimum 3, the tolerated dropouts say 8"),
    (fainter_third, "A-24", "round 3: raised ε above the budget of 4"),
    (noise_called_secret, "A-16", "secret_noise is True"),
    (seed_not_mentioned, "A-16", "as private"),
    (finer_grid, "A-15", "wraps with probability up to"),
    (fewer_bits, "A-15", "wraps with probability up to"),
    (coarse_grid, "A-14", "aliasing slack"),
    (dropped_client_in_the_sum, "A-04", "both survived and dropped out"),
    (negative_noise, "A-07", "sigma_local is -"),
    (change("privacy", "epsilon", 3.0), "A-20", "claims ε = 3"),
    (change("privacy", "epsilon", 40.0), "A-20", "claims ε = 40"),
    (change("privacy", "epsilon", None), "A-20", "claims ε = ∞"),
    (change("privacy", "epsilon_local", 4.0), "A-26", "epsilon_local 4, derived"),
    (change("privacy", "epsilon_outsider", 1.0), "A-26", "epsilon_outsider 1, derived"),
    (change("privacy", "mu", 0.5), "A-26", "mu 0.5, derived"),
    (change("privacy", "aliasing_slack", 0.0), "A-14", "derived"),
    (change("privacy", "noise_multiplier", 5.0), "A-11", "planned is 5"),
    (change("privacy", "honest_minimum", 10), "A-12", "honest minimum 10, the log says 8"),
    (change("privacy", "rounds", 2), "A-02", "counts 2 rounds"),
    (change("privacy", "unit", "example"), "A-03", "unit example, expected client"),
    (change("privacy", "adjacency", "replace-one"), "A-03", "adjacency"),
    (change("privacy", "cross_check", {"dp-accounting PLD": 3.0}), "A-27", "dp-accounting PLD 3, derived"),
    (change("privacy", "statement", lambda s: s.replace("Protected is", "Protected was")), "A-30", "'Unit' says"),
    (change("privacy", "statement", lambda s: s.replace("Not covered. ", "")), "A-30", "'Not covered' is missing"),
    (change("privacy", "clip_rate", 0.0), "A-34", "clip_rate"),
    (change("privacy", "overflow_rate", 0.5), "A-34", "overflow_rate"),
    (change("accuracy", "final", 0.99), "A-31", "accuracy.final is 0.99"),
    (change("accuracy", "best", 0.99), "A-31", "accuracy.best is 0.99"),
    (change("accuracy", "interval", [0.9, 0.99]), "A-31", "accuracy.interval"),
    (change("accuracy", "per_round", [0.1, 0.2, 0.3]), "A-31", "accuracy.per_round"),
    (change("accuracy", "measures", "recall@1 image to text"), "A-31", "accuracy.measures is recall@1"),
    (change("communication", "reduction", 1e6), "A-32", "reduction is 1000000"),
    (change("communication", "reduction_upload", 1e6), "A-32", "reduction_upload"),
    (change("communication", "upload_bytes", 1.0), "A-32", "upload_bytes is 1"),
    (change("communication", "parameter_ratio", 1.0), "A-32", "parameter_ratio"),
    (change("aggregation", "dropped", [0, 0, 0]), "A-33", "dropped is [0, 0, 0]"),
    (change("aggregation", "recovered", [0, 0, 0]), "A-33", "recovered is [0, 0, 0]"),
    (change("aggregation", "aborted", [2]), "A-33", "aborted is [2]"),
    (change("aggregation", "threshold", 9), "A-33", "threshold is 9"),
    (change("aggregation", "profile", "malicious-server"), "A-03", "profile malicious-server"),
    (change("provenance", "seed", 7), "A-03", "seed 7, expected 0"),
]


@pytest.mark.parametrize(
    ("cheat", "check", "says"), CHEATS, ids=lambda value: getattr(value, "__name__", str(value)[:24])
)
def test_a_falsified_run_is_found_by_arithmetic(genuine, tmp_path, cheat, check, says) -> None:
    broken = found(falsified(genuine, tmp_path / "run", cheat))
    assert "A-01" not in broken, "the chain was to hold"
    assert says in broken.get(check, f"nothing; {broken}")


def test_the_sums_epsilon_is_no_headline_without_masking(open_run, tmp_path) -> None:
    assert not found(open_run)

    def cheat(lines, report) -> None:
        report["privacy"]["epsilon"] = report["privacy"]["epsilon_outsider"]

    assert "received every upload" in found(falsified(open_run, tmp_path / "run", cheat))["A-28"]

    def silent(lines, report) -> None:
        report["privacy"]["statement"] = report["privacy"]["statement"].replace("SWITCHED OFF", "used")

    assert "switched off" in found(falsified(open_run, tmp_path / "other", silent))["A-28"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("colluders", 9), ("colluders", -1), ("scale", 0.0), ("clip_norm", -1.0), ("sigma_local", 0.0), ("bits", 0),
     ("dimension", 0), ("sampling_rate", 0.0), ("sampling_rate", 7.0), ("population", 3), ("survivors", []),
     ("survivors", [99, 99]), ("participants", []), ("count_scale", 1.0), ("delta", 0.0), ("delta", 2.0),
     ("sigma_local", -1.0), ("honest_minimum", -5), ("payload_bytes", -1), ("clients", 0), ("round", -3)],
)  # fmt: skip
def test_impossible_numbers_are_findings_and_no_traceback(genuine, tmp_path, key, value) -> None:
    def cheat(lines, report) -> None:
        for line in lines:
            line[key] = value

    assert found(falsified(genuine, tmp_path / "run", cheat))


# --- what it prints


def test_every_check_is_there_in_a_fixed_order(genuine, tmp_path) -> None:
    good = audit(genuine, opacus=False)
    bad = audit(falsified(genuine, tmp_path / "run", half_sigma), opacus=False)
    assert not bad.passed
    names = [f.check for f in good.findings]
    assert names == [f.check for f in bad.findings] == sorted(set(names))
    rows = [what for what, _ in bad.rows()]
    assert rows[0] == "result"
    assert rows.index("A-20 violation") < rows.index("A-16 warning") < rows.index("A-01 ok")
    assert all(f.evidence and f.title for f in good.findings)
    assert all(f.remedy for f in bad.findings if f.severity != OK)


def test_every_check_is_documented(genuine) -> None:
    text = (DOCS / "audit.md").read_text(encoding="utf-8")
    listed = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| A-")]
    assert listed == [f.check for f in audit(genuine, opacus=False).findings]


def test_the_published_schema_is_that_of_the_classes(genuine) -> None:
    published = json.loads((DOCS / "audit.schema.json").read_text(encoding="utf-8"))
    assert published == json_schema()
    document = json.loads(audit(genuine, opacus=False).to_json())
    jsonschema.validate(document, published)
    assert document["schema"] == "flora-secure/audit/1"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "verdict": 1}, published)
    assert {field.name for field in dataclasses.fields(Audit)} < document.keys()


def test_nothing_to_audit_is_bad_input(tmp_path) -> None:
    with pytest.raises(RunFolderError, match="cannot be read"):
        audit(tmp_path / "nowhere")
    (tmp_path / "config.toml").write_text(RunConfig().to_toml())
    with pytest.raises(RunFolderError, match="nothing to audit"):
        audit(tmp_path)
