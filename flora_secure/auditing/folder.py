"""All audits of one run's folder, each as far as what lies there allows."""

from __future__ import annotations

from pathlib import Path

from flora_secure.auditing.attacked import blocks_of
from flora_secure.auditing.findings import VIOLATION, Audit
from flora_secure.auditing.rederivation.checks import rederive
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import RunFolderError
from flora_secure.records.reading import read_unverified


def audit(path: Path, *, opacus: bool = True, attacks: Path | None = None) -> Audit:
    """Audit the run in `path`.

    Args:
        path: a run folder; config.toml, rounds.jsonl and, unless the run was interrupted, report.json.
        opacus: ask opacus' PRV accountant too, where it is installed; it imports torch (seconds).
        attacks: the file of what attacks found; None for the one in the folder, if there is one.

    Raises `flora_secure.errors.RunFolderError` for what cannot be read, or holds no round.
    """
    run, breaks = read_unverified(path)
    if not run.records:
        raise RunFolderError(f"{path / 'rounds.jsonl'} holds no complete round: there is nothing to audit")
    case = Case(path, run.config, run.records, run.report, breaks)
    derived = rederive(case, opacus=opacus)
    blocks = [derived.block, *blocks_of(attacks, path)]
    return Audit(
        run=str(path),
        passed=all(finding.severity != VIOLATION for block in blocks for finding in block.findings),
        accountants=derived.accountants,
        left_out=derived.left_out,
        blocks=blocks,
        figures=derived.figures,
        clients=derived.clients,
    )
