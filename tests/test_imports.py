"""Imports go one way, and heavy libraries stay where docs say. Read from the sources and from fresh interpreters."""

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
}
HEAVY = {
    "torch",
    "open_clip",
    "PIL",
    "pyarrow",
    "peft",
    "timm",
    "opacus",
    "flwr",
    "torchvision",
    "sklearn",
    "transformers",
}
WITH_TORCH = {
    "flora_secure.engine.accuracy",
    "flora_secure.model.factors",
    "flora_bench.training_peers",
    "flora_secure.model.features",
    "flora_secure.model.clip",
    "flora_secure.model.loading",
    "flora_secure.client.contribution",
    "flora_secure.client.control_variate",
    "flora_secure.model.towers",
    "flora_secure.model.devices",
    "flora_secure.client.example_gradients",
    "flora_secure.server.scores",
    "flora_secure.model.units",
    "flora_secure.client.autograd",
    "flora_secure.client.trainer",
    "flora_secure.client.closed_form",
    "flora_secure.model.matrices",
    "flora_secure.client.objectives",
    "flora_secure.model.peft_format",
    "flora_secure.engine.setup",
    "flora_secure.engine.recorded",
    "flora_secure.engine.task",
    "flora_secure.engine.simulation",
    "flora_secure.engine.summary",
    "flora_secure.model.tokenizers",
    "flora_secure.server.warm_start",
    "flora_secure.model.weights",
}
PROTOCOLS_NEVER = {"random", "pickle", "logging", "time", "datetime", "socket", "pathlib", "io", "asyncio", "threading"}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imported(path: Path, own: str) -> set[str]:
    """Full names of what a file imports, at any depth of the code; relative imports resolved, TYPE_CHECKING skipped."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = own if path.name == "__init__.py" else own.rpartition(".")[0]
            for _ in range(max(node.level - 1, 0)):
                package = package.rpartition(".")[0]
            base = ".".join(part for part in (package if node.level else "", node.module or "") if part)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def tops(path: Path, own: str) -> set[str]:
    return {name.partition(".")[0] for name in imported(path, own)}


MODULES = modules()


def layer(prefix: str) -> list[str]:
    chosen = [name for name in MODULES if name == prefix or name.startswith(prefix + ".")]
    assert chosen, f"no module below {prefix}"
    return chosen


@pytest.mark.parametrize("name", layer("flora_protocols"))
def test_protocols_need_only_numpy_and_cryptography(name: str) -> None:
    outside = tops(MODULES[name], name) - {"flora_protocols", "numpy", "cryptography"} - sys.stdlib_module_names
    assert not outside
    names = imported(MODULES[name], name)
    if "io.BytesIO" in names:  # a buffer in memory is no I/O
        assert "import io\n" not in MODULES[name].read_text(encoding="utf-8")
        names -= {"io", "io.BytesIO"}
    if "threading.Lock" in names:  # a lock starts no thread
        assert "import threading\n" not in MODULES[name].read_text(encoding="utf-8")
        names -= {"threading", "threading.Lock"}
    assert not {other.partition(".")[0] for other in names} & PROTOCOLS_NEVER


@pytest.mark.parametrize("name", layer("flora_secure"))
def test_the_library_does_not_know_the_command_line(name: str) -> None:
    assert not tops(MODULES[name], name) & {"flora_cli", "typer", "rich"}


@pytest.mark.parametrize("name", [*layer("flora_secure.privacy"), "flora_secure.privacy.encoding"])
def test_privacy_knows_neither_models_nor_simulation(name: str) -> None:
    allowed = ("flora_secure.privacy", "flora_secure.privacy.encoding", "flora_secure.errors", "flora_protocols.ring")
    own = {other for other in imported(MODULES[name], name) if other.startswith(("flora_secure.", "flora_protocols."))}
    assert not {other for other in own if not other.startswith(allowed)}


@pytest.mark.parametrize("name", layer("flora_secure.audit"))
def test_the_audit_knows_nothing_of_what_it_audits(name: str) -> None:
    """Neither models nor the simulation: only what was written down, and the accountants."""
    allowed = ("audit", "privacy", "config", "plain", "records", "report", "run_folder")
    own = {other for other in imported(MODULES[name], name) if other.startswith(("flora_secure.", "flora_protocols"))}
    assert not {other for other in own if not other.startswith(tuple(f"flora_secure.{part}" for part in allowed))}


@pytest.mark.parametrize(
    "name",
    [
        f"flora_secure.{part}"
        for part in ("clip", "adapters", "matrices", "towers", "general", "objectives", "local", "examples")
    ],
)
def test_training_knows_neither_protocols_nor_privacy(name: str) -> None:
    assert not {
        other
        for other in imported(MODULES[name], name)
        if other.startswith(("flora_protocols", "flora_secure.privacy"))
    }


@pytest.mark.parametrize(
    "name", ["flora_secure.records.report", "flora_secure.records.report_table", "flora_secure.plain"]
)
def test_the_report_stands_alone(name: str) -> None:
    assert tops(MODULES[name], name) <= sys.stdlib_module_names | {"flora_secure"}
    own = {other for other in imported(MODULES[name], name) if other.startswith("flora_secure.")}
    allowed = ("flora_secure.records.report", "flora_secure.plain", "flora_secure.errors")
    assert not {other for other in own if not other.startswith(allowed)}


@pytest.mark.parametrize("name", layer("flora_cli"))
def test_command_line_imports_heavy_libraries_inside_commands_only(name: str) -> None:
    top_level = ast.parse(MODULES[name].read_text(encoding="utf-8")).body
    light = ast.Module([node for node in top_level if isinstance(node, ast.Import | ast.ImportFrom)], [])
    names = {
        alias.name.partition(".")[0] for node in ast.walk(light) if isinstance(node, ast.Import) for alias in node.names
    }
    modules = {node.module or "" for node in light.body if isinstance(node, ast.ImportFrom)}
    names |= {name.partition(".")[0] for name in modules - {"flora_secure.planning.option_table"}}  # the flags
    assert names <= sys.stdlib_module_names | {"typer", "flora_cli"}


LIGHT = [name for name in MODULES if name not in WITH_TORCH]


@pytest.fixture(scope="module")
def light() -> dict[str, str]:
    """What each light module says when it is imported where every heavy library is missing: "" where it can be.

    One interpreter for all, which forgets our packages before each: whatever a module needs it must import itself.
    """
    program = (
        "import importlib, json, sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {sorted(HEAVY)!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"sys.path[:0] = {[str(folder.parent) for folder in PACKAGES.values()]!r}\n"
        "said = {}\n"
        f"for module in {LIGHT!r}:\n"
        f"    for name in [name for name in sys.modules if name.partition('.')[0] in {sorted(PACKAGES)!r}]:\n"
        "        del sys.modules[name]\n"
        "    try:\n"
        "        importlib.import_module(module)\n"
        "        said[module] = ''\n"
        "    except Exception as error:\n"
        "        said[module] = repr(error)\n"
        "print(json.dumps(said))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_neither_import_nor_need_heavy_libraries(light: dict[str, str], name: str) -> None:
    assert light[name] == ""
