"""Every module imports on Windows: tried here by taking away what Windows lacks. Nothing else is claimed for it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "flora_protocols": ROOT / "protocols/flora_protocols",
    "flora_secure": ROOT / "flora_secure",
    "flora_cli": ROOT / "cli/flora_cli",
    "flora_bench": ROOT / "cli/flora_bench",
}
POSIX_MODULES = ["fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt"]
POSIX_NAMES = {
    "os": [
        "fork",
        "sched_getaffinity",
        "getuid",
        "geteuid",
        "getgid",
        "getpgid",
        "setsid",
        "mkfifo",
        "fchmod",
        "uname",
    ],
    "signal": ["SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGSTOP", "alarm", "pause"],
}
SOURCES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))


def named(path: Path) -> str:
    package = next(name for name, folder in PACKAGES.items() if folder in path.parents)
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


def test_light_modules_import_where_windows_has_nothing_for_them() -> None:
    """Modules that need no heavy library, twice: as they are, which loads what they need of others, and then afresh on
    an interpreter that says it is Windows'."""
    program = f"""
import importlib, json, os, signal, sys, types
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "open_clip", "flwr", "opendp", "peft", "sklearn", "matplotlib"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
sys.path[:0] = {[str(folder.parent) for folder in PACKAGES.values()]!r}
light = []
for name in {[named(path) for path in SOURCES]!r}:
    try:
        importlib.import_module(name)
        light.append(name)
    except ImportError:
        pass
for name in [name for name in sys.modules if name.partition(".")[0] in {list(PACKAGES)!r}]:
    del sys.modules[name]
for name in {POSIX_MODULES!r}:
    sys.modules[name] = None
for module, names in {POSIX_NAMES!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=lambda *_: None, LK_NBLCK=2)
sys.platform = "win32"
said = {{}}
for name in light:
    try:
        importlib.import_module(name)
        said[name] = ""
    except Exception as error:
        said[name] = repr(error)
print(json.dumps(said))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said) > 80
    assert {name: error for name, error in said.items() if error} == {}


def guarded(tree: ast.Module) -> set[ast.AST]:
    """All nodes below a condition that asks for the platform or for the name itself."""
    asked = ("sys.platform", "os.name", "hasattr")
    conditions = [node for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp)]
    return {
        below
        for node in conditions
        if any(name in ast.unparse(node.test) for name in asked)
        for below in ast.walk(node)
    }


@pytest.mark.parametrize("path", SOURCES, ids=[named(path) for path in SOURCES])
def test_what_windows_lacks_is_asked_for_first(path: Path) -> None:
    """By the source, for modules that need heavy libraries too, and for what runs after the import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed, found = guarded(tree), []
    for node in ast.walk(tree):
        if node in allowed:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in POSIX_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"{node.value.id}.{node.attr}"] * (node.attr in POSIX_NAMES.get(node.value.id, ()))
    assert not found
