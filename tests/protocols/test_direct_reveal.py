"""Direct reveal: survivors tell the keys of the masks they share with dropped clients, and never any other."""

from itertools import chain, combinations, product

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import IDENTITIES, LEAST, Cohort, duplicate, malicious, plain_sum, semi_honest, vectors_for
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    MisuseError,
    PeerError,
    ProtocolError,
    RoundAborted,
    TooFewSurvivors,
    Trip,
    keys,
    messages,
    run_round,
)
from flora_protocols.codec import Kind, encode_frame, encode_subset
from flora_protocols.shamir import SHARE

DIRECT = {
    "semi-honest complete": lambda **more: semi_honest(5, threshold=2, **more),
    "semi-honest Harary": lambda **more: semi_honest(6, 4, threshold=2, **more),
    "malicious complete": lambda **more: malicious(5, threshold=3, **more),
    "malicious Harary": lambda **more: malicious(8, neighbours=6, threshold=4, **more),
}
cohorts = pytest.mark.parametrize("make", DIRECT.values(), ids=DIRECT)


def run(params, fate):
    """`fate`: for each client the trip in which it vanishes, or None. Checks the sum."""
    vectors = vectors_for(params)
    result = run_round(
        params,
        vectors,
        floors=LEAST,
        dropouts={trip: {i for i, when in enumerate(fate) if when is trip} for trip in Trip},
        identities=IDENTITIES[: params.clients] if params.malicious else None,
    )
    assert (result.sum == plain_sum(params, vectors, result.survivors)).all()
    return result


def completes(params, fate):
    """Whether a round in which all share their keys can end in a sum: SPEC.md, C-67 and C-68, in sets."""
    graph, t = params.graph, params.threshold
    near = {i: set(graph.members(i)) - {i} for i in range(params.clients)}
    survivors = {i for i, when in enumerate(fate) if when is not Trip.MASK}

    def enough(left):
        needed = set(survivors)
        for owner in set(near) - survivors:
            silent = near[owner] & survivors - (left if params.direct_reveal else set())
            needed |= {owner} if silent else set()
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


def check(params, fate):
    if not completes(params, fate):
        with pytest.raises(RoundAborted):
            run(params, fate)
        return False
    result = run(params, fate)
    assert result.survivors == tuple(i for i, when in enumerate(fate) if when is not Trip.MASK)
    near = {i for survivor in result.survivors for i in params.graph.members(survivor)}
    assert result.recovered == tuple(i for i in result.dropped if i in near)
    return True


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    ("make", "trips"),
    [
        (lambda **more: semi_honest(4, threshold=2, **more), (Trip.MASK, Trip.UNMASK)),
        (lambda **more: semi_honest(5, 2, threshold=2, **more), (Trip.MASK, Trip.UNMASK)),
        (lambda **more: semi_honest(6, 4, threshold=2, **more), (Trip.MASK, Trip.UNMASK)),
        (lambda **more: malicious(4, threshold=3, **more), (Trip.MASK, Trip.AGREE, Trip.UNMASK)),
        (lambda **more: malicious(4, neighbours=2, threshold=2, **more), (Trip.MASK, Trip.AGREE, Trip.UNMASK)),
    ],
    ids=["complete", "circle", "Harary", "malicious complete", "malicious circle"],
)
def test_every_dropout_pattern_after_the_shares(make, trips, direct):
    """The right sum exactly where the specification says that there is one, with direct reveal and without."""
    params = make(direct_reveal=direct)
    outcomes = [check(params, fate) for fate in product([None, *trips], repeat=params.clients)]
    assert len(set(outcomes)) == 2


