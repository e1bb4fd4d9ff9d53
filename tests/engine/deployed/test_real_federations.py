"""A federation of three sites over a transport that loses, repeats and forges: right sums, named aborts, and a ledger
that counts every release."""

import contextlib
import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sites import CONFIG, ENROLMENT, EXAMPLES, IDENTITIES, POLICY, SITES, Federation, data_of, site_of

import flora_secure
from flora_protocols import Code
from flora_secure.client import client as client_module
from flora_secure.client.ledger import ClientLedger
from flora_secure.engine.deployed.deployable import deployable
from flora_secure.engine.deployed.site import Site
from flora_secure.engine.deployed.training import SiteTraining
from flora_secure.errors import ConfigError, Refusal, RunFolderError, RunInterrupted
from flora_secure.planning.config import RunConfig, load_config, override
from flora_secure.rounds.opening import is_opening, is_request
from flora_secure.rounds.reply import Refused, decode_reply, encode_refusal, encode_reply
from flora_secure.rounds.sum import Outcome
from flora_secure.rounds.terms import is_terms
from flora_secure.server.server import Server


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """(round, whether its sum is that of its survivors' vectors) of every round with a sum."""
    vectors: dict[tuple[int, int], np.ndarray] = {}
    found: list[tuple[int, bool]] = []
    given, finish = client_module.Client._vector, Server.finish

    def vector(self, invitation, adapter):
        made = given(self, invitation, adapter)
        vectors[invitation.round, self.number] = made
        return made

    def finished(self, invitation, outcome: Outcome):
        if outcome.sum is not None:
            rows = [vectors[invitation.round, client] for client in outcome.sum.survivors]
            expected = np.sum(rows, axis=0, dtype=np.uint32) & np.uint32((1 << invitation.plan.bits) - 1)
            found.append((invitation.round, np.array_equal(outcome.sum.total, expected)))
        return finish(self, invitation, outcome)

    monkeypatch.setattr(client_module.Client, "_vector", vector)
    monkeypatch.setattr(Server, "finish", finished)
    return found


def test_a_run_is_that_of_a_simulation_and_its_audit_passes(tmp_path: Path, sums: list) -> None:
    policy = dataclasses.replace(POLICY, unit="example")
    federation = Federation(tmp_path, EXAMPLES)
    federation.wires.sites |= {number: federation.site(number, policy=policy) for number in range(SITES)}
    run = federation.host().run(tmp_path / "run")
    assert sums == [(1, True), (2, True), (3, True)]
    assert run.report.privacy.epsilon < 8
    assert run.report.data.private_images is None  # nobody but the sites knows
    findings = flora_secure.audit(run.folder)
    assert findings.passed
    assert run.records[-1].accuracy > run.report.accuracy.zero_shot
    weights = (run.adapter / "adapter_model.safetensors").read_bytes()
    for number in range(SITES):
        site = tmp_path / f"site{number}"
        assert (site / "adapter/adapter_model.safetensors").read_bytes() == weights
        ledger = ClientLedger(site / "state/ledger.jsonl")
        assert [given.event.round for given in ledger.given] == [1, 2, 3]
        # the server counts what was released, the site the worst that might have been
        assert run.report.privacy.epsilon < ledger.epsilon(1e-5) <= POLICY.most_epsilon


