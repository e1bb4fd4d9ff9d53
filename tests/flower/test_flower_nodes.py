"""Who is which client: what nodes say of themselves, and what is made of it."""

import pytest

pytest.importorskip("flwr")

from flwr.app import Message
from grids import FakeGrid, echo, failing, on_clock, silent

from flora_secure.engine.flower.nodes import Nodes
from flora_secure.engine.flower.wire import number_packed, packed


def says(number, delay=0.0):
    text = number if isinstance(number, bytes) else number_packed(number)
    return lambda message: [(delay, Message(packed(text), reply_to=message))]


@pytest.fixture
def clock(monkeypatch):
    return on_clock(monkeypatch)


def asked(grid, clients=3, least=None, patience=60.0, grace=5.0):
    log = []
    nodes = Nodes(grid, range(clients), log.append)
    nodes.find(least=least or clients, patience=patience, grace=grace)
    return {client: nodes.node_of(client) for client in range(clients) if client not in nodes.missing}, log


def test_each_node_is_the_client_that_it_says(clock) -> None:
    grid = FakeGrid(clock, {70: says(2), 71: says(0), 72: says(1, delay=20)})
    assert asked(grid) == ({2: 70, 0: 71, 1: 72}, [])
    assert {message.metadata.message_type for message in grid.pushed} == {"query.hello"}
    assert len(grid.pushed) == 3  # each is asked once
    assert clock.now < 1021


def test_of_two_nodes_with_one_number_the_first_is_kept(clock) -> None:
    grid = FakeGrid(clock, {70: says(0, delay=1), 71: says(0), 72: says(1)})
    known, log = asked(grid)
    assert known == {0: 71, 1: 72}
    assert log == ["node 70: says that it is client 0, which node 71 is; it is left out"]


def test_nodes_that_connect_later_are_asked_too(clock) -> None:
    class Growing(FakeGrid):
        def get_node_ids(self):
            return [node for node in self.sites if node != 71 or self.clock.now > 1010]

    grid = Growing(clock, {70: says(0), 71: says(1)})
    assert asked(grid, clients=2)[0] == {0: 70, 1: 71}


def test_enough_are_enough_after_a_grace(clock) -> None:
    sites = {70: says(0), 71: says(1, delay=4), 72: says(2, delay=8), 73: silent}
    assert asked(FakeGrid(clock, sites), clients=4, least=2, grace=6)[0] == {0: 70, 1: 71, 2: 72}
    assert 1010 <= clock.now < 1012


def test_patience_ends_it_with_fewer(clock) -> None:
    known, log = asked(FakeGrid(clock, {70: says(0), 71: silent}), patience=60)
    assert known == {0: 70}
    assert 1060 <= clock.now < 1062
    assert log == ["node 71: no answer within 60 s"]


@pytest.mark.parametrize("number", [3, 2**32 - 1, b"\0\0\0", b"\0\0\0\0\1", b"one"])
def test_a_number_of_nobody_is_told_and_left_out(clock, number) -> None:
    known, log = asked(FakeGrid(clock, {70: says(0), 71: says(number)}))
    assert known == {0: 70}
    assert log == ["node 71: its number is not read, it names no client of the 3"]


def test_nodes_that_fail_are_told_by_code(clock) -> None:
    known, log = asked(FakeGrid(clock, {70: says(0), 71: failing(5), 72: echo()}))
    assert known == {0: 70}
    assert log == [
        "node 71: no answer, error 5 of Flower",
        "node 72: no answer, its site failed; the site's own log says why",
    ]
