"""What lies before the auditor of receipts: the folder's own, those that clients brought, and the log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.boundary.foreign import read_bytes
from flora_secure.errors import ForeignError, PlainError, RunFolderError
from flora_secure.records.reading import read_config, read_lines
from flora_secure.records.receipts.head import Head, require_hex
from flora_secure.records.receipts.receipt import MOST_BYTES, NAME, ClientReceipt, Receipt, read_client_receipt
from flora_secure.records.receipts.receipt import read_receipt as read_own
from flora_secure.records.record import RoundRecord


@dataclass(frozen=True)
class Papers:
    """All of it, read.

    Attributes:
        folder: of the run; None where receipts are all there is.
        records: of its log.
        own: the folder's receipt; None where there is none, and then `fault` says why it cannot be read, or is empty.
        brought: clients' receipts, each by the name of its file.
        unread: files that were brought and cannot be read, and why.
        server_key: the key that the auditor expects, hex; None for any.
    """

    folder: Path | None
    records: Sequence[RoundRecord]
    own: Receipt | None
    fault: str
    brought: dict[str, ClientReceipt]
    unread: dict[str, str]
    server_key: str | None

    @classmethod
    def of(cls, case: Case | None, brought: Sequence[Path], server_key: str | None) -> Papers:
        """Read what there is. Raises `PlainError` for a `server_key` that is none."""
        if server_key is not None:
            server_key = server_key.strip().lower()
            try:
                require_hex("", server_key, 32)
            except PlainError:
                raise PlainError(
                    "the server's key must be its public key, 64 hex digits, as signing.pub has it"
                ) from None
        own, fault = None, ""
        if case is not None and os.path.lexists(case.path / NAME):
            try:
                own = read_own(case.path)
            except RunFolderError as error:
                fault = str(error)
        read: dict[str, ClientReceipt] = {}
        unread: dict[str, str] = {}
        for path in brought:
            try:
                read[str(path)] = read_client_receipt(path)
            except RunFolderError as error:
                unread[str(path)] = str(error)
        folder, records = (None, ()) if case is None else (case.path, case.records)
        return cls(folder, records, own, fault, read, unread, server_key)

    @cached_property
    def entries(self) -> list[bytes | None]:
        """The texts of config.toml and of the lines of the log, as the folder has them; None in the place of a
        config.toml that cannot be read, and no lines of a log that cannot."""
        assert self.folder is not None
        try:
            config = read_config(self.folder).encode()
        except RunFolderError:
            config = None
        return [config, *(line.encode() for line in self._lines or ())]

    @property
    def log_unread(self) -> bool:
        """Whether rounds.jsonl cannot be read."""
        return self._lines is None

    @cached_property
    def _lines(self) -> list[str] | None:
        assert self.folder is not None
        try:
            return read_lines(self.folder)[0]
        except RunFolderError:
            return None

    @cached_property
    def report(self) -> bytes | None:
        """The bytes of report.json; None where there is none."""
        assert self.folder is not None
        try:
            return read_bytes(self.folder / "report.json", MOST_BYTES)
        except ForeignError:
            return None

    @cached_property
    def heads(self) -> dict[str, Head]:
        """Every head that its signature fits, by the name of its file, the folder's first."""
        found = {}
        if self.own is not None and self.own.head.signed_by(self.own.signature):
            found[NAME] = self.own.head
        return found | {
            name: receipt.head for name, receipt in self.brought.items() if receipt.head.signed_by(receipt.signature)
        }
