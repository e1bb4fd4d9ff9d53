"""The rooms of the house, read from the imports: which knows which, what each may need, and that light ones are light.

No module is named here but where a rule is about that module alone: a new file falls under the rules of its folder.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "flora_protocols": ROOT / "protocols/flora_protocols",
    "flora_secure": ROOT / "flora_secure",
    "flora_bench": ROOT / "cli/flora_bench",
    "flora_cli": ROOT / "cli/flora_cli",
}
API = "flora_secure"  # the package itself: the public API


@dataclass(frozen=True)
class Room:
    """A folder, or a module that is a room by itself.

    Attributes:
        floor: it may know rooms of lower floors only.
        never: of those, the ones that it does not know all the same.
        libraries: besides the standard library.
        inside: more of them, imported inside functions only: library → the one module that may, "" for all.
        light: no module of it needs one of `HEAVY` to be imported.
    """

    floor: int
    libraries: frozenset[str] = frozenset()
    inside: tuple[tuple[str, str], ...] = ()
    never: frozenset[str] = frozenset()
    light: bool = True


def libraries(names: str) -> frozenset[str]:
    return frozenset(names.split())


# "Rules of the house" of docs/architecture.md. Rooms of one floor never know each other. A room within a room is a line
# of its own: a module belongs to the longest name that begins its own.
ROOMS = {
    "flora_protocols": Room(0, libraries("numpy cryptography")),
    "flora_secure.errors": Room(0),
    "flora_secure.plain": Room(1),
    "flora_secure.boundary": Room(1),
    "flora_secure.engine.tls": Room(2, libraries("cryptography")),  # carries bytes, and knows nothing of what they are
    "flora_secure.privacy": Room(
        2,
        libraries("numpy cryptography dp_accounting mpmath"),
        inside=(("opacus", "flora_secure.privacy.cross_check"),),
        never=frozenset({"flora_protocols"}),
    ),
    "flora_secure.planning": Room(3, libraries("numpy tomli_w")),
    "flora_secure.rounds": Room(4, libraries("numpy")),
    "flora_secure.data": Room(
        5,
        libraries("numpy"),
        inside=(
            *(("PIL", ""), ("pyarrow", ""), ("sklearn", ""), ("scipy", "")),
            *(("pydicom", "flora_secure.data.files.dicom"), ("pillow_heif", "flora_secure.data.files.pixels")),
        ),
        never=frozenset({"flora_protocols", "flora_secure.privacy", "flora_secure.rounds"}),
    ),
    "flora_secure.records": Room(
        6, libraries("numpy cryptography"), inside=(("matplotlib", ""),), never=frozenset({"flora_secure.data"})
    ),
    "flora_secure.records.html": Room(  # the API imports `page` where its libraries are
        6, libraries("matplotlib jinja2 markupsafe"), never=frozenset({"flora_secure.data"}), light=False
    ),
    "flora_secure.model": Room(
        7,
        libraries("numpy torch open_clip timm peft safetensors"),
        never=frozenset({"flora_protocols", "flora_secure.privacy", "flora_secure.rounds", "flora_secure.records"}),
        light=False,
    ),
    "flora_secure.model.trained": Room(  # reads the adapter's card and the run's report
        7,
        libraries("numpy torch open_clip safetensors"),
        inside=(("PIL", ""), ("tokenizers", ""), ("transformers", "")),
        never=frozenset({"flora_protocols", "flora_secure.privacy", "flora_secure.rounds"}),
        light=False,
    ),
    "flora_secure.client": Room(8, libraries("numpy torch"), never=frozenset({"flora_secure.data"}), light=False),
    "flora_secure.server": Room(8, libraries("numpy torch"), never=frozenset({"flora_secure.data"}), light=False),
    "flora_secure.auditing": Room(
        8, libraries("numpy scipy dp_accounting"), never=frozenset({"flora_secure.data", "flora_secure.model"})
    ),
    "flora_secure.auditing.document.page": Room(8, libraries("jinja2 markupsafe matplotlib"), light=False),
    "flora_secure.engine": Room(9, libraries("numpy torch cryptography dp_accounting"), light=False),
    "flora_secure.engine.deployed": Room(9, libraries("numpy"), inside=(("torch", ""),), light=False),
    "flora_secure.engine.deployed.keys": Room(9, libraries("numpy cryptography")),
    "flora_secure.auditing.attacks": Room(10, libraries("numpy torch matplotlib"), light=False),  # trains anew
    "flora_secure.engine.deployed.project": Room(10, libraries("numpy"), inside=(("PIL", ""),)),
    "flora_secure.engine.flower": Room(10, libraries("cryptography flwr torch numpy tomli_w"), light=False),
    "flora_secure.engine.nvflare": Room(10, libraries("nvflare"), light=False),
    API: Room(11, libraries("numpy"), inside=(("torch", ""),)),
    "flora_secure.flower": Room(11, light=False),
    "flora_bench": Room(
        12, libraries("numpy cryptography mpmath dp_accounting"), inside=(("torch", ""), ("flwr", ""), ("opendp", ""))
    ),
    "flora_bench.training_peers": Room(12, libraries("numpy torch open_clip"), light=False),
    "flora_cli": Room(13, libraries("typer"), inside=(("rich", ""),)),
}
HEAVY = libraries(
    "torch torchvision open_clip timm peft transformers opacus sklearn PIL pydicom pillow_heif pyarrow matplotlib "
    "jinja2 markupsafe flwr nvflare"
)
# in rooms that are not light: what is deployed where there is no model
ENTRANCES = {
    "flora_secure.client.client",
    "flora_secure.client.ledger",
    "flora_secure.client.policy",
    "flora_secure.client.store",
    "flora_secure.engine.deployed.coordinator",
    "flora_secure.engine.deployed.folders",
    "flora_secure.engine.deployed.site",
    "flora_secure.server.server",
    "flora_secure.server.sums",
}
MOST_FILES, MOST_LOOSE, MOST_FLOORS = 14, 4, 10
PROTOCOLS_NEVER = {"random", "pickle", "logging", "time", "datetime", "socket", "pathlib", "io", "asyncio", "threading"}


@dataclass(frozen=True)
class Import:
    """One thing that a module imports.

    Attributes:
        name: of the module, in full.
        at_import: it runs when the importing module is imported.
        for_types: never runs.
        relative: written with dots.
        version: only the package's version, which is there before anything that the package imports.
    """

    name: str
    at_import: bool
    for_types: bool
    relative: bool = False
    version: bool = False


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()


def below(prefix: str) -> list[str]:
    chosen = [name for name in MODULES if name == prefix or name.startswith(prefix + ".")]
    assert chosen, f"no module below {prefix}"
    return chosen


def type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    return "TYPE_CHECKING" in {getattr(node.test, "id", None), getattr(node.test, "attr", None)}


def statements(node: ast.AST, at_import: bool = True, for_types: bool = False) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every statement that imports, wherever it stands."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            yield inner, at_import, for_types
        function = isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from statements(inner, at_import and not function, for_types or type_checking(inner))


@cache
def imports(own: str) -> tuple[Import, ...]:
    path = MODULES[own]
    found = []
    for node, at_import, for_types in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, at_import and not for_types, for_types) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = own if path.name == "__init__.py" else own.rpartition(".")[0]
            for _ in range(max(node.level - 1, 0)):
                package = package.rpartition(".")[0]
            base = ".".join(part for part in (package if node.level else "", node.module or "") if part)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                name, version = full if full in MODULES else base, alias.name == "__version__"
                found.append(Import(name, at_import and not for_types, for_types, bool(node.level), version))
    return tuple(found)


def room_of(module: str) -> str:
    """The longest name of a room that begins the module's; every module has one."""
    if module == API:
        return API
    names = [name for name in ROOMS if name != API and (module == name or module.startswith(name + "."))]
    assert names, f"{module} is in no room: give its folder a line in ROOMS"
    return max(names, key=len)


