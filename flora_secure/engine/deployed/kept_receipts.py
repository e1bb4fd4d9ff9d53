"""The receipts that a site keeps: checked against the server's key and against what the site itself remembers.

They lie in `receipts/` of its folder, one file a signed head, and none is ever replaced: two of one run are what shows
that its server signed two logs.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from flora_protocols import Code, PeerError
from flora_secure.client.ledger import Given
from flora_secure.errors import RunFolderError, first_line
from flora_secure.records.adapter_card import adapter_hash
from flora_secure.records.durable import create_file
from flora_secure.records.receipts.receipt import ClientReceipt, Told, client_receipt_of

FOLDER = "receipts"
_MOST_OF_A_RUN = 2  # files: one, and one that contradicts it; a server cannot fill a site's disk


def keep_receipt(
    text: str, *, folder: Path, client: int, server_key: str | None, given: Sequence[Given], rounds: int
) -> str:
    """Check the receipt of a run that is over, and keep it with what the site's ledger says of the same run.

    Args:
        text: what the server sent.
        folder: the site's.
        client: its number.
        server_key: the server's public key, hex, as the coordinator gave it; None where it was not given.
        given: all that the site's ledger holds.
        rounds: that the run has by the site's own configuration.

    Returns where it is and which key signed it, a line for the site's log.

    Raises PeerError naming the server for what is no receipt, is not signed or by another key (nothing is kept then),
    and for one that is signed and wrong, which is kept, since it convicts the server.
    """
    try:
        receipt = client_receipt_of(text, "the receipt")
    except RunFolderError as error:
        raise PeerError("server", f"sends no receipt: {first_line(error)}", Code.BAD_BODY) from None
    head = receipt.head
    if not head.signed_by(receipt.signature):
        raise PeerError("server", "sends a receipt whose signature does not verify", Code.BAD_SIGNATURE)
    if server_key not in (None, head.key):
        what = f"signs its receipt by the key {head.key}, and signing.pub has {server_key}"
        raise PeerError("server", what, Code.BAD_SIGNATURE)
    if receipt.told:
        raise PeerError("server", "says in its receipt what the site is to remember", Code.BAD_BODY)
    mine = [one.event for one in given if one.session == head.session]
    told = sorted((Told.of(event) for event in mine), key=lambda one: one.round)
    receipt = dataclasses.replace(receipt, told=told)
    last = given[-1].session if given else None
    # of an older run it has the receipt: then this one is of a run in which it uploaded nothing
    answered = last is not None and any((folder / FOLDER).glob(f"{last}-*.json"))
    problems = _problems(receipt, client, None if answered and not mine else last, rounds)
    others = sorted((folder / FOLDER).glob(f"{head.session}-*.json"))
    path = folder / FOLDER / f"{head.session}-{hashlib.sha256(head.signed).hexdigest()[:16]}.json"
    if any(other != path for other in others):
        problems.append(f"it is the second head that the server signs of one run; the other is {others[0]}")
    if mine and path not in others and len(others) < _MOST_OF_A_RUN:
        path.parent.mkdir(exist_ok=True)
        create_file(path, receipt.to_json().encode())
    if problems:
        kept = f"; kept as evidence in {path.parent}" if mine else ""
        raise PeerError("server", f"signs a wrong receipt: {'; '.join(problems)}{kept}", Code.BAD_BODY)
    if not mine:
        return "the receipt is right, and this site uploaded in no round of the run: nothing is kept"
    return f"the receipt of {len(receipt.rounds)} rounds is in {path}, signed by {_whose(head.key, server_key)}" + (
        _adapter(folder, head.adapter)
    )


def _problems(receipt: ClientReceipt, client: int, last: str | None, rounds: int) -> list[str]:
    """What is wrong with a receipt that is signed."""
    found = []
    if receipt.client != client:
        found.append(f"it is client {receipt.client}'s, and this site is client {client}")
    if last not in (None, receipt.head.session):
        found.append("it is of another run than the last that this site uploaded in")
    if receipt.head.size != rounds + 1:
        found.append(f"it is of a log of {receipt.head.size - 1} rounds, and the run has {rounds}")
    if receipt.astray:
        found.append(f"round {receipt.astray[0]} is not in the log that is signed")
    if receipt.lacking:
        found.append(f"it lacks round {receipt.lacking[0]}, in which this site uploaded")
    return found


def _whose(key: str, server_key: str | None) -> str:
    return key if server_key is not None else f"{key}, which is nobody's that this site was told of (no signing.pub)"


def _adapter(folder: Path, signed: str) -> str:
    """What is to be said of the site's own copy of the adapter: other releases may write the same values otherwise."""
    try:
        same = adapter_hash(folder / "adapter") == signed
    except RunFolderError:
        return "; there is no adapter here to compare"
    return "" if same else "; adapter/ here is not, to the byte, the file that is signed"
