"""Falsifications that fit each other and whose hashes fit: what configuration, seed, budget and sizes show of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from falsifying import Table, chained, found, read, small, total, written, z_of
from federations import task_of

from flora_secure.engine.task import Task
from flora_secure.planning.config import from_toml, override

FIXED = {"participation__rate": 0.5, "participation__sampling": "fixed", "aggregation__corrupt": 0.1}
Cheat = Callable[[list[Table], Table], dict[str, object] | None]  # what it changes in the configuration


@pytest.fixture(scope="module")
def twenty() -> Task:
    return task_of(small(data__clients=20))


@pytest.fixture(scope="module")
def runs(genuine: Path, twenty: Task, digits: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("holes")
    secret = small(data__clients=20, privacy__simulation_noise=False, **FIXED)
    return {
        "everybody": genuine,
        "fixed": written(small(data__clients=20, **FIXED), twenty, base / "fixed"),
        "secret": written(secret, twenty, base / "secret"),
        "poisson": written(
            small(data__clients=20, participation__rate=0.6, participation__sampling="poisson"),
            twenty,
            base / "poisson",
        ),
        "adaptive": written(small(privacy__adaptive_clip=0.5, privacy__epsilon=50.0), digits, base / "adaptive"),
    }


def retold(lines: list[Table], report: Table) -> None:
    """z and ε follow from the changed numbers, in log and report."""
    for line in lines:
        line["noise_multiplier"] = z_of(line)
    charged = [[line for line in lines if client in line["participants"]] for client in range(lines[0]["clients"])]
    worst = max(filter(None, charged), key=total)
    for line in lines:
        so_far = [
            total([one for one in lines[: line["round"]] if client in one["participants"]])
            for client in range(line["clients"])
            if any(client in one["participants"] for one in lines[: line["round"]])
        ]
        line["epsilon"] = max(so_far)
    report["privacy"]["epsilon"] = total(worst)


def no_colluders(lines: list[Table], report: Table) -> None:
    for line in lines:
        line["honest_minimum"] += line["colluders"]
        line["colluders"] = 0
    report["privacy"]["honest_minimum"] = lines[0]["honest_minimum"]
    retold(lines, report)


def more_corrupt(lines: list[Table], report: Table) -> dict[str, object]:
    """Claimed to hold against two corrupt clients, sized for none."""
    for line in lines:
        line["colluders"], line["honest_minimum"] = 2, line["honest_minimum"] - 2
    report["privacy"]["honest_minimum"] -= 2
    report["privacy"]["noise_multiplier"] = lines[0]["noise_multiplier"] * math.sqrt(6 / 9)
    retold(lines, report)
    return {"aggregation.corrupt": 0.2}


def more_dropouts(lines: list[Table], report: Table) -> dict[str, object]:
    for line in lines:
        line["honest_minimum"] -= 2
    report["privacy"]["honest_minimum"] -= 2
    report["privacy"]["noise_multiplier"] *= math.sqrt(6 / 8)
    return {"privacy.dropout_tolerance": 0.4}


def larger_budget(lines: list[Table], report: Table) -> dict[str, object]:
    """The noise is that of another budget than the one configured."""
    for line in lines:
        line["target_epsilon"] = 8.0
    report["privacy"]["target_epsilon"] = 8.0
    return {"privacy.epsilon": 8.0}


def tail_cut(lines: list[Table], report: Table) -> dict[str, object]:
    """Two rounds of three, by configuration too."""
    del lines[2:]
    report["privacy"] |= {"rounds": 2, "epsilon": total(lines)}
    for name in ("cohort", "dropped", "recovered"):
        report["aggregation"][name] = report["aggregation"][name][:2]
    return {"training.rounds": 2}


def malicious(lines: list[Table], report: Table) -> dict[str, object]:
    report["aggregation"]["profile"] = "malicious-server"
    return {"aggregation.secagg": "malicious-server"}


def relabelled(lines: list[Table], report: Table) -> None:
    """Everybody is called by another number."""
    for line in lines:
        for name in ("participants", "survivors", "dropped"):
            line[name] = sorted((client + 1) % line["clients"] for client in line[name])


def secret_noise(lines: list[Table], report: Table) -> dict[str, object]:
    report["provenance"]["secret_noise"] = True
    report["privacy"]["statement"] = "\n\n".join(
        one for one in report["privacy"]["statement"].split("\n\n") if not one.startswith("SIMULATED")
    )
    return {"privacy.simulation_noise": False}


def payload_alone(lines: list[Table], report: Table) -> None:
    for line in lines:
        line["upload_bytes"] = line["payload_bytes"] - line["broadcast_bytes"]
        line["download_bytes"] = line["broadcast_bytes"]
    asked = sum(len(line["participants"]) for line in lines)
    told = report["communication"]
    for way in ("upload_bytes", "download_bytes"):
        told[way] = sum(line[way] for line in lines) / asked
    told |= {"masking_bytes": 0.0, "invitation_bytes": 0.0}
    told["reduction"] = 2 * told["full_model_bytes"] / (told["upload_bytes"] + told["download_bytes"])
    told["reduction_upload"] = told["full_model_bytes"] / told["upload_bytes"]


def paragraph(label: str) -> Cheat:
    def cheat(lines: list[Table], report: Table) -> None:
        text = report["privacy"]["statement"]
        start = text.index(label + ".")
        report["privacy"]["statement"] = text[:start] + text[start:].replace(". ", ". Surely so. ", 1)

    cheat.__name__ = f"paragraph_{label.replace(' ', '_')}"
    return cheat


def other_rank(lines: list[Table], report: Table) -> dict[str, object]:
    return {"model.rank": 4}


def other_placement(lines: list[Table], report: Table) -> dict[str, object]:
    return {"model.placement": "text-attention", "training.warm_start": "none", "training.control_variate": 0.0}


def other_rule(lines: list[Table], report: Table) -> dict[str, object]:
    return {"model.rule": "ab"}


def longer_step(lines: list[Table], report: Table) -> None:
    for line in lines:
        line["server_step"] *= 1.5


def smaller_divisor(lines: list[Table], report: Table) -> None:
    for line in lines:
        line["divisor"] -= 1


def other_count(lines: list[Table], report: Table) -> None:
    lines[0]["released_count"] += 2


def wider_separation(lines: list[Table], report: Table) -> dict[str, object]:
    report["aggregation"]["min_separation"] = 2
    return {"participation.min_separation": 2}


def smaller_cohorts(lines: list[Table], report: Table) -> None:
    """One who did not survive was never asked."""
    for line in lines:
        gone = line["dropped"].pop() if line["dropped"] else line["survivors"].pop()
        line["participants"].remove(gone)
    report["aggregation"]["cohort"] = [len(line["participants"]) for line in lines]


def sat_out(lines: list[Table], report: Table) -> None:
    lines[2]["exhausted"] = [client for client in range(20) if client not in lines[2]["participants"]][:1]
    report["privacy"]["exhausted"] = 1


def fewer_neighbours(lines: list[Table], report: Table) -> None:
    for line in lines:
        line["threshold"] -= 1
    report["aggregation"]["threshold"] -= 1


def a_class_less(lines: list[Table], report: Table) -> None:
    report["accuracy"]["per_class"].pop()


def recovered_nobody(lines: list[Table], report: Table) -> None:
    for line in lines:
        line["recovered"] = 0
    report["aggregation"]["recovered"] = [0] * len(lines)


def reshuffled_bytes(lines: list[Table], report: Table) -> None:
    """From one round to another: no total changes."""
    lines[1]["upload_bytes"] += 100
    lines[2]["upload_bytes"] -= 100


def same_model(lines: list[Table], report: Table) -> None:
    lines[2]["model_hash"] = lines[1]["model_hash"]


def other_seconds(lines: list[Table], report: Table) -> None:
    report["timing"]["seconds"]["masking"] = 0.0


def called_a_real_federation(lines: list[Table], report: Table) -> None:
    """Of which bytes are bounded from below alone, and nobody can draw cohorts again."""
    for line in lines:
        line |= {"overflowed": None, "noise_ratio": None, "clipped": 0, "upload_bytes": line["upload_bytes"] + 999}
    report["privacy"] |= {"clip_rate": None, "overflow_rate": None}


def of_data_elsewhere(lines: list[Table], report: Table) -> None:
    names = ("private_images", "client_minimum", "client_median", "client_maximum", "mean_classes")
    report["data"] |= dict.fromkeys((*names, "mean_label_distance"))


def nothing_measured(lines: list[Table], report: Table) -> None:
    for line in lines:
        line["noise_ratio"] = None


CASES: list[tuple[str, Cheat, str, str]] = [
    ("fixed", no_colluders, "A-17", "colluders 0, planned"),
    ("secret", no_colluders, "A-17", "colluders 0, planned"),
    ("poisson", no_colluders, "A-17", "colluders 0, planned"),
    ("everybody", more_corrupt, "A-17", "sigma_local"),
    ("everybody", more_dropouts, "A-17", "sigma_local"),
    ("everybody", larger_budget, "A-17", "sigma_local"),
    ("everybody", tail_cut, "A-17", "sigma_local"),
    ("everybody", malicious, "A-19", "upload_bytes"),
    ("everybody", malicious, "A-17", "threshold"),
    ("fixed", relabelled, "A-18", "participants are not those that the seed draws"),
    ("poisson", relabelled, "A-18", "participants are not those that the seed draws"),
    ("everybody", relabelled, "A-18", "uploaded, and the seed lets them vanish"),
    ("everybody", payload_alone, "A-19", "upload_bytes"),
    ("secret", payload_alone, "A-19", "download_bytes"),
    *(
        (run, paragraph(label), "A-30", f"{label!r} says")
        for run in ("fixed", "poisson")
        for label in ("Participation", "Honest minimum", "Accuracy", "Mechanism")
    ),
    ("everybody", other_rank, "A-17", "upload_values"),
    ("everybody", other_placement, "A-17", "parameters"),
    ("everybody", other_rule, "A-17", "parameters"),
    ("everybody", longer_step, "A-36", "server_step"),
    ("everybody", smaller_divisor, "A-36", "divisor 8"),
    ("adaptive", other_count, "A-36", "that of the counts before"),
    ("secret", wider_separation, "A-18", "take part too soon"),
    ("fixed", smaller_cohorts, "A-18", "participants are not those"),
    ("secret", smaller_cohorts, "A-18", "9 participants, cohorts are of 10"),
    ("fixed", sat_out, "A-18", "with room in its budget for another"),
    ("everybody", fewer_neighbours, "A-17", "threshold"),
    ("everybody", a_class_less, "A-37", "9 in per_class"),
    ("everybody", recovered_nobody, "A-19", "0 recovered, the dropped clients say 1"),
    ("everybody", reshuffled_bytes, "A-19", "round 2: upload_bytes"),
    ("everybody", same_model, "A-37", "round 3: broadcasts the model of round 2"),
    ("everybody", called_a_real_federation, "A-37", "overflowed is None, as in a federation of real sites alone"),
    ("secret", called_a_real_federation, "A-37", "overflowed is None, as in a federation of real sites alone"),
    ("secret", of_data_elsewhere, "A-37", "which a simulation alone knows"),
    ("secret", nothing_measured, "A-37", "a simulation measures the noise of every sum"),
    ("everybody", other_seconds, "A-37", "timing.seconds.masking is 0"),
]


@pytest.mark.parametrize(("run", "cheat", "check", "says"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_what_fits_in_itself_does_not_fit_the_plan(
    runs: dict[str, Path], tmp_path: Path, run: str, cheat: Cheat, check: str, says: str
) -> None:
    broken = changed(runs[run], tmp_path / "run", cheat)
    assert "A-01" not in broken
    assert says in broken.get(check, f"nothing; {broken}")


def changed(source: Path, target: Path, cheat: Cheat) -> dict[str, str]:
    shutil.copytree(source, target)
    lines, report = read(target)
    changes = cheat(lines, report)
    config = (target / "config.toml").read_text()
    chained(target, lines, report, config if changes is None else override(from_toml(config), changes).to_toml())
    return found(target)


@pytest.mark.parametrize("run", ["fixed", "secret", "poisson", "adaptive"])
def test_they_pass_as_they_were_written(runs: dict[str, Path], run: str) -> None:
    assert found(runs[run]) == {}


def test_noise_that_follows_from_the_seed_is_told_by_the_cohorts(runs: dict[str, Path], tmp_path: Path) -> None:
    """Called secret, cohorts and who vanished are still those that the seed draws, in every round."""
    assert "the noise follows from it" in changed(runs["fixed"], tmp_path / "run", secret_noise)["A-18"]


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_another_example_rate_than_the_examples_tell(coarse: None, tmp_path: Path, rate: float) -> None:
    config = small(privacy__unit="example", privacy__epsilon=1.0)
    run = written(config, task_of(config), tmp_path / "run")
    assert found(run) == {}

    def told(lines: list[Table], report: Table) -> dict[str, object]:
        for line in lines:
            line["divisor"] *= rate / line["sampling_rate"]
            line["sampling_rate"] = rate
        report["privacy"]["sampling_rate"] = rate
        return {"privacy.example_rate": rate}

    broken = changed(run, tmp_path / "false", told)
    assert f"each drawn with {rate:g}" in broken["A-29"]