def arrows(module: str) -> set[str]:
    """Our modules that it imports, those that it knows for types alone among them."""
    return {found.name for found in imports(module) if found.name in MODULES and not found.version}


def top(name: str) -> str:
    return name.partition(".")[0]


def foreign(found: Iterable[Import]) -> set[str]:
    """Libraries of others."""
    return {top(one.name) for one in found} - PACKAGES.keys() - sys.stdlib_module_names


@pytest.mark.parametrize("name", MODULES)
def test_every_import_goes_down(name: str) -> None:
    own = room_of(name)
    known = {room_of(other) for other in arrows(name)} - {own}
    # a room within a room and the one around it are one floor, and circles between them are found below
    known -= {other for other in known if other.startswith(own + ".") or own.startswith(other + ".")} - {API}
    assert not {other for other in known if ROOMS[other].floor >= ROOMS[own].floor}
    assert not known & ROOMS[own].never


@pytest.mark.parametrize("name", MODULES)
def test_every_library_has_its_room(name: str) -> None:
    room = ROOMS[room_of(name)]
    found = [one for one in imports(name) if not one.for_types]
    assert foreign(one for one in found if one.at_import) <= room.libraries
    inside = {library for library, only in room.inside if only in ("", name)}
    assert foreign(found) <= room.libraries | inside


