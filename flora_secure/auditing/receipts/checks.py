"""The checks of receipts, each a function of what lies before the auditor."""

from __future__ import annotations

import itertools
import math

from flora_secure.auditing.findings import WARNING, Finding, Problem, judged, unchecked
from flora_secure.auditing.receipts.papers import Papers
from flora_secure.errors import RunFolderError
from flora_secure.records.adapter_card import adapter_hash
from flora_secure.records.receipts.receipt import NAME, Receipt, Told

_SAME = 1e-9  # relative, of numbers that two machines wrote down
_SEARCHED = 200  # lines out of place whose place is looked for
_PUBLISH = "publish the folder that was signed"
_RUN_IT = "do not rely on this folder: ask the owner of the key for the one that was signed"


def signature(papers: Papers) -> Finding:
    """R-01: the folder's receipt is signed, and the leaves that it lists are those that are signed."""
    title = ("The folder's receipt is signed by the key that it names", "The folder's receipt is not as it was signed")
    own = papers.own
    if own is None:
        what = papers.fault or f"a client has a signed receipt of a run, and this folder has no {NAME}"
        return judged("R-01", title, [(NAME, what)], "", _RUN_IT)
    problems: list[Problem] = []
    if not own.head.signed_by(own.signature):
        problems.append((NAME, f"the signature is not by the key {own.head.key}"))
    if (len(own.leaves), own.tree.root.hex()) != (own.head.size, own.head.root):
        problems.append((NAME, "the leaves that it lists do not have the root that is signed"))
    fine = f"{own.head.size - 1} rounds, signed at {own.head.time} by the signer's own clock"
    return judged("R-01", title, problems, fine, _RUN_IT)


def key(papers: Papers) -> Finding:
    """R-02: which key signed, and whether it is the one that is expected."""
    title = ("The key is the one expected", "The key is not the one expected")
    if papers.server_key is not None:
        wrong = [
            (name, f"signed by {head.key}, expected {papers.server_key}")
            for name, head in papers.heads.items()
            if head.key != papers.server_key
        ]
        return judged("R-02", title, wrong, papers.server_key, "ask whose key it is")
    lasting = {head.key: head.lasting for head in papers.heads.values()}
    if not lasting:
        return unchecked("R-02", title, "nothing here has a valid signature")
    said = (
        f"{name}, {'which its owner keeps' if kept else 'made for this run alone: it shows that nothing was changed '}"
        f"{'' if kept else 'since, and not who ran it'}"
        for name, kept in lasting.items()
    )
    remedy = "compare it with the server's signing.pub, or give that as the server's key"
    return unchecked("R-02", title, f"nobody has said whose key it is: {'; '.join(said)}", remedy)


def log(papers: Papers) -> Finding:
    """R-03: config.toml and every line are those that were signed."""
    title = ("Configuration and log are those that were signed", "Configuration or log are not those that were signed")
    if papers.own is None:
        return unchecked("R-03", title, f"without {NAME} nobody knows how the lines were blinded")
    problems = _differences(papers.own, papers.entries, log_unread=papers.log_unread)
    return judged("R-03", title, problems, f"config.toml and {len(papers.entries) - 1} lines", _PUBLISH)


def _differences(own: Receipt, entries: list[bytes | None], *, log_unread: bool) -> list[Problem]:
    found: list[Problem] = []
    apart = [
        place
        for place, (entry, leaf) in enumerate(zip(entries, own.leaves, strict=False))
        if entry is None or own.leaf(place, entry) != leaf
    ]
    for place in apart:
        entry = entries[place]
        if entry is None or place == 0:
            found.append(("config.toml", "cannot be read" if entry is None else "was edited"))
            continue
        others = apart if len(apart) <= _SEARCHED else []
        others = [*others, *range(len(entries), min(len(own.leaves), len(entries) + _SEARCHED))]
        real = next((other for other in others if own.leaf(other, entry) == own.leaves[other]), None)
        what = "was edited" if real is None else f"was moved: it was signed as line {real}"
        found.append((f"rounds.jsonl, line {place}", what))
    signed, there = len(own.leaves) - 1, len(entries) - 1
    if log_unread:
        found.append(("rounds.jsonl", f"cannot be read: {signed} lines were signed"))
    elif there < signed:
        found.append((f"rounds.jsonl, line {there + 1}", f"was cut off: {signed} lines were signed, {there} are here"))
    elif there > signed:
        found.append((f"rounds.jsonl, line {signed + 1}", f"was added: {signed} lines were signed, {there} are here"))
    return found


def report(papers: Papers) -> Finding:
    """R-04: the report is the one that was signed."""
    title = ("The report is the one that was signed", "The report is not the one that was signed")
    if papers.own is None:
        return unchecked("R-04", title, f"without {NAME} nobody knows how its hash was blinded")
    if papers.report is None:
        return unchecked("R-04", title, "there is no report.json that can be read")
    same = papers.own.leaf(papers.own.head.size, papers.report) == papers.own.head.report
    problems = [] if same else [("report.json", "its hash is not the one that is signed")]
    return judged("R-04", title, problems, "SHA-256, blinded", _PUBLISH)


def adapter(papers: Papers) -> Finding:
    """R-05: the adapter is the one that was signed, by every head that is here."""
    title = ("The adapter is the one that was signed", "The adapter is not the one that was signed")
    assert papers.folder is not None
    try:
        found = adapter_hash(papers.folder / "adapter")
    except RunFolderError as error:
        return unchecked("R-05", title, str(error))
    problems = [
        (name, f"signs the adapter {head.adapter}, and the one in adapter/ is {found}")
        for name, head in papers.heads.items()
        if head.adapter != found
    ]
    return judged("R-05", title, problems, found, _PUBLISH)


