"""The one table of options: every setting of a run and every switch of the commands that plan and run it.

Rows come from the fields of the sections and of `Switches`; flags, keywords of the Python functions and
docs/options.md come from rows. A new flag is a field there and its use.

    python -m flora_secure.planning.option_table > docs/options.md
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flora_secure.errors import did_you_mean
from flora_secure.planning.architectures import IMAGES
from flora_secure.planning.config import RunConfig, load_config, override
from flora_secure.planning.names import COMPETITORS, ICONS
from flora_secure.planning.options import BOTH, PLAN, SIMULATE, EngineName, Option, option

EVERYDAY, OUTPUT = "Everyday", "Output"
PANELS = {
    "data": "Data",
    "model": "Model and adapter",
    "training": "Training",
    "privacy": "Privacy",
    "participation": "Participation",
    "aggregation": "Secure aggregation",
    "evidence": "Evidence for auditors",
}


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What a command is told beside the settings of the run: nothing of it is in `config.toml`."""

    config: Path | None = option(
        None, "--config", "TOML file of settings; flags override it.", metavar="FILE", panel=OUTPUT
    )
    out: Path | None = option(
        None,
        "--out",
        "Run folder, must not exist.",
        metavar="DIR",
        derived="runs/DATE-TIME",
        commands=(SIMULATE,),
        panel=OUTPUT,
    )
    resume: Path | None = option(
        None,
        "--resume",
        "Go on with the run in this folder, which was interrupted or killed; no other option of a run.",
        metavar="RUN",
        commands=(SIMULATE,),
        panel=OUTPUT,
    )
    feature_cache: Path | None = option(
        None,
        "--feature-cache",
        "Folder that keeps image features between runs.",
        metavar="DIR",
        derived="~/.cache/flora-secure",
        commands=(SIMULATE,),
        panel="Data",
    )
    no_feature_cache: bool = option(
        False, "--no-feature-cache", "Keep no image features on disk.", commands=(SIMULATE,), panel="Data"
    )
    compare: tuple[str, ...] | None = option(
        None,
        "--compare",
        "Competitors in the report, names separated by commas: public (public labels alone; always there), local (each "
        "client alone), central (all data in one place), no-noise.",
        metavar="NAMES",
        commands=(SIMULATE,),
        panel=OUTPUT,
        known=lambda: COMPETITORS,
    )
    engine: EngineName = option(
        "process",
        "--engine",
        "Where the simulated clients are: in this process, or on the nodes of Flower's simulation engine, flower.",
        metavar="ENGINE",
        commands=(SIMULATE,),
        panel="Training",
    )
    signing_key: Path | None = option(
        None,
        "--signing-key",
        "File of the key that signs the receipt, made where there is none; without it a key of this run alone.",
        metavar="FILE",
        commands=(SIMULATE,),
        panel=OUTPUT,
    )
    noise_multiplier: float | None = option(
        None,
        "--noise-multiplier",
        "Noise multiplier z, instead of ε: what ε does it cost?",
        derived="solved for",
        commands=(PLAN,),
        panel="Privacy",
    )
    images: int | None = option(
        None,
        "--images",
        "Images of all clients together, for unit example.",
        derived=f"those of {ICONS}, of another data set {IMAGES:,}",
        commands=(PLAN,),
        panel="Data",
    )
    mechanisms: bool = option(
        False,
        "--mechanisms",
        "Also what discrete Gaussian and Skellam noise would cost (some seconds).",
        commands=(PLAN,),
        panel=OUTPUT,
    )
    plot: Path | None = option(
        None,
        "--plot",
        "Draw ε over rounds and z over ε to this file (.png, .svg, .pdf).",
        metavar="FILE",
        commands=(PLAN,),
        panel=OUTPUT,
    )
    json: bool = option(
        False, "--json", "Print one JSON document on stdout, and nothing else there.", commands=BOTH, panel=OUTPUT
    )


