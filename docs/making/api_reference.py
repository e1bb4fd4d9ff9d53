"""Write the reference part of docs/api.md from the docstrings: `python docs/making/api_reference.py`.

Everything that `flora_secure.__all__` names, in that order: functions with their signatures, classes with their public
methods. What stands above the mark in docs/api.md is written by hand.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flora_secure

PAGE = Path(__file__).resolve().parents[1] / "api.md"
MARK = "<!-- below: python docs/making/api_reference.py -->\n"


def reference() -> str:
    """The reference as Markdown, functions first."""
    named = [(name, getattr(flora_secure, name)) for name in flora_secure.__all__]
    functions = [(name, what) for name, what in named if inspect.isfunction(what)]
    classes = [(name, what) for name, what in named if inspect.isclass(what)]
    lines = ["", "## Reference"]
    for name, function in functions:
        lines += [
            "",
            f"### `flora_secure.{name}`",
            "",
            "```python",
            _signature(name, function),
            "```",
            *_text(function),
        ]
    for name, kind in classes:
        lines += ["", f"### `flora_secure.{name}`", *_text(kind)]
        if members := [f"- `{member}`: {what}" for member, what in _members(kind)]:
            lines += ["", "*Members*", "", *members]
    return re.sub(r":\w+:`~?([^`]+)`", lambda role: f"`{role[1].rpartition('.')[2]}`", "\n".join(lines)) + "\n"


def whole(page: str) -> str:
    """The page with the reference of now."""
    return page.partition(MARK)[0] + MARK + reference()


def _signature(name: str, function: Any) -> str:
    found = inspect.signature(function)
    parameters: list[str] = []
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        text = f"{'**' if parameter.kind is parameter.VAR_KEYWORD else ''}{parameter.name}: {parameter.annotation}"
        parameters.append(text if parameter.default is parameter.empty else f"{text} = {parameter.default!r}")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            parameters.append("/")
    return f"{name}({', '.join(parameters)}) -> {found.return_annotation}"


def _text(what: Any) -> list[str]:
    """The docstring; what it lists ("Args:") as lists."""
    lines = ["", *inspect.cleandoc(what.__doc__ or "").splitlines()]
    found: list[str] = []
    for line in lines:
        bare = line.strip().replace("``", "`")
        if line.startswith("    ") and not line.startswith("     "):
            name, colon, rest = bare.partition(": ")
            found.append(f"- `{name}`: {rest}" if colon and " " not in name.replace(", ", "") else f"- {bare}")
        elif line.startswith("     "):
            found.append(f"  {bare}")
        elif bare in {"Args:", "Returns:", "Raises:", "Attributes:"}:
            found += [f"*{bare.rstrip(':')}*", ""]
        else:
            found.append(bare)
    return found


def _members(kind: Any) -> Iterator[tuple[str, str]]:
    for name, member in vars(kind).items():
        plain = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(plain) and plain.__doc__:
            call = name if isinstance(member, property) else f"{name}()"
            yield call, inspect.cleandoc(plain.__doc__).partition("\n\n")[0].replace("\n", " ").replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(whole(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
