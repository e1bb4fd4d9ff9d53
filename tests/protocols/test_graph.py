"""Who is whose neighbour, who encapsulates and who derives; and sets of clients as bitmaps."""

import random

import pytest
from cohorts import semi_honest
from hypothesis import given
from hypothesis import strategies as st

from flora_protocols import PeerError
from flora_protocols.codec import Bitmap, Reader, encode_subset
from flora_protocols.graph import Graph

SESSION = bytes(range(32))


@pytest.mark.parametrize(("clients", "neighbours"), [(5, 2), (8, 4), (9, 6), (100, 12)])
def test_harary_graph(clients, neighbours):
    graph = Graph(clients, neighbours, SESSION)
    near = {node: set(graph.holders(node)) for node in range(clients)}
    assert all(len(others) == neighbours and node not in others for node, others in near.items())
    assert all(node in near[other] for node, others in near.items() for other in others)
    assert all(graph.members(node) == tuple(sorted(near[node] | {node})) for node in near)
    assert graph.neighbourhoods.tolist() == [list(graph.members(node)) for node in near]
    assert graph.holdings.tolist() == [list(graph.holders(node)) for node in near]
    chosen = random.Random(1)
    for _ in range(100):  # k - 1 dropouts never disconnect it
        gone = chosen.sample(range(clients), neighbours - 1)
        left, reached = set(range(clients)).difference(gone), set()
        frontier = {min(left)}
        while frontier:
            reached |= frontier
            frontier = set().union(*(near[node] for node in frontier)) & left - reached
        assert reached == left


def test_the_graph_follows_from_its_seed():
    one, again, other = (Graph(50, 8, seed) for seed in (SESSION, SESSION, SESSION[::-1]))
    assert [one.members(i) for i in range(50)] == [again.members(i) for i in range(50)]
    assert [one.members(i) for i in range(50)] != [other.members(i) for i in range(50)]
    seeds = {tuple(semi_honest(9, 4, number=number).graph.members(0)) for number in range(12)}
    assert len(seeds) > 3


@pytest.mark.parametrize(("clients", "neighbours"), [(2, 1), (5, 4), (6, 5), (8, 4), (9, 6), (10, 8), (12, 10)])
def test_who_encapsulates(clients, neighbours):
    """One end of each pair, and nobody has more to do than half, rounded up; the table says the same."""
    graph = Graph(clients, neighbours, SESSION)
    made = {i: {j for j in graph.members(i) if j != i and graph.encapsulates(i, j)} for i in range(clients)}
    for one in range(clients):
        for other in set(graph.members(one)) - {one}:
            assert (other in made[one]) != (one in made[other])
        assert neighbours // 2 <= len(made[one]) <= (neighbours + 1) // 2
        row = graph.neighbourhoods[one][graph.clockwise[one]].tolist()
        assert set(row) == made[one]


@pytest.mark.parametrize(("clients", "neighbours"), [(2, 1), (5, 4), (8, 4), (9, 6), (12, 10)])
def test_who_derives(clients, neighbours):
    """The first t - 1 of a client's neighbours; the table, and the deriver's own view, say the same."""
    graph = Graph(clients, neighbours, SESSION)
    for threshold in range(2, neighbours + 1 + graph.complete):
        for one in range(clients):
            others = [member for member in graph.members(one) if member != one]
            assert graph.derivers(one, threshold) == tuple(others[: threshold - 1])
            row = graph.neighbourhoods[one][graph.derives(threshold)[one]].tolist()
            assert tuple(row) == graph.derivers(one, threshold)
            dealers = {other for other in others if one in graph.derivers(other, threshold)}
            assert graph.derives_from(one, threshold) == dealers


# Bitmaps


@given(st.integers(1, 70), st.data())
def test_a_bitmap_is_a_set(size, data):
    """As written and as kept: the same bytes, the same members; and bits beyond are refused."""
    one, other = (data.draw(st.sets(st.integers(0, size - 1))) for _ in range(2))
    raw = encode_subset(range(size), one)
    assert int.from_bytes(raw, "little") == sum(1 << member for member in one)
    bitmap = Reader(memoryview(raw), 1).bitmap(size)
    assert (bitmap.raw, list(bitmap), len(bitmap)) == (raw, sorted(one), len(one))
    assert {member for member in range(size) if member in bitmap} == one
    assert Reader(memoryview(raw), 1).subset(range(size)) == tuple(sorted(one))
    assert set(bitmap.without(Bitmap(encode_subset(range(size), other)))) == one - other
    members = tuple(3 * at + 1 for at in range(size))
    assert encode_subset(members, [3 * at + 1 for at in one]) == raw
    if size % 8:
        beyond = raw[:-1] + bytes((raw[-1] | 128,))
        for read in (lambda reader: reader.bitmap(size), lambda reader: reader.subset(members)):
            with pytest.raises(PeerError, match=f"beyond its {size} members"):
                read(Reader(memoryview(beyond), 1))
