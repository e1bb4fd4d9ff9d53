"""Server and sites as Flower's apps, in one process: a Grid whose nodes are the sites' real ClientApps."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from grids import Clock, FakeGrid, on_clock
from pilots import SITES, make_pilot, site_of, with_policy

import flora_secure
from flora_secure.client.ledger import ClientLedger
from flora_secure.engine.deployed.keys.credentials import revoke
from flora_secure.engine.deployed.keys.enrolment_file import enrolment_text, read_enrolment
from flora_secure.engine.deployed.keys.identity import identity_text, new_identity
from flora_secure.engine.flower import app as flower_app
from flora_secure.engine.flower.app import Stopped, client_app, server_app

NODES = {70 + site: site for site in range(SITES)}


def pem(path: Path) -> bytes:
    """A public node key as Flower has it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

    return load_ssh_public_key(path.read_bytes()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Sites(FakeGrid):
    """Each message is answered by the ClientApp of a site. `killed`: nodes that answer nothing; `keys`: by node."""

    def __init__(self, clock: Clock, folder: Path, app: Path) -> None:
        self.folder, self.app = folder, app
        self.killed: set[int] = set()
        self.keys = {node: pem(site_of(folder, site) / "node.key.pub") for node, site in NODES.items()}
        self.received: dict[int, int] = dict.fromkeys(NODES, 0)
        self.replies: list[bytes] = []
        super().__init__(clock, {node: self.node(node, site_of(folder, site)) for node, site in NODES.items()})

    def node(self, node: int, site: Path, app: Path | None = None):
        def answer(message: Message):
            self.received[node] = self.received.get(node, 0) + 1
            if node in self.killed:
                return []
            config = {"site": str(site)}
            context = Context(run_id=1, node_id=node, node_config=config, state=RecordDict(), run_config={})
            reply = client_app(app or self.app)(message, context)
            self.replies.append(b"".join(record["message"] for record in reply.content.values()))
            assert len(context.state) == 0
            return [(0.0, reply)]

        return answer

    def get_nodes(self):
        return [NodeInfo(node_id=node, public_key=self.keys.get(node, b"")) for node in self.sites]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pilot") / "clinic"
    return folder, make_pilot(folder)


@pytest.fixture
def sites(made, tmp_path, monkeypatch):
    """The sites of a fresh copy of the pilot, on a clock that sleeps no real second."""
    folder = tmp_path / "clinic"
    shutil.copytree(made[0], folder)
    return Sites(on_clock(monkeypatch), folder, folder / "app" / "federation")


def hosted(sites: Sites, **settings) -> Path:
    """Run the server's app; gives the run's folder."""
    given = {"server": str(sites.folder / "server"), "patience": 60, "trip-patience": 20, **settings}
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=given)
    server_app(sites.app)(grid=sites, context=context)
    return sites.folder / "server" / str(given.get("out", "run"))


def survivors(run: Path) -> list[list[int]]:
    return [json.loads(line)["survivors"] for line in (run / "rounds.jsonl").read_text().splitlines()]


def test_a_run_ends_in_a_report_an_adapter_everywhere_and_an_audit_that_passes(sites, capfd) -> None:
    run = hosted(sites)
    said = capfd.readouterr().err
    assert survivors(run) == [[0, 1, 2]]
    assert flora_secure.audit(run).passed
    assert "round 1/1: accuracy" in said
    assert f"report of {run}" in said
    for row in ("accuracy ", "privacy ", "communication "):
        assert f"\n{row}" in said
    weights = (run / "adapter/adapter_model.safetensors").read_bytes()
    for site in range(SITES):
        assert (site_of(sites.folder, site) / "adapter/adapter_model.safetensors").read_bytes() == weights
        (kept,) = (site_of(sites.folder, site) / "receipts").iterdir()
        assert flora_secure.audit(run, opacus=False, receipts=[kept]).passed
        assert f"site{site}: uploaded in round 1; this site's own ledger counts ε = " in said
        assert f"site{site}: the federation is over" in said
    pushed = len(sites.pushed)
    hosted(sites)  # a run that is complete asks nobody
    assert len(sites.pushed) == pushed
    assert "is complete, nothing is left to do" in capfd.readouterr().err


def spoilt_images(sites):
    (site_of(sites.folder, 2) / "images" / "cat").mkdir()
    shutil.copy(next((sites.folder / "server/images/key").iterdir()), site_of(sites.folder, 2) / "images" / "cat")


def spoilt_identity(sites):
    (site_of(sites.folder, 2) / "identity.key").write_text(identity_text(new_identity()).decode())


def swapped_identity(sites):
    """Site 2 has the identity key of site 1, and says that it is client 1."""
    shutil.copy(site_of(sites.folder, 1) / "identity.key", site_of(sites.folder, 2))