@settings(max_examples=60)
@given(st.data())
def test_any_size_any_dropouts(data):
    clients = data.draw(st.integers(4, 12))
    signs = data.draw(st.booleans())
    neighbours = data.draw(st.sampled_from([clients - 1, *range(2, clients - 1, 2)]))
    holders = neighbours + (neighbours == clients - 1)
    threshold = data.draw(st.integers(holders // 2 + 1 if signs else 2, holders))
    params = (malicious if signs else semi_honest)(
        clients, neighbours=neighbours, threshold=threshold, bits=data.draw(st.integers(8, 32)), direct_reveal=True
    )
    fates = [None] * 9 + [Trip.MASK, Trip.UNMASK] + [Trip.AGREE] * signs
    check(params, data.draw(st.lists(st.sampled_from(fates), min_size=clients, max_size=clients)))


def test_fewer_than_t_holders_of_a_dropped_client_are_enough_if_all_survivors_answer():
    """Without direct reveal the same dropouts end the round."""
    for direct in (False, True):
        params = semi_honest(12, 6, threshold=3, direct_reveal=direct)
        near = set(params.graph.members(0))
        gone = sorted(near, key=lambda i: -len(near.intersection(params.graph.members(i))))[:5]
        fate = [Trip.MASK if i in gone else None for i in range(12)]
        assert check(params, fate) is direct
        last = next(i for i in range(12) if i in near and i not in gone)
        fate[last] = Trip.UNMASK
        assert check(params, fate) is False


# What a client tells


def at_unmask(cohort, told):
    """Client 0 before UNMASK, having been told (and having agreed on) `told`; and its mail. The cohort stays."""
    params, client = cohort.params, duplicate(cohort.clients[0])
    session = client._uploaded.session
    mail = messages.encode_survivors(params, session, told)
    if params.malicious:
        client, _ = client.agree(mail)
        text = messages.endorsed_text(params, session, told)
        members = params.graph.members(0)
        signed = {i: keys.sign(IDENTITIES[i], keys.SURVIVORS, text) for i in members if i in told and i != 0}
        mail = messages.encode_agreement(session, members, signed)
    return client, mail


@cohorts
def test_no_survivor_sets_lay_open_the_pair_key_of_a_survivor(make):
    """Whatever set the server tells: its own shares, and pair keys with exactly those that are not in it."""
    params, others = make(direct_reveal=True), range(1, make().clients)
    cohort, answered = Cohort(params).trip().trip().trip(), 0
    held, pair_keys = cohort.clients[0]._uploaded.held, cohort.clients[0]._uploaded.pair_keys
    assert set(pair_keys) == set(params.graph.members(0)) - {0}
    for chosen in chain.from_iterable(combinations(others, size) for size in range(params.clients)):
        told = (0, *chosen)
        try:
            client, mail = at_unmask(cohort, told)
            body = body_of(client.unmask(mail)[1])
        except TooFewSurvivors:
            continue
        answered += 1
        shares = [pair[SHARE:] if owner in told else pair[:SHARE] for owner, pair in sorted(held.items())]
        assert body == b"".join([*shares, *(pair_keys[i] for i in sorted(pair_keys) if i not in told)])
        assert not any(pair_keys[i] in body for i in told if i in pair_keys)
    assert answered > 10


@cohorts
def test_one_answer_even_if_the_next_set_overlaps(make):
    """First everybody survived, then all but client 1: its pair key stays where it is."""
    params = make(direct_reveal=True)
    cohort = Cohort(params).trip().trip().trip()
    client, mail = at_unmask(cohort, tuple(range(params.clients)))
    client.unmask(mail)
    fewer = tuple(i for i in range(params.clients) if i != 1)
    for second in (mail, at_unmask(cohort, fewer)[1]):
        with pytest.raises(MisuseError, match="cannot unmask again"):
            client.unmask(second)
    assert not hasattr(client, "_uploaded")


@pytest.mark.parametrize("make", [DIRECT["malicious complete"], DIRECT["malicious Harary"]])
def test_nothing_before_the_signed_agreement(make):
    """The survivors without signatures, with too few, with those over another set: no pair key leaves the client."""
    params = make(direct_reveal=True)
    told, members = tuple(range(params.clients - 1)), params.graph.members(0)
    client, mail = at_unmask(Cohort(params).trip().trip().trip(), told)
    session = client._uploaded.session
    everybody = messages.endorsed_text(params, session, range(params.clients))
    other = {i: keys.sign(IDENTITIES[i], keys.SURVIVORS, everybody) for i in members if i in told and i != 0}
    for bad in (
        messages.encode_survivors(params, session, told),
        encode_frame(Kind.AGREEMENT, session, encode_subset(members, ())),
        messages.encode_agreement(session, members, other),
    ):
        with pytest.raises(ProtocolError):
            client.unmask(bad)
    assert client.unmask(mail)[1]


def test_equivocation_in_the_complete_graph_gains_no_pair_key():
    """Two stories, in each of which half the others have dropped: one half lacks signatures, and tells nothing."""
    params = DIRECT["malicious complete"](direct_reveal=True)
    cohort = Cohort(params).trip().trip().trip()
    stories = dict.fromkeys((0, 1, 2), (0, 1, 2)) | dict.fromkeys((3, 4), (0, 3, 4))
    session, agreed, signed = cohort.clients[0]._uploaded.session, {}, {}
    for index, story in stories.items():
        agreed[index], message = cohort.clients[index].agree(messages.encode_survivors(params, session, story))
        signed[index] = body_of(message)
    for index in (3, 4):  # of (0, 3, 4), client 0 has endorsed the other story
        honest = {i: signed[i] for i in (3, 4) if i != index}
        with pytest.raises(TooFewSurvivors, match="2 left, 3 needed"):
            agreed[index].unmask(messages.encode_agreement(session, range(5), honest))
        with pytest.raises(PeerError, match="signature does not verify"):
            agreed[index].unmask(messages.encode_agreement(session, range(5), honest | {0: signed[0]}))


@cohorts
def test_without_it_no_pair_key_is_kept(make):
    for direct in (False, True):
        cohort = Cohort(make(direct_reveal=direct)).trip().trip()
        before = cohort.clients[0]
        own, publics, session = before._own, before._publics, before._session
        pair_keys = [keys.pair_key(own.mask_key, publics[i], session, 0, i) for i in sorted(publics)]
        cohort.trip()
        while True:
            kept = cohort.clients[0]._uploaded.pair_keys
            assert list(kept.values()) == (pair_keys if direct else [])
            if type(cohort.server).__name__ == "ServerUnmask":
                break
            cohort.trip()
        dump = cohort.clients[0].dump()
        assert [key in dump for key in pair_keys] == [direct] * len(pair_keys)


# What the server does with it


@cohorts
@pytest.mark.parametrize("silent", [0, 1])
def test_the_server_exchanges_keys_for_silent_survivors_only(make, silent, monkeypatch):
    params = make(direct_reveal=True)
    cohort = Cohort(params).trip().trip().trip(dropping={5 % params.clients})
    gone = 5 % params.clients
    while type(cohort.server).__name__ != "ServerUnmask":
        cohort.trip()
    near = [i for i in params.graph.members(gone) if i != gone]
    cohort.send(dropping=near[:silent])
    made, truth = [], keys.exchange
    monkeypatch.setattr(keys, "exchange", lambda *args: made.append(args[-1]) or truth(*args))
    assert cohort.result().recovered == (gone,)
    assert made == near[:silent]


@cohorts
def test_missing_and_surplus_pair_keys(make):
    cohort = Cohort(make(direct_reveal=True)).trip().trip().trip(dropping={1})
    while type(cohort.server).__name__ != "ServerUnmask":
        cohort.trip()
    sender = next(i for i in cohort.params.graph.members(1) if i != 1)
    message = cohort.move_again(sender)
    body = body_of(message)
    for bad in (body[:-32], body[:-1], body + b"\0", body + bytes(32), body + body[-32:], body[32:]):
        with pytest.raises(PeerError) as caught:
            cohort.server.receive(sender, reframed(message, bad))
        assert caught.value.culprit == sender
    assert cohort.send().result().recovered == (1,)


def test_a_wrong_pair_key_spoils_the_sum_unseen():
    """As the specification says: like an uploaded vector of noise, it cannot be told from a right one."""
    cohort = Cohort(semi_honest(5, bits=32, dimension=50, direct_reveal=True)).trip().trip().trip(dropping={1})
    good = cohort.move_again(0)
    cohort.server.receive(0, reframed(good, body_of(good)[:-32] + bytes(32)))
    for index in (2, 3, 4):
        cohort.server.receive(index, cohort.move(index)[1])
    result = cohort.server.close()
    off = result.sum - plain_sum(cohort.params, cohort.vectors, result.survivors)
    assert len(np.unique(off)) > 40  # noise all over, not a chosen difference in a place or two


def test_with_and_without_it_do_not_mix():
    ours = Cohort(semi_honest(direct_reveal=True))
    with pytest.raises(PeerError, match="another session"):
        ours.server.receive(2, Cohort(semi_honest()).move(2)[1])
    ours.finish()
