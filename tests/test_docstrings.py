"""Every public module, class, function and method says in sentences what it is, in Markdown and without roles.

Read from the sources, so that no heavy library is imported. Nothing is excused by name: dunder methods, which the
language documents, and methods that a base class of ours documents already (`inspect.getdoc` finds that) need none.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "flora_secure": ROOT / "flora_secure",
    "flora_cli": ROOT / "cli/flora_cli",
    "flora_bench": ROOT / "cli/flora_bench",
    "flora_protocols": ROOT / "protocols/flora_protocols",
}
LEAST_WORDS = 4
# how a fragment begins that hangs on a name, and not how a sentence does
FRAGMENT = re.compile(r"(?:Of|See|As|Like|Also|Same)\b")
ROLE = re.compile(r":[a-z:]+:`")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    package = next(name for name, folder in PACKAGES.items() if folder in path.parents)
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


SOURCES = {named(path): path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
CLASSES = {node.name: node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def inherited(owner: ast.ClassDef, method: str) -> bool:
    """Whether a base class of ours documents it."""
    for base in owner.bases:
        found = CLASSES.get(ast.unparse(base).partition("[")[0].rpartition(".")[2])
        if found is None or found is owner:
            continue
        own = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == method]
        if any(ast.get_docstring(node) for node in own) or inherited(found, method):
            return True
    return False


def public(node: Documented, name: str) -> list[tuple[str, Documented]]:
    found = [(name, node)]
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
            if isinstance(node, ast.ClassDef) and ast.get_docstring(child) is None and inherited(node, child.name):
                continue
            marks = [mark.attr for mark in child.decorator_list if isinstance(mark, ast.Attribute)]
            if isinstance(node, ast.ClassDef) and {"setter", "deleter"} & set(marks):
                continue  # of a property that its getter documents
            found += (
                public(child, f"{name}.{child.name}")
                if isinstance(child, ast.ClassDef)
                else [(f"{name}.{child.name}", child)]
            )
    return found


def wrong_with(text: str | None) -> str:
    """What a reader would trip over in a docstring, "" for nothing."""
    if not text:
        return "has no docstring"
    first = re.split(r"\n\s*\n", text)[0].strip()
    last = text.splitlines()[-1]
    if re.match(r"[a-z]", text) and not re.match(r"[a-z][\w.]*\(", text):
        return "begins with a small letter"
    if FRAGMENT.match(text):
        return "begins like a fragment"
    if first[-1] not in ".:":
        return "its first paragraph does not end in a full stop"
    drawn = re.search(r"\S {2,}\S", last) or last.startswith("    ")  # columns of a table or a drawing, or code
    if last.strip()[-1] not in ".|`" and not drawn:
        return "does not end in a full stop"
    if ROLE.search(text) or "``" in text:
        return "has roles or double backticks"
    if len(re.findall(r"\w+", text)) < LEAST_WORDS:
        return f"is of fewer than {LEAST_WORDS} words"
    return ""


@pytest.mark.parametrize("module", SOURCES)
def test_what_is_public_is_documented(module: str) -> None:
    problems = {
        name: wrong
        for name, node in public(TREES[module], module)
        if not (isinstance(node, ast.Module) and not node.body) and (wrong := wrong_with(ast.get_docstring(node)))
    }
    assert problems == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (None, "no docstring"),
        ("of a run on labels.", "small letter"),
        ("Of a run on labels.", "fragment"),
        ("See `apply` for what it does.", "fragment"),
        ("One round of the run", "full stop"),
        ("One round of the run.\n\nAnd more", "full stop"),
        ("Raises :class:`ValueError` for others.", "roles"),
        ("Raises ``ValueError`` for all others.", "double backticks"),
        ("FedAdam.", "fewer than"),
        ("One round of the run, read from `rounds.jsonl`.", ""),
        ("ε that a client has spent.", ""),
    ],
)
def test_what_a_reader_would_trip_over(text: str | None, wrong: str) -> None:
    found = wrong_with(text)
    assert wrong in found if wrong else not found
