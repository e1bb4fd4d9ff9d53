"""What a server, a site or a crash may try against secure sums, and what each site and the ledger make of it."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict
from sum_sites import EPSILON, IDENTITIES, ROUNDS, SITES, SiteApp, SumFederation, context_of, model

from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.engine.deployed.keys.identity import identity_text
from flora_secure.engine.flower.sums.arrays import hash_of, numpy_of
from flora_secure.engine.flower.sums.wire import SETTINGS, with_metrics, without_metrics
from flora_secure.engine.flower.wire import beside, packed, unpacked
from flora_secure.errors import ConfigError, ForeignError
from flora_secure.flower import secure_sum_mod, write_policy
from flora_secure.rounds.opening import decode_request, encode_opening, encode_request, is_request
from flora_secure.rounds.reply import Refused, decode_reply
from flora_secure.server import sums


@pytest.fixture
def federation(tmp_path, monkeypatch):
    return SumFederation(tmp_path, monkeypatch)


def code_in(reply):
    found = decode_reply(without_metrics(unpacked(reply))[0])
    return found.code if isinstance(found, Refused) else None


def requests(federation):
    """Have a round run, and give what each site was sent to ask for its upload, with what it answered."""
    seen = {}

    def spoil(client, message, reply):
        if is_request(unpacked(message, alone=False)):
            seen[client] = (message, reply)
        return reply

    federation.grid.spoil = spoil
    federation.round()
    return seen


def like(message, content):
    return Message(metadata=message.metadata, content=content)


def given(federation, client):
    return ClientLedger(federation.folder / f"site{client}/state/ledger.jsonl").given


def test_arrays_that_the_invitation_does_not_bind_train_nothing(federation):
    sent = []

    def other(client, message):
        if client == 2 and message.content.array_records:
            content = RecordDict({**dict(message.content.items()), "arrays": model(1e-3)})
            sent.append(like(message, content))
            return sent[-1]
        return message

    asked = federation.grid.asked
    codes = []

    def spoilt(client, message):
        reply = asked(client, other(client, message))
        if client == 2 and message.content.array_records:
            codes.append(code_in(reply))
        return reply

    federation.grid.asked = spoilt
    federation.round()
    assert sent
    assert codes == ["model"]
    assert federation.apps[2].calls == 0
    assert given(federation, 2) == ()
    assert federation.strategy._server.records[0].survivors == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"bias": np.zeros(8, np.float64)},  # another type
        {"bias": np.zeros((2, 4), np.float32)},  # another shape
        {"more": np.zeros(1, np.float32)},  # another name
    ],
)
def test_the_hash_binds_names_types_and_shapes(change):
    arrays = {"weight": np.zeros((8, 7), np.float32), "bias": np.zeros(8, np.float32)}
    assert hash_of(arrays) == hash_of(dict(arrays))
    assert hash_of(arrays) != hash_of({**arrays, **change})
    assert hash_of(arrays) != hash_of(dict(reversed(arrays.items())))
    assert hash_of({"x": arrays["bias"]}) != hash_of({"y": arrays["bias"]})


def test_less_noise_than_a_sites_policy_wants_is_refused_by_all(tmp_path, monkeypatch):
    federation = SumFederation(tmp_path, monkeypatch)  # whose sites agreed on EPSILON
    federation.strategy = federation.made(epsilon=2 * EPSILON)
    codes = []
    federation.grid.spoil = lambda client, message, reply: codes.append(reply) or reply
    assert federation.round() == (None, None)
    assert [code_in(reply) for reply in codes[SITES:]] == ["noise"] * SITES
    assert [app.calls for app in federation.apps.values()] == [0] * SITES


def test_more_rounds_than_agreed_are_refused(tmp_path, monkeypatch):
    federation = SumFederation(tmp_path, monkeypatch)
    federation.strategy = federation.made(epsilon=EPSILON, rounds=4 * ROUNDS)  # more noise each, and more of them
    for number in range(1, ROUNDS + 1):
        assert federation.round(number)[0] is not None
    assert federation.round(ROUNDS + 1) == (None, None)
    assert [len(given(federation, client)) for client in range(SITES)] == [ROUNDS] * SITES


def test_a_repeated_request_gets_the_same_bytes_and_trains_nothing(federation):
    asked, seen = federation.grid.asked, []

    def twice(client, message):
        reply = asked(client, message)
        if client == 0 and message.content.array_records:
            other = like(message, RecordDict({**dict(message.content.items()), "arrays": model(5.0)}))
            seen.extend(without_metrics(unpacked(one))[0] for one in (reply, asked(0, message), asked(0, other)))
        return reply

    federation.grid.asked = twice
    federation.round()
    first, again, other = seen
    assert len(first) > 64
    assert first == again == other  # with other arrays too: nothing is computed from them
    assert federation.apps[0].calls == 1
    assert len(given(federation, 0)) == 1
    assert federation.strategy._server.records[0].survivors == [0, 1, 2, 3, 4]


def test_two_uploads_of_one_round_are_not_to_be_had(federation):
    """The server invites to the round again, with other arrays and a hash that fits them."""
    message, _ = requests(federation)[0]
    server = federation.strategy._server
    other = model(5.0)
    invitation = replace(federation.strategy._server._openings._known[0], model_hash=hash_of(numpy_of(other)))
    _, told = decode_request(unpacked(message, alone=False))
    opening = encode_opening(invitation.to_bytes(server.enrolment), b"")
    records = RecordDict({**dict(beside(message).items()), "arrays": other})
    again = like(message, packed(encode_request(opening, told), records))
    assert code_in(federation.grid.asked(0, again)) == "repeated"
    # and where a whole new session is opened for it
    assert code_in(federation.grid.asked(0, like(message, packed(opening)))) == "repeated"
    assert federation.apps[0].calls == 1
    assert len(given(federation, 0)) == 1


def test_a_training_message_that_is_none_of_ours_gets_no_arrays(federation):
    asked = Message(RecordDict({"arrays": model(), "config": ConfigRecord({})}), 100, "train")
    reply = federation.grid.asked(0, asked)
    assert reply.has_error()
    assert reply.error.code == 6
    assert federation.apps[0].calls == 0


def test_metrics_of_training_stay_at_the_site_unless_they_are_named(federation, tmp_path):
    seen = requests(federation)
    for _, reply in seen.values():
        assert without_metrics(unpacked(reply))[1] == {}
        assert list(reply.content) == ["flora-secure"]
        assert not reply.content.array_records
        assert not reply.content.metric_records


def test_named_metrics_are_the_mean_of_the_survivors(federation):
    for client in range(SITES):
        federation.apps[client].app = SiteApp(client, allow_metrics=("train-loss",)).app
    _, metrics = federation.round()
    assert dict(metrics) == {"train-loss": pytest.approx(2.5)}
    with pytest.raises(ConfigError, match="allow_metrics must be a tuple"):
        secure_sum_mod(allow_metrics="train-loss")


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0" * 40, b"\xff" * 40, with_metrics(b"fA\0garbage", {}), with_metrics(b"no envelope", {"x": 1.0})],
)
def test_garbage_in_the_place_of_an_upload_costs_its_sender_alone(federation, garbage):
    def spoil(client, message, reply):
        upload = client == 4 and is_request(unpacked(message, alone=False))
        return Message(packed(garbage), reply_to=message) if upload else reply

    federation.grid.spoil = spoil
    federation.round()
    assert federation.strategy._server.records[0].survivors == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "reply", [b"\x05\0\0\0abcd", b"\0\0\0\0[1]", b'\0\0\0\0{"x": "y"}', b'\0\0\0\0{"x": true}', b'\0\0\0\0{"x": NaN}']
)
def test_metrics_of_a_hostile_site_are_numbers_or_nothing(reply):
    with pytest.raises(ForeignError):
        without_metrics(reply)


def test_a_site_with_a_strangers_key_is_nobody(federation):
    path = federation.folder / "site3/identity.key"
    path.unlink()
    path.write_bytes(identity_text(bytes(range(32))))
    path.chmod(0o600)
    federation.round()
    assert federation.strategy._server.records[0].survivors == [0, 1, 2, 4]


def test_a_site_that_claims_anothers_number_cannot_sign_for_it(federation):
    """Node 101 says that it is client 2; the real one answers later and is left out. The sum goes without both."""
    asked = federation.grid.asked

    def spoilt(client, message):
        if client == 1 and unpacked(message, alone=False) == b"":
            return Message(packed((2).to_bytes(4, "big")), reply_to=message)
        return asked(client, message)

    federation.grid.asked = spoilt
    assert federation.round() == (None, None)  # clients 1 and 2 are both missing, and one may be
    assert federation.strategy._server.records == () or not federation.strategy._server.records[0].released


def test_a_site_without_a_policy_says_how_to_write_one_and_gives_nothing(federation, caplog):
    (federation.folder / "site1/policy.toml").unlink()
    federation.round()
    assert federation.strategy._server.records[0].survivors == [0, 2, 3, 4]
    assert federation.apps[1].calls == 0
    lines = [record.getMessage() for record in caplog.records if "site1/policy.toml is missing" in record.getMessage()]
    assert lines
    assert "write_policy writes it" in lines[0]
    assert "\n" not in lines[0]


def test_the_sites_folder_is_the_nodes_to_say_and_never_the_servers(federation, caplog):
    app, hello = federation.apps[0].app, Message(packed(b""), 100, "train")
    context = context_of(federation.folder / "site0")
    context.run_config["site"] = context.node_config.pop("site")  # the run's configuration comes with the app
    assert unpacked(app(hello, context)) == b""
    assert "nothing says where this site's files are" in caplog.text
    context.node_config["site"] = "relative"
    assert unpacked(app(hello, context)) == b""
    assert "no absolute path" in caplog.text


def test_a_server_that_starts_again_counts_on(federation):
    federation.round()
    spent = federation.strategy.report().epsilon
    federation.strategy.close()
    federation.strategy = federation.made()
    arrays, _ = federation.round(1)  # Flower counts its rounds from 1 again; the budget's is 2
    assert arrays is not None
    report = federation.strategy.report()
    assert report.rounds == 2
    assert report.epsilon > spent
    assert [given.event.round for given in given(federation, 0)] == [1, 2]


class Killed(BaseException):
    pass


def test_a_round_in_flight_when_the_server_was_killed_counts_as_released(federation, monkeypatch):
    def killed(*_, **__):
        raise Killed

    finish = sums.SumServer.finish
    monkeypatch.setattr(sums.SumServer, "finish", killed)
    with pytest.raises(Killed):
        federation.round()
    monkeypatch.setattr(sums.SumServer, "finish", finish)
    federation.strategy.close()
    federation.strategy = federation.made()
    federation.round(1)
    records = federation.strategy._server.records
    assert [(record.round, record.lost, record.released) for record in records] == [(1, True, True), (2, False, True)]
    report = federation.strategy.report()
    assert (report.rounds, report.summed) == (2, 1)
    plan = federation.strategy._server.plan
    assert federation.strategy._server.ledger.events[0].survivors == plan.survivors_minimum
    assert "in flight" in report.statement
    assert [given.event.round for given in given(federation, 0)] == [1, 2]


def test_a_round_that_this_process_left_open_counts_too(federation, monkeypatch):
    run = federation.strategy.configure_train

    def broken(*_, **__):
        raise OSError("the network is gone")

    federation.round()
    monkeypatch.setattr(federation.strategy._masked, "run", broken)
    with pytest.raises(OSError, match="gone"):
        run(2, model(), ConfigRecord(), federation.grid)
    federation.strategy._masked = None
    federation.round(3)
    assert [record.lost for record in federation.strategy._server.records] == [False, True, False]


def test_rounds_beyond_the_budget_are_not_begun(federation):
    for number in range(1, ROUNDS + 1):
        federation.round(number)
    federation.strategy.close()
    federation.strategy = federation.made()
    with pytest.raises(ConfigError, match=f"^the {ROUNDS} rounds that the budget pays for are over"):
        federation.round(ROUNDS + 1)


def test_a_site_that_lost_its_store_is_back_in_the_next_session(federation):
    federation.round()
    os.unlink(federation.folder / "site2/state/position")
    federation.round(2)
    assert federation.strategy._server.records[1].survivors == [0, 1, 3, 4]
    federation.round(3)
    assert federation.strategy._server.records[2].survivors == [0, 1, 2, 3, 4]


def test_secrets_reach_no_repr_and_no_log(federation, caplog):
    federation.round()
    hidden = [identity.hex() for identity in IDENTITIES] + [repr(IDENTITIES[0])]
    shown = caplog.text + repr(federation.strategy) + repr(federation.strategy._server)
    assert not [secret for secret in hidden if secret in shown]


def test_a_policy_is_not_overwritten_and_is_private(tmp_path):
    path = write_policy(tmp_path / "site", epsilon=4, rounds=20, clients=5)
    assert path.stat().st_mode & 0o777 == 0o600
    policy = Policy.read(path)
    assert (policy.profile, policy.unit, policy.placements) == ("malicious-server", "client", ("arrays",))
    assert (policy.most_rounds, policy.last_round, policy.corrupt) == (20, 20, 0.2)
    assert (policy.least_clients, policy.least_survivors) == (4, 4)  # one of five may be missing
    assert policy.most_epsilon == pytest.approx(4)
    assert policy.least_noise == pytest.approx(4.84, abs=0.01)  # as the table of docs/flower-secure-sum.md was planned
    with pytest.raises(ConfigError, match="is there and is not overwritten"):
        write_policy(tmp_path / "site", epsilon=8, rounds=20, clients=5)
    with pytest.raises(ConfigError, match=r"^clients must be a whole number"):
        write_policy(tmp_path / "other", epsilon=4, rounds=20, clients=1)


def test_a_server_process_holds_its_folder(federation):
    federation.round()
    program = (
        "import sys\nfrom pathlib import Path\nfrom flora_secure.server.sum_log import SumLog\n"
        "try: SumLog(Path(sys.argv[1]), {})\nexcept Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(federation.folder / "run")], capture_output=True, text=True, check=True
    )
    assert "is in use by another process" in done.stdout


def test_settings_of_a_hostile_server_are_refused_before_training(federation):
    asked = federation.grid.asked
    codes = []

    def spoilt(client, message):
        if client == 0 and message.content.array_records:
            settings = ConfigRecord({"kept": ["bias"], "examples": "", "most": 1, "weight-norm": 0.0})
            message = like(message, RecordDict({**dict(message.content.items()), SETTINGS: settings}))
            reply = asked(client, message)
            codes.append(code_in(reply))
            return reply
        return asked(client, message)

    federation.grid.asked = spoilt
    federation.round()
    assert codes == ["model"]
    assert federation.apps[0].calls == 0


@pytest.mark.parametrize(
    ("change", "broadcast", "code"),
    [
        ({}, b"adapter", "bad-body"),  # in the place of the arrays beside
        ({"rule": "prompt-basis"}, b"", "model"),
        ({"placement": "text-projection"}, b"", "placement"),
        ({"unit": "example"}, b"", "unit"),
    ],
)
def test_openings_of_something_else_than_a_sum_of_arrays_are_refused(federation, change, broadcast, code):
    invited, codes = [], []
    server = federation.strategy._planned(numpy_of(model()))

    def openings(invitation):
        invited.append(replace(invitation, **change))
        return dict.fromkeys(invitation.members, encode_opening(invited[-1].to_bytes(server.enrolment), broadcast))

    server.openings = openings
    federation.grid.spoil = lambda client, message, reply: codes.append(reply) or reply
    assert federation.round() == (None, None)
    assert {code_in(reply) for reply in codes[SITES : 2 * SITES]} == {code}
    assert [app.calls for app in federation.apps.values()] == [0] * SITES
