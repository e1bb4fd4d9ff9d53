"""R-01 to R-11: a signed run whose log, report, adapter or receipt is changed afterwards, and servers that sign two."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from falsifying import Table, chained, read

import flora_secure
from flora_secure import audit
from flora_secure.auditing.findings import OK, VIOLATION, WARNING, Block
from flora_secure.auditing.receipts.block import receipts_block
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import InputError, PlainError
from flora_secure.records.adapter_card import adapter_hash
from flora_secure.records.reading import read_unverified
from flora_secure.records.receipts.head import Signer
from flora_secure.records.receipts.receipt import Told, client_receipts, read_client_receipt, signed

SERVER, STRANGER = (Signer(bytes([n]) * 32, lasting=True) for n in (7, 8))
SESSION = bytes(range(16))
WHO = 3  # a client that takes part in every round


def sign(folder: Path, signer: Signer = SERVER, session: bytes = SESSION) -> None:
    """Sign a folder as it is."""
    report = (folder / "report.json").read_bytes()
    receipt = signed(folder, report, adapter_hash(folder / "adapter"), session, signer)
    (folder / "receipt.json").write_text(receipt.to_json())
    lines, _ = read(folder)
    clients = client_receipts(receipt, [line["participants"] for line in lines], [WHO])
    kept = json.loads(clients[WHO])
    names = [field.name for field in dataclasses.fields(Told)]
    kept["told"] = [{name: line[name] for name in names} for line in lines if WHO in line["survivors"]]
    beside(folder).write_text(json.dumps(kept))


def beside(folder: Path) -> Path:
    """The receipt that a client has kept."""
    return folder.parent / f"{folder.name}-client.json"


@pytest.fixture(scope="module")
def honest(genuine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "run"
    shutil.copytree(genuine, folder)
    sign(folder)
    return folder


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    shutil.copy(beside(honest), tmp_path / "run-client.json")
    return Path(shutil.copytree(honest, tmp_path / "run"))


def block(folder: Path, brought: Sequence[Path] = (), key: str | None = None) -> Block:
    found, breaks = read_unverified(folder)
    return receipts_block(Case(folder, found.config, found.records, found.report, breaks), brought, key)


def wrong(folder: Path, brought: Sequence[Path] = (), key: str | None = None) -> dict[str, str]:
    return {one.check: one.evidence for one in block(folder, brought, key).findings if one.severity == VIOLATION}


def rewritten(folder: Path, cheat: Callable[[list[Table]], object]) -> None:
    """The log changed, with hashes that fit."""
    lines, report = read(folder)
    cheat(lines)
    chained(folder, lines, report)


def test_a_signed_run_passes_and_its_key_is_named(run: Path) -> None:
    plain = block(run)
    assert [one.check for one in plain.findings] == [f"R-0{n}" for n in range(1, 6)]
    assert {one.check: one.severity for one in plain.findings if one.severity != OK} == {"R-02": WARNING}
    assert f"{SERVER.public}, which its owner keeps" in plain.findings[1].evidence
    assert any("no client's receipt was brought" in line for line in plain.uncovered)
    full = block(run, [beside(run)], SERVER.public.upper())
    assert [one.check for one in full.findings] == [f"R-{n:02}" for n in range(1, 12)]
    assert {one.severity for one in full.findings} == {OK}
    receipt = read_client_receipt(beside(run))
    assert receipt.told
    assert len(receipt.rounds) == 3


def test_the_label_has_the_date_that_was_signed(run: Path) -> None:
    head = json.loads((run / "receipt.json").read_text())["head"]
    label = audit(run, opacus=False).label
    assert label is not None
    assert label.date == head["time"]
    head["time"] = "2020-01-31T09:00:00Z"  # which nobody has signed
    whole = json.loads((run / "receipt.json").read_text())
    (run / "receipt.json").write_text(json.dumps(whole | {"head": head}))
    label = audit(run, opacus=False).label
    assert label is not None
    assert label.date is None


def test_a_key_of_one_run_says_what_it_is_worth(run: Path) -> None:
    sign(run, Signer(SERVER.secret, lasting=False))
    assert "made for this run alone: it shows that nothing was changed since, and not who ran it" in (
        block(run).findings[1].evidence
    )


def test_another_key_than_expected(run: Path) -> None:
    assert wrong(run, key=STRANGER.public).keys() == {"R-02"}
    for rubbish in ("", "zz" * 32, SERVER.public[1:], SERVER.public + "\n00"):
        with pytest.raises(PlainError, match="64 hex digits"):
            block(run, key=rubbish)


def test_an_edited_line(run: Path) -> None:
    rewritten(run, lambda lines: lines[1].update(accuracy=0.5))
    found = wrong(run, [beside(run)])
    assert found.keys() == {"R-03", "R-04", "R-08"}
    assert found["R-03"].startswith("rounds.jsonl, line 2: was edited; rounds.jsonl, line 3: was edited")
    assert f"line 2: is not the line that client {WHO} has" in found["R-08"]


def test_reordered_lines(run: Path) -> None:
    log = run / "rounds.jsonl"
    first, second, third = log.read_text().splitlines(keepends=True)
    log.write_text(first + third + second)
    found = wrong(run)["R-03"]
    assert found == (
        "rounds.jsonl, line 2: was moved: it was signed as line 3; "
        "rounds.jsonl, line 3: was moved: it was signed as line 2"
    )


def test_a_line_taken_out_of_the_middle(run: Path) -> None:
    log = run / "rounds.jsonl"
    first, _, third = log.read_text().splitlines(keepends=True)
    log.write_text(first + third)
    assert wrong(run)["R-03"] == (
        "rounds.jsonl, line 2: was moved: it was signed as line 3; "
        "rounds.jsonl, line 3: was cut off: 3 lines were signed, 2 are here"
    )


def test_a_shortened_tail(run: Path) -> None:
    rewritten(run, lambda lines: lines.pop())
    found = wrong(run, [beside(run)])
    assert found.keys() == {"R-03", "R-04", "R-09"}
    assert found["R-03"] == "rounds.jsonl, line 3: was cut off: 3 lines were signed, 2 are here"
    assert "the signed log has 3 rounds, and the folder's 2" in found["R-09"]


def test_an_added_line(run: Path) -> None:
    rewritten(run, lambda lines: lines.append({**lines[-1], "round": 4}))
    assert wrong(run)["R-03"] == "rounds.jsonl, line 4: was added: 3 lines were signed, 4 are here"


def test_another_configuration(run: Path) -> None:
    text = (run / "config.toml").read_text()
    lines, report = read(run)
    chained(run, lines, report, text.replace("epsilon = 8.0", "epsilon = 4.0", 1) + "\n")
    assert wrong(run)["R-03"].startswith("config.toml: was edited")


def test_another_report_and_another_adapter(run: Path) -> None:
    report = run / "report.json"
    report.write_text(report.read_text() + "\n")
    assert wrong(run, [beside(run)]).keys() == {"R-04"}
    weights = run / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert wrong(run, [beside(run)]).keys() == {"R-04", "R-05"}
    shutil.rmtree(run / "adapter")
    report.unlink()
    unmade = {one.check for one in block(run).findings if one.severity == WARNING}
    assert unmade == {"R-02", "R-04", "R-05"}


def test_a_stranger_signs_the_folder_anew(run: Path) -> None:
    """Its own receipt is right then: only who knows the server's key, or a client, sees it."""
    old = beside(run).read_text()
    rewritten(run, lambda lines: lines[0].update(accuracy=0.5))
    sign(run, STRANGER)
    beside(run).write_text(old)
    assert wrong(run) == {}
    assert wrong(run, key=SERVER.public).keys() == {"R-02"}
    assert f"signed by {SERVER.public}; the folder's is of run" in wrong(run, [beside(run)])["R-08"]


