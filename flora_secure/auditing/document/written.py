"""Files of documents, and the formats that their names ask for."""

from __future__ import annotations

from pathlib import Path

from flora_secure.errors import ConfigError, require
from flora_secure.records.durable import replace_file

FORMATS = (".md", ".html", ".json")


def require_format(path: Path) -> None:
    """Raises ConfigError for a name whose format is none of ours."""
    require(
        path.suffix.lower() in FORMATS,
        f"`document` {path} is none of the formats: end its name in .md (Markdown), .html (a page) or .json (the entry "
        "for a registry)",
    )


def write(text: str, path: Path) -> None:
    """Put the document into a file, which is replaced. Raises ConfigError for what cannot be written."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"`document` {path} cannot be written: {reason}; choose another file") from None