def other_enrolment(sites):
    path = site_of(sites.folder, 2) / "enrolment.toml"
    known = read_enrolment(path)
    path.write_text(enrolment_text(dataclasses.replace(known, revoked=frozenset({1}))))


def readable_identity(sites):
    (site_of(sites.folder, 2) / "identity.key").chmod(0o644)


def other_app(file, before, after):
    """Site 2 has another edition of the app."""

    def spoil(sites):
        app = sites.folder / "other" / "federation"
        shutil.copytree(sites.app, app)
        text = (app / file).read_text()
        assert before in text
        (app / file).write_text(text.replace(before, after))
        sites.sites[72] = sites.node(72, site_of(sites.folder, 2), app)

    return spoil


def policy(**terms):
    return lambda sites: with_policy(site_of(sites.folder, 2), **terms)


MISFITS = {
    "unknown class": (spoilt_images, "is no class of this federation", "site2 cannot take part (failed)"),
    "unknown identity": (spoilt_identity, "not enrolled", "its site failed"),
    "the identity of another": (swapped_identity, "", "says that it is client 1, which node 71 is; it is left out"),
    "other enrolment": (other_enrolment, "terms differ, enrolment", "site2 does not fit: enrolment"),
    "identity that others may read": (readable_identity, "identity.key", "its site failed"),
    "class names": (
        other_app("data.py", '"calendar", "house"', '"house", "calendar"'),
        "terms differ, class names",
        "site2 does not fit: class names",
    ),
    "model": (
        other_app("config.toml", "[training]", "[model]\nrank = 3\n[training]"),
        "terms differ, model.rank",
        "site2 does not fit: model.rank",
    ),
    "code of another": (other_app("data.py", 'folder / "images"', "4711"), "images", "site2 cannot take part (failed)"),
    "suite": (policy(suite='"x25519-mlkem768"'), "insists on x25519-mlkem768", "not take part (profile)"),
    "profile of the noise": (policy(corrupt=0.9), "impossible", "site2 does not take part (plan)"),
    "noise": (policy(least_noise=9.0), "insists on 9", "site2 does not take part (noise)"),
    "budget": (policy(most_epsilon=0.1), "above its budget of 0.1", "site2 does not take part (budget)"),
    "unit": (policy(unit='"example"'), "insists on example", "site2 does not take part (unit)"),
    "floors": (policy(least_survivors=3), "insists on 3", "site2 does not take part (floors)"),
    "placement": (policy(placements='["text-mlp"]'), "none that this client trains", "not take part (placement)"),
    "a policy that is none": (policy(unit="true"), "policy.toml", "its site failed"),
}


@pytest.mark.parametrize(("spoil", "at_site", "at_server"), MISFITS.values(), ids=MISFITS)
def test_a_site_that_does_not_fit_is_left_out_and_told_why(sites, capfd, spoil, at_site, at_server) -> None:
    spoil(sites)
    for site in range(SITES):  # nobody is held to a node key here
        (site_of(sites.folder, site) / "node.key.pub").unlink()
    run = hosted(sites)
    said = capfd.readouterr().err.splitlines()
    assert survivors(run) == [[0, 1]]
    assert any(line.startswith(("site2:", "site:")) and at_site in line for line in said) or not at_site
    assert any(at_server in line for line in said if not line.startswith("site2:"))
    assert not ClientLedger(site_of(sites.folder, 2) / "state/ledger.jsonl").given
    assert flora_secure.audit(run).passed


def test_a_revoked_site_is_not_asked_and_the_others_need_another_enrolment(sites) -> None:
    revoke(sites.folder, 2)
    for party in (*(site_of(sites.folder, site) for site in range(SITES)), sites.folder / "server"):
        shutil.copy(sites.folder / "enrolment.toml", party)
    with pytest.raises(Stopped, match="1 clients are revoked, and everybody is to take part"):
        hosted(sites)
    assert sites.received[72] == 0


def test_a_site_is_held_to_its_node_key(sites, capfd) -> None:
    """Node 72 is somebody who has site 1's folder but not its node key; the true one connects as node 71."""
    sites.sites[72] = sites.node(72, site_of(sites.folder, 1))
    sites.keys[72] = b"no key"
    run = hosted(sites)
    assert survivors(run) == [[0, 1]]
    assert sites.received[72] == 0
    assert "node 72: its node key is that of no site, it is left out" in capfd.readouterr().err


def test_a_site_that_comes_later_under_another_node_is_in_again(sites, capfd) -> None:
    for site in range(SITES):
        (site_of(sites.folder, site) / "node.key.pub").unlink()
    late = sites.sites.pop(72)
    push = sites.push_messages

    def pushing(messages):
        if sites.received[70] == 2:  # it has said its number, and compared terms
            sites.sites[99] = sites.node(99, site_of(sites.folder, 2))
        return push(messages)

    sites.push_messages = pushing
    run = hosted(sites)
    assert late is not None
    assert survivors(run) == [[0, 1, 2]]
    assert "client 2: no node of Flower is known to be this client" in capfd.readouterr().err