@pytest.mark.parametrize("name", [*below("flora_secure.client"), *below("flora_secure.server")])
def test_training_knows_neither_protocols_nor_privacy(name: str) -> None:
    if "torch" in foreign(one for one in imports(name) if not one.for_types):
        assert not {room_of(other) for other in arrows(name)} & {"flora_protocols", "flora_secure.privacy"}


@pytest.mark.parametrize("name", below("flora_protocols"))
def test_protocols_have_no_side_effects(name: str) -> None:
    source = MODULES[name].read_text(encoding="utf-8")
    allowed = set()
    if "from io import BytesIO\n" in source and "import io\n" not in source:  # a buffer in memory is no I/O
        allowed.add("io")
    if "from threading import Lock\n" in source and "import threading\n" not in source:  # a lock starts no thread
        allowed.add("threading")
    assert not {top(found.name) for found in imports(name)} & PROTOCOLS_NEVER - allowed


@pytest.mark.parametrize("name", [name for name in MODULES if top(name) != "flora_protocols"])
def test_imports_are_absolute(name: str) -> None:
    assert not [found.name for found in imports(name) if found.relative]


def test_nothing_imports_in_circles() -> None:
    left = {name: arrows(name) - {name} for name in MODULES}
    while free := {name for name, known in left.items() if not known & left.keys()}:
        for name in free:
            del left[name]
    # what is left reaches a circle; who is reached by nobody is no part of one
    while loose := left.keys() - set().union(*left.values()):
        for name in loose:
            del left[name]
    assert not left


def test_rooms_are_small() -> None:
    folder = PACKAGES["flora_secure"]
    sizes = {inner: len(list(inner.glob("*.py"))) for inner in folder.rglob("*") if inner.is_dir()}
    assert not {inner.name: size for inner, size in sizes.items() if size > MOST_FILES}
    assert len(list(folder.glob("*.py"))) <= MOST_LOOSE


def test_the_house_is_not_too_high() -> None:
    """The longest chain of rooms of which each knows the next."""
    known: dict[str, set[str]] = {name: set() for name in ROOMS}
    for name in below("flora_secure"):
        known[room_of(name)] |= {room_of(other) for other in arrows(name)} - {room_of(name)}

    @cache
    def height(room: str) -> int:
        return 1 + max(map(height, known[room]), default=0)

    assert max(height(room) for room in ROOMS) <= MOST_FLOORS


@cache
def needs(name: str) -> frozenset[str]:
    """Heavy libraries that run when the module is imported, by all that it imports and the packages around them."""
    met, todo = set(), [name]
    heavy: set[str] = set()
    while todo:
        module = todo.pop()
        if module in met:
            continue
        met.add(module)
        todo += [module.rpartition(".")[0]] if "." in module else []
        for found in imports(module):
            if found.at_import:
                heavy |= {top(found.name)} & HEAVY
                todo += [found.name] if found.name in MODULES else []
    return frozenset(heavy)


@pytest.mark.parametrize("name", [name for name in MODULES if name in ENTRANCES or ROOMS[room_of(name)].light])
def test_light_rooms_need_no_heavy_library(name: str) -> None:
    assert not needs(name)


LIGHT = [name for name in MODULES if not needs(name)]


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each module that should do without says when it is imported where every heavy library is missing: "" where
    it can be. One interpreter for all, which forgets our packages before each room: whatever a room needs it must
    import itself. That no module of it comes too early in a circle is seen above, from the imports.
    """
    program = (
        "import importlib, json, sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {sorted(HEAVY)!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"sys.path[:0] = {[str(folder.parent) for folder in PACKAGES.values()]!r}\n"
        "said, before = {}, ''\n"
        f"for module, room in {[(name, room_of(name)) for name in LIGHT]!r}:\n"
        f"    for name in [name for name in sys.modules if name.partition('.')[0] in {sorted(PACKAGES)!r}]:\n"
        "        if room != before:\n"
        "            del sys.modules[name]\n"
        "    before = room\n"
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
def test_what_needs_no_heavy_library_imports_without(said: dict[str, str], name: str) -> None:
    assert said[name] == ""
