"""Who may drop out, and what those who stay tell: the right sum exactly where the specification says that there is one,
and of each peer one of its two secrets, whatever survivors the server tells."""

from itertools import chain, combinations, product
from unittest.mock import Mock

import pytest
from attacker import at, body_of, reframed
from cohorts import IDENTITIES, LEAST, MODEL, Cohort, duplicate, hybrid, malicious, plain_sum, semi_honest, vectors_for
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    LocalSession,
    MisuseError,
    PeerError,
    ProtocolError,
    RoundAborted,
    Suite,
    TooFewSurvivors,
    Trip,
    keys,
    round_messages,
)
from flora_protocols.codec import Kind, encode_frame, encode_subset
from flora_protocols.shamir import SHARE

MAKES = {
    "semi-honest complete": lambda **more: semi_honest(5, threshold=2, **more),
    "semi-honest Harary": lambda **more: semi_honest(6, 4, threshold=2, **more),
    "malicious complete": lambda **more: malicious(5, threshold=3, **more),
    "malicious Harary": lambda **more: malicious(8, neighbours=6, threshold=4, **more),
    "hybrid complete": lambda **more: hybrid(5, threshold=2, **more),
}
cohorts = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


def session_of(params):
    return LocalSession(params, floors=LEAST, identities=IDENTITIES[: params.clients] if params.malicious else None)


def run(session, fate):
    """The next round of a session. `fate`: for each client the trip in which it vanishes, or None. Checks the sum."""
    params, start = session.prepared.params, session.prepared.next_round(session.prepared.next_slot, MODEL)
    vectors = vectors_for(params)
    result = session.round(start, vectors, {trip: {i for i, when in enumerate(fate) if when is trip} for trip in Trip})
    assert (result.sum == plain_sum(params, vectors, result.survivors)).all()
    return result


def completes(params, fate):
    """Whether a round in which all have shared can end in a sum: SPEC.md, C-67 and C-68, in sets."""
    graph, t = params.graph, params.threshold
    near = {i: set(graph.members(i)) - {i} for i in range(params.clients)}
    survivors = {i for i, when in enumerate(fate) if when is not Trip.MASK}

    def enough(left):
        needed = survivors | {owner for owner in set(near) - survivors if near[owner] & survivors}
        return len(left) >= t and all(len(left.intersection(graph.holders(owner))) >= t for owner in needed)

    left = survivors
    if not enough(left):
        return False
    if params.malicious:
        signed = {i for i in survivors if fate[i] is not Trip.AGREE}
        left = {i for i in signed if len((near[i] & signed) | ({i} & set(graph.holders(i)))) >= t}
        if len(signed) < t or not enough(left):
            return False
    return enough({i for i in left if fate[i] is not Trip.UNMASK})


def check(session, fate):
    params = session.prepared.params
    if not completes(params, fate):
        with pytest.raises(RoundAborted):
            run(session, fate)
        return False
    result = run(session, fate)
    assert result.survivors == tuple(i for i, when in enumerate(fate) if when is not Trip.MASK)
    near = {i for survivor in result.survivors for i in params.graph.members(survivor)}
    assert result.recovered == tuple(i for i in result.dropped if i in near)
    return True


@pytest.mark.parametrize(
    ("make", "trips"),
    [
        (lambda **more: semi_honest(4, threshold=2, **more), (Trip.MASK, Trip.UNMASK)),
        (lambda **more: hybrid(4, threshold=2, **more), (Trip.MASK, Trip.UNMASK)),
        (lambda **more: semi_honest(5, 2, threshold=2, **more), (Trip.MASK, Trip.UNMASK)),
        (lambda **more: semi_honest(6, 4, threshold=2, **more), (Trip.MASK, Trip.UNMASK)),
        (lambda **more: malicious(4, threshold=3, **more), (Trip.MASK, Trip.AGREE, Trip.UNMASK)),
        (lambda **more: malicious(4, neighbours=2, threshold=2, **more), (Trip.MASK, Trip.AGREE, Trip.UNMASK)),
    ],
    ids=["complete", "hybrid complete", "circle", "Harary", "malicious complete", "malicious circle"],
)
def test_every_dropout_pattern_after_the_shares(make, trips):
    """Each in a round of one session: whoever vanished from a round, in whichever trip, is in the next."""
    clients = make().clients
    fates = list(product([None, *trips], repeat=clients))
    session = session_of(make(slots=len(fates)))
    outcomes = [check(session, fate) for fate in fates]
    assert len(set(outcomes)) == 2
    assert session.prepared.next_slot == len(fates)


