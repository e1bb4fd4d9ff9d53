"""Completion for bash, zsh and fish: the script that a shell reads, shown or installed."""

from __future__ import annotations

import os
from typing import Annotated

import typer

SHELLS = ("bash", "zsh", "fish")


def _variable(program: str) -> str:
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def prepare(program: str) -> None:
    """Make the shells known where one of them asks for completions; nothing to do for any other call."""
    if _variable(program) in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # its own re-export

        completion_init()


def _known(shell: str) -> str:
    if shell not in SHELLS:
        raise typer.BadParameter(f"{shell!r} is not known; give one of {', '.join(SHELLS)}.")
    return shell


def _show(context: typer.Context, shell: str | None) -> None:
    if shell is None or context.resilient_parsing:
        return
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # its own re-export

    program = context.find_root().info_name or ""
    typer.echo(get_completion_script(prog_name=program, complete_var=_variable(program), shell=shell))
    raise typer.Exit


def _install(context: typer.Context, shell: str | None) -> None:
    if shell is None or context.resilient_parsing:
        return
    from typer.completion import install  # type: ignore[attr-defined]  # its own re-export

    _, path = install(shell=shell, prog_name=context.find_root().info_name)
    typer.echo(f"{shell} completion is in {path}; it works in the next terminal")
    raise typer.Exit


def _shells(incomplete: str) -> list[str]:
    return [shell for shell in SHELLS if shell.startswith(incomplete)]


Show = Annotated[
    str | None,
    typer.Option(
        "--show-completion",
        callback=_show,
        help="Print the completion script for bash, zsh or fish.",
        parser=_known,
        metavar="SHELL",
        is_eager=True,
        autocompletion=_shells,
    ),
]
Install = Annotated[
    str | None,
    typer.Option(
        "--install-completion",
        callback=_install,
        help="Install completion for bash, zsh or fish in your home.",
        parser=_known,
        metavar="SHELL",
        is_eager=True,
        autocompletion=_shells,
    ),
]
