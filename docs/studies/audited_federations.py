"""A federation that keeps what it promises beside one whose clients add half of their noise, and what each audit says.

    python docs/studies/audited_federations.py [--out DIR]

Both are `flora-secure simulate --epsilon 4 --rounds 5 --clients 40 --partition iid --canaries 500 --transcript` on the
icons, and both write the same claims: the log of the second is as its code believes it to be. 20 s of one core.
With --out the folders stay there, each with its audit's document (audit.html, audit.md, audit.json).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flora_secure
from flora_secure.auditing.findings import OK, VIOLATION, Audit, Block
from flora_secure.client import upload

SETTINGS: dict[str, Any] = {
    "epsilon": 4.0, "rounds": 5, "clients": 40, "partition": "iid", "canaries": 500, "transcript": True,
}  # fmt: skip


@contextmanager
def half_the_noise() -> Iterator[None]:
    """While it lasts, every client adds noise of half the standard deviation that it was told to, and says nothing."""
    encode = upload.encode_rows

    def quieter(contributions: Any, plan: Any, *rest: Any, **more: Any) -> Any:
        told = plan.sigma_local
        object.__setattr__(plan, "sigma_local", told / 2)
        try:
            return encode(contributions, plan, *rest, **more)
        finally:
            object.__setattr__(plan, "sigma_local", told)

    upload.encode_rows = quieter
    try:
        yield
    finally:
        upload.encode_rows = encode


def said(block: Block) -> str:
    """What an audit says in a line."""
    if block.left_out is not None:
        return f"not made: {block.left_out}"
    wrong = [finding for finding in block.findings if finding.severity == VIOLATION]
    if not wrong:
        fine = sum(finding.severity == OK for finding in block.findings)
        return f"nothing wrong: {fine} of {len(block.findings)} checks ok, the others warnings" if fine < len(
            block.findings
        ) else f"nothing wrong in {fine} checks"  # fmt: skip
    return "; ".join(f"**{finding.check}** {finding.title.lower()}: {finding.evidence}" for finding in wrong)


def table(audits: dict[str, Audit]) -> str:
    """Markdown: a row an audit, a column a federation."""
    names = [block.name for block in next(iter(audits.values())).blocks]
    lines = ["| audit | " + " | ".join(audits) + " |", "|---|" + "---|" * len(audits)]
    for name in names:
        cells = [said(block) for found in audits.values() for block in found.blocks if block.name == name]
        lines.append(f"| {name} | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "| verdict | " + " | ".join(found.verdict for found in audits.values()) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(description="a clean and a broken federation, audited")
    parser.add_argument("--out", type=Path, help="keep the folders and documents here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.out or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        flora_secure.simulate(out=place / "clean", html=False, **SETTINGS)
        with half_the_noise():
            flora_secure.simulate(out=place / "broken", html=False, **SETTINGS)
        audits = {name: flora_secure.audit(place / name, opacus=False) for name in ("clean", "broken")}
        for name, found in audits.items():
            for kind in ("html", "md", "json"):
                flora_secure.document(found, place / name / f"audit.{kind}")
        print(table(audits))


if __name__ == "__main__":
    main()
