"""Cipher suites: whether they can be spoken, and that nobody speaks a weaker one than it means to."""

from dataclasses import replace

import pytest
from attacker import at, body_of, reframed, replaced
from cohorts import LEAST, Cohort, hybrid, malicious, semi_honest
from cryptography.exceptions import UnsupportedAlgorithm

from flora_protocols import (
    ClientAdvertise,
    ClientDecapsulate,
    ClientEncapsulate,
    ClientShare,
    Code,
    LocalSession,
    MisuseError,
    ParameterError,
    PeerError,
    ServerAdvertise,
    SessionParams,
    Suite,
    Trip,
    load_position,
    set_up,
)

KEM = Suite.X25519_MLKEM768
STRONG = replace(LEAST, suite=KEM)


def signed_hybrid(clients=4, **more):
    return malicious(clients, suite=KEM, **more)


profiles = pytest.mark.parametrize("make", [hybrid, signed_hybrid])


# Whether it can be spoken


class Lacking:
    """An OpenSSL without ML-KEM: the names are there, and raise when they are used."""

    class MLKEM768PrivateKey:
        @staticmethod
        def from_seed_bytes(seed):
            raise UnsupportedAlgorithm("ML-KEM-768 is not supported")


@pytest.mark.parametrize("lacks", [None, Lacking], ids=["cryptography before 48", "its OpenSSL"])
def test_where_it_cannot_be_spoken(lacks, monkeypatch):
    """C-17: a typed error that says what to do, at client and server, before any key is made."""
    params, drawn = hybrid(), []
    dump = ClientAdvertise(params, 0, floors=LEAST).dump()
    waiting = ClientAdvertise(params, 0, floors=LEAST).advertise()[0].dump()
    assert KEM.available
    monkeypatch.setattr("flora_protocols.suites._mlkem", lacks)
    monkeypatch.setattr("flora_protocols.keys.draw", lambda *args: drawn.append(args))
    assert not KEM.available
    assert Suite.X25519.available
    for act in (
        lambda: ClientAdvertise(params, 0, floors=LEAST),
        lambda: ServerAdvertise(params),
        lambda: next(set_up(params)),
        lambda: LocalSession(params, floors=LEAST),
        lambda: ClientAdvertise.load(params, dump),
        lambda: ClientEncapsulate.load(params, waiting),
        lambda: load_position(params, waiting),
    ):
        with pytest.raises(MisuseError, match=r"install cryptography 48 or later, or use Suite\.X25519") as caught:
            act()
        assert caught.value.code is Code.OTHER_SUITE
        assert not isinstance(caught.value, ParameterError)
    with pytest.raises(PeerError, match="cipher suite 2, which this side cannot speak") as caught:
        SessionParams.from_bytes(params.to_bytes())
    assert (caught.value.culprit, caught.value.code) == ("server", Code.OTHER_SUITE)
    assert drawn == []
    assert SessionParams.from_bytes(semi_honest().to_bytes()) == semi_honest()


def test_the_other_suite_does_without_it(monkeypatch):
    monkeypatch.setattr("flora_protocols.suites._mlkem", None)
    at(Cohort(malicious()), Trip.UNMASK).finish()


# Nobody negotiates


def test_a_clients_weakest_suite():
    """C-05: whoever insists on the hybrid suite takes part in no session of the other, however it is offered."""
    with pytest.raises(
        ParameterError, match="suite is 1, below this client's floor of 2; it does not take part"
    ) as caught:
        ClientAdvertise(semi_honest(), 0, floors=STRONG)
    assert caught.value.code is Code.BELOW_FLOOR
    ClientAdvertise(hybrid(), 0, floors=STRONG)
    ClientAdvertise(hybrid(), 0, floors=LEAST)
    offered = SessionParams.from_bytes(semi_honest().to_bytes())
    with pytest.raises(ParameterError, match="below this client's floor"):
        ClientAdvertise(offered, 0, floors=STRONG)


def test_floors_have_no_suite_of_their_own():
    for bad in (1, 2, None, "X25519", KEM.value):
        with pytest.raises(MisuseError, match=r"suite must be a Suite, not .*; pass Suite\.X25519 or "):
            replace(LEAST, suite=bad)


@pytest.mark.parametrize("make", [semi_honest, hybrid])
def test_the_suite_byte_of_parameters(make):
    """Turned down in transit, it no longer fits the set-up id; and a suite that nobody knows is none."""
    data = bytearray(make().to_bytes())
    data[3] ^= 3
    with pytest.raises(PeerError, match="damaged, or are of a session among other identities") as caught:
        SessionParams.from_bytes(bytes(data))
    assert caught.value.code is Code.OTHER_SESSION
    for unknown in (0, 3, 255):
        data[3] = unknown
        with pytest.raises(PeerError, match=f"cipher suite {unknown}, which this side") as caught:
            SessionParams.from_bytes(bytes(data))
        assert caught.value.code is Code.OTHER_SUITE


def test_the_suites_do_not_mix():
    """The suite enters the set-up id; and where a header is forged, the bodies are of another length."""
    assert semi_honest().setup_id != hybrid().setup_id
    weak, strong = Cohort(semi_honest()), Cohort(hybrid())
    one, other = weak.move_again(0), strong.move_again(0)
    for cohort, message in ((weak, other), (strong, one)):
        with pytest.raises(PeerError) as caught:
            cohort.server.receive(0, message)
        assert caught.value.code in (Code.OTHER_SUITE, Code.NOT_A_MESSAGE)
    with pytest.raises(PeerError, match=r"truncated|bytes; between"):
        strong.server.receive(0, reframed(other, body_of(one)))
    with pytest.raises(PeerError, match=r"truncated|bytes; between"):
        weak.server.receive(0, reframed(one, body_of(other)))


@pytest.mark.parametrize("trip", [trip for trip in Trip if trip is not Trip.ADVERTISE])
def test_the_suite_byte_of_any_frame(trip):
    """Both ways, in every trip."""
    cohort = at(Cohort(signed_hybrid()), trip)
    for message, take in (
        (cohort.mail[0], lambda bad: replaced(cohort, 0, bad)),
        (cohort.move_again(0), lambda bad: cohort.server.receive(0, bad)),
    ):
        head = bytearray(message)
        head[3] = 1
        with pytest.raises(PeerError, match="cipher suite 1; this session's is 2") as caught:
            take(reframed(bytes(head), body_of(message)))
        assert caught.value.code is Code.OTHER_SUITE
    cohort.finish()


def test_the_hybrid_client_seals_nothing_before_all_ciphertexts_are_in():
    """It has no way to share from a roster alone."""
    cohort = Cohort(hybrid()).trip()
    client = cohort.clients[0]
    assert type(client) is ClientEncapsulate
    assert not hasattr(client, "share")
    roster = cohort.mail[0]
    cohort.trip()
    assert type(cohort.clients[0]) is ClientDecapsulate
    with pytest.raises(PeerError, match="kind 2; DELIVERY"):
        cohort.clients[0].share(roster)
    assert type(Cohort(semi_honest()).trip().clients[0]) is ClientShare
    cohort.finish()
