"""No check without code, no code without a check, neither without a test: SPEC.md, docs/checks.md and the sources."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "protocols/flora_protocols"
NUMBER = r"C-\d\d"
SPEC = (ROOT / "protocols/SPEC.md").read_text(encoding="utf-8")
TABLE = (ROOT / "docs/checks.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if re.match(rf"\| {NUMBER}", line)
]
ABSTRACT = {"NotImplementedError"}


def named(cell):
    return re.findall(r"`([^`]+)`", cell)


@cache
def functions(file):
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def exists(name):
    file, function = name.split("::")
    return function in functions(file)


def raising():
    """`module:Class.function` of everything in the protocol that raises, at whatever depth inside it."""
    found = set()
    for path in PACKAGE.glob("*.py"):

        def visit(node, names, stem=path.stem):
            for child in ast.iter_child_nodes(node):
                inner = isinstance(child, ast.FunctionDef | ast.ClassDef)
                depth = names and isinstance(node, ast.FunctionDef)  # a function inside a function counts as the outer
                if isinstance(child, ast.Raise) and getattr(child.exc, "id", "") not in ABSTRACT:
                    found.add(f"{stem}:{'.'.join(names)}")
                visit(child, [*names, child.name] if inner and not depth else names, stem)

        visit(ast.parse(path.read_text(encoding="utf-8")), [])
    return found


def test_every_check_has_one_row_and_every_row_a_check():
    defined = re.findall(rf"^- \*\*({NUMBER})\*\*", SPEC, re.MULTILINE)
    assert len(defined) > 40
    assert len(set(defined)) == len(defined)
    assert [row[0] for row in ROWS] == defined


def test_every_number_that_is_mentioned_is_defined():
    defined = set(re.findall(rf"^- \*\*({NUMBER})\*\*", SPEC, re.MULTILINE))
    assert set(re.findall(NUMBER, SPEC + TABLE)) <= defined


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_code_and_tests_exist(row):
    _, what, code, tests = row
    assert what
    assert named(code)
    assert named(tests)
    for name in named(code):
        module, path = name.split(":")
        found = importlib.import_module(f"flora_protocols.{module}")
        for part in path.split("."):
            found = getattr(found, part)
        assert callable(found) or isinstance(found, property)
    assert all(exists(name) for name in named(tests))


def test_every_attack_is_mounted():
    rows = [line for line in TABLE[TABLE.index("| attack | tests |") :].splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 20
    for row in rows:
        tests = named(row)
        assert tests
        assert [name for name in tests if not exists(name)] == []


def test_whatever_raises_makes_a_check():
    """An error that no check asks for is either a check that the specification lacks, or nobody's business."""
    assert len(raising()) > 30
    assert raising() - {name for row in ROWS for name in named(row[2])} == set()
