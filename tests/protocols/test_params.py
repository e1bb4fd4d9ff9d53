"""Session parameters and floors: what cannot work together, what is of the wrong type, what the set-up id binds."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import IDENTITIES, LEAST, malicious, semi_honest

from flora_protocols import (
    ClientAdvertise,
    ClientShare,
    Floors,
    MisuseError,
    ParameterError,
    Profile,
    ServerAdvertise,
    SessionParams,
    Suite,
    identity_public,
    run_round,
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"clients": 1, "neighbours": 0}, "clients is 1"),
        ({"clients": 65_537}, "65536"),
        ({"neighbours": 5}, "neighbours 5 of 10 clients: use 9"),
        ({"neighbours": 10}, "neighbours is 10"),
        ({"threshold": 1}, "threshold is 1"),
        ({"threshold": 11}, "only 10 clients hold shares"),
        ({"neighbours": 6, "threshold": 7}, "only 6 clients hold shares"),
        ({"corrupt": 7}, "use more than 7"),
        ({"bits": 7}, "bits is 7; between 8 and 32"),
        ({"bits": 33}, "bits is 33"),
        ({"dimension": 0}, "dimension is 0"),
        ({"dimension": 2**30 + 1}, "dimension"),
        ({"number": -1}, "number is -1"),
        ({"number": 2**64}, "number is 18446744073709551616"),
        ({"corrupt": -1}, "corrupt is -1"),
        ({"corrupt": 11}, "corrupt is 11; between 0 and 10"),
        ({"slots": 0}, "slots is 0; between 1 and 1024"),
        ({"slots": 1025}, "slots is 1025"),
        ({"slots": -1}, "slots is -1"),
        ({"identities": (b"a" * 32,)}, "semi-honest profile has no identity keys"),
    ],
)
def test_impossible_parameters(change, text):
    with pytest.raises(ParameterError, match=text):
        semi_honest(**{"clients": 10, "threshold": 7} | change)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda params: ServerAdvertise(None), "params must be SessionParams, not NoneType"),
        (lambda params: ClientAdvertise({}, 0, floors=LEAST), "params must be SessionParams, not dict"),
        (lambda params: ClientAdvertise(params, 0, floors=3), "floors must be Floors, not int"),
        (lambda params: ClientShare.load("a", b""), "params must be SessionParams, not str"),
        (lambda params: run_round("a", [], floors=LEAST), "params must be SessionParams, not str"),
        (
            lambda params: run_round(params, None, floors=LEAST),
            "vectors must be a sequence or a callable, not NoneType",
        ),
        (lambda params: run_round(params, [], floors=LEAST), "0 vectors for 4 clients"),
    ],
)
def test_arguments_of_another_type(call, text):
    with pytest.raises(MisuseError, match=text):
        call(semi_honest())


NUMBERS = ("clients", "neighbours", "threshold", "bits", "dimension", "slots", "number", "corrupt")


def refused(**change) -> str:
    with pytest.raises(MisuseError) as caught:
        SessionParams(**{"clients": 10, "neighbours": 9, "threshold": 7, "bits": 16, "dimension": 100} | change)
    assert not isinstance(caught.value, ParameterError)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200
    return message


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10", "'10'"),
        (2.5, "2.5"),
        (10.0, "10.0"),
        (np.float64(10), "np.float64(10.0)"),
        (float("nan"), "nan"),
        (None, "None"),
        (True, "True"),
        (np.True_, "np.True_"),
        ([10], "[10]"),
        (np.ones((2, 2), int), "array([[1, 1], [1, 1]])"),
        ("a\nb" * 100, "'a\\nba\\nb"),
    ],
)
def test_numbers_of_the_wrong_type(name, value, text):
    assert refused(**{name: value}).startswith(f"{name} must be an int, not {text}")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"profile": "semi-honest"}, "not 'semi-honest'; pass Profile.SEMI_HONEST or Profile.MALICIOUS_SERVER"),
        ({"profile": None}, "profile must be a Profile, not None"),
        ({"suite": 1}, "suite must be a Suite, not 1; pass Suite.X25519 or Suite.X25519_MLKEM768"),
        ({"suite": True}, "suite must be a Suite, not True"),
        ({"suite": "hybrid"}, "not 'hybrid'"),
        ({"suite": None}, "suite must be a Suite, not None"),
        ({"identities": None}, "identities must be a tuple of Ed25519 public keys of 32 bytes, not of type NoneType"),
        ({"identities": [bytes(32)]}, "not of type list"),
        ({"identities": (bytes(32), "k" * 32)}, "that of client 1 is of type str"),
        ({"identities": (bytes(64),)}, "that of client 0 is 64 bytes"),
    ],
)
def test_other_fields_of_the_wrong_type(change, text):
    assert text in refused(**change)


def test_no_message_holds_what_was_passed_for_a_key():
    secret = "s3cret" * 6
    assert "s3cret" not in refused(identities=(secret.encode(),)) + refused(identities=secret)
    for name in (*NUMBERS, "profile", "suite"):
        assert "s3cret" not in refused(**{name: secret.encode()})


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.int32])
def test_numpy_integers_are_ints(kind):
    """Kept as they are they would overflow: 2^bits in uint16 is 0."""
    given = {"clients": 10, "neighbours": 8, "threshold": 7, "bits": 16, "dimension": 100, "number": 3, "corrupt": 1}
    given["slots"] = 4
    params, same = SessionParams(**{name: kind(value) for name, value in given.items()}), SessionParams(**given)
    assert all(type(getattr(params, name)) is int for name in NUMBERS)
    assert (params, params.setup_id, params.payload_bytes) == (same, same.setup_id, same.payload_bytes)
    floors = Floors(clients=kind(3), threshold=kind(2), survivors=kind(2), suite=Suite.X25519)
    assert (type(floors.clients), floors) == (int, replace(LEAST, clients=3))


@pytest.mark.parametrize("missing", ["clients", "threshold", "survivors", "suite"])
def test_floors_have_no_defaults(missing):
    """Nobody takes part at two of two by leaving something out."""
    given = vars(LEAST) | {}
    del given[missing]
    with pytest.raises(TypeError, match=missing):
        Floors(**given)


def test_nobody_takes_part_without_floors():
    with pytest.raises(TypeError, match="floors"):
        ClientAdvertise(semi_honest(), 0)
    with pytest.raises(TypeError, match="floors"):
        run_round(semi_honest(), [])
    with pytest.raises(MisuseError, match="floors must be Floors, not NoneType"):
        ClientAdvertise(semi_honest(), 0, floors=None)


def test_numbers_beyond_printing():
    with pytest.raises(ParameterError, match=r"dimension is int beyond printing; between 1 and"):
        semi_honest(dimension=10**5000)
    with pytest.raises(ParameterError, match=r"number is 1000.*…; between 0 and"):
        semi_honest(number=10**100)


@pytest.mark.parametrize("value", ["2", 2.0, None, True])
def test_floors_of_the_wrong_type(value):
    with pytest.raises(MisuseError, match="survivors must be an int, not ") as caught:
        replace(LEAST, survivors=value)
    assert not isinstance(caught.value, ParameterError)


@pytest.mark.parametrize("clients", [1024, 2000, 65_536])
def test_slots_and_holders_together(clients):
    """What a client prepares and keeps is bounded: 2^20 shares."""
    most = min(1024, 2**20 // clients)
    assert semi_honest(clients, slots=most).slots == most
    if most < 1024:
        with pytest.raises(
            ParameterError, match=f"{most + 1} slots among {clients} holders: a client prepares at most"
        ):
            semi_honest(clients, slots=most + 1)
    assert semi_honest(clients, neighbours=100, slots=1024).slots == 1024  # so many hold shares, not so many take part


def test_malicious_threshold_and_identities():
    assert malicious(10, threshold=7, corrupt=3).malicious
    with pytest.raises(ParameterError, match="use at least 7"):
        malicious(10, threshold=6, corrupt=3)
    with pytest.raises(ParameterError, match="same identity"):
        semi_honest(3, threshold=2, profile=Profile.MALICIOUS_SERVER, identities=(bytes(32),) * 3)
    with pytest.raises(ParameterError, match="0 identity keys for 4"):
        semi_honest(profile=Profile.MALICIOUS_SERVER)


def test_every_parameter_is_bound_into_the_set_up_id():
    base = {"clients": 10, "neighbours": 8, "threshold": 5, "bits": 9, "dimension": 7, "corrupt": 1, "number": 1}
    changes = [{}, *({name: value} for name, value in (("clients", 12), ("neighbours", 6), ("threshold", 4)))]
    changes += [
        {"bits": 10},
        {"dimension": 8},
        {"corrupt": 2},
        {"number": 2},
        {"slots": 2},
        {"suite": Suite.X25519_MLKEM768},
    ]
    ids = {SessionParams(**base | change).setup_id for change in changes}
    ids |= {malicious().setup_id, semi_honest().setup_id}
    assert len(ids) == len(changes) + 2


def order(params):
    return params.graph.circle


@pytest.mark.parametrize("make", [semi_honest, malicious])
def test_the_graph_cannot_be_ground(make):
    """The attack: a server varies what it likes until a client has the neighbours that it wants. It gets one graph."""
    base = {"clients": 12, "neighbours": 8, "threshold": 7, "bits": 9, "dimension": 7, "corrupt": 1, "number": 5}
    changes = [
        *({"threshold": t, "corrupt": corrupt} for t in (7, 8) for corrupt in range(t)),
        *({"dimension": d} for d in range(1, 100)),
        *({"bits": b} for b in range(8, 33)),
        *({"slots": slots} for slots in range(2, 50)),
        {"suite": Suite.X25519_MLKEM768},
    ]
    changes = [change for change in changes if make is semi_honest or 8 + change.get("corrupt", 1) < 2 * 7]
    assert len({order(make(**base | change)) for change in changes}) == 1


def test_the_graph_binds():
    """What makes one session another, each by itself: size, degree, number, who takes part and in which order."""
    base = {"clients": 12, "neighbours": 8, "threshold": 7, "number": 5}
    keys = malicious(**base).identities
    graphs = [
        semi_honest(**base),
        semi_honest(**base | {"clients": 13}),
        semi_honest(**base | {"neighbours": 10}),
        semi_honest(**base | {"number": 6}),
        malicious(**base),
        malicious(**base | {"number": 6}),
        replace(malicious(**base), identities=(keys[1], keys[0], *keys[2:])),
        replace(malicious(**base), identities=(*keys[:11], identity_public(IDENTITIES[12]))),
    ]
    assert len(set(map(order, graphs))) == len(graphs)


def test_a_client_has_its_own_floors():
    with pytest.raises(ParameterError, match="threshold is 3, below this client's floor of 4"):
        ClientAdvertise(semi_honest(), 0, floors=replace(LEAST, threshold=4))
    with pytest.raises(ParameterError, match="clients is 4, below this client's floor of 5"):
        ClientAdvertise(semi_honest(), 0, floors=replace(LEAST, clients=5))
    with pytest.raises(ParameterError):
        replace(LEAST, survivors=1)


@pytest.mark.parametrize("index", [-1, 4, "0", None])
def test_impossible_index(index):
    with pytest.raises(MisuseError):
        ClientAdvertise(semi_honest(), index, floors=LEAST)
