"""Requests and replies between a server and its clients: all of them, once each, whatever breaks in between."""

import contextlib
import inspect
import threading

import pytest
from loopback import GREETING, HEADER, LONG, REPLY, REQUEST, raw_client, raw_server, soon, until

from flora_secure.engine.deployed.transport import Transport
from flora_secure.engine.tls.connection import CHUNK, Timing
from flora_secure.engine.tls.server import TlsTransport

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def reversed_(request: bytes) -> bytes:
    return request[::-1]


def never(request: bytes) -> bytes:
    raise AssertionError("nobody was to be asked")


@pytest.mark.parametrize("name", ["exchange", "close"])
def test_it_is_the_transport_of_the_contract(name):
    ours, theirs = (inspect.signature(getattr(one, name)) for one in (TlsTransport, Transport))
    assert ours == theirs


def test_fifty_clients_answer(federation):
    with federation.serve(50) as server, federation.joined(server.port, dict.fromkeys(range(50), reversed_)):
        server.wait(*range(50))
        for trip in range(3):
            outbox = {client: bytes([trip, client]) * 2000 for client in range(50)}
            assert server.exchange(outbox) == {client: message[::-1] for client, message in outbox.items()}


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3_000_000])
def test_messages_of_any_length(federation, length):
    message = (bytes(range(251)) * (length // 251 + 1))[:length]
    with federation.serve(1) as server, federation.joined(server.port, {0: reversed_}):
        assert server.exchange({0: message}) == {0: message[::-1]}


def test_nobody_is_asked_but_those_of_the_outbox(federation):
    with federation.serve(3) as server, federation.joined(server.port, {0: reversed_, 1: never, 2: reversed_}):
        server.wait(0, 1, 2)
        assert server.exchange({}) == {}
        assert server.exchange({2: b"ab", 0: b"cd"}) == {2: b"ba", 0: b"dc"}


def test_a_client_that_comes_while_it_is_waited_for_is_asked(federation):
    with federation.serve(2) as server, federation.joined(server.port, {0: reversed_}):
        replies = server.transport.exchange({0: b"ab", 1: b"cd"}, LONG)
        assert next(replies) == (0, b"ba")
        with federation.joined(server.port, {1: reversed_}):
            assert list(replies) == [(1, b"dc")]


def test_a_stalled_client_costs_its_own_reply_alone(federation):
    """It takes the beginning of a request of 8 MB, which no buffer of the system holds, and nothing more."""
    with (
        federation.serve(3) as server,
        federation.joined(server.port, {0: reversed_, 1: reversed_}),
        raw_client(federation.client(2), server.port),
    ):
        server.wait(0, 1, 2)
        outbox = {client: bytes(8 << 20) if client == 2 else b"ab" for client in (2, 0, 1)}
        assert server.exchange(outbox, patience=1.5) == {0: b"ba", 1: b"ba"}
        assert server.exchange({0: b"cd", 1: b"cd"}) == {0: b"dc", 1: b"dc"}


def test_a_client_that_stalls_is_cut_off(federation):
    timing = Timing(slack=0.3, rate=1e9, beat=0.1)
    with federation.serve(1, timing=timing) as server, raw_client(federation.client(0), server.port) as client:
        server.wait(0)
        replies = server.transport.exchange({0: bytes(8 << 20)}, LONG)
        asked = threading.Thread(target=lambda: list(replies))
        asked.start()

        def alive() -> bool:  # and takes nothing
            with contextlib.suppress(OSError):
                client.parcel(3)
            return 0 in server.transport.connected

        until(lambda: not alive())
        assert "client-0 is disconnected: it did not take 8,388,608 bytes in time" in server.lines
        server.transport.close()
        asked.join()


def test_a_reply_that_drips_is_cut_off(federation):
    timing = Timing(slack=0.3, rate=1e9)
    with federation.serve(1, timing=timing) as server, raw_client(federation.client(0), server.port) as client:
        replies = server.transport.exchange({0: b"ab"}, LONG)
        asked = threading.Thread(target=lambda: got.extend(replies), daemon=True)
        got: list[tuple[int, bytes]] = []
        asked.start()
        client.send(HEADER.pack(REPLY, client.next()[1], 1 << 20))

        def dripping() -> bool:
            with contextlib.suppress(OSError):
                client.send(b"x")
            return 0 in server.transport.connected

        until(lambda: not dripping())
        until(lambda: any("bytes did not come in time" in line for line in server.lines))
        server.transport.close()
        asked.join()
        assert got == []


def test_a_late_reply_is_not_taken_for_the_reply_to_a_later_request(federation):
    with federation.serve(1) as server, raw_client(federation.client(0), server.port) as client:
        server.wait(0)
        assert server.exchange({0: b"first"}, patience=0.5) == {}
        kind, first, message = client.next()
        assert (kind, message) == (REQUEST, b"first")
        replies = server.transport.exchange({0: b"second"}, LONG)
        asked = threading.Thread(target=lambda: got.extend(replies))
        got: list[tuple[int, bytes]] = []
        asked.start()
        kind, second, message = client.next()
        assert (kind, message) == (REQUEST, b"second")
        assert second != first
        client.parcel(REPLY, first, b"to the first")
        client.parcel(REPLY, second + 1, b"to none")
        client.parcel(REPLY, second, b"to the second")
        client.parcel(REPLY, second, b"to the second, again")
        asked.join()
        assert got == [(0, b"to the second")]
        until(lambda: sum("came too late, or twice" in line for line in server.lines) == 3)
        with federation.joined(server.port, {0: reversed_}):
            assert server.exchange({0: b"third"}) == {0: b"driht"}


def test_a_slow_answer_is_let_go_when_the_server_has_gone_on(federation):
    held, asked = threading.Event(), []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        if request == b"first":
            assert held.wait(LONG)
        return request.upper()

    with federation.serve(1) as server, federation.joined(server.port, {0: answer}):
        server.wait(0)
        assert server.exchange({0: b"first"}, patience=0.6) == {}
        replies = server.transport.exchange({0: b"second"}, LONG)
        with soon(held.set):
            assert list(replies) == [(0, b"SECOND")]
        assert asked == [b"first", b"second"]


def test_a_reply_after_a_busy_caller_s_patience_is_left_out(federation):
    """The caller is at work between two replies: what came too late meanwhile has come too late."""
    late = threading.Event()

    def answer(request: bytes) -> bytes:
        assert late.wait(LONG)
        return request

    with federation.serve(2) as server, federation.joined(server.port, {0: reversed_, 1: answer}):
        server.wait(0, 1)
        replies = server.transport.exchange({0: b"ab", 1: b"cd"}, 0.6)
        assert next(replies) == (0, b"ba")
        threading.Event().wait(0.7)
        late.set()
        threading.Event().wait(0.2)
        assert list(replies) == []


def test_a_client_killed_inside_its_reply_is_asked_again(federation):
    with federation.serve(1) as server:
        replies = server.transport.exchange({0: b"ab"}, LONG)
        got: list[tuple[int, bytes]] = []
        asked = threading.Thread(target=lambda: got.extend(replies))
        with raw_client(federation.client(0), server.port) as client:
            asked.start()
            kind, number, message = client.next()
            client.send(HEADER.pack(REPLY, number, 1000) + bytes(10))
        with raw_client(federation.client(0), server.port) as client:
            assert client.next() == (kind, number, message)
            client.parcel(REPLY, number, b"whole")
            asked.join()
        assert got == [(0, b"whole")]


def test_a_server_killed_inside_its_request_is_found_again(federation):
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        return request[::-1]

    with raw_server(federation.server) as (port, accept), federation.joined(port, {0: answer}):
        server = accept()
        server.send(HEADER.pack(REQUEST, 7, 1000) + bytes(10))
        server.close()
        server = accept()
        server.parcel(REQUEST, 7, b"ab")
        assert server.next() == (REPLY, 7, b"ba")
        server.close()  # before it has kept the reply: it asks again, and gets it again
        server = accept()
        server.parcel(REQUEST, 7, b"ab")
        assert server.next() == (REPLY, 7, b"ba")
        assert asked == [b"ab", b"ab"]


def test_a_connection_lost_while_the_client_works_costs_no_second_answer(federation):
    started, held, asked = threading.Event(), threading.Event(), []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        started.set()
        assert held.wait(LONG)
        return request[::-1]

    with raw_server(federation.server) as (port, accept), federation.joined(port, {0: answer}):
        server = accept()
        server.parcel(REQUEST, 7, b"ab")
        assert started.wait(LONG)
        server.close()
        server = accept()
        server.parcel(REQUEST, 7, b"ab")
        server.parcel(REQUEST, 7, b"ab")
        with soon(held.set):
            assert server.next() == (REPLY, 7, b"ba")
        assert asked == [b"ab"]


def test_of_requests_that_wait_the_last_is_answered(federation):
    started, held, asked = threading.Event(), threading.Event(), []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        started.set()
        assert held.wait(LONG)
        return request[::-1]

    with raw_server(federation.server) as (port, accept), federation.joined(port, {0: answer}):
        server = accept()
        server.parcel(REQUEST, 1, b"ab")
        assert started.wait(LONG)
        server.parcel(REQUEST, 2, b"cd")
        server.parcel(REQUEST, 3, b"ef")
        with soon(held.set):
            assert server.next() == (REPLY, 3, b"fe")
        assert asked == [b"ab", b"ef"]


def test_a_server_that_starts_again_on_its_port_has_its_clients_back(federation):
    with federation.serve(5) as server:
        port = server.port
        joined = federation.joined(port, dict.fromkeys(range(5), reversed_))
        clients = joined.__enter__()
        server.wait(*range(5))
        assert server.exchange({0: b"ab"}) == {0: b"ba"}
    try:
        with federation.serve(5, port) as server:
            server.wait(*range(5))
            outbox = dict.fromkeys(range(5), b"cd")
            assert server.exchange(outbox) == dict.fromkeys(range(5), b"dc")
        assert sum(line.startswith("client-2 is connected") for line in clients.lines) == 2
    finally:
        joined.__exit__(None, None, None)


def test_the_last_of_two_connections_of_a_client_is_the_one(federation):
    with federation.serve(1) as server, raw_client(federation.client(0), server.port) as first:
        server.wait(0)
        with raw_client(federation.client(0), server.port) as second:
            assert first.next() == (4, 4, b"")  # a dismissal: replaced
            assert first.ended()
            first.close()
            replies = server.transport.exchange({0: b"ab"}, LONG)
            with soon(lambda: second.parcel(REPLY, second.next()[1], b"ba")):
                assert list(replies) == [(0, b"ba")]
            assert server.transport.connected == {0}


def test_two_processes_with_one_certificate_do_not_chase_each_other(federation):
    with federation.serve(1) as server, federation.joined(server.port, {0: reversed_}) as first:
        server.wait(0)
        with federation.joined(server.port, {0: reversed_}):
            error = first.ends[0].exception(LONG)
            assert "another process has joined with the same certificate" in str(error)
            assert server.exchange({0: b"ab"}) == {0: b"ba"}


def test_dismissed_clients_end(federation):
    with federation.serve(3) as server, federation.joined(server.port, dict.fromkeys(range(3), reversed_)) as clients:
        server.wait(0, 1, 2)
        server.transport.dismiss()
        assert [end.result(LONG) for end in clients.ends] == [None] * 3
        assert "client-1: the federation is over" in clients.lines


def test_close_ends_an_exchange_and_a_wait(federation):
    with federation.serve(1) as server:
        with soon(server.transport.close):
            assert server.transport.wait_for([0], 1, 60 * LONG) == frozenset()
        server.transport.close()
        server.transport.dismiss()
        with pytest.raises(RuntimeError, match="closed"):
            server.exchange({0: b"ab"})


def test_close_ends_an_exchange_of_another_thread(federation):
    with federation.serve(1) as server:
        replies = server.transport.exchange({0: b"ab"}, 60 * LONG)
        asked = threading.Thread(target=lambda: ended.append(list(replies)), daemon=True)
        ended: list[list[tuple[int, bytes]]] = []
        asked.start()
        until(lambda: server.transport._asking is not None)
        server.transport.close()
        asked.join(LONG)
        assert ended == [[]]


def test_what_nobody_waits_for_any_more_is_not_sent(federation):
    """The client takes nothing while three requests are made; the second has been given up before its turn came."""
    first = bytes(8 << 20)
    with federation.serve(1) as server, raw_client(federation.client(0), server.port) as client:
        server.wait(0)
        assert server.exchange({0: first}, patience=0.5) == {}
        assert server.exchange({0: b"second"}, patience=0.1) == {}

        def take() -> None:
            assert client.next()[2] == first
            _, number, message = client.next()
            client.parcel(REPLY, number, b"to " + message)

        with soon(take):
            assert server.exchange({0: b"third"}) == {0: b"to third"}


def test_an_exchange_that_was_broken_off_ends_where_another_begins(federation):
    with federation.serve(2) as server, federation.joined(server.port, {0: reversed_}):
        first = server.transport.exchange({0: b"ab", 1: b"cd"}, 60 * LONG)
        assert next(first) == (0, b"ba")
        second = server.transport.exchange({0: b"ef"}, LONG)
        assert next(second) == (0, b"fe")
        with raw_client(federation.client(1), server.port) as client:
            server.wait(1)
            assert list(first) == []
            assert list(second) == []
            with soon(lambda: client.parcel(REPLY, client.next()[1], b"to the only one that it was sent")):
                assert server.exchange({1: b"gh"}) == {1: b"to the only one that it was sent"}


def test_misuse_raises(federation):
    class Long(bytes):
        def __len__(self) -> int:
            return (1 << 31) + 1

    with federation.serve(2) as server:
        with pytest.raises(ValueError, match="client 2 is not among the 2"):
            server.exchange({2: b"ab"})
        with pytest.raises(ValueError, match="2147483649 bytes"):
            server.exchange({0: Long()})
    with pytest.raises(ValueError, match="0 bytes"), federation.serve(1, most_reply=0):
        pass


def test_greeting_is_the_documented_one():
    assert b"flora-tls" + (1).to_bytes(2, "big") == GREETING
