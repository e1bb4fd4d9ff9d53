"""All audits of one run's folder, each as far as what lies there allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flora_secure.auditing import noise_meter
from flora_secure.auditing.canaries import checks as canaries_of
from flora_secure.auditing.findings import VIOLATION, Audit
from flora_secure.auditing.label import label_of
from flora_secure.auditing.receipts.block import receipts_block
from flora_secure.auditing.rederivation.checks import rederive
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.sums import checks as sum_checks
from flora_secure.auditing.sums.checks import Measure
from flora_secure.auditing.transcript.checks import block as transcript
from flora_secure.errors import RunFolderError
from flora_secure.planning.config import RunConfig
from flora_secure.records.reading import read_unverified


def audit(
    path: Path,
    *,
    opacus: bool = True,
    measure: Callable[[RunConfig, str | None], Measure] | None = None,
    receipts: Sequence[Path] = (),
    server_key: str | None = None,
    canaries: Path | None = None,
) -> Audit:
    """Audit the run in `path`.

    Args:
        path: a run folder; config.toml, rounds.jsonl and, unless the run was interrupted, report.json.
        opacus: ask opacus' PRV accountant too, where it is installed; it imports torch (seconds).
        measure: what gives, for a run's configuration and the hash of its model, what measures its adapters.
        receipts: files of receipts that clients of the run kept.
        server_key: the public key, hex, that the run must be signed by; None for any.
        canaries: the file of the run's canaries; None for the one beside the folder.

    Raises `flora_secure.errors.RunFolderError` for what cannot be read, or holds no round.
    """
    run, breaks = read_unverified(path)
    if not run.records:
        raise RunFolderError(f"{path / 'rounds.jsonl'} holds no complete round: there is nothing to audit")
    case = Case(path, run.config, run.records, run.report, breaks)
    derived = rederive(case, opacus=opacus)
    model_hash = None if run.report is None else run.report.provenance.model_hash
    measured = None if measure is None else measure(run.config, model_hash)
    blocks = [
        derived.block,
        canaries_of.block(case, canaries),
        noise_meter.block(case),
        receipts_block(case, receipts, server_key),
        sum_checks.block(case, measured),
        transcript(case),
    ]
    return Audit(
        run=str(path),
        passed=all(finding.severity != VIOLATION for block in blocks for finding in block.findings),
        accountants=derived.accountants,
        left_out=derived.left_out,
        blocks=blocks,
        figures=derived.figures,
        clients=derived.clients,
        label=label_of(case, derivable=bool(derived.figures)),
    )
