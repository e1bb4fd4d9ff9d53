"""Who is which client: what nodes say of themselves, and what is made of it."""

import pytest

pytest.importorskip("flwr")

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from grids import FakeGrid, echo, failing, on_clock, silent

from flora_secure.engine.flower.nodes import Nodes, public_key_of
from flora_secure.engine.flower.wire import number_packed, packed
from flora_secure.errors import ConfigError


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


PEMS = [
    ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for _ in range(3)
]
KEYS = dict(enumerate(
    load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for pem in PEMS
))  # fmt: skip


class Keyed(FakeGrid):
    """Nodes with keys, `keys`, without those that are `away`."""

    def __init__(self, clock, sites) -> None:
        super().__init__(clock, sites)
        self.keys: dict[int, bytes] = {}
        self.away: set[int] = set()

    def get_nodes(self):
        return [
            NodeInfo(node_id=node, public_key=self.keys.get(node, b"")) for node in self.sites if node not in self.away
        ]


def test_a_site_whose_key_is_known_is_asked_nothing_and_nobody_else_is_it(clock) -> None:
    grid = Keyed(clock, {70: says(1), 71: says(0), 72: says(0), 73: says(2)})
    grid.keys = {70: PEMS[0], 71: PEMS[1], 72: PEMS[2]}
    log: list[str] = []
    nodes = Nodes(grid, range(3), log.append, {0: KEYS[0], 1: KEYS[1]})
    nodes.find(least=3, patience=60, grace=0)
    assert [nodes.node_of(client) for client in range(3)] == [70, 71, 73]  # whatever 70 and 71 say
    assert {message.metadata.dst_node_id for message in grid.pushed} == {72, 73}
    assert log == ["node 72: says that it is client 0, whose node key is another; it is left out"]


@pytest.mark.parametrize("key", [b"", b"rubbish", PEMS[2], PEMS[0][:-30]])
def test_where_all_are_held_to_keys_a_stranger_is_told_of_once_and_never_asked(clock, key) -> None:
    grid = Keyed(clock, {70: says(0), 71: says(1)})
    grid.keys = {70: PEMS[0], 71: key}
    log: list[str] = []
    nodes = Nodes(grid, range(2), log.append, {0: KEYS[0], 1: KEYS[1]})
    nodes.find(least=2, patience=5, grace=0)
    assert nodes.missing == (1,)
    assert grid.pushed == []
    assert log == ["node 71: its node key is that of no site, it is left out"]


def asked_again(grid, nodes, patience=10.0):
    """One exchange's worth of questions; gives who was asked."""
    before = len(grid.pushed)
    nodes.find(least=9, patience=patience, grace=0)
    return [message.metadata.dst_node_id for message in grid.pushed[before:]]


def test_who_failed_is_asked_again_and_who_was_silent_only_when_it_has_been_away(clock) -> None:
    grid = Keyed(clock, {70: says(0), 71: silent, 72: failing(8)})
    nodes = Nodes(grid, range(3), [].append)
    assert asked_again(grid, nodes) == [70, 71, 72]
    assert asked_again(grid, nodes) == [72]
    grid.away = {71}
    assert asked_again(grid, nodes) == [72]
    grid.away, grid.sites[71] = set(), says(1)
    assert asked_again(grid, nodes) == [71, 72]
    assert nodes.missing == (2,)


def test_a_client_whose_node_is_gone_may_be_another_node_and_not_before(clock) -> None:
    grid = Keyed(clock, {70: says(0), 71: says(1)})
    log: list[str] = []
    nodes = Nodes(grid, range(3), log.append)
    assert asked_again(grid, nodes) == [70, 71]
    grid.sites[90] = says(1)
    asked_again(grid, nodes)
    assert nodes.node_of(1) == 71
    assert log[-1] == "node 90: says that it is client 1, which node 71 is; it is left out"
    grid.away = {71}
    assert nodes.node_of(1) == 71
    asked_again(grid, nodes)
    assert nodes.node_of(1) == 90


def test_a_revoked_client_s_number_is_left_out(clock) -> None:
    log: list[str] = []
    nodes = Nodes(FakeGrid(clock, {70: says(0), 71: says(1), 72: says(2)}), [0, 2, 3], log.append)
    nodes.find(least=3, patience=5, grace=0)
    assert nodes.missing == (3,)
    assert log[0] == "node 71: says that it is client 1, which is revoked; it is left out"


@pytest.mark.parametrize("line", [b"", b"ssh-rsa nothing", b"\xff" * 9])
def test_a_file_that_is_no_node_key_is_named(line) -> None:
    with pytest.raises(ConfigError, match=r"site1/node\.key\.pub is no public node key"):
        public_key_of(line, "site1/node.key.pub")