def test_messages_of_later_rounds_are_short_and_sessions_go_on(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.host().run(tmp_path / "run")
    asked = federation.wires.asked
    assert sum(is_opening(next(iter(outbox.values()))) for outbox in asked) == 1  # one set-up for all rounds
    requests = [len(outbox[0]) for outbox in asked if is_request(next(iter(outbox.values())))]
    assert len(requests) == 3
    # terms · set-up of 4 trips (hybrid suite) · 3 rounds of 3 trips · farewell · receipts
    assert len(asked) == 1 + 3 + 3 * 3 + 2


@pytest.mark.parametrize("kind", ["terms", "opening", "request"])
def test_a_site_that_is_silent_once_is_in_the_next_round(tmp_path: Path, sums: list, kind: str) -> None:
    is_kind = {"terms": is_terms, "opening": is_opening, "request": is_request}[kind]
    lost = []

    def spoil(client: int, request: bytes, reply: bytes) -> bytes | None:
        if client == 1 and is_kind(request) and not lost:
            return lost.append(client)
        return reply

    federation = Federation(tmp_path)
    federation.wires.spoil = spoil
    run = federation.host().run(tmp_path / "run")
    assert lost == [1]
    assert [good for _, good in sums] == [True] * 3
    survivors = [record.survivors for record in run.records]
    first = [0, 1, 2] if kind == "terms" else [0, 2]
    assert survivors[0] == first
    assert survivors[1:] == [[0, 1, 2]] * 2
    assert flora_secure.audit(run.folder).passed


FORGED = {
    "rubbish": lambda request, reply: b"\x00rubbish" * 100,
    "empty": lambda request, reply: b"",
    "an envelope of rubbish": lambda request, reply: encode_reply(b"fS" + bytes(500)),
    "half": lambda request, reply: reply[: len(reply) // 2],
    "a flipped bit": lambda request, reply: reply[:-9] + bytes([reply[-9] ^ 1]) + reply[-8:],
    "its request": lambda request, reply: encode_reply(request),
    "an unknown code": lambda request, reply: b"fA\1" + b"c:/secret/path",
    "a code": lambda request, reply: encode_refusal("budget"),
    "other session, for ever": lambda request, reply: encode_refusal(Code.OTHER_SESSION.value),
    "terms, for ever": lambda request, reply: encode_refusal(Refusal.TERMS.value),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("kind", ["opening", "request", "rest"])
def test_a_site_that_answers_rubbish_costs_itself_alone(tmp_path: Path, sums: list, kind: str, forged) -> None:
    def spoil(client: int, request: bytes, reply: bytes) -> bytes:
        is_kind = {"opening": is_opening(request), "request": is_request(request)}
        mine = is_kind.get(
            kind, not any(is_kind.values()) and not is_terms(request) and request[:2] not in (b"fE", b"fH")
        )
        return forged(request, reply) if client == 2 and mine else reply

    config = override(CONFIG, {"training.rounds": 1})
    federation = Federation(tmp_path, config)
    federation.wires.spoil = spoil
    run = federation.host().run(tmp_path / "run")
    assert [good for _, good in sums] == [True]
    assert set(run.records[0].survivors) >= {0, 1}
    assert flora_secure.audit(run.folder).passed
    assert not any("secret" in line for line in federation.told[-1])


def test_two_faults_of_three_end_a_round_by_name_and_the_next_goes_on(tmp_path: Path, sums: list) -> None:
    def spoil(client: int, request: bytes, reply: bytes) -> bytes | None:
        return None if client > 0 and is_request(request) and len(run_rounds) == 0 else reply

    run_rounds: list[int] = []
    federation = Federation(tmp_path)
    federation.wires.spoil = spoil
    run = federation.host(progress=lambda number, of, record: run_rounds.append(number)).run(tmp_path / "run")
    assert run.records[0].aborted
    assert run.records[0].exposed
    assert run.records[0].dropped == [1, 2]
    assert [number for number, good in sums if good] == [2, 3]
    assert flora_secure.audit(run.folder).passed


MISFITS = {
    "class names": ({"class_names": tuple(f"figure {i}" for i in range(10))}, "class names: "),
    "more local steps": ({"config": override(CONFIG, {"model.rank": 3})}, "model.rank: "),
    "other rounds": ({"config": override(CONFIG, {"training.rounds": 4})}, "training.rounds: "),
    "suite": ({"config": override(CONFIG, {"aggregation.suite": "x25519"})}, "aggregation.suite: "),
    "enrolment": ({"enrolment": dataclasses.replace(ENROLMENT, revoked=frozenset({1}))}, "enrolment: "),
}


@pytest.mark.parametrize(("given", "line"), MISFITS.values(), ids=MISFITS)
def test_a_site_that_does_not_fit_is_told_both_values_and_trains_nothing(
    tmp_path: Path, given: dict, line: str
) -> None:
    federation = Federation(tmp_path)
    federation.wires.sites[2] = federation.site(2, **given)
    config_rounds = federation.host().run(tmp_path / "run")
    assert all(record.survivors == [0, 1] for record in config_rounds.records)
    server = [told for told in federation.told[-1] if line in told]
    site = [told for told in federation.told[2] if line in told]
    assert "the server has" in server[0]
    assert "site2 has" in server[0]
    assert "this site has" in site[0]
    assert "agree on one of the two" in site[0]
    assert ClientLedger(tmp_path / "site2/state/ledger.jsonl").given == ()


def test_rounding_of_another_machine_is_no_misfit_and_another_basis_is(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    trainer = federation.sites[0]._trainer
    from flora_secure.engine.deployed.training import terms_of

    own = terms_of(federation.sites[0].config, trainer.data, trainer.made, ENROLMENT)
    fresh = trainer.made.frame.fresh
    for change, differs in ((lambda a: a * (1 + 1e-6), False), (lambda a: -a, True), (lambda a: a.flip(0), True)):
        frame = dataclasses.replace(trainer.made.frame, fresh=dataclasses.replace(fresh, a=change(fresh.a)))
        other = terms_of(
            federation.sites[0].config, trainer.data, dataclasses.replace(trainer.made, frame=frame), ENROLMENT
        )
        assert [one.key for one in own.differences(other)] == ["frozen factors"] * differs


REFUSING = {
    "noise": ({"least_noise": 5.0}, "noise"),
    "budget": ({"most_epsilon": 0.5}, "budget"),
    "clients": ({"least_clients": 4}, "floors"),
    "unit": ({"unit": "example"}, "unit"),
    "placement": ({"placements": ("text-attention",)}, "placement"),
}


@pytest.mark.parametrize(("terms", "code"), REFUSING.values(), ids=REFUSING)
def test_a_policy_that_does_not_fit_keeps_its_site_out(tmp_path: Path, sums: list, terms: dict, code: str) -> None:
    federation = Federation(tmp_path, override(CONFIG, {"training.rounds": 1}))
    federation.wires.sites[0] = federation.site(0, policy=dataclasses.replace(POLICY, **terms))
    run = federation.host().run(tmp_path / "run")
    assert run.records[0].survivors == [1, 2]
    assert any(f"site0 does not take part ({code})" in line for line in federation.told[-1])
    assert sums == [(1, True)]
    assert ClientLedger(tmp_path / "site0/state/ledger.jsonl").given == ()


def test_a_site_refuses_beyond_its_own_budget_whatever_the_server_plans(tmp_path: Path, sums: list) -> None:
    federation = Federation(tmp_path)
    federation.wires.sites[0] = federation.site(0, policy=dataclasses.replace(POLICY, most_epsilon=7.5))
    run = federation.host().run(tmp_path / "run")
    took_part = [0 in record.survivors for record in run.records]
    assert took_part[0]
    assert not took_part[-1]
    assert ClientLedger(tmp_path / "site0/state/ledger.jsonl").epsilon(1e-5) <= 7.5
    assert all(good for _, good in sums)


def test_no_text_of_an_error_leaves_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation(tmp_path)
    site = federation.sites[0]

    def broken() -> None:
        raise ZeroDivisionError("patient 4711 has no image")

    site.training = broken
    replies = [site.answer(message) for message in (b"fT\1{}", b"fO", b"fE\1", b"", b"x" * 999)]
    assert [decode_reply(reply) for reply in replies[:1]] == [Refused("failed")]
    assert not any(b"4711" in reply for reply in replies)
    assert any("patient 4711" in line for line in federation.told[0])  # the site's own people may know


def test_a_site_whose_key_is_not_enrolled_or_revoked_is_told_so(tmp_path: Path) -> None:
    told: list[str] = []
    site = site_of(tmp_path / "site", 1, told.append)
    site.identity = bytes(range(32))
    with pytest.raises(ConfigError, match="not enrolled"):
        site.number  # noqa: B018
    revoked = dataclasses.replace(ENROLMENT, revoked=frozenset({1}))
    other = site_of(tmp_path / "site", 1, told.append, enrolment=revoked)
    with pytest.raises(ConfigError, match="revoked"):
        other.number  # noqa: B018
    assert IDENTITIES[1].hex() not in repr(other)


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("trip", range(1, 14))
def test_a_server_killed_at_any_exchange_goes_on_and_counts(tmp_path: Path, sums: list, trip: int) -> None:
    """The sites stay; the server's process ends with the exchange half carried, and another one takes up the folder."""
    federation = Federation(tmp_path)
    exchange = federation.wires.exchange

    def dying(outbox, patience):
        if len(federation.wires.asked) == trip:
            for client, message in list(outbox.items())[:2]:
                federation.sites[client].answer(message)
            raise KeyboardInterrupt
        return exchange(outbox, patience)

    federation.wires.exchange = dying  # type: ignore[method-assign]
    with contextlib.suppress(RunInterrupted, KeyboardInterrupt):
        federation.host().run(tmp_path / "run")
    federation.wires.exchange = exchange  # type: ignore[method-assign]
    run = federation.host().run(tmp_path / "run")
    assert [record.round for record in run.records] == [1, 2, 3]
    assert all(good for _, good in sums)
    assert sum(record.lost for record in run.records) <= 1
    uploads = {given.event.round for given in ClientLedger(tmp_path / "site0/state/ledger.jsonl").given}
    charged = {record.round for record in run.records if record.released or record.exposed}
    assert uploads <= charged  # whatever a site has given, the server's ledger counts
    assert flora_secure.audit(run.folder).passed


def labelled_site(federation: Federation, number: int) -> Site:
    """A site with the public images of a server that has their labels, too."""
    site = federation.site(number)
    data = data_of("private", np.arange(number * 300, number * 300 + 300), labelled=True)
    site.training = lambda: SiteTraining.of(site.config, data.load("private", "digits"), None)
    return site


def test_the_server_decides_its_warm_start_alone_and_goes_on_with_it(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.wires.sites |= {number: labelled_site(federation, number) for number in range(SITES)}
    data = data_of("test", np.arange(150), labelled=True).load("test", "digits")

    def progress(number: int, *_: object) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        federation.host(progress=progress, data=data).run(tmp_path / "run")
    began = (tmp_path / "run" / "config.toml").read_bytes()
    run = federation.host(data=data).run(tmp_path / "run")
    start, variate = run.report.choices.warm_start, run.report.choices.control_variate
    assert start is not None
    assert variate is not None
    assert (start.value, start.by, start.images) == ("labels", "public data", 200)
    assert (variate.value, variate.by) == ("1", "user")  # which all sites have in their configuration
    assert (tmp_path / "run" / "config.toml").read_bytes() == began
    assert load_config(tmp_path / "run" / "config.toml").training.warm_start == "labels"
    assert run.report.accuracy.warm_start > run.report.accuracy.zero_shot + 0.05
    assert sum(line == f"warm start: {start.line}" for line in federation.told[-1]) == 2
    # sites decide nothing, and fit all the same
    training = SiteTraining.of(federation.sites[0].config, data_of("private", np.arange(9)).load("private"), None)
    assert training.made.config.training.warm_start == "none"
    assert float(training.made.frame.initial.b.abs().max()) == 0
    assert flora_secure.audit(run.folder).passed


def test_nobody_has_a_control_variate_unless_all_say_so() -> None:
    silent = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, control_variate=None))
    assert deployable(silent, SITES).training.control_variate == 0.0
    assert deployable(CONFIG, SITES).training.control_variate == 1.0
    assert deployable(silent, SITES).training.warm_start is None


def test_a_federation_keeps_its_messages_unless_it_says_otherwise() -> None:
    assert deployable(CONFIG, SITES).evidence.transcript is True
    silent = override(CONFIG, {"evidence.transcript": False})
    assert deployable(silent, SITES).evidence.transcript is False


def test_a_folder_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    done: list[int] = []

    def progress(number: int, *_: object) -> None:
        done.append(number)
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match="rounds 1 to 1 are kept"):
        federation.host(progress=progress).run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="another configuration"):
        federation.host(config=override(CONFIG, {"training.rounds": 4})).run(tmp_path / "run")


def test_two_coordinators_with_the_same_sites_end_in_sums_or_by_name(tmp_path: Path, sums: list) -> None:
    federation = Federation(tmp_path)
    federation.host().run(tmp_path / "one")
    run = federation.host().run(tmp_path / "two")
    assert all(good for _, good in sums)
    spent = ClientLedger(tmp_path / "site0/state/ledger.jsonl")
    assert spent.epsilon(1e-5) <= POLICY.most_epsilon
    assert any(record.aborted for record in run.records)  # the budgets of the sites end it, not the server's


def test_nobody_there_is_said_before_a_folder_is_made(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.wires.sites = {}
    with pytest.raises(ConfigError, match="0 of 3 sites fit and answer, and the noise needs 2"):
        federation.host().run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"aggregation.secagg": "semi-honest"}, "trusts the server"),
        ({"aggregation.masking": "counted"}, "hides nothing"),
        ({"privacy.simulation_noise": True}, "no secret"),
        ({"privacy.epsilon": float("inf")}, "protects nobody"),
        ({"data.dataset": "digits"}, "lies in one place"),
        ({"data.total_images": None}, "planned by the images"),
        ({"data.clients": 4}, "3 are enrolled"),
    ],
)
def test_what_only_a_simulation_may_do_is_refused(tmp_path: Path, change: dict, says: str) -> None:
    federation = Federation(tmp_path)
    config: RunConfig = override(CONFIG, change)
    if change == {"data.total_images": None}:
        config = dataclasses.replace(EXAMPLES, data=dataclasses.replace(EXAMPLES.data, total_images=None))
    with pytest.raises(ConfigError, match=says):
        federation.host(config=config).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_site_answers_one_message_at_a_time(tmp_path: Path) -> None:
    """Engines answer on threads; a position that two of them load would mask two vectors with one mask."""
    site, inside, most = site_of(tmp_path / "site", 0, [].append), [], []

    def slow(message: bytes) -> bytes:
        inside.append(message)
        most.append(len(inside))
        time.sleep(0.02)
        inside.remove(message)
        return message

    site._answer = slow  # type: ignore[method-assign]
    threads = [threading.Thread(target=site.answer, args=(bytes([number]),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_where_only_the_report_is_left_no_site_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation(tmp_path)
    monkeypatch.setattr("flora_secure.engine.deployed.course.summarise", killed)
    with pytest.raises(RunInterrupted, match="rounds 1 to 3 are kept"):
        federation.host().run(tmp_path / "run")
    monkeypatch.undo()
    federation.wires.sites = {}
    run = federation.host().run(tmp_path / "run")
    assert flora_secure.audit(run.folder).passed
    assert any("not sent to site0, site1, site2" in line for line in federation.told[-1])
