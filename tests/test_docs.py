"""The docs' map is complete, their links and paths lead somewhere, and the rooms are the folders that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "protocols").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as code hosts make it."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_paths_that_are_named_exist(page: Path) -> None:
    """Whole ones, those that begin with a room, and those below tests/ that docs/checks.md has."""
    rooms = "|".join(folder.name for folder in rooms_that_exist())
    text = page.read_text(encoding="utf-8")
    whole = re.findall(r"(?<![\w./-])((?:flora_secure|tests|docs|cli|protocols)/[\w./-]+\.\w+)\b", text)
    begun = re.findall(rf"`((?:{rooms})/\w+\.py)\b", text)
    assert [path for path in whole if not ((ROOT / path).exists() or (ROOT / "tests" / path).exists())] == []
    assert [path for path in begun if not (ROOT / "flora_secure" / path).exists()] == []


def test_every_page_schema_and_study_is_on_the_map() -> None:
    index = DOCS / "index.md"
    linked = {(index.parent / target).resolve() for target, _ in LINK.findall(index.read_text(encoding="utf-8"))}
    wanted = {*DOCS.rglob("*.md"), *DOCS.glob("*.json"), *(DOCS / "studies").glob("*.py"), DOCS / "making"} - {index}
    assert len(wanted) > 20
    assert wanted - linked == set()


def rooms_that_exist() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "flora_secure").glob("*/__init__.py"))


def test_the_rooms_of_the_architecture_are_the_folders_that_exist() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Rooms")[2].partition("###")[0]
    named = re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE)
    assert sorted(named) == [room.name for room in rooms_that_exist()]
