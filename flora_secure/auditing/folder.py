"""All audits of one run's folder, each as far as what lies there allows."""

from __future__ import annotations

from pathlib import Path

from flora_secure.auditing.findings import VIOLATION, Audit
from flora_secure.auditing.legible import case_of
from flora_secure.auditing.rederivation.checks import rederive
from flora_secure.errors import RunFolderError
from flora_secure.records.reading import read_as_far


def audit(path: Path, *, opacus: bool = True) -> Audit:
    """Audit the run in `path`.

    Args:
        path: a run folder; config.toml, rounds.jsonl and, unless the run was interrupted, report.json.
        opacus: ask opacus' PRV accountant too, where it is installed; it imports torch (seconds).

    A file that cannot be read is a finding, and all that can be looked at without it is. Raises
    `flora_secure.errors.RunFolderError` where neither a line of the log nor the report can be read.
    """
    found = read_as_far(path)
    if not found.records and found.report is None:
        empty = f"{path / 'rounds.jsonl'} holds no complete round: there is nothing to audit"
        raise RunFolderError(found.unread[0] if found.unread else empty)
    case = case_of(path, found)
    derived = rederive(case, opacus=opacus)
    blocks = [derived.block]
    return Audit(
        run=str(path),
        passed=all(finding.severity != VIOLATION for block in blocks for finding in block.findings),
        accountants=derived.accountants,
        left_out=derived.left_out,
        blocks=blocks,
        figures=derived.figures,
        clients=derived.clients,
    )
