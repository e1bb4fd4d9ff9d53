"""Positions are moved once, cannot be copied, and show nothing."""

import copy
import pickle

import pytest
from cohorts import Cohort, malicious, semi_honest

from flora_protocols import (
    Code,
    MisuseError,
    PeerError,
    ProtocolError,
    Trip,
)


@pytest.mark.parametrize("make", [semi_honest, malicious])
def test_spent_positions_raise(make):
    cohort = Cohort(make())
    while True:
        old_clients, old_server, old_mail = dict(cohort.clients), cohort.server, cohort.mail
        if type(cohort.server).__name__ == "ServerUnmask":
            cohort.send().result()
        else:
            cohort.trip()
        cohort.clients, now = old_clients, cohort.clients
        cohort.mail, mail = old_mail, cohort.mail
        with pytest.raises(MisuseError, match="again"):
            cohort.move(0)
        cohort.clients, cohort.mail = now, mail
        assert old_server.spent
        assert old_server.heard == frozenset()
        for call in (old_server.close, lambda old=old_server: old.receive(0, b"")):
            with pytest.raises(MisuseError, match="again"):
                call()
        if old_server is cohort.server:
            return


@pytest.mark.parametrize("make", [semi_honest, malicious])
def test_no_secret_in_repr_and_no_copies(make):
    """Nothing that a position holds, at any depth, shows in its repr; and it can be neither copied nor pickled."""
    cohort = Cohort(make())
    while cohort.server is not None:
        for position in [*cohort.clients.values(), cohort.server]:
            assert repr(position).startswith(f"<{type(position).__name__} ")
            assert len(repr(position)) < 80
            for value in vars(position).values():
                if not isinstance(value, str):
                    assert repr(value) not in repr(position)
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(MisuseError, match="cannot be copied"):
                    duplicate(position)
        own = vars(cohort.clients[0]).get("_own")
        if own is not None:
            assert own.mask_secret.hex() not in repr(own)
            assert repr(own.mask_secret) not in repr(own)
        if type(cohort.server).__name__ == "ServerUnmask":
            return
        cohort.trip()


def test_every_error_is_a_protocol_error():
    assert issubclass(MisuseError, ProtocolError)
    assert not issubclass(PeerError, MisuseError)
    assert PeerError("server", "x", Code.BAD_BODY).culprit == "server"
    assert str(PeerError(3, "x", Code.BAD_BODY)) == "client 3: x"


@pytest.mark.parametrize("make", [semi_honest, malicious])
def test_every_position_says_its_trip(make):
    """The one that it moves in or hears, before and after; a client that is done has none."""
    cohort = Cohort(make())
    trips = [trip for trip in Trip if trip is not Trip.AGREE or cohort.params.malicious]
    for trip in trips:
        before = [cohort.clients[0], cohort.server]
        assert [position.trip for position in before] == [trip, trip]
        if trip is trips[-1]:
            cohort.send().result()
        else:
            cohort.trip()
        assert all(position.spent for position in before)
        assert [position.trip for position in before] == [trip, trip]
        with pytest.raises(AttributeError):
            before[0].trip = Trip.ADVERTISE
    assert cohort.clients[0].trip is None
