"""Opening a foreign file: our documented log, or the state of a system that an importer knows by its content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from flora_secure.auditing.foreign.case import ForeignCase
from flora_secure.auditing.foreign.importers import flower, nvflare, opacus
from flora_secure.auditing.foreign.log import SCHEMA, log_of
from flora_secure.boundary.foreign import json_of, printable, read_text
from flora_secure.errors import ForeignError, PlainError

_VERSION = re.compile(r"flora-secure/foreign-log/(\d+)")


class Imported(NamedTuple):
    """What an importer makes of a system's file: keys of the log, and what is known of that system's code."""

    table: dict[str, Any]
    notes: list[str]


def opened(path: Path) -> ForeignCase:
    """The log in a JSON file, or what an importer makes of it, ready to be audited.

    A key `log` beside a system's own keys holds what that system does not write: its keys take precedence, and each of
    its rounds is the imported one with what is given.

    Raises PlainError for what is no JSON, another version of the schema, and a file that nobody here knows.
    """
    try:
        table = json_of(read_text(path))
    except ForeignError as error:
        pickled = "a pickle of others is not read; " if "(ZIP)" in str(error) else ""  # what torch.save writes
        raise PlainError(f"{path}: {error}; {pickled}{_EXPORT}") from None
    if not isinstance(table, dict):
        raise PlainError(f"{path}: must be a JSON object; {_EXPORT}")
    imported = _imported(path, table)
    log, problems = log_of(imported.table)
    said = tuple((where, printable(what)) for where, what in problems)
    return ForeignCase(str(path), log, said, tuple(imported.notes))


def as_log(path: Path) -> str:
    """The documented log of a foreign file as JSON text, unknown keys `null`: to be completed by hand."""
    return json.dumps(opened(path).log.to_table(), indent=2, ensure_ascii=False)


_EXPORT = "docs/foreign-log.md says how to export one"


def _imported(path: Path, table: dict[str, Any]) -> Imported:
    schema = table.get("schema")
    if schema == SCHEMA:
        return Imported({key: value for key, value in table.items() if key != "schema"}, [])
    if isinstance(schema, str) and (met := _VERSION.fullmatch(schema)):
        raise PlainError(f"{path}: version {met[1]:.20} of the log is not known here, {SCHEMA} is")
    own = {key: value for key, value in table.items() if key != "log"}
    given = table.get("log", {})
    for importer in (flower, opacus, nvflare):
        if importer.knows(own):
            made, notes = importer.imported(own)
            whole = _completed(made, given if isinstance(given, dict) else {"log": given})
            match whole.get("rounds"):
                case [dict() as only] if only.get("count") is None:
                    missing = "the file does not say how many rounds there were, and figures are for one of them"
                    notes = [*notes, missing]
            return Imported(whole, notes)
    raise PlainError(
        f"{path}: neither {SCHEMA} nor a file of Flower, Opacus or NVFlare that is known by its content; {_EXPORT}"
    )


def _completed(made: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The imported keys with those that were given; each given round is the imported one with what is given."""
    merged = {**made, **given}
    if isinstance(made.get("sparse"), dict) and isinstance(given.get("sparse"), dict):
        merged["sparse"] = {**made["sparse"], **given["sparse"]}
    base, rounds = made.get("rounds", []), given.get("rounds")
    if isinstance(rounds, list) and len(base) == 1:
        merged["rounds"] = [{**base[0], **one} if isinstance(one, dict) else one for one in rounds]
    return merged