@dataclass(frozen=True)
class Row:
    """One option.

    Attributes:
        key: of a setting as in the TOML file, `privacy.epsilon`; of a switch its name.
        kind: str, int, float, bool, Path, or tuple for several strings.
        choices: the values that there are, where there are only so many.
        default: `None` where it is derived.
        option: flag and words.
    """

    key: str
    kind: type
    choices: tuple[Any, ...]
    default: Any
    option: Option

    @property
    def name(self) -> str:
        """The keyword of the Python functions, and of the flag: `epsilon`, `participation`."""
        flag = self.option.flag
        return self.key.rpartition(".")[2] if flag is None else flag.partition("/")[0].lstrip("-").replace("-", "_")

    @property
    def panel(self) -> str:
        """The heading under which it stands among all options."""
        return self.option.panel or PANELS[self.key.partition(".")[0]]

    @property
    def metavar(self) -> str:
        """What stands for its value; empty for a switch, which has none."""
        kinds = {bool: "", int: "COUNT", float: "NUMBER", Path: "PATH"}
        return self.option.metavar or kinds.get(self.kind, "NAME")

    @property
    def default_text(self) -> str:
        """The default in words; empty where there is none to tell, such as that a switch is off."""
        if self.option.derived is not None:
            return self.option.derived
        if self.default is None or self.default is False:
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def help(self) -> str:
        """One line that ends with the default."""
        return self.option.help + (f"  [default: {self.default_text}]" if self.default_text else "")

    def values(self) -> tuple[str, ...]:
        """Those to complete: all that there are, or some that are likely."""
        return tuple(map(str, self.choices or (self.option.known() if self.option.known else ())))


def _rows(kind: type, prefix: str) -> Iterable[Row]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _rows(typing.cast(type, hint), f"{field.name}.")
            continue
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        base = type(choices[0]) if choices else typing.get_origin(hint) or hint
        yield Row(prefix + field.name, base, choices, field.default, field.metadata["option"])


SETTINGS: tuple[Row, ...] = tuple(_rows(RunConfig, ""))
SWITCHES: tuple[Row, ...] = tuple(_rows(Switches, ""))


def rows_of(command: str) -> list[Row]:
    """The options of a command in the order of its help: the everyday ones, then panel by panel."""
    rows = [row for row in (*SETTINGS, *SWITCHES) if row.option.flag is not None and command in row.option.commands]
    order = [*PANELS.values(), OUTPUT]
    return sorted(rows, key=lambda row: (not row.option.everyday, order.index(row.panel)))


def flag_of(key: str) -> str | None:
    """The flag of a key, the first of a pair; `None` where it has none or is not known."""
    flags = {row.key: row.option.flag for row in (*SETTINGS, *SWITCHES)}
    flag = flags.get(key)
    return None if flag is None else flag.partition("/")[0]


def configured(config: RunConfig | str | Path | None, options: Mapping[str, Any]) -> RunConfig:
    """A run's description: `config` (or the TOML file of that name, or the defaults) with `options` by keyword.

    An option that is `None` stays as it is. Raises `TypeError` for a keyword that is no option, and
    `flora_secure.errors.ConfigError` for a file that cannot be read and a value that cannot be.
    """
    base = config if isinstance(config, RunConfig) else RunConfig() if config is None else load_config(Path(config))
    keys = {row.name: row for row in SETTINGS}
    changes = {}
    for name, value in options.items():
        if name not in keys:
            raise TypeError(f"there is no option {name!r}{did_you_mean(name, keys)}")
        changes[keys[name].key] = str(value) if isinstance(value, Path) else value
    return override(base, changes)


def markdown() -> str:
    """The page docs/options.md, made from the table: a section a panel, a row a setting."""
    lines = [
        "# Options",
        "",
        "Made by `python -m flora_secure.planning.option_table`; a test compares them.",
        "",
        "A setting stands in the TOML file of `--config` under its key, is a keyword of `flora_secure.simulate` and",
        "`flora_secure.plan`, and has a flag where one is given. **Bold**: the everyday ones. What has no key belongs",
        "to a command alone.",
    ]
    for panel in (*PANELS.values(), OUTPUT):
        lines += [
            "",
            f"## {panel}",
            "",
            "| flag | key | keyword | values | default | commands | |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in (*SETTINGS, *SWITCHES):
            if row.panel == panel:
                lines.append(_markdown_row(row))
    return "\n".join(lines) + "\n"


def _markdown_row(row: Row) -> str:
    flag = "–" if row.option.flag is None else f"`{row.option.flag}`"
    if row.option.everyday:
        flag = f"**{flag}**"
    setting = row in SETTINGS
    kinds = {str: "text", int: "whole number", float: "number", bool: "yes or no", Path: "path", tuple: "names"}
    values = ", ".join(f"`{choice}`" for choice in row.choices) or kinds[row.kind]
    cells = (
        flag,
        f"`{row.key}`" if setting else "–",
        f"`{row.name}`" if setting else "–",
        values,
        row.default_text or "–",
        ", ".join(row.option.commands) if row.option.flag else "–",
        row.option.help,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(markdown(), end="")