def clients(papers: Papers) -> Finding:
    """R-06: every receipt that was brought is signed, and its rounds are in the log that is signed."""
    title = (
        "Clients' receipts are signed, and their rounds lead to the signed root",
        "A client's receipt does not hold",
    )
    problems: list[Problem] = []
    for name, receipt in papers.brought.items():
        if name not in papers.heads:
            problems.append((name, f"the signature is not by the key {receipt.head.key}"))
        problems += [(name, f"the path of round {number} does not lead to the root") for number in receipt.astray]
    if not problems and papers.unread:
        return judged("R-06", title, list(papers.unread.items()), "", "ask for it again", WARNING)
    fine = ", ".join(f"client {one.client} with {len(one.rounds)} rounds" for one in papers.brought.values())
    return judged("R-06", title, problems, fine, "ask the client for the receipt that it was sent")


def remembered(papers: Papers) -> Finding:
    """R-07: no client remembers an upload in a round that the signed log does not name it in."""
    title = ("Every round that a client uploaded in names it", "A client uploaded in a round that does not name it")
    problems = [
        (name, f"client {receipt.client} remembers an upload in round {number}, which its receipt lacks")
        for name, receipt in papers.brought.items()
        for number in receipt.lacking
    ]
    told = sum(len(receipt.told) for receipt in papers.brought.values())
    remedy = f"the server left uploads out of the log: ask whoever owns the key {_keys(papers)}"
    return judged("R-07", title, problems, f"{told} rounds remembered", remedy)


def same_lines(papers: Papers) -> Finding:
    """R-08: a client's rounds are those lines of the folder's log that name it, with the same content."""
    title = (
        "Clients' rounds are in the folder's log, line by line",
        "A client's rounds are not those of the folder's log",
    )
    own = papers.own
    if own is None:
        return unchecked("R-08", title, f"without {NAME} nobody knows how the lines were blinded")
    if papers.log_unread:
        return unchecked("R-08", title, "rounds.jsonl cannot be read")
    problems: list[Problem] = []
    for name, receipt in papers.brought.items():
        if (receipt.head.key, receipt.head.session) != (own.head.key, own.head.session):
            what = f"is of run {receipt.head.session:.12}…, signed by {receipt.head.key}; the folder's is of run "
            problems.append((name, f"{what}{own.head.session:.12}…, signed by {own.head.key}"))
            continue
        leaves = {proof.round: proof.leaf for proof in receipt.rounds}
        for number, leaf in leaves.items():
            entry = papers.entries[number] if number < len(papers.entries) else None
            if entry is not None and own.leaf(number, entry) != leaf:
                problems.append((f"rounds.jsonl, line {number}", f"is not the line that client {receipt.client} has"))
        for number, record in enumerate(papers.records, 1):
            if (receipt.client in record.participants) != (number in leaves):
                has = "has no receipt of it" if number not in leaves else "has a receipt of it, and is not named"
                problems.append((f"rounds.jsonl, line {number}", f"client {receipt.client} {has}"))
    return judged("R-08", title, problems, f"{len(papers.brought)} receipts", _RUN_IT)


def tail(papers: Papers) -> Finding:
    """R-09: no client has a signed head of more rounds than the folder's log has."""
    title = ("The log is as long as clients know it", "The log is shorter than clients know it")
    if papers.log_unread:
        return unchecked("R-09", title, "rounds.jsonl cannot be read")
    problems = [
        (name, f"the signed log has {head.size - 1} rounds, and the folder's {len(papers.entries) - 1}")
        for name, head in papers.heads.items()
        if name in papers.brought and head.size > len(papers.entries)
    ]
    return judged("R-09", title, problems, f"{len(papers.entries) - 1} rounds", _RUN_IT)


def one_log(papers: Papers) -> Finding:
    """R-10: one key has signed one log of one run."""
    title = ("Every head is of the same log", "The server's key has signed two logs of one run")
    problems = [
        (name, f"and {other} contradict each other, both signed by {head.key} for run {head.session:.12}…")
        for (name, head), (other, second) in itertools.combinations(papers.heads.items(), 2)
        if head.contradicts(second)
    ]
    remedy = f"whoever owns the key {_keys(papers)} showed different logs to different people: keep both receipts"
    return judged("R-10", title, problems, f"{len(papers.heads)} heads", remedy)


def told(papers: Papers) -> Finding:
    """R-11: the noise that a line claims is the noise that the client was told before it uploaded."""
    title = ("Lines say what clients were told", "A line does not say what a client was told")
    problems: list[Problem] = []
    for receipt in papers.brought.values():
        for one in receipt.told:
            if one.round <= len(papers.records):
                record = papers.records[one.round - 1]
                problems += [
                    (f"rounds.jsonl, line {one.round}", f"{name} is {getattr(record, name)!r}, and client "
                     f"{receipt.client} was told {getattr(one, name)!r}")
                    for name in _numbers()
                    if not math.isclose(getattr(record, name), getattr(one, name), rel_tol=_SAME)
                ]  # fmt: skip
    return judged("R-11", title, problems, "noise, clip norm and colluders of every round remembered", _RUN_IT)


def _numbers() -> list[str]:
    return [name for name in Told.__dataclass_fields__ if name != "round"]


def _keys(papers: Papers) -> str:
    return ", ".join(dict.fromkeys(head.key for head in papers.heads.values())) or "that it names"