CHEATS: dict[str, tuple[Callable[[list[Table]], object], set[str]]] = {
    "an edited line": (lambda lines: lines[1].update(accuracy=0.5), {"R-08", "R-10"}),
    "a shorter log": (lambda lines: lines.pop(), {"R-09", "R-10"}),
    "less noise": (lambda lines: lines[0].update(sigma_local=1.0), {"R-08", "R-10", "R-11"}),
    "a client left out": (lambda lines: lines[0]["participants"].remove(WHO), {"R-08", "R-10"}),
}


@pytest.mark.parametrize(("cheat", "checks"), CHEATS.values(), ids=CHEATS)
def test_a_server_that_signs_two_logs_is_named(run: Path, cheat: Callable, checks: set[str]) -> None:
    """The client has the receipt of the true one, and the folder is signed by the same key again."""
    old = beside(run).read_text()
    rewritten(run, cheat)
    sign(run)
    assert wrong(run, key=SERVER.public) == {}
    other = run.parent / "other.json"
    beside(run).rename(other)
    beside(run).write_text(old)
    found = {one.check: one for one in block(run, [beside(run)]).findings if one.severity == VIOLATION}
    assert found.keys() == checks
    assert SERVER.public in found["R-10"].evidence
    assert SERVER.public in found["R-10"].remedy
    # two clients who compare what they were sent need no folder
    alone = flora_secure.audit(beside(run), receipts=[other])
    assert "R-10" in [one.check for one in alone.findings if one.severity == VIOLATION]


