"""All audits of one run's folder, each as far as what lies there allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flora_secure.auditing import noise_meter
from flora_secure.auditing.attacked import blocks_of
from flora_secure.auditing.canaries import checks as canaries_of
from flora_secure.auditing.findings import VIOLATION, Audit, Block
from flora_secure.auditing.label import label_of
from flora_secure.auditing.legible import case_of
from flora_secure.auditing.receipts.block import receipts_block
from flora_secure.auditing.rederivation.checks import rederive
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.sums import checks as sum_checks
from flora_secure.auditing.sums.checks import Measure
from flora_secure.auditing.transcript.checks import block as transcript
from flora_secure.errors import RunFolderError
from flora_secure.planning.config import RunConfig
from flora_secure.records.reading import read_as_far


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What an auditor has beside the folder.

    Attributes:
        measure: what gives, for a run's configuration and the hash of its model, what measures its adapters.
        receipts: files of receipts that clients of the run kept.
        server_key: the public key, hex, that the run must be signed by; None for any.
        canaries: the file of the run's canaries; None for the one beside the folder.
        attacks: what attacks found, to be included; None for the file in the folder, where there is one.
    """

    measure: Callable[[RunConfig, str | None], Measure] | None = None
    receipts: Sequence[Path] = ()
    server_key: str | None = None
    canaries: Path | None = None
    attacks: Path | None = None


def audit(path: Path, brought: Brought | None = None, *, opacus: bool = True) -> Audit:
    """Audit the run in `path`.

    Args:
        path: a run folder; config.toml, rounds.jsonl and, unless the run was interrupted, report.json.
        brought: what there is beside it.
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
    brought = brought or Brought()
    if derived.figures:
        blocks += _beyond(case, brought)
    else:
        why = "the log holds numbers that no run has, see A-07" if case.records else "no line of rounds.jsonl was read"
        blocks += [
            Block.skipped("canaries, noise meter, released sums and transcript", why),
            receipts_block(case, brought.receipts, brought.server_key),
            *blocks_of(brought.attacks, case.path),
        ]
    return Audit(
        run=str(path),
        passed=all(finding.severity != VIOLATION for block in blocks for finding in block.findings),
        accountants=derived.accountants,
        left_out=derived.left_out,
        blocks=blocks,
        figures=derived.figures,
        clients=derived.clients,
        label=label_of(case, derivable=bool(derived.figures)) if case.records else None,
    )


def _beyond(case: Case, brought: Brought) -> list[Block]:
    """What is looked at beside the log."""
    model_hash = None if case.report is None else case.report.provenance.model_hash
    measured = None if brought.measure is None else brought.measure(case.config, model_hash)
    return [
        canaries_of.block(case, brought.canaries),
        noise_meter.block(case),
        receipts_block(case, brought.receipts, brought.server_key),
        sum_checks.block(case, measured),
        transcript(case),
        *blocks_of(brought.attacks, case.path),
    ]
