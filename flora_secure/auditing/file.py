"""An audit of a file: a receipt that a client kept, or the log of a system that is not ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flora_secure.auditing.findings import Audit
from flora_secure.auditing.foreign.block import audit_foreign
from flora_secure.auditing.receipts.block import receipt_alone
from flora_secure.boundary.foreign import json_of, read_text
from flora_secure.errors import ForeignError

_RECEIPTS = ("flora-secure/client-receipt/", "flora-secure/receipt/")


def audit_file(path: Path, *, opacus: bool, receipts: Sequence[Path], server_key: str | None) -> Audit:
    """Audit the file by what it says of itself; arguments as `flora_secure.audit`.

    Raises an `errors.InputError` for a file that is neither, or cannot be read.
    """
    if receipts or server_key is not None or _is_receipt(path):
        return receipt_alone(path, receipts, server_key)
    return audit_foreign(path, opacus=opacus)


def _is_receipt(path: Path) -> bool:
    try:
        table = json_of(read_text(path))
    except ForeignError:
        return False
    return isinstance(table, dict) and str(table.get("schema")).startswith(_RECEIPTS)
