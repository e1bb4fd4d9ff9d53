"""The command line as a person meets it: fresh processes, real pipes, real signals where these are the point."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from command import ENVIRONMENT, PROGRAM, flora, flora_here, said
from PIL import Image

from flora_secure.errors import worded
from flora_secure.planning.option_table import flag_of, rows_of
from flora_secure.records.reading import read_run
from flora_secure.records.report import json_schema

FLAGS = [row.option.flag for row in rows_of("simulate")]
SMALL = ["simulate", "--dataset", "digits", "--clients", "8", "--rounds", "2"]


FILES = {
    "unknown.toml": "[privacy]\nepsilom = 4.0\n",
    "negative.toml": "[privacy]\nepsilon = -1\n",
    "poisson.toml": "[participation]\nrate = 0.5\nsampling = 'poisson'\n",
    "server.toml": "[training]\nwarm_start = 37\n",
    "example.toml": "[privacy]\nunit = 'example'\n",
}
BAD = [
    (["--epsilon", "-1"], "--epsilon must be above 0, or inf for a run without noise; got -1"),
    (["--epsilon", "0"], "--epsilon must be above 0"),
    (["--epsilon", "nan"], "--epsilon must be above 0"),
    (["--epsilon", "abc"], "'--epsilon': 'abc' is not a number; write one such as 4"),
    (["--clients", "ten"], "'--clients': 'ten' is not a whole number"),
    (["--delta", "1.5"], "--delta must lie between 0 and 1"),
    (["--clients", "1"], "--clients must be at least 2"),
    (["--clients", "99999999999"], "--clients must be at most 1,000,000, got 99999999999"),
    (
        ["--delta", "1e-15"],
        "--delta 1e-15 is less than the 1e-12 that can be accounted for with --unit client; take more",
    ),
    (["--unit", "example", "--delta", "1e-11"], "less than the 1e-10 that can be accounted for with --unit example"),
    (["--epsilon", "100.5"], "--epsilon 100.5 is more than the 100 that can be accounted for"),
    (["--epsilon", "1e308"], "take less, or inf for a run without noise"),
    (["--unit", "example", "--example-rate", "1e-9"], "--example-rate must be at least 0.0001"),
    (["--clip-norm", "1e308"], "--clip-norm must lie in 1e-06…1e+06, got 1e+308"),
    (["--clip-norm", "1e-308"], "--clip-norm must lie in 1e-06…1e+06, got 1e-308"),
    (["--alpha", "1e308"], "--alpha must lie in 1e-06…1e+06, got 1e+308"),
    (["--alpha", "1e-308"], "--alpha must lie in 1e-06…1e+06, got 1e-308"),
    (["--server-step", "1e308"], "--server-step must lie in 1e-06…1e+06, got 1e+308"),
    (["--rounds", "99999999999"], "--rounds must be at most 100,000, got 99999999999"),
    (["--seed", "99999999999999999999"], "--seed must be at most 2^63 - 1 = 9223372036854775807, got"),
    (["--dataset", "clothes", "--clients", "30000"], "--clients 30000 for 20000 images"),
    (
        ["--clients", "500"],
        "--clients 500, but the data set has 157 of its own: use 157, or deal the images anew by a --partition such as",
    ),
    (["--dropout", "1"], "--dropout must be at least 0 and below 1"),
    (
        ["--dataset", "digits", "--test", "unseen-clients"],
        "--test unseen-clients is for data set icons; 'digits'",
    ),
    (["--dataset", "cifar"], "unknown --dataset 'cifar': use one of icons, clothes, fashion-mnist, "),
    (["--dataset", "fashion-mnist", "--data-root", "EMPTY"], "--data-root 'EMPTY' lacks"),
    (["--partition", "dirichlet:-1"], "unknown --partition 'dirichlet:-1': use iid, dirichlet:A"),
    (
        ["--rule", "both"],
        "--rule must be one of prompt-basis, ab, frozen-a, alternate, local-alternate; got 'both'",
    ),
    (["--secagg", "on"], "--secagg must be one of off, semi-honest, malicious-server; got 'on'"),
    (["--neighbours", "7"], "--neighbours must be 156 (everybody) or an even number from 2 to 155, got 7"),
    (["--corrupt", "1"], "--corrupt must be at least 0 and below 1"),
    (["--bits", "33"], "--bits must lie in 8…32, got 33"),
    (["--out", "TAKEN"], "--out TAKEN exists already"),
    (["--out", "TAKEN/config.toml/run"], "cannot be written"),
    (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
    (["--config", "unknown.toml"], "unknown key 'privacy.epsilom'"),
    (["--rank", "0"], "--rank must be at least 1, got 0"),
    (["--participation", "0"], "--participation must be above 0 and at most 1 (everybody), got 0"),
    (
        ["--participation", "2", "--sampling", "fixed"],
        "--participation must be above 0 and at most 1 (everybody), got 2",
    ),
    (["--participation", "0.1"], "--participation 0.1 needs a kind of sampling"),
    (["--sampling", "poisson"], "sampling poisson is for a --participation below 1"),
    (["--min-separation", "3"], "--min-separation 3 is for a --participation below 1"),
    (["--example-rate", "0.1"], "--example-rate 0.1 is for --unit example"),
    (["--unit", "example", "--example-rate", "2"], "--example-rate must be above 0 and at most 1, got 2"),
    (["--unit", "image"], "--unit must be one of client, example; got 'image'"),
    (["--unit", "example", "--adaptive-clip", "0.5"], "--adaptive-clip 0.5 is for --unit client"),
    (["--adaptive-clip", "0"], "--adaptive-clip is a quantile between 0 and 1"),
    (["--server-step", "inf"], "--server-step must be a positive number, got inf"),
    (["--server-momentum", "1"], "--server-momentum must be at least 0 and below 1, got 1"),
    (["--dataset", "digits", "--partition", "natural"], "--partition natural needs a data set with clients of its own"),
    (["--dataset", "folder"], "data set 'folder' needs --data-root"),
    (["--dataset", "folder", "--data-root", "EMPTY"], "holds 0 folders: no image was found; expected ROOT/CLASS/IMAGE"),
    (["--data-root", "EMPTY"], "--data-root EMPTY is not read by --dataset icons, which ships with the program"),
    (["--dataset", "clothes", "--data-root", "EMPTY"], "--data-root EMPTY is not read by --dataset clothes, which"),
    (["--layout", "clients"], "--layout clients is for --dataset folder, not icons"),
    (["--secagg", "off", "--neighbours", "8"], "--neighbours 8 is of masks, and with --secagg off there are none"),
    (["--compare", "public,centrl"], "--compare 'centrl' is none of public, local, central, no-noise; did you mean 'c"),
    (["--compare", ""], "--compare '' is none of public, local, central, no-noise"),
    (["--compare", "local", "--placement", "text-mlp"], "--compare local: it is fitted where --placement is text-proj"),
    (["--epsilon", "inf", "--compare", "no-noise"], "--compare no-noise is a run without noise, which --epsilon inf"),
    (
        ["--dataset", "digits", "--class-names", "unknown.toml"],
        "--class-names has 2 lines, data set 'digits' has 10 classes",
    ),
    (["--templates", "nowhere.txt"], "--templates 'nowhere.txt' cannot be read"),
    (
        ["--unseen-classes", "bell,boot"],
        "--unseen-classes 'boot' is none of data set 'icons'; known: calendar, house, ",
    ),
    (
        ["--dataset", "digits", "--unseen-classes", ",".join(f"digit {i}" for i in range(9))],
        "--unseen-classes leave 1 of 10 classes to train",
    ),
    (["--unseen-classes", "bag,,coat"], "--unseen-classes must name at least one class, and each once; got 'bag', ''"),
    (["--no-feature-cache", "--feature-cache", "EMPTY"], "give either --feature-cache or --no-feature-cache"),
    (
        ["--epsilom", "4"],
        "No such option: --epsilom (Possible options: --epsilon, --precision, --slots) Try 'flora-secure simulate",
    ),
    (["--placement", "text-atention"], "visual-attention; got 'text-atention'; did you mean 'text-attention'?"),
    (["--dataset", "cifar-10"], "did you mean 'cifar10'?"),
    (["--unseen-classes", "fodler"], "did you mean 'folder'?"),
    (["--config", "negative.toml"], "config negative.toml: privacy.epsilon must be above 0"),
    (["--config", "poisson.toml", "--participation", "0"], "--participation must be above 0"),
    (
        ["--config", "server.toml"],
        "config server.toml: training.warm_start 37 was a number of steps, and these are fixed now: write 'images'",
    ),
    (["--config", "example.toml", "--adaptive-clip", "0.5"], "--adaptive-clip 0.5 is for privacy.unit client, whose"),
]
BAD_LATE = [
    (["--model", "ViT-X"], "unknown --model 'ViT-X'"),
    (["--model", "ViT-B32"], "did you mean 'ViT-B-32'?"),
    (["--model", "ViT-B-32"], "needs weights"),
    (["--pretrained", "missing.safetensors"], "--pretrained: model 'tiny' has no weights 'missing.safetensors'"),
    (["--rank", "11"], "--rank 11 exceeds"),
    (["--device", "cuda:9"], "--device 'cuda:9' is no device of this machine"),
    (["--device", "meta"], "--device 'meta' is no device of this machine"),
    (["--epsilon", "100", "--bits", "8", "--clients", "300"], "take a smaller --epsilon, fewer --clients"),
    (["--secagg", "malicious-server", "--threshold", "2"], "--threshold 2"),
    (["--participation", "0.1", "--sampling", "poisson"], "makes cohorts of 1 on average"),
]
# the smallest data set: these are told after the model has seen the images
BAD_LATE = [(["--dataset", "digits", "--clients", "10", *flags], says) for flags, says in BAD_LATE]


FRESH = ["--epsilon abc", "--config unknown.toml"]


@pytest.mark.parametrize(
    ("flags", "says"), BAD + BAD_LATE, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_clear_line_and_exit_code_2(flags, says, tmp_path) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TAKEN").mkdir()
    (tmp_path / "TAKEN" / "config.toml").write_text("")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    done = (flora if " ".join(flags) in FRESH else flora_here)("simulate", *flags, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    *before, last = said(done)
    assert says in last
    named = any(flag in last for flag in FLAGS) or ": unknown key " in last
    assert named or re.search(r"config [a-z]+\.toml: [a-z]+\.[a-z_]+ ", last)
    assert last.startswith("flora-secure: ")
    begun = [line for line in before if not line.startswith("warning: the embedded model, tiny, ")]  # of digits
    assert begun[:1] in ([], ["loading model and data …"])
    begins = ("loading model and data", "data ", "partition natural: ")
    assert all(line.startswith(start) for line, start in zip(begun, begins, strict=False))
    assert len(begun) <= len(begins)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_bad_input_of_fresh_processes_is_among_the_cases() -> None:
    assert set(FRESH) < {" ".join(flags) for flags, _ in BAD + BAD_LATE}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a run in a process of its own, and what that printed."""
    cwd = tmp_path_factory.mktemp("finished")
    return cwd / "run", flora(*SMALL, "--out", "run", "--compare", "no-noise,local,central", cwd=cwd)