def test_an_upload_that_the_log_does_not_know(run: Path) -> None:
    """A server that leaves a client out from the start: what the client remembers shows it."""
    told = json.loads(beside(run).read_text())["told"]
    rewritten(run, lambda lines: lines[1]["participants"].remove(WHO))
    sign(run)
    kept = {**json.loads(beside(run).read_text()), "told": told}
    beside(run).write_text(json.dumps(kept))
    assert wrong(run, [beside(run)]).keys() == {"R-07"}
    alone = audit(beside(run))
    assert [one.check for one in alone.findings if one.severity == VIOLATION] == ["R-07"]
    assert not alone.passed


def test_a_receipt_that_lacks_a_round(run: Path) -> None:
    kept = json.loads(beside(run).read_text())
    del kept["rounds"][1]
    kept["told"] = []
    beside(run).write_text(json.dumps(kept))
    assert f"line 2: client {WHO} has no receipt of it" in wrong(run, [beside(run)])["R-08"]


def test_a_receipt_that_was_taken_away(run: Path) -> None:
    (run / "receipt.json").unlink()
    left = block(run)
    assert "the folder has no receipt.json" in (left.left_out or "")
    assert wrong(run, [beside(run)]).keys() == {"R-01"}
    assert f"the key {SERVER.public}" not in str(left)
    rewritten(run, lambda lines: lines.pop())
    assert wrong(run, [beside(run)]).keys() == {"R-01", "R-09"}


SPOILT: dict[str, tuple[Callable[[Table], object], str]] = {
    "signature": (lambda t: t.update(signature="00" * 64), "the signature is not by the key"),
    "time": (lambda t: t["head"].update(time="2020-01-01T00:00:00Z"), "the signature is not by the key"),
    "leaf": (lambda t: t["leaves"].reverse(), "the leaves that it lists do not have the root"),
    "leaves": (lambda t: t["leaves"].pop(), "the leaves that it lists do not have the root"),
    "no leaves": (lambda t: t["leaves"].clear(), "the leaves that it lists do not have the root"),
    "schema": (lambda t: t.update(schema="flora-secure/receipt/9"), "schema must be"),
    "key": (lambda t: t["head"].update(key="01" + "00" * 31), "key is no Ed25519 public key"),
    "more": (lambda t: t.update(more=1), "unknown key"),
}


@pytest.mark.parametrize(("spoil", "says"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_receipt(run: Path, spoil: Callable, says: str) -> None:
    table = json.loads((run / "receipt.json").read_text())
    spoil(table)
    (run / "receipt.json").write_text(json.dumps(table))
    assert says in wrong(run, [beside(run)])["R-01"]
    assert not audit(run, opacus=False).passed


OF_A_CLIENT: dict[str, Callable[[Table], object]] = {
    "signature": lambda t: t.update(signature="00" * 64),
    "root": lambda t: t["head"].update(root="00" * 32),
    "path": lambda t: t["rounds"][1]["path"].reverse(),
    "leaf": lambda t: t["rounds"][1].update(leaf="00" * 32),
    "round": lambda t: (t["rounds"][2].update(round=9), t.update(told=[])),
}


@pytest.mark.parametrize("spoil", OF_A_CLIENT.values(), ids=OF_A_CLIENT)
def test_a_clients_receipt_that_was_changed(run: Path, spoil: Callable) -> None:
    table = json.loads(beside(run).read_text())
    spoil(table)
    beside(run).write_text(json.dumps(table))
    assert "R-06" in wrong(run, [beside(run)])
    assert not audit(beside(run)).passed


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"schema": 1, "schema": 2}', "\0", "{" * 100_000])
def test_files_that_are_no_receipts_are_named_and_the_rest_is_audited(run: Path, content: str | None) -> None:
    theirs = run.parent / "theirs.json"
    if content is not None:
        theirs.write_text(content)
    found = block(run, [theirs, beside(run)])
    assert [one.check for one in found.findings if one.severity == VIOLATION] == []
    finding = next(one for one in found.findings if one.check == "R-06")
    assert (finding.severity, str(theirs) in finding.evidence) == (WARNING, True)
    with pytest.raises(InputError, match=r"theirs.json"):
        audit(theirs)


def test_a_clients_receipt_alone(run: Path) -> None:
    found = flora_secure.audit(str(beside(run)), server_key=SERVER.public)
    assert found.passed
    assert [one.check for one in found.findings] == ["R-02", "R-06", "R-07", "R-10"]
    assert found.rows()[0][1] == "PASSED: 0 violations, 0 warnings, 4 checks ok"
    assert not flora_secure.audit(beside(run), server_key=STRANGER.public).passed
    with pytest.raises(TypeError, match="give a list"):
        flora_secure.audit(run, receipts=str(beside(run)))
