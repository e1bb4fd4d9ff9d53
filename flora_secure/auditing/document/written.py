"""The document put into a file, in the format that the file's name asks for."""

from __future__ import annotations

from pathlib import Path

from flora_secure.auditing.document.markdown import markdown
from flora_secure.auditing.document.registry import registry_text
from flora_secure.auditing.findings import Audit
from flora_secure.errors import ConfigError, PlotError, require
from flora_secure.records.durable import replace_file

FORMATS = (".md", ".html", ".json")


def require_format(path: Path) -> None:
    """Raises ConfigError for a name whose format is none of ours."""
    require(
        path.suffix.lower() in FORMATS,
        f"`document` {path} is none of the formats: end its name in .md (Markdown), .html (a page) or .json (the entry "
        "for a registry)",
    )


def write(audit: Audit, path: Path) -> None:
    """Write the document: Markdown to .md, a page to .html, the registry entry alone to .json. A file is replaced.

    Raises ConfigError for another name and for what cannot be written, PlotError where a page's libraries are missing.
    """
    require_format(path)
    match path.suffix.lower():
        case ".md":
            text = markdown(audit)
        case ".json":
            text = registry_text(audit) + "\n"
        case _:
            try:
                from flora_secure.auditing.document.page import page
            except ModuleNotFoundError as error:
                if error.name not in ("jinja2", "markupsafe", "matplotlib"):
                    raise
                raise PlotError(
                    f"a page needs {error.name}: pip install 'flora-secure[report]', or name a .md file"
                ) from None
            text = page(audit)
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise ConfigError(
            f"`document` {path} cannot be written: {error.strerror or error}; choose another file"
        ) from None
