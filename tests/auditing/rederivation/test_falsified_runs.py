"""Logs that were falsified consistently: the chain of hashes holds, and the arithmetic must find them."""

import math
from typing import Any

import pytest
from falsifying import Cheat, Table, falsified, found, half_sigma, total, z_of

from flora_secure.auditing.findings import WARNING
from flora_secure.privacy.amplification import poisson_epsilon


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


def uploads_called_broadcasts(lines, report) -> None:
    """Two of nine did not upload; their bytes are said to have gone down."""
    for line in lines:
        line["broadcast_bytes"] += 2 * -(-line["dimension"] * line["bits"] // 8)


def broadcasts_too_small(lines, report) -> None:
    for line, size in zip(lines, (3, 7, 7), strict=True):
        line["payload_bytes"] += size - line["broadcast_bytes"]
        line["broadcast_bytes"] = size


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


def change(section: str, key: str, value: Any) -> Cheat:
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
    (uploads_called_broadcasts, "A-05", "7 uploads of"),
    (broadcasts_too_small, "A-05", "round 1: broadcasts of 3 bytes to 10 participants"),
    (broadcasts_too_small, "A-05", "7 bytes to 10 participants, which take 8 to"),
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
    (change("aggregation", "suite", "x25519"), "A-33", "suite is x25519, the rounds say x25519-mlkem768"),
    (change("aggregation", "slots", 20), "A-33", "slots is 20, the rounds say 4"),
    (change("privacy", "epsilon", 3.0), "A-20", "claims ε = 3"),
    (change("privacy", "epsilon", 40.0), "A-20", "claims ε = 40"),
    (change("privacy", "epsilon", None), "A-20", "claims ε = ∞"),
    (change("privacy", "epsilon_local", 4.0), "A-26", "epsilon_local 4, derived"),
    (change("privacy", "epsilon_outsider", 1.0), "A-26", "epsilon_outsider 1, derived"),
    (change("privacy", "mu", 0.5), "A-26", "mu 0.5, derived"),
    (change("privacy", "noise_released", [50.0, 60.0]), "A-26", "noise_released [50.0, 60.0], derived"),
    (change("privacy", "noise_released", []), "A-26", "noise_released [], derived"),
    (change("privacy", "cross_check_outsiders", {"PLD": 1.0}), "A-27", "accountants of the outsiders"),
    (change("privacy", "aliasing_slack", 0.0), "A-14", "derived"),
    (change("privacy", "noise_multiplier", 5.0), "A-11", "planned is 5"),
    (change("privacy", "honest_minimum", 10), "A-12", "honest minimum 10, the log says 8"),
    (change("privacy", "rounds", 2), "A-02", "counts 2 rounds"),
    (change("privacy", "unit", "example"), "A-03", "unit example, expected client"),
    (change("privacy", "adjacency", "replace-one"), "A-03", "adjacency"),
    (change("privacy", "cross_check", {"dp-accounting PLD": 3.0}), "A-27", "dp-accounting PLD 3, derived"),
    (change("privacy", "statement", lambda s: s.replace("Protected is", "Protected was")), "A-30", "'Unit' says"),
    (
        change("privacy", "statement", lambda s: s.replace("must break ML-KEM", "need not break ML-KEM")),
        "A-30",
        "'Channels'",
    ),
    (change("privacy", "statement", lambda s: s.replace("Not covered. ", "")), "A-30", "'Not covered' is missing"),
    (change("privacy", "clip_rate", 0.0), "A-34", "clip_rate"),
    (change("privacy", "overflow_rate", 0.5), "A-34", "overflow_rate"),
    (change("accuracy", "final", 0.99), "A-31", "accuracy.final is 0.99"),
    (change("accuracy", "best", 0.99), "A-31", "accuracy.best is 0.99"),
    (change("accuracy", "interval", [0.9, 0.99]), "A-31", "accuracy.interval"),
    (change("accuracy", "per_round", [0.1, 0.2, 0.3]), "A-31", "accuracy.per_round"),
    (change("choices", "warm_start", lambda choice: choice | {"value": "labels"}), "A-31", "choices.warm_start is la"),
    (change("choices", "control_variate", lambda choice: choice | {"value": "0"}), "A-31", "config.toml has 1.0"),
    (change("choices", "warm_start", lambda choice: choice | {"held_out": {"none": 1.5}}), "A-31", "are no shares"),
    (change("accuracy", "measures", "recall@1 image to text"), "A-31", "accuracy.measures is recall@1"),
    (change("communication", "reduction", 1e6), "A-32", "reduction is 1000000"),
    (change("communication", "reduction_upload", 1e6), "A-32", "reduction_upload"),
    (change("communication", "upload_bytes", 1.0), "A-32", "upload_bytes is 1"),
    (change("communication", "parameter_ratio", 1.0), "A-32", "parameter_ratio"),
    (change("aggregation", "dropped", [0, 0, 0]), "A-33", "dropped is [0, 0, 0]"),
    (change("aggregation", "recovered", [0, 0, 0]), "A-33", "recovered is [0, 0, 0]"),
    (change("aggregation", "aborted", [2]), "A-33", "aborted is [2]"),
    (change("aggregation", "lost", [2]), "A-33", "lost is [2], the rounds say []"),
    (change("aggregation", "cohort", [4, 4, 4]), "A-33", "cohort is [4, 4, 4]"),
    (change("aggregation", "participation", 0.1), "A-33", "participation is 0.1"),
    (change("aggregation", "sampling", "poisson"), "A-33", "sampling is poisson"),
    (change("aggregation", "min_separation", 3), "A-33", "min_separation is 3"),
    (change("privacy", "exhausted", 7), "A-33", "exhausted is 7"),
    (change("privacy", "sampling_rate", 0.01), "A-33", "sampling_rate is 0.01"),
    (change("aggregation", "threshold", 9), "A-33", "threshold is 9"),
    (change("aggregation", "profile", "malicious-server"), "A-03", "profile malicious-server"),
    (change("provenance", "seed", 7), "A-03", "seed 7, expected 0"),
    (change("provenance", "adapter_hash", "0" * 64), "A-35", "report.json knows 000000000000"),
    (change("provenance", "model_hash", "0" * 64), "A-35", "model_hash is"),
    (change("accuracy", "classes", ["bag"] * 10), "A-35", "class_names is"),
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


def test_masking_that_was_counted_and_not_run_must_be_said(counted_run, tmp_path) -> None:
    """Whatever can be checked is; that no masking was executed is a warning, and a violation where it is not said."""
    assert not found(counted_run)
    assert "added up in the clear" in found(counted_run, WARNING)["A-28"]

    def silent(lines, report) -> None:
        first, _, rest = report["privacy"]["statement"].partition("\n\n")
        assert first.startswith("MASKING COUNTED")
        report["privacy"]["statement"] = rest

    broken = found(falsified(counted_run, tmp_path / "silent", silent))
    assert "does not say" in broken["A-28"]
    assert "'MASKING COUNTED, NOT RUN' is missing" in broken["A-30"]

    def executed(lines, report) -> None:
        report["masking"] = "run"

    broken = found(falsified(counted_run, tmp_path / "executed", executed))
    assert broken["A-03"] == "report.json: masking run, expected counted"

    def bytes_of_fewer(lines, report) -> None:
        lines[1]["payload_bytes"] -= 1

    assert "A-05" in found(falsified(counted_run, tmp_path / "bytes", bytes_of_fewer))


@pytest.mark.parametrize(
    ("key", "value"),
    [("colluders", 9), ("colluders", -1), ("scale", 0.0), ("clip_norm", -1.0), ("sigma_local", 0.0), ("bits", 0),
     ("dimension", 0), ("sampling_rate", 0.0), ("sampling_rate", 7.0), ("population", 3), ("survivors", []),
     ("survivors", [99, 99]), ("participants", []), ("count_scale", 1.0), ("delta", 0.0), ("delta", 2.0),
     ("sigma_local", -1.0), ("honest_minimum", -5), ("payload_bytes", -1), ("broadcast_bytes", -1),
     ("clients", 0), ("round", -3)],
)  # fmt: skip
def test_impossible_numbers_are_findings_and_no_traceback(genuine, tmp_path, key, value) -> None:
    def cheat(lines, report) -> None:
        for line in lines:
            line[key] = value

    assert found(falsified(genuine, tmp_path / "run", cheat))
