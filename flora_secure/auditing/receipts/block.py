"""The block of receipts: which checks are made of what there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flora_secure.auditing.findings import VIOLATION, Audit, Block
from flora_secure.auditing.receipts import checks
from flora_secure.auditing.receipts.papers import Papers
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import RunFolderError
from flora_secure.records.receipts.receipt import NAME as RECEIPT

NAME = "receipt"
_OWN = (checks.log, checks.report, checks.adapter)
_BROUGHT = (checks.clients, checks.remembered, checks.one_log)
_BOTH = (checks.same_lines, checks.tail, checks.told)
_ASSUMED = "Nobody but its owner has the key that signed."
_UNSEEN = (
    "Whether what was signed is true: a server that signs a false log from the start is found by its clients alone."
)


def receipts_block(case: Case, brought: Sequence[Path] = (), server_key: str | None = None) -> Block:
    """Audit the receipt in a run's folder, and those that clients `brought`, against its log.

    `server_key`: the public key, hex, that is expected; None for any. Raises `flora_secure.errors.PlainError` for one
    that is no key.
    """
    papers = Papers.of(case, brought, server_key)
    if papers.own is None and not papers.fault and not papers.brought and not papers.unread:
        why = f"the folder has no {RECEIPT}: its run has not ended, an older release wrote it, or it was taken away"
        return Block.skipped(NAME, why, [_UNSEEN])
    findings = [checks.signature(papers), checks.key(papers), *(check(papers) for check in _OWN)]
    if brought:
        findings += [check(papers) for check in (*_BROUGHT, *_BOTH)]
    return Block(
        name=NAME,
        left_out=None,
        findings=sorted(findings, key=lambda finding: finding.check),
        measurements=[],
        checked=["That configuration, log, report and adapter are those that a key has signed, and which key."]
        + (["That clients' receipts are of this log, and say what it says."] if brought else []),
        assumed=[_ASSUMED],
        uncovered=[_UNSEEN, "The time of signing, which is the signer's own."]
        + ([] if brought else ["Whether clients were shown the same log: no client's receipt was brought."]),
    )


def receipt_alone(path: Path, brought: Sequence[Path] = (), server_key: str | None = None) -> Audit:
    """Audit a client's receipt without its run's folder, beside others that were `brought`.

    Raises `flora_secure.errors.RunFolderError` where it cannot be read, and as `receipts_block`.
    """
    papers = Papers.of(None, [path, *brought], server_key)
    if str(path) in papers.unread:
        raise RunFolderError(papers.unread[str(path)])
    findings = [checks.key(papers), *(check(papers) for check in _BROUGHT)]
    block = Block(
        name=NAME,
        left_out=None,
        findings=sorted(findings, key=lambda finding: finding.check),
        measurements=[],
        checked=["That the receipt is signed, by which key, and that its rounds are in the log that is signed."],
        assumed=[_ASSUMED],
        uncovered=[
            "The log itself: the run's folder was not brought.",
            "The time of signing, which is the signer's own.",
        ],
    )
    passed = all(finding.severity != VIOLATION for finding in findings)
    return Audit(
        run=str(path), passed=passed, accountants={}, left_out={}, blocks=[block], figures=[], clients=[]
    )  # fmt: skip
