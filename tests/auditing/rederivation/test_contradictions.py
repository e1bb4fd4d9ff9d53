"""Folders that contradict themselves: statements with a false paragraph, names and keys that are not the run's, rounds
that are called aborted, and a round in flight."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from falsifying import Cheat, Table, chained, falsified, found, read, small, total, written, z_of
from federations import task_of

from flora_secure.auditing.findings import OK, WARNING
from flora_secure.auditing.folder import audit
from flora_secure.auditing.rederivation import noise_checks
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.engine.simulation import Simulation
from flora_secure.records import checkpoints
from flora_secure.records.reading import read_run
from flora_secure.records.record import RoundRecord
from flora_secure.records.run_folder import RunFolder

# --- the statement


def said(change) -> Cheat:
    def cheat(lines: list[Table], report: Table) -> None:
        before = report["privacy"]["statement"]
        report["privacy"]["statement"] = change(before)
        assert report["privacy"]["statement"] != before

    return cheat


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: "Guarantee. Differential privacy with epsilon = 0.1.\n\n" + s, "'Guarantee' occurs 2 times"),
        (lambda s: "Not covered. Nothing.\n\nTrust. The server may lie.\n\n" + s, "'Trust' occurs 2 times"),
        (lambda s: "All of this is perfectly private\n\n" + s, "is not one of this run"),
        (lambda s: "All of this is perfectly private: " + s, "is not one of this run"),
        (lambda s: s.replace("mechanisms gives epsilon = ", "mechanisms gives epsilon = 0"), "'Accounting' says"),
        (lambda s: s.replace(" Cross-checks:", " The server may forge clients. Cross-checks:"), "'Accounting' says"),
        (lambda s: s.replace("dp-accounting PLD ", "dp-accounting PLD 0"), "'Accounting' says"),
        (lambda s: s.replace("Software: dp-accounting ", "Software: dp-accounting 9"), "'Accounting' says"),
        (lambda s: s.replace("Accounting. ", "Accounted. "), "'Accounting' is missing"),
    ],
)  # fmt: skip
def test_a_statement_with_a_false_paragraph(genuine: Path, tmp_path: Path, change, says: str) -> None:
    assert says in found(falsified(genuine, tmp_path / "run", said(change)))["A-30"]


def test_a_paragraph_that_is_not_compared_may_not_occur_twice(coarse, tmp_path: Path) -> None:
    config = small(privacy__unit="example", privacy__epsilon=1.0)
    run = written(config, task_of(config), tmp_path / "run")
    cheat = said(lambda s: "Guarantee. Differential privacy with epsilon = 0.1.\n\n" + s)
    assert found(run) == {}
    assert "'Guarantee' occurs 2 times" in found(falsified(run, tmp_path / "false", cheat))["A-30"]


# --- accountants


def accountant(name: str, **others: str) -> Cheat:
    return lambda lines, report: report["privacy"]["accountant"].update(name=name, **others)


def cross(name: str) -> Cheat:
    return lambda lines, report: report["privacy"]["cross_check"].update({name: 0.3})


@pytest.mark.parametrize(
    ("cheat", "says"),
    [
        (cross("Microsoft PRV"), "cross-check 'Microsoft PRV' is none that this run could make"),
        (accountant("opacus PRV"), "accountant {'name': 'opacus PRV'"),
        (accountant("closed form", **{"dp-accounting": "99"}), "'dp-accounting': '99'"),
        (accountant("closed form", witness="NIST"), "'witness': 'NIST'"),
    ],
)
def test_accountants_that_nobody_asked(genuine: Path, tmp_path: Path, cheat: Cheat, says: str) -> None:
    assert says in found(falsified(genuine, tmp_path / "run", cheat))["A-27"]


def test_an_accountant_that_is_not_asked_again_is_said_to_be_unchecked(genuine: Path, tmp_path: Path) -> None:
    assert "opacus PRV was not asked again" in found(genuine, WARNING)["A-27"]
    without = falsified(genuine, tmp_path / "run", lambda lines, report: report["privacy"].update(cross_check={}))
    assert "A-27" not in found(without, WARNING)


def test_without_noise_no_accountant_has_a_figure(digits, tmp_path: Path) -> None:
    run = written(small(privacy__epsilon=float("inf")), digits, tmp_path / "run")
    assert found(run) == {}
    broken = found(falsified(run, tmp_path / "false", cross("dp-accounting RDP")))
    assert "cross-check 'dp-accounting RDP' is none" in broken["A-27"]


# --- keys


def test_a_key_that_occurs_twice_is_refused(genuine: Path, tmp_path: Path) -> None:
    for name, where in (("report.json", "report.json"), ("rounds.jsonl", "rounds.jsonl, line 1")):
        folder = tmp_path / name
        shutil.copytree(genuine, folder)
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('"epsilon":', '"epsilon": 0.1, "epsilon":', 1))
        evidence = found(folder)["A-00"]
        assert where in evidence
        assert "key 'epsilon' occurs 2 times" in evidence


# --- the model's size


def larger(lines: list[Table], report: Table) -> None:
    for name in ("full_model_bytes", "reduction", "reduction_upload", "parameter_ratio"):
        report["communication"][name] *= 100


def test_the_size_of_the_model_is_that_of_its_architecture(genuine: Path, tmp_path: Path) -> None:
    assert "full_model_bytes is" in found(falsified(genuine, tmp_path / "run", larger))["A-32"]


def test_a_size_that_is_not_known_is_said_to_be_unchecked(genuine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(genuine, folder)
    config = (folder / "config.toml").read_text().replace('model = "tiny"', 'model = "xlm-roberta-base-ViT-B-32"')
    chained(folder, *read(folder), config=config)
    assert "A-32" not in found(folder)
    assert "full_model_bytes" in found(folder, WARNING)["A-32"]


# --- rounds without a sum


def called_aborted(number: int, also_dropped: int = 0, reason: str = "survivors: 9 left, 10 needed") -> Cheat:
    """A round that released its sum, told as one that released none; its ε is taken off all that follow."""

    def cheat(lines: list[Table], report: Table) -> None:
        line = lines[number - 1]
        line["dropped"] = sorted([*line["dropped"], *line["survivors"][:also_dropped]])
        line |= {"aborted": reason, "survivors": [], "recovered": 0, "noise_multiplier": None, "population": None}
        line["overflowed"] = None
        for each in lines:
            each["epsilon"] = total([one for one in lines[: each["round"]] if one["aborted"] is None])
        report["aggregation"] |= {
            "aborted": [number],
            "recovered": [one["recovered"] for one in lines],
            "dropped": [len(one["dropped"]) for one in lines],
        }
        report["privacy"]["epsilon"] = lines[-1]["epsilon"]

    return cheat


def test_a_sum_that_was_taken_although_its_round_is_called_aborted(genuine: Path, tmp_path: Path) -> None:
    evidence = found(falsified(genuine, tmp_path / "run", called_aborted(2)))["A-08"]
    assert "round 3: broadcasts another model than round 2, which was aborted" in evidence
    assert "9 of 10 clients uploaded, which is enough for a sum" in evidence


def test_the_last_round_is_not_called_aborted_either(genuine: Path, open_run: Path, tmp_path: Path) -> None:
    for name, run in (("masked", genuine), ("open", open_run)):
        evidence = found(falsified(run, tmp_path / name, called_aborted(3)))["A-08"]
        assert evidence.startswith("round 3: aborted (survivors: 9 left, 10 needed), but 9 of 10 clients uploaded")


def test_uploads_of_aborted_rounds_are_on_the_wire(genuine: Path, tmp_path: Path) -> None:
    broken = found(falsified(genuine, tmp_path / "run", called_aborted(3, also_dropped=3)))
    assert "A-08" not in broken
    assert "round 3: 6 uploads of 10 participants, but its payload of" in broken["A-05"]


def test_a_lost_round_is_in_no_model(genuine: Path, tmp_path: Path) -> None:
    def lost(lines: list[Table], report: Table) -> None:
        lines[1] |= {"lost": True, "survivors": lines[1]["participants"][:8], "dropped": []}

    assert "than round 2, which was lost" in found(falsified(genuine, tmp_path / "run", lost))["A-08"]


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregation__secagg": "off"},
        {"aggregation__secagg": "malicious-server"},
        {"data__clients": 20, "aggregation__neighbours": 12},
        {"data__clients": 20, "participation__rate": 0.4, "participation__sampling": "poisson"},
    ],
    ids=str,
)
def test_rounds_that_were_aborted_pass(coarse, tmp_path: Path, changes) -> None:
    config = small(aggregation__dropout=0.3, privacy__dropout_tolerance=0.2, training__rounds=4, **changes)
    run = written(config, task_of(config), tmp_path / "run")
    assert any(line["aborted"] for line in read(run)[0])
    assert found(run) == {}


def test_uploads_of_aborted_rounds_count_where_nothing_is_masked(tmp_path: Path) -> None:
    config = small(aggregation__dropout=0.3, privacy__dropout_tolerance=0.2, aggregation__secagg="off")
    run = written(config, task_of(config), tmp_path / "run")
    assert read(run)[1]["aggregation"]["aborted"] == [1, 2, 3]

    def forgotten(_: list[Table], report: Table) -> None:
        report["privacy"] |= {"epsilon": 0.0, "epsilon_local": 0.0, "mu": 0.0}

    broken = found(falsified(run, tmp_path / "forgotten", forgotten))
    assert "epsilon_local 0, derived" in broken["A-26"]
    assert "A-28" in broken


# --- clients with the same ε


def test_either_of_two_clients_with_the_same_epsilon_may_be_the_worst(genuine: Path) -> None:
    """Their κ of 1e-43 need not agree: no ε tells them apart."""
    run = read_run(genuine)
    assert run.report is not None
    # two clients in a round each, of cohorts of different size and the same z
    first = dataclasses.replace(run.records[0], participants=[0, 1, 2, 3], survivors=[0, 1, 2, 3], dropped=[])
    spread = (4 / 9) ** 0.5
    other = dataclasses.replace(first, round=2, participants=list(range(4, 13)), sigma_local=first.sigma_local * spread)
    other = dataclasses.replace(other, survivors=other.participants)
    config = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, clients=13))
    case = Case(genuine, config, [first, other], run.report, [])
    slacks = [r.slack for r in case.released]
    assert case.released[0].z == pytest.approx(case.released[1].z)
    assert not noise_checks.near(*slacks)
    for told in (*slacks, sum(slacks) * 2):
        privacy = dataclasses.replace(run.report.privacy, aliasing_slack=told)
        seen = dataclasses.replace(case, report=dataclasses.replace(run.report, privacy=privacy))
        assert (noise_checks.slack(seen).severity == OK) == (told in slacks)


# --- a round in flight


@pytest.fixture(scope="module")
def killed(digits, tmp_path_factory) -> Path:
    """A run that was killed in its second round."""
    config, path = small(), tmp_path_factory.mktemp("audit") / "killed"
    simulation = Simulation(config, digits)
    folder = RunFolder(path, config, simulation.server.checkpoint())
    rounds = simulation.rounds(folder.announce)
    folder.append_round(next(rounds), simulation.server.checkpoint())
    next(rounds)
    return path


def test_a_round_in_flight_may_have_been_released(killed: Path) -> None:
    result = audit(killed, opacus=False)
    assert result.passed
    begun = json.loads((killed / "state" / "announcement.json").read_text())
    line = json.loads((killed / "rounds.jsonl").read_text())
    then = total([line, begun | {"noise_multiplier": z_of(begun)}])
    warned = found(killed, WARNING)["A-09"]
    assert "round 2 was announced and has no line: its sum may have been released" in warned
    assert f"ε would be {then:.6g}, not {line['epsilon']:.6g}" in warned


def test_an_announced_round_that_cannot_follow_shows_that_lines_were_cut_off(killed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    table = json.loads((folder / "state" / "announcement.json").read_text())
    previous = table.pop("previous")
    checkpoints.announce(folder / "state", RoundRecord.from_dict(table | {"round": 3}), previous)
    assert "lines were cut off or edited" in found(folder)["A-09"]
    checkpoints.announce(folder / "state", RoundRecord.from_dict(table | {"sigma_local": -1.0}), previous)
    assert "impossible numbers" in found(folder, WARNING)["A-09"]


def test_a_round_that_has_its_line_was_not_in_flight(genuine: Path) -> None:
    assert "A-09" not in found(genuine, WARNING)