def test_a_site_killed_in_a_trip_costs_itself_alone(sites) -> None:
    answer = sites.sites[72]

    def dying(message):
        if sites.received[72] == 3:
            sites.killed.add(72)
        return answer(message)

    sites.sites[72] = dying
    run = hosted(sites)
    assert survivors(run) == [[0, 1]]
    assert flora_secure.audit(run).passed


def test_the_text_of_an_exception_stays_at_its_site(sites, capfd, monkeypatch) -> None:
    def broken(*_):
        raise RuntimeError("patient 4711")

    monkeypatch.setattr(flower_app, "open_site", broken)
    with pytest.raises(Stopped, match="0 of 3 sites fit and answer"):
        hosted(sites)
    assert "patient 4711" in capfd.readouterr().err  # the sites' own log, which is this process's here
    assert not any(b"4711" in reply for reply in sites.replies)
    assert set(sites.replies) == {b""}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"server": ""}, "absolute path of the server's folder, got ''"),
        ({"server": "relative"}, "absolute path"),
        ({"server": 7}, "absolute path"),
        ({"server": "/nowhere/at/all"}, "is no folder"),
        ({"patience": 0}, "patience of the run's configuration must be seconds above 0, got 0"),
        ({"trip-patience": "long"}, "must be seconds above 0, got 'long'"),
    ],
)
def test_settings_that_are_none_are_one_line(sites, settings, says) -> None:
    with pytest.raises(Stopped) as stopped:
        hosted(sites, **settings)
    assert says in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert stopped.value.__cause__ is None


def test_flower_logs_a_stopped_run_without_a_traceback(sites, caplog) -> None:
    with pytest.raises(Stopped) as stopped:
        hosted(sites, server="")
    logger = logging.getLogger(flower_app.FLOWER_LOG)
    for error in (stopped.value, ValueError("a mistake")):
        logger.error("%s raised an exception", "ServerApp", exc_info=error)
    said = {record.getMessage(): record.exc_info for record in caplog.records}
    assert said.keys() == {str(stopped.value), "ServerApp raised an exception"}
    assert said[str(stopped.value)] is None
    assert said["ServerApp raised an exception"][0] is ValueError


@pytest.mark.parametrize("given", [None, "", "relative/site", 4])
def test_a_supernode_without_a_site_is_told_how_to_name_it(sites, capfd, given) -> None:
    from flora_secure.engine.flower import wire

    config = {} if given is None else {"site": given}
    message = Message(wire.packed(b""), 70, "query.hello", ttl=60)
    message.metadata.__dict__["_message_id"] = message.object_id
    context = Context(run_id=1, node_id=70, node_config=config, state=RecordDict(), run_config={})
    assert wire.unpacked(client_app(sites.app)(message, context)) == wire.FAILED
    assert "start it with --node-config 'site=" in capfd.readouterr().err


LIGHT = """
import sys
from pathlib import Path
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
for name in ("_run_id", "_node_id", "_task_id"):
    setattr(TaskIdentity, name, 1)
sys.path.insert(0, sys.argv[1])
from federation.app import client
from flora_secure.engine.flower import wire
for action in ("hello", "secure"):
    sent = bytes.fromhex(sys.argv[3]) if action == "secure" else b""
    message = Message(wire.packed(sent), 70, "query." + action, ttl=60)
    message.metadata.__dict__["_message_id"] = message.object_id
    context = Context(run_id=1, node_id=70, node_config={"site": sys.argv[2]}, state=RecordDict(), run_config={})
    print(wire.unpacked(client(message, context)).hex())
print(" ".join(sorted({"torch", "scipy", "open_clip", "PIL", "dp_accounting"} & sys.modules.keys())))
"""


def test_messages_that_need_no_training_load_no_heavy_library(sites) -> None:
    """Each kind of message after the opening and the request, answered by a fresh interpreter of a site's."""
    seen: list[bytes] = []
    answer = sites.sites[72]

    def recording(message):
        seen.append(message.content["flora-secure"]["message"])
        if len(seen) == 5:  # terms and three trips of the set-up are answered; the state is that before the roster's
            return []
        if len(seen) == 3:
            shutil.copytree(site_of(sites.folder, 2), sites.folder / "before")
        return answer(message)

    sites.sites[72] = recording
    hosted(sites)
    program = [sys.executable, "-c", LIGHT, str(sites.app.parent), str(sites.folder / "before"), seen[2].hex()]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    number, reply, heavy = done.stdout.split("\n")[:3]
    assert number == "00000002"
    assert len(reply) > 100  # a message of the protocol, and no refusal
    assert heavy == ""
