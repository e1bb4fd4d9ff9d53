"""The flags: made from one table, shown in panels, completed, and told in errors."""

import dataclasses
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from command import ENVIRONMENT, PROGRAM, flora, flora_here
from typer.models import OptionInfo

from flora_cli.main import COMMANDS, app
from flora_cli.options import at_home, takes_options, told
from flora_secure.errors import ConfigError
from flora_secure.planning import config
from flora_secure.planning.config import RunConfig
from flora_secure.planning.option_table import EVERYDAY, PANELS, SETTINGS, SWITCHES, markdown, rows_of

ROOT = Path(__file__).parents[2]
WIDE = {**ENVIRONMENT, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


def help_of(*command: str, **environment: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *command, "--help"], capture_output=True, text=True, env={**WIDE, **environment}, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def panels(text: str) -> dict[str, list[str]]:
    """The flags in each panel of a help page, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if title := re.match(r"╭─ (.+?) ─", line):
            found[title[1]] = []
        elif flag := re.match(r"│ (--[a-z0-9-]+)", line):
            found[next(reversed(found))].append(flag[1])
    return found


def test_help_is_in_panels_with_the_everyday_options_first() -> None:
    shown = panels(help_of("simulate"))
    assert list(shown) == [EVERYDAY, *PANELS.values(), "Output"]
    assert shown == {
        "Everyday": ["--dataset", "--data-root", "--clients", "--model", "--rounds", "--epsilon"],
        "Data": ["--class-names", "--label-base", "--templates", "--window", "--background", "--unseen-classes",
                 "--layout", "--test", "--partition", "--feature-cache", "--no-feature-cache"],
        "Model and adapter": ["--pretrained", "--placement", "--rule", "--rank", "--alpha", "--last-layers", "--mirror",
                              "--crops"],
        "Training": ["--server-step", "--server-momentum", "--warm-start", "--device", "--precision", "--seed",
                     "--engine"],
        "Privacy": ["--delta", "--unit", "--clip-norm", "--example-rate", "--adaptive-clip", "--dropout-tolerance",
                    "--bits", "--simulation-noise"],
        "Participation": ["--participation", "--sampling", "--min-separation"],
        "Secure aggregation": ["--secagg", "--masking", "--neighbours", "--threshold", "--slots", "--suite",
                               "--corrupt", "--dropout"],
        "Evidence for auditors": ["--keep-sums", "--transcript", "--canaries"],
        "Output": ["--config", "--out", "--resume", "--compare", "--signing-key", "--json", "--help"],
    }  # fmt: skip
    assert "--mechanisms" in panels(help_of("plan"))["Output"]


@pytest.mark.parametrize("columns", ["60", "80", "160"])
def test_help_fits_the_terminal_and_keeps_its_words(columns: str) -> None:
    text = help_of("simulate", COLUMNS=columns)
    assert max(map(len, text.splitlines())) <= int(columns)
    plain = " ".join(text.replace("│", " ").split())
    for row in rows_of("simulate"):
        if int(columns) >= 80:
            assert " ".join(row.help.split()) in plain
    assert "[dim]" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("command", ["simulate", "plan", "report", "audit", "vectors", "bench"])
def test_every_command_has_an_example_that_it_takes(command: str, tmp_path) -> None:
    text = help_of(command)
    assert re.search(r"Examples?:", text)
    examples = re.findall(rf"^ flora-secure {command} (.+)$", text, re.MULTILINE)
    assert examples
    known = {flag for flags in panels(text).values() for flag in flags}
    for example in examples:
        assert set(re.findall(r"--[a-z-]+", example)) <= known | {"--no-opacus"}


def test_docs_are_those_of_the_table() -> None:
    text = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    assert text == markdown(), "run python -m flora_secure.planning.option_table > docs/options.md"


def test_every_setting_is_a_row_and_every_keyword_one_setting() -> None:
    keys = [
        f"{section.name}.{field.name}" if dataclasses.is_dataclass(section.default_factory) else section.name
        for section in dataclasses.fields(RunConfig)
        for field in (
            dataclasses.fields(section.default_factory)
            if dataclasses.is_dataclass(section.default_factory)
            else [section]
        )
    ]
    assert [row.key for row in SETTINGS] == keys
    names = [row.name for row in (*SETTINGS, *SWITCHES)]
    assert len(set(names)) == len(names)
    unflagged = {row.key for row in SETTINGS if row.option.flag is None}
    assert unflagged == {"training.local_steps", "training.local_rate", "training.logit_scale",
                         "data.total_images", "training.control_variate", "evidence.canary_commitment"}  # fmt: skip
    for row in (*SETTINGS, *SWITCHES):
        assert row.option.help.endswith((".", "?")), row.key
        assert "\n" not in row.option.help


def test_each_row_is_a_flag_of_its_commands_and_there_is_no_other() -> None:
    from typer.main import get_command

    group = get_command(app)
    for name in ("simulate", "plan"):
        flags = {opt for p in group.commands[name].params for opt in (*p.opts, *p.secondary_opts)} - {"--help"}
        assert flags == {flag for row in rows_of(name) for flag in row.option.flag.split("/")}


def test_a_new_flag_is_a_row_and_its_use() -> None:
    """The field alone makes the flag, its panel, its default, the keyword and the line of the page."""
    program = (
        "import dataclasses\nfrom flora_secure.planning import protection\n"
        "from flora_secure.planning.options import option\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\n"
        "class Longer(protection.AggregationConfig):\n"
        "    patience: float = option(30.0, '--patience', 'Seconds that the server waits for a client.')\n"
        "protection.AggregationConfig = Longer\n"
        "from flora_cli.main import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", "--help"], capture_output=True, text=True, env=WIDE, timeout=60
    )
    assert "--patience" in panels(done.stdout)["Secure aggregation"]
    assert "Seconds that the server waits for a client. [default: 30]" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", "--patience", "x"], capture_output=True, text=True, env=WIDE, timeout=60
    )
    assert "'--patience': 'x' is not a number" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown(shell: str, tmp_path) -> None:
    done = flora_here("--show-completion", shell, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "flora-secure" in done.stdout
    assert "_FLORA_SECURE_COMPLETE" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_completion_is_installed_in_the_home_of_the_user(tmp_path) -> None:
    done = subprocess.run(
        [*PROGRAM, "--install-completion", "fish"],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".config/fish/completions/flora-secure.fish").is_file()


def test_an_unknown_shell_is_named(tmp_path) -> None:
    done = flora_here("--show-completion", "ksh", cwd=tmp_path)
    assert done.returncode == 2
    assert "'ksh' is not known; give one of bash, zsh, fish." in done.stderr


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("simulate --plac", {"--placement"}),
        ("simulate --placement text-a", {"text-attention", "text-attention-full"}),
        ("simulate --dataset cif", {"cifar10", "cifar100"}),
        ("plan --model ViT-B-32-quick", {"ViT-B-32-quickgelu"}),
        ("simulate --unit ", {"client", "example"}),
        ("simulate --crops ", {"1", "2", "4"}),
        ("pla", {"plan"}),
    ],
)
def test_values_are_completed(line: str, values: set[str]) -> None:
    asked = {"_FLORA_SECURE_COMPLETE": "complete_bash", "COMP_WORDS": f"flora-secure {line}"}
    asked["COMP_CWORD"] = str(len(f"flora-secure {line}".split(" ")) - 1)
    done = subprocess.run(PROGRAM, capture_output=True, text=True, env={**ENVIRONMENT, **asked}, timeout=60)
    assert set(done.stdout.split()) == values


def test_errors_name_the_flag_or_the_key_in_the_file(tmp_path) -> None:
    (tmp_path / "run.toml").write_text("seed = 1\n[privacy]\nepsilon = 4\n[training]\nlogit_scale = 3\n")
    error = ConfigError("`privacy.epsilon` is odd; set `privacy.unit` or `training.logit_scale`")
    assert str(error) == "privacy.epsilon is odd; set privacy.unit or training.logit_scale"
    assert error.settings == ("privacy.epsilon", "privacy.unit", "training.logit_scale")
    file = tmp_path / "run.toml"
    assert told(error) == "--epsilon is odd; set --unit or training.logit_scale"
    assert told(error, (), file) == f"config {file}: privacy.epsilon is odd; set --unit or training.logit_scale"
    assert told(ConfigError("`privacy.epsilon` is odd"), {"privacy.epsilon"}, file) == "--epsilon is odd"
    assert told(ConfigError("no `word` of a value"), (), file) == "no word of a value"
    assert config.keys_of(file) == {"seed", "privacy.epsilon", "training.logit_scale"}
    assert config.keys_of(tmp_path / "none.toml") == frozenset()


HOMES = [
    ("simulate", "--config", "cannot be read"),
    ("simulate", "--out", "exists already"),
    ("simulate", "--resume", "config.toml cannot be read"),
    ("simulate", "--data-root", "lacks"),
    ("simulate", "--class-names", "cannot be read"),
    ("simulate", "--templates", "cannot be read"),
    ("simulate", "--pretrained", "open_clip_config.json"),
    ("simulate", "--model=local-dir:", "open_clip_config.json"),
    ("plan", "--config", "cannot be read"),
    ("predict", "--class-names", "cannot be read"),
    ("predict", "--captions", "cannot be read"),
    ("vectors", "--write", "cannot be written"),
    ("vectors", "--dir", "cannot be read"),
]


@pytest.mark.parametrize(("command", "option", "says"), HOMES)
def test_a_path_at_home_is_found_where_the_shell_leaves_it_to_the_program(
    command: str, option: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell but zsh, when told to, puts the home in the place of the ~ of `--flag=~/x`."""
    place = tmp_path / "home" / "place"
    place.mkdir(parents=True)
    if command == "vectors":
        place.rmdir()
        place.touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    flags = {"--data-root": ["--dataset", "cifar10"], "--pretrained": ["--dataset", "digits", "--clients", "5"],
             "--class-names": ["--dataset", "digits"], "--templates": ["--dataset", "digits"]}  # fmt: skip
    given = ["run", "."] if command == "predict" else flags.get(option, [])
    done = flora_here(command, *given, f"{option}{'' if option[-1] == ':' else '='}~/place", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{place}" in done.stderr
    assert says in done.stderr
    assert "~" not in done.stderr


def test_every_option_that_takes_a_path_does() -> None:
    met = set()
    for command in COMMANDS:
        hints = typing.get_type_hints(command, include_extras=True)
        hints.pop("return", None)
        for name, hint in hints.items():
            kind, (option, *_) = hint.__origin__, hint.__metadata__
            if Path in (kind, *typing.get_args(kind)) and isinstance(option, OptionInfo):
                met.add(name)
                assert takes_options(command) or option.callback is at_home, f"{command.__name__}: {name}"
    assert {"out", "resume", "feature_cache", "plot", "captions", "pretrained", "write"} <= met


def test_every_setting_that_a_message_names_exists() -> None:
    """In all of the library: a key in backticks within a message that is raised."""
    keys = {row.key for row in (*SETTINGS, *SWITCHES)}
    for path in (ROOT / "flora_secure").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip().startswith(('f"', '"', "raise", "require(", 'r"', "return f")) and '"""' not in line:
                for named in re.findall(r"`([a-z]+\.[a-z_0-9]+)`", line):
                    assert named in keys, f"{path}: {named}"
    flags = [
        (path, line)
        for path in (ROOT / "flora_secure").rglob("*.py")
        # the table; findings, which are no errors; the files of a federation's folder
        if not {*path.parts} & {"planning", "auditing", "project"}
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"[\"' ]--[a-z]", line)
        and not any(name in line for name in ("opacus", "--resume", "--node-config", "flora-secure flower"))
    ]
    assert not flags, "a message names a setting by its key, and the command line makes it a flag"


def test_try_names_the_command(tmp_path) -> None:
    for arguments, command in (
        (["simulate", "--epsilom", "4"], "flora-secure simulate"),
        (["audit"], "flora-secure audit"),
        (["nothing"], "flora-secure"),
    ):
        done = flora_here(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.rstrip().endswith(f"Try '{command} --help'.")


def test_the_first_line_comes_before_the_heavy_imports(tmp_path) -> None:
    program = (
        "import os, sys\n"
        "class Heavy:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'open_clip', 'opacus', 'PIL', 'scipy'):\n"
        "            os.write(2, f'import {name}\\n'.encode())\n"
        "            os._exit(3)\n"
        "sys.meta_path.insert(0, Heavy())\n"
        "from flora_cli.main import run; run()"
    )
    done = flora("simulate", "--dataset", "digits", "--clients", "4", cwd=tmp_path, program=program)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("loading model and data …\nimport ")