def test_a_run_leaves_a_complete_folder_and_prints_one_table(finished) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("flora-secure simulate → run\n")
    # no library has a word of its own, here or there
    assert [line.split()[0] for line in said(done)] == [
        "loading", "data", "warning:", "warm", "control", "8", "round", "round", "wrote",
    ]  # fmt: skip
    for figure in ("accuracy", "privacy", "communication", "ε = ", "× less"):
        assert figure in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter", "config.toml", "receipt.json", "report.html", "report.json", "rounds.jsonl", "sums",
    ]  # fmt: skip
    assert sorted(path.name for path in (folder / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "flora.json",
    ]
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, json_schema())
    assert None not in report["competitors"].values()
    assert "  one client alone " in done.stdout
    run = read_run(folder)
    assert [record.round for record in run.records] == [1, 2]
    assert run.report is not None
    assert run.report.to_dict() == report


def test_json_is_all_there_is_on_stdout_and_the_resolved_config_repeats_the_settings(finished, tmp_path) -> None:
    folder, _ = finished
    done = flora_here("simulate", "--config", folder / "config.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, json_schema())
    (again,) = (tmp_path / "runs").iterdir()
    assert json.loads((again / "report.json").read_text()) == report
    assert "round 2/2" in done.stderr
    before = json.loads((folder / "report.json").read_text())
    assert report["provenance"]["config_hash"] == before["provenance"]["config_hash"]


def test_unseen_classes_by_name(tmp_path) -> None:
    flags = ["--dataset", "digits", "--clients", "5", "--rounds", "1", "--secagg", "off", "--json"]
    done = flora_here("simulate", *flags, "--unseen-classes", "digit 7, digit 2", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, json_schema())
    assert report["forgetting"]["classes"] == ["digit 2", "digit 7"]
    assert (
        f"\nunseen classes digit 2, digit 7: {report['forgetting']['test_examples']} test images apart" in done.stderr
    )
    assert 'unseen_classes = [\n    "digit 7",\n    "digit 2",\n]' in (tmp_path / "run" / "config.toml").read_text()


def test_a_folder_of_images_with_bad_ones_and_a_cache(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for client in range(5):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / f"client{client}" / label
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 256, (40, 30, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    (tmp_path / "images" / "client0" / "cat" / "empty.jpg").write_bytes(b"")
    (tmp_path / "templates").write_text("a {}\nthe {}\n", encoding="utf-8")
    flags = ["simulate", "--dataset", "folder", "--data-root", "images", "--partition", "natural", "--clients", "5",
             "--rounds", "2", "--templates", "templates", "--simulation-noise", "--json"]  # fmt: skip
    runs = []
    for extra in (["--no-feature-cache"], ["--feature-cache", "cache"], ["--feature-cache", "cache"]):
        done = flora_here(*flags, *extra, "--out", f"run{len(runs)}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "skipped 1: empty file (client0/cat/empty.jpg)\n" in done.stderr
        warned = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        guesses = [line for line in warned if "is no better than guessing among 2 classes (50.0%)" in line]
        told = [worded(line, lambda key: flag_of(key) or key) for line in json.loads(done.stdout)["warnings"]]
        assert warned == ["warning: " + line for line in told]
        assert len(warned) == 1 + len(guesses)  # pictures of noise; and tiny knows clothes
        runs.append(json.loads(done.stdout))
        jsonschema.validate(runs[-1], json_schema())
    assert runs[0]["accuracy"] == runs[1]["accuracy"] == runs[2]["accuracy"]
    assert runs[0]["data"] == runs[2]["data"]
    data = runs[0]["data"]
    assert (data["partition"], data["private_images"], data["test_images"]) == ("natural", 50, 10)
    assert (data["client_minimum"], data["client_median"], data["client_maximum"]) == (10, 10, 10)
    assert data["skipped"] == [{"reason": "empty file", "count": 1, "used": False}]
    assert len(list((tmp_path / "cache").iterdir())) == 3  # what is damaged, private features, test features
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    done = flora_here(*flags, "--feature-cache", "cache", "--out", "again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is damaged") == 3
    assert json.loads(done.stdout)["accuracy"] == runs[0]["accuracy"]


def test_no_noise_is_loud(tmp_path) -> None:
    done = flora_here(*SMALL, "--epsilon", "inf", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "NO DIFFERENTIAL PRIVACY" in done.stderr
    assert "NONE: no noise" in done.stdout


def test_interrupt_keeps_the_rounds_that_were_complete(tmp_path) -> None:
    command = [*PROGRAM, "simulate", "--dataset", "digits", "--clients", "40", "--rounds", "500", "--out", "run"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a suite that runs in the background of a shell inherits "ignore SIGINT", which a terminal's programs never see
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 2/500"):
            break
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: the whole group, workers included
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    last = rest.splitlines()[-1]
    found = re.fullmatch(
        r"flora-secure: interrupted in round (\d+); rounds 1 to (\d+) are kept in run; "
        r"go on with flora-secure simulate --resume run",
        last,
    )
    assert found, rest
    assert int(found[1]) == int(found[2]) + 1
    assert "Traceback" not in rest
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == list(range(1, int(found[2]) + 1))
    time.sleep(0.5)
    alive = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True)
    assert alive.stdout == "", "workers outlived the command"


def told_again(finished, **options) -> subprocess.CompletedProcess[str]:
    """A process that prints the result of a run and needs no torch for it: the run is complete."""
    folder, _ = finished
    command = [*PROGRAM, "simulate", "--resume", str(folder)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, timeout=60, **options)


def test_a_reader_that_goes_away_is_no_traceback(finished) -> None:
    read, write = os.pipe()
    os.close(read)
    done = told_again(finished, stdout=write)
    os.close(write)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(finished) -> None:
    with FULL.open("w") as full:
        done = told_again(finished, stdout=full)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "flora-secure: the result cannot be printed: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_the_report_is_kept_before_it_is_printed(tmp_path) -> None:
    with FULL.open("w") as full:
        done = flora_here(*SMALL, cwd=tmp_path, stdout=full)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "flora-secure: the result cannot be printed: No space left on device"
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "report.json").exists()
    assert (folder / "report.html").exists()


def test_help_lists_every_option_and_needs_no_torch(tmp_path) -> None:
    program = "import sys\nfor m in ('torch', 'numpy'): sys.modules[m] = None\nfrom flora_cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, "simulate", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    for option in (
        "--epsilon",
        "--dropout",
        "--partition",
        "--class-names",
        "--feature-cache",
        "--no-feature-cache",
        "--json",
        "--out",
        "--simulation-noise",
    ):
        assert option in done.stdout


def test_a_subject_that_cannot_be_measured_is_named(tmp_path) -> None:
    done = flora_here("bench", "nope", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'SUBJECT': 'nope' cannot be measured; give one of masking, noise, training, federation." in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_command_is_one_line(tmp_path) -> None:
    done = flora("simulat", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such command 'simulat'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
