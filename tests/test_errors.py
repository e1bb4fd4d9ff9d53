"""The drawing in flora_secure/errors.py shows the classes that exist, each below its base and in its module."""

import ast
import re
from pathlib import Path

import flora_secure.errors

ROOT = Path(flora_secure.errors.__file__).parent


def drawn() -> dict[str, tuple[str, str]]:
    """Each class of the drawing: its base, and the module that it names."""
    found: dict[str, tuple[str, str]] = {}
    base = ""
    assert flora_secure.errors.__doc__ is not None
    for line in flora_secure.errors.__doc__.splitlines():
        if branch := re.match(r"[├└]── (\w+) +(?:([a-z_.]+\.[a-z_]+): )?", line):
            assert branch[1] not in found
            found[branch[1]] = base, branch[2] or "errors"
        elif root := re.match(r"(\w+(?:Error|Exception|Interrupt))(?: {2,}.*)?$|Exception$", line):
            base = root[1] or root[0]
    return found


def defined() -> dict[str, tuple[str, str]]:
    found = {}
    for path in ROOT.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.bases:
                base = ast.unparse(node.bases[0])
                if base.endswith(("Error", "Exception", "Interrupt")):
                    found[node.name] = base, module
    return found


def test_the_drawing_is_what_exists() -> None:
    classes = defined()
    assert classes.pop("InputError") == ("ValueError", "errors")
    assert drawn() == classes


def test_bad_input_is_defined_in_one_file() -> None:
    classes = defined()
    bad = {"InputError"}
    while more := {name for name, (base, _) in classes.items() if base in bad} - bad:
        bad |= more
    assert len(bad) > 8
    assert {classes[name][1] for name in bad} == {"errors"}


def test_every_kind_of_bad_input_ends_as_one_line() -> None:
    kinds = [kind for kind in vars(flora_secure.errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, flora_secure.errors.InputError)]
    assert len(kinds) > 8
    assert all(str(kind("value x; take y")) == "value x; take y" for kind in kinds)
