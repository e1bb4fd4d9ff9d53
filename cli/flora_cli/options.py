"""The flags of a command, made from the one table of options; and errors told in the words of who typed them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flora_secure.planning.names import LOCAL_DIR
from flora_secure.planning.option_table import EVERYDAY, OUTPUT, SETTINGS, SWITCHES, Row, Switches, rows_of

if TYPE_CHECKING:
    from flora_secure.errors import InputError


@dataclass(frozen=True)
class Given:
    """What was typed: `settings` by keyword, and `switches`; `flags` are the keys of all that was typed."""

    settings: dict[str, Any]
    switches: Switches
    flags: frozenset[str]


def options(command: str) -> Callable[[Callable[[Given], None]], Callable[..., None]]:
    """Give a function of what was typed the flags that the table has for `command`."""
    rows = rows_of(command)

    def decorate(function: Callable[[Given], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def with_flags(help: bool, **values: Any) -> None:
            # a switch that is off was not typed; --no-mirror was
            off = {row: False if row.default is False else None for row in rows}
            typed = {row: values[row.name] for row in rows if values[row.name] is not off[row]}
            function(
                Given(
                    settings={row.name: _value(row, value) for row, value in typed.items() if row in SETTINGS},
                    switches=Switches(
                        **{row.key: _value(row, value) for row, value in typed.items() if row in SWITCHES}
                    ),
                    flags=frozenset(row.key for row in typed),
                )
            )

        parameters = [
            inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for row in rows
            for annotation, default in [_parameter(row)]
        ]
        parameters.append(inspect.Parameter("help", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_HELP))
        with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del with_flags.__wrapped__
        return with_flags

    return decorate


def takes_options(command: Callable[..., None]) -> bool:
    """Whether a command has the flags of the table, `--help` among them."""
    return "help" in inspect.signature(command).parameters


def _show_help(context: typer.Context, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        typer.echo(context.get_help())
        raise typer.Exit


# in a panel like all others: click's own stands above them
_HELP = Annotated[
    bool,
    typer.Option(
        "--help",
        is_eager=True,
        callback=_show_help,
        help="Show this message and exit.",
        rich_help_panel=OUTPUT,
        metavar=" ",
    ),
]


def _parameter(row: Row) -> tuple[Any, Any]:
    """Annotation and default of one option, as typer reads them."""
    assert row.option.flag is not None
    setting: dict[str, Any] = {
        "help": _marked(row),
        "rich_help_panel": EVERYDAY if row.option.everyday else row.panel,
        "show_default": False,
    }
    if row.kind is bool:
        setting["metavar"] = " "  # typer would say <bool>
        switch = "/" not in row.option.flag
        return Annotated[bool if switch else bool | None, typer.Option(row.option.flag, **setting)], (
            False if switch else None
        )
    setting["metavar"] = row.metavar
    if row.kind in (int, float):
        setting["parser"] = whole if row.kind is int else number
    if row.choices or row.option.known is not None:
        setting["autocompletion"] = _completer(row)
    kind = row.kind if row.kind in (int, float, Path) else str
    return Annotated[kind | None, typer.Option(row.option.flag, **setting)], None


def _completer(row: Row) -> Callable[[str], list[str]]:
    def starting(incomplete: str) -> list[str]:
        return [value for value in row.values() if value.startswith(incomplete)]

    return starting


def _value(row: Row, value: Any) -> Any:
    if row.kind is tuple:
        return tuple(name.strip() for name in value.split(","))
    return at_home(value) if row.kind in (str, Path) else value


def at_home(value: Any) -> Any:
    """A text or path that begins with ~, or names a folder that does, with the home meant in its place: shells put that
    there in `--flag ~/x`, and not in `--flag=~/x`."""
    text = str(value)
    start = len(LOCAL_DIR) if text.startswith(LOCAL_DIR) else 0
    if value is None or text[start : start + 1] != "~":
        return value
    return type(value)(text[:start] + os.path.expanduser(text[start:]))


def _marked(row: Row) -> str:
    """The help in rich's markup: the default stands back."""
    text = row.option.help.replace("[", "\\[")
    return f"{text} [dim]\\[default: {row.default_text}][/dim]" if row.default_text else text


def number(text: str) -> float:
    """A real number, or inf. Raises BadParameter for other text."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number; write one such as 4 or 0.5, or inf") from None


def whole(text: str) -> int:
    """A whole number, or typer's error that says what is wrong with `text`."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number; write one such as 100") from None


def flagged(line: str) -> str:
    """A line for people with flags in the place of the settings that it names."""
    from flora_secure.errors import worded
    from flora_secure.planning.option_table import flag_of

    return worded(line, lambda key: flag_of(key) or key)


def told(error: InputError, typed: Collection[str] = (), file: Path | None = None) -> str:
    """The error's line with flags in the place of settings. Those that were not `typed` but stand in `file` keep
    their keys, and the file is named."""
    from flora_secure.planning.config import keys_of
    from flora_secure.planning.option_table import flag_of

    written = (keys_of(file) if file is not None else frozenset()) - frozenset(typed)
    line = error.told(lambda key: key if key in written else flag_of(key) or key)
    named = written & frozenset(error.settings)
    return f"config {file}: {line}" if named and not line.startswith("config ") else line
