"""Receipts of a federation: every site gets its own, checks it against what it remembers, and keeps it."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sites import SIGNER, SITES, Federation

import flora_secure
from flora_secure.client.ledger import ClientLedger
from flora_secure.errors import RunInterrupted
from flora_secure.records import run_folder
from flora_secure.records.adapter_card import adapter_hash
from flora_secure.records.receipts.head import Signer
from flora_secure.records.receipts.receipt import client_receipts, read_client_receipt, read_receipt, signed
from flora_secure.rounds.farewell import encode_receipt, is_farewell, is_receipt
from flora_secure.rounds.opening import is_request
from flora_secure.rounds.reply import Refused, decode_reply


def kept(folder: Path, number: int) -> list[Path]:
    return sorted((folder / f"site{number}" / "receipts").glob("*.json"))


def test_every_site_keeps_a_receipt_of_its_rounds_that_the_audit_takes(tmp_path: Path) -> None:
    """Site 2 misses the second round; site 1 is away when the receipts are handed out."""
    seen: list[int] = []

    def spoil(client: int, request: bytes, reply: bytes) -> bytes | None:
        missed = client == 2 and is_request(request) and len(seen) == 1
        return None if missed else reply

    federation = Federation(tmp_path)
    federation.wires.spoil = spoil
    answer = federation.wires.exchange

    def exchange(outbox: dict[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        return answer({n: message for n, message in outbox.items() if n != 1 or not is_receipt(message)}, patience)

    federation.wires.exchange = exchange
    run = federation.host(progress=lambda number, of, record: seen.append(number)).run(tmp_path / "run")
    assert run.records[1].dropped == [2]
    handed = run.folder / "receipts" / "client-1.json"
    assert federation.told[-1][-2:] == [
        f"2 sites have their receipts, signed by {SIGNER.public}",
        f"receipts of site1 are in {handed.parent}: give each its own",
    ]
    assert [path.name for path in handed.parent.iterdir()] == ["client-1.json"]
    files = [*kept(tmp_path, 0), handed, *kept(tmp_path, 2)]
    assert len(files) == SITES
    for number, path in enumerate(files):
        receipt = read_client_receipt(path)
        given = ClientLedger(tmp_path / f"site{number}" / "state" / "ledger.jsonl").given
        assert receipt.client == number
        assert receipt.head == read_receipt(run.folder).head
        assert receipt.head.lasting
        assert [proof.round for proof in receipt.rounds] == [1, 2, 3]
        text = path.read_text()
        for secret in (read_receipt(run.folder).salt, "participants", "accuracy", "survivors"):
            assert secret not in text
        if path != handed:
            assert [told.round for told in receipt.told] == [one.event.round for one in given]
            line = federation.told[number][-1]
            assert line == f"the receipt of 3 rounds is in {path}, signed by {SIGNER.public}"
    assert flora_secure.audit(files[0], server_key=SIGNER.public).passed
    audit = flora_secure.audit(run.folder, opacus=False, receipts=files, server_key=SIGNER.public)
    findings = {one.check: one.severity for one in audit.findings if one.check.startswith("R-")}
    assert findings == {f"R-{n:02}": "ok" for n in range(1, 12)}


Cheat = Callable[["Lies"], dict[int, str]]


@dataclasses.dataclass
class Lies:
    """What a server that lies has at hand once the run in `folder` is over."""

    folder: Path
    session: bytes

    def of(self, lines: list[list[int]], signer: Signer = SIGNER, session: bytes | None = None) -> dict[int, str]:
        """Receipts of a log that the server signs, in which these were the participants."""
        log = self.folder / "rounds.jsonl"
        real = log.read_bytes()
        log.write_bytes(b"".join(real.splitlines(keepends=True)[: len(lines)]))
        report = (self.folder / "report.json").read_bytes()
        made = signed(self.folder, report, adapter_hash(self.folder / "adapter"), session or self.session, signer)
        log.write_bytes(real)
        return client_receipts(made, lines, range(SITES))


EVERYBODY = [[0, 1, 2]] * 3


def forged(lies: Lies) -> dict[int, str]:
    tables = {client: json.loads(text) for client, text in lies.of(EVERYBODY).items()}
    for table in tables.values():
        table["head"]["size"] = 5
    return {client: json.dumps(table) for client, table in tables.items()}


WRONG: dict[str, tuple[Cheat, str, bool]] = {
    "a round left out": (
        lambda lies: lies.of([[0, 1, 2], [], [0, 1, 2]]),
        "it lacks round 2, in which this site uploaded",
        True,
    ),
    "a shorter log": (lambda lies: lies.of(EVERYBODY[:2]), "it is of a log of 2 rounds, and the run has 3", True),
    "another's": (lambda lies: dict(zip(range(SITES), [*lies.of(EVERYBODY).values()] * 2, strict=False)), "", True),
    "rotated": (
        lambda lies: {(n + 1) % SITES: text for n, text in lies.of(EVERYBODY).items()},
        "'s, and this site is client",
        True,
    ),
    "another run": (
        lambda lies: lies.of(EVERYBODY, session=bytes(16)),
        "it is of another run than the last that this site uploaded in",
        False,
    ),
    "another key": (
        lambda lies: lies.of(EVERYBODY, Signer(bytes(32), lasting=True)),
        f"and signing.pub has {SIGNER.public}",
        False,
    ),
    "forged": (forged, "a receipt whose signature does not verify", False),
    "rubbish": (lambda lies: dict.fromkeys(range(SITES), '{"schema": 1}'), "sends no receipt: the receipt: ", False),
}


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, Lies]:
    """A federation that is over, whose sites have not had their receipts. Its server was killed when it had signed and
    not written the report."""
    folder = tmp_path_factory.mktemp("lies")
    federation = Federation(folder)
    answer, replace = federation.wires.exchange, run_folder.replace_file

    def exchange(outbox: dict[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        return answer({} if is_receipt(next(iter(outbox.values()))) else outbox, patience)

    def killed(path: Path, data: bytes, **more: int) -> None:
        if path.name == "report.json":
            raise KeyboardInterrupt
        replace(path, data, **more)

    federation.wires.exchange = exchange
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_folder, "replace_file", killed)
        with pytest.raises(RunInterrupted):
            federation.host().run(folder / "run")
    shutil.copy(folder / "run" / "receipt.json", folder)
    run = federation.host().run(folder / "run")
    return federation, Lies(run.folder, bytes.fromhex(read_receipt(run.folder).head.session))


def test_a_server_that_was_killed_before_the_report_signs_the_same_log_again(over: tuple[Federation, Lies]) -> None:
    """What it had signed was shown to nobody."""
    first, second = (read_receipt(place) for place in (over[0].folder, over[1].folder))
    assert (first.head.session, first.head.root, first.salt) == (second.head.session, second.head.root, second.salt)
    assert first.head.report != second.head.report
    assert not [one for one in flora_secure.audit(over[1].folder, opacus=False).findings if one.severity == "violation"]


@pytest.mark.parametrize(("cheat", "says", "convicts"), WRONG.values(), ids=WRONG)
def test_a_wrong_receipt_is_said_refused_and_kept_where_it_convicts(
    over: tuple[Federation, Lies], cheat: Cheat, says: str, convicts: bool
) -> None:
    federation, lies = over
    for path in federation.folder.glob("site*/receipts/*"):
        path.unlink()
    if not says:  # the right ones, so that what follows is no accident
        for client, text in cheat(lies).items():
            assert decode_reply(federation.sites[client].answer(encode_receipt(text))) == b""
        return
    for client, text in cheat(lies).items():
        told = federation.told[client]
        told.clear()
        reply = decode_reply(federation.sites[client].answer(encode_receipt(text)))
        assert isinstance(reply, Refused)
        assert len(told) == 1
        assert says in told[0]
        files = kept(federation.folder, client)
        assert len(files) == convicts
        if convicts and "lacks" in says:
            alone = flora_secure.audit(files[0], server_key=SIGNER.public)
            assert "R-07" in [one.check for one in alone.findings if one.severity == "violation"]


def test_a_second_head_is_kept_and_a_third_is_not(over: tuple[Federation, Lies]) -> None:
    federation, lies = over
    site, report = federation.sites[0], lies.folder / "report.json"
    for path in federation.folder.glob("site*/receipts/*"):
        path.unlink()
    right = lies.of(EVERYBODY)[0]
    assert decode_reply(site.answer(encode_receipt(right))) == b""
    assert decode_reply(site.answer(encode_receipt(right))) == b""  # the same again
    real = report.read_bytes()
    for space in (1, 2):
        report.write_bytes(real + b" " * space)
        other = lies.of(EVERYBODY)[0]
        report.write_bytes(real)
        assert isinstance(decode_reply(site.answer(encode_receipt(other))), Refused)
        assert "it is the second head that the server signs of one run" in federation.told[0][-1]
        files = kept(federation.folder, 0)
        assert len(files) == 2
    alone = flora_secure.audit(files[0], receipts=files[1:])
    assert [one.check for one in alone.findings if one.severity == "violation"] == ["R-10"]


def test_a_site_without_the_servers_key_says_so(over: tuple[Federation, Lies]) -> None:
    federation, lies = over
    site = dataclasses.replace(federation.sites[1], server_key=None)
    for path in federation.folder.glob("site*/receipts/*"):
        path.unlink()
    assert decode_reply(site.answer(encode_receipt(lies.of(EVERYBODY)[1]))) == b""
    assert federation.told[1][-1].endswith("which is nobody's that this site was told of (no signing.pub)")


def test_the_receipt_comes_last(over: tuple[Federation, Lies]) -> None:
    last = next(iter(over[0].wires.asked[-2].values()))
    assert is_farewell(last)
