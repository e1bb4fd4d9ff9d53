"""GridTransport over a Grid whose nodes are lost, late, doubled or hostile."""

import itertools

import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import message as flower_message
from grids import FakeGrid, echo, failing, on_clock, silent

from flora_secure.engine.flower import wire
from flora_secure.engine.flower.letters import MARGIN
from flora_secure.engine.flower.nodes import Nodes
from flora_secure.engine.flower.transport import GridTransport

NODES = {0: 70, 1: 71, 2: 72}  # client → node


@pytest.fixture
def clock(monkeypatch):
    return on_clock(monkeypatch)


@pytest.fixture
def log():
    return []


def transport_to(clock, log, **sites):
    """A transport to the clients 0 to 2, which echo unless `client0`, … says otherwise; and its grid."""
    nodes = {NODES[client]: sites.get(f"client{client}", echo(b"%d:" % client)) for client in NODES}
    grid = FakeGrid(clock, nodes)
    return GridTransport(grid, Nodes(grid, NODES, log.append, known=NODES), log.append), grid


def exchanged(transport, outbox, patience=30.0):
    pairs = list(transport.exchange(outbox, patience))
    assert len({client for client, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_each_client_gets_its_message_and_its_reply_comes_back(clock, log) -> None:
    transport, grid = transport_to(clock, log, client1=echo(b"1:", delay=3))
    assert exchanged(transport, {2: b"c", 0: b"a", 1: b"b"}) == {0: b"0:a", 1: b"1:b", 2: b"2:c"}
    assert [(m.metadata.dst_node_id, m.metadata.message_type, m.metadata.ttl) for m in grid.pushed] == [
        (72, "query.secure", 30 + MARGIN),
        (70, "query.secure", 30 + MARGIN),
        (71, "query.secure", 30 + MARGIN),
    ]
    assert log == []
    assert clock.now < 1003.5  # it ends with the last reply, and not with patience


def test_replies_come_while_others_are_waited_for(clock, log) -> None:
    transport, _ = transport_to(clock, log, client0=echo(b"0:", delay=9))
    replies = transport.exchange({0: b"x", 1: b"x", 2: b"x"}, 30)
    assert [client for client, _ in itertools.islice(replies, 2)] == [1, 2]
    assert clock.now < 1001
    assert list(replies) == [(0, b"0:x")]


def test_only_who_is_asked_is_asked(clock, log) -> None:
    transport, grid = transport_to(clock, log)
    assert exchanged(transport, {1: b"x"}) == {1: b"1:x"}
    assert [m.metadata.dst_node_id for m in grid.pushed] == [71]
    assert exchanged(transport, {}) == {}


def test_who_does_not_reply_is_waited_for_until_patience_is_over(clock, log) -> None:
    transport, _ = transport_to(clock, log, client1=silent)
    assert exchanged(transport, {0: b"x", 1: b"x", 2: b"x"}, patience=30) == {0: b"0:x", 2: b"2:x"}
    assert 1030 <= clock.now < 1031
    assert log == ["client 1: no answer within 30 s"]


def test_a_reply_in_the_last_moment_counts(clock, log) -> None:
    transport, _ = transport_to(clock, log, client1=echo(b"1:", delay=30))
    assert exchanged(transport, {1: b"x"}, patience=30) == {1: b"1:x"}


def test_a_late_reply_is_never_taken_for_that_to_a_later_message(clock, log) -> None:
    transport, grid = transport_to(clock, log, client1=echo(b"late ", delay=40))
    assert exchanged(transport, {1: b"first"}, patience=30) == {}
    earlier = set(grid.pulled)
    grid.pulled.clear()
    grid.sites[NODES[1]] = echo(b"prompt ", delay=20)  # the late one is there before it
    assert exchanged(transport, {1: b"second"}, patience=30) == {1: b"prompt second"}
    assert not earlier & set(grid.pulled)


def test_two_messages_never_have_one_id(clock, log, monkeypatch) -> None:
    """Flower hashes a message for its id: the same bytes to the same node in one tick of the clock would have one, and
    the reply to the first would be that to the second."""
    moment = flower_message.now()
    monkeypatch.setattr(flower_message, "now", lambda: moment)
    transport, grid = transport_to(clock, log)
    for _ in range(3):
        exchanged(transport, {0: b"x", 1: b"x"})
    assert len({m.metadata.message_id for m in grid.pushed}) == 6


def test_of_two_replies_the_first_counts(clock, log) -> None:
    def twice(message):
        return [(0, Message(wire.packed(text), reply_to=message)) for text in (b"first", b"second")]

    transport, _ = transport_to(clock, log, client1=twice)
    assert exchanged(transport, {0: b"x", 1: b"x"}) == {0: b"0:x", 1: b"first"}
    assert exchanged(transport, {0: b"y"}) == {0: b"0:y"}


@pytest.mark.parametrize("code", [0, 2, 3, 5, 8, 4711])
def test_an_error_is_no_answer_and_is_told_by_its_code_alone(clock, log, code) -> None:
    transport, _ = transport_to(clock, log, client1=failing(code, delay=2))
    assert exchanged(transport, {0: b"x", 1: b"x"}) == {0: b"0:x"}
    assert log == [f"client 1: no answer, error {code} of Flower"]
    assert clock.now < 1003  # nobody waits for it any more


def content(**records):
    return RecordDict({name.replace("_", "-"): record for name, record in records.items()})


def ours(value):
    return content(flora_secure=ConfigRecord({"message": value}))


@pytest.mark.parametrize(
    "hostile",
    [
        RecordDict(),
        content(other=ConfigRecord({"message": b"x"})),
        content(flora_secure=ConfigRecord({"message": b"x"}), other=ConfigRecord({"message": b"x"})),
        content(flora_secure=MetricRecord({"message": 1})),
        content(flora_secure=ArrayRecord({"message": Array("uint8", (1,), "numpy.ndarray", b"x")})),
        content(flora_secure=ConfigRecord()),
        content(flora_secure=ConfigRecord({"other": b"x"})),
        content(flora_secure=ConfigRecord({"message": b"x", "other": b"x"})),
        *(ours(value) for value in ("x", 1, 1.0, True, [b"x"], [])),
        ours(b"x" * 101),
    ],
)
def test_what_is_none_of_our_records_is_no_answer(clock, log, monkeypatch, hostile) -> None:
    monkeypatch.setattr(wire, "MOST_MESSAGE", 100)
    transport, _ = transport_to(clock, log, client1=lambda message: [(0, Message(hostile, reply_to=message))])
    assert exchanged(transport, {0: b"x", 1: b"x"}) == {0: b"0:x"}
    assert len(log) == 1
    assert log[0].startswith("client 1: its reply is not read, ")


def test_a_site_that_failed_is_no_answer(clock, log) -> None:
    transport, _ = transport_to(clock, log, client1=lambda m: [(0, Message(wire.packed(wire.FAILED), reply_to=m))])
    assert exchanged(transport, {0: b"x", 1: b"x"}) == {0: b"0:x"}
    assert log == ["client 1: no answer, its site failed; the site's own log says why"]


@pytest.mark.parametrize("field", ["_src_node_id", "_reply_to_message_id"])
def test_a_reply_that_claims_to_be_another_nodes_is_nobodys(clock, log, field) -> None:
    """Flower's server compares a copy of a reply's head; what is in the reply itself its sender wrote."""
    grid = None

    def forger(message):
        reply = Message(wire.packed(b"forged"), reply_to=message)
        first = grid.pushed[0].metadata
        reply.metadata.__dict__[field] = {"_src_node_id": NODES[0], "_reply_to_message_id": first.message_id}[field]
        return [(0, reply)]

    transport, grid = transport_to(clock, log, client0=echo(b"0:", delay=1), client1=forger)
    assert exchanged(transport, {0: b"x", 1: b"x"}) == {0: b"0:x"}
    assert log[0] == "client 1: a reply to something else, or by another node, is left out"


def test_a_reply_that_flower_cannot_read_costs_nobody_else_theirs(clock, log) -> None:
    transport, grid = transport_to(clock, log)
    grid.unreadable = {NODES[1]}
    assert exchanged(transport, {0: b"x", 1: b"x", 2: b"x"}) == {0: b"0:x", 2: b"2:x"}
    assert log == ["client 1: Flower could not read its reply (ValueError)"]
    assert clock.now < 1001


@pytest.mark.parametrize("taken", [[], [None], [""], ["a", "b"]])
def test_a_message_that_flower_does_not_take_is_told(clock, log, monkeypatch, taken) -> None:
    transport, grid = transport_to(clock, log)
    push = grid.push_messages
    monkeypatch.setattr(grid, "push_messages", lambda m: taken if m[0].metadata.dst_node_id == NODES[1] else push(m))
    assert exchanged(transport, {0: b"x", 1: b"x"}) == {0: b"0:x"}
    assert log == ["client 1: Flower did not take the message for it"]


def test_a_server_of_flower_that_is_gone_is_raised(clock, log, monkeypatch) -> None:
    transport, grid = transport_to(clock, log)

    def gone(_):
        raise ConnectionError

    monkeypatch.setattr(grid, "push_messages", gone)
    with pytest.raises(ConnectionError):
        transport.exchange({0: b"x"}, 30)


def test_a_client_without_a_node_has_dropped_out(clock, log) -> None:
    transport, _ = transport_to(clock, log)
    assert exchanged(transport, {0: b"x", 7: b"x"}) == {0: b"0:x"}
    assert log == ["client 7: no node of Flower is known to be this client"]


def test_a_long_wait_is_not_spent_on_looking(clock, log) -> None:
    transport, grid = transport_to(clock, log, client1=silent)
    exchanged(transport, {1: b"x"}, patience=600)
    assert clock.now < 1600.01  # and no look is after the deadline but the last
    assert len(grid.pulled) < 900  # at the first pace it would be 12,000
    grid.pulled.clear()
    exchanged(transport, {1: b"x"}, patience=1)
    assert len(grid.pulled) > 15


def test_misuse_is_raised(clock, log, monkeypatch) -> None:
    transport, grid = transport_to(clock, log)
    with pytest.raises(ValueError, match="one node"):
        Nodes(grid, range(2), log.append, known={0: 70, 1: 70})
    with pytest.raises(TypeError, match="bytes"):
        transport.exchange({0: "text"}, 30)
    monkeypatch.setattr(wire, "MOST_MESSAGE", 100)
    with pytest.raises(ValueError, match="at most 100 bytes, got 101"):
        transport.exchange({0: b"x" * 101}, 30)
    assert exchanged(transport, {0: b"x" * 90}) == {0: b"0:" + b"x" * 90}
    transport.close()
    with pytest.raises(RuntimeError, match="closed"):
        transport.exchange({0: b"x"}, 30)