@settings(max_examples=30)
@given(st.data())
def test_any_size_any_dropouts(data):
    clients = data.draw(st.integers(4, 12))
    signs = data.draw(st.booleans())
    neighbours = data.draw(st.sampled_from([clients - 1, *range(2, clients - 1, 2)]))
    holders = neighbours + (neighbours == clients - 1)
    params = (malicious if signs else semi_honest)(
        clients,
        neighbours=neighbours,
        threshold=data.draw(st.integers(holders // 2 + 1 if signs else 2, holders)),
        bits=data.draw(st.integers(8, 32)),
        suite=data.draw(st.sampled_from(Suite)),
        slots=2,
    )
    fates = [None] * 9 + [Trip.MASK, Trip.UNMASK] + [Trip.AGREE] * signs
    session = session_of(params)
    for _ in range(2):
        check(session, data.draw(st.lists(st.sampled_from(fates), min_size=clients, max_size=clients)))


# What a client tells


def at_unmask(cohort, told):
    """Client 0 before UNMASK, having been told (and having agreed on) `told`; and its mail. The cohort stays."""
    params, client = cohort.params, duplicate(cohort.clients[0])
    scope = client._uploaded.scope
    mail = round_messages.encode_survivors(params, scope, told)
    if params.malicious:
        client, _ = client.agree(mail)
        text = round_messages.endorsed_text(params, scope, told)
        members = params.graph.members(0)
        signed = {i: keys.sign(IDENTITIES[i], keys.SURVIVORS, text) for i in members if i in told and i != 0}
        mail = round_messages.encode_agreement(params, scope, members, signed)
    return client, mail


def uploaded(make, **more):
    """A cohort of which all have uploaded."""
    return at(Cohort(make(**more)), Trip.MASK).trip()


@cohorts
def test_no_survivor_sets_lay_open_two_secrets_of_one_peer(make):
    """Whatever set the server tells: of each owner one share, and tags with exactly those that are not in it."""
    cohort, answered = uploaded(make), 0
    params, held, tags = cohort.params, cohort.clients[0]._uploaded.held, cohort.clients[0]._uploaded.tags
    assert set(tags) == set(params.graph.members(0)) - {0}
    others = range(1, params.clients)
    for chosen in chain.from_iterable(combinations(others, size) for size in range(params.clients)):
        told = (0, *chosen)
        try:
            client, mail = at_unmask(cohort, told)
            body = body_of(client.unmask(mail)[1])
        except TooFewSurvivors:
            continue
        answered += 1
        shares = [pair[:SHARE] if owner in told else pair[SHARE:] for owner, pair in sorted(held.items())]
        assert body == b"".join([*shares, *(tags[i] for i in sorted(tags) if i not in told)])
        assert not any((pair[SHARE:] if owner in told else pair[:SHARE]) in body for owner, pair in held.items())
    assert answered > 10


@cohorts
def test_one_answer_even_if_the_next_set_overlaps(make):
    """First everybody survived, then all but client 1: its opener's share stays where it is. Nor in a later round."""
    cohort = uploaded(make, slots=2)
    held, everybody = dict(cohort.clients[0]._uploaded.held), tuple(range(cohort.params.clients))
    client, mail = at_unmask(cohort, everybody)
    after, _ = client.unmask(mail)
    fewer = tuple(i for i in everybody if i != 1)
    second_mail = at_unmask(cohort, fewer)[1]
    for second in (mail, second_mail):
        with pytest.raises(MisuseError, match="cannot unmask again"):
            client.unmask(second)
    assert not hasattr(client, "_uploaded")
    cohort.clients[0] = after
    cohort.again()
    uploads, _ = after.mask(cohort.start, cohort.vectors[0])
    for second in (mail, second_mail):
        with pytest.raises(PeerError):
            getattr(uploads, "agree" if cohort.params.malicious else "unmask")(second)
    assert not any(pair[SHARE:][:16] in duplicate(uploads).dump() for pair in held.values())


@pytest.mark.parametrize("make", [MAKES["malicious complete"], MAKES["malicious Harary"]])
def test_nothing_before_the_signed_agreement(make):
    """The survivors without signatures, with none, with those over another set: nothing leaves the client."""
    cohort = uploaded(make)
    params, members = cohort.params, cohort.params.graph.members(0)
    told = tuple(range(params.clients - 1))
    client, mail = at_unmask(cohort, told)
    scope = client._uploaded.scope
    everybody = round_messages.endorsed_text(params, scope, range(params.clients))
    other = {i: keys.sign(IDENTITIES[i], keys.SURVIVORS, everybody) for i in members if i in told and i != 0}
    for bad in (
        round_messages.encode_survivors(params, scope, told),
        encode_frame(Kind.AGREEMENT, params.suite, scope, encode_subset(members, ())),
        round_messages.encode_agreement(params, scope, members, other),
    ):
        with pytest.raises(ProtocolError):
            client.unmask(bad)
    assert client.unmask(mail)[1]


def test_equivocation_in_the_complete_graph_gains_no_second_secret():
    """Two stories, in each of which half the others have dropped: one half lacks signatures, and tells nothing."""
    cohort = uploaded(MAKES["malicious complete"])
    params = cohort.params
    stories = dict.fromkeys((0, 1, 2), (0, 1, 2)) | dict.fromkeys((3, 4), (0, 3, 4))
    scope, agreed, signed = cohort.clients[0]._uploaded.scope, {}, {}
    for index, story in stories.items():
        told = round_messages.encode_survivors(params, scope, story)
        agreed[index], message = cohort.clients[index].agree(told)
        signed[index] = body_of(message)
    for index in (3, 4):  # of (0, 3, 4), client 0 has endorsed the other story
        honest = {i: signed[i] for i in (3, 4) if i != index}
        with pytest.raises(TooFewSurvivors, match="2 left, 3 needed"):
            agreed[index].unmask(round_messages.encode_agreement(params, scope, range(5), honest))
        with pytest.raises(PeerError, match="signature does not verify"):
            agreed[index].unmask(round_messages.encode_agreement(params, scope, range(5), honest | {0: signed[0]}))


@cohorts
def test_no_slot_key_is_ever_told(make):
    """In no message of a round, nor the seed: a tag has eight bytes of a hash."""
    cohort = at(Cohort(make(slots=2)), Trip.MASK)
    clients = {i: client.collect(cohort.mail[i]) for i, client in cohort.clients.items()}
    slot = clients[0]._slots.take(0)[0]
    cohort.clients = clients
    cohort.trip(dropping={1})
    seen = [cohort.sent[0]]
    while cohort.server.trip is not Trip.UNMASK:
        cohort.trip()
        seen.append(cohort.sent[0])
    cohort.send()
    seen.append(cohort.sent[0])
    for key in slot.pair_keys.values():
        assert not any(key in message for message in seen)
    assert not any(slot.seed in message for message in seen)
    assert cohort.result().recovered == (1,)


@cohorts
def test_the_server_makes_pair_masks_for_the_dropped_only(make, monkeypatch):
    """One for each surviving neighbour of one that dropped, whether or not that neighbour answers."""
    for silent in (0, 1):
        cohort = at(Cohort(make()), Trip.UNMASK, dropping={2})
        near = [i for i in cohort.params.graph.members(2) if i != 2]
        cohort.send(dropping=near[:silent])
        with monkeypatch.context() as patched:
            made = Mock(side_effect=keys.pair_mask)
            patched.setattr(keys, "pair_mask", made)
            assert cohort.result().recovered == (2,)
        assert [call.args[2:] for call in made.mock_calls] == [(2, peer) for peer in near]


def test_reveals_do_not_mix_between_clients_and_rounds():
    """A REVEAL of the round before, under the new header: other shares, which lie off the polynomials of the slot."""
    cohort = at(Cohort(semi_honest(7, threshold=4, slots=2)), Trip.UNMASK).send()
    old = cohort.sent[1]
    cohort.result()
    at(cohort.again(), Trip.UNMASK)
    with pytest.raises(PeerError, match="another session or round"):
        cohort.server.receive(1, old)
    cohort.server.receive(1, reframed(cohort.move_again(1), body_of(old)))
    for index in (0, 2, 3, 4, 5, 6):
        cohort.server.receive(index, cohort.move(index)[1])
    with pytest.raises(PeerError, match="a wrong share of client 0's secret") as caught:
        cohort.server.close()
    assert caught.value.culprit == 1
