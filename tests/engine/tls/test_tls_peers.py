"""Who is let in, who is not and why, and what strangers, garbage and the dead can take."""

import socket
import ssl
import struct
import threading
import tracemalloc
from contextlib import suppress
from dataclasses import replace

import pytest
from loopback import (
    BEAT,
    HEADER,
    HOST,
    LONG,
    QUICK,
    REPLY,
    REQUEST,
    Federation,
    raw_client,
    raw_server,
    until,
)

from flora_secure.engine.tls.certificates import TlsFiles, client_of, common_name
from flora_secure.engine.tls.connection import Timing
from flora_secure.engine.tls.joining import Joiner, join, join_all
from flora_secure.engine.tls.reception import MOST_GREETING
from flora_secure.engine.tls.threads import Answerers
from flora_secure.errors import NetworkError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def echo(request: bytes) -> bytes:
    return request


def refused(server, files: TlsFiles) -> str:
    """What the server logs of a client whose certificate it refuses."""
    with pytest.raises((ssl.SSLError, OSError, EOFError)), raw_client(files, server.port):
        pass
    until(lambda: server.lines)
    return server.lines[-1]


def ending(port: int, files: TlsFiles, **options) -> str:
    """The line with which joining ends."""
    lines: list[str] = []

    def joined() -> None:
        try:
            join(HOST, port, files, echo, **{"timing": QUICK, "patience": 0.5, "log": lambda line: None, **options})
        except NetworkError as error:
            lines.append(str(error))

    thread = threading.Thread(target=joined, daemon=True)  # of which a failure ends the test, and not for ever
    thread.start()
    thread.join(LONG)
    assert len(lines) == 1
    assert "\n" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("client-0", 0), ("client-12", 12), ("client-01", None), ("client-00", None), ("client--1", None)),
        *(("client-1\n", None), (" client-1", None), ("client-１", None), ("server", None), ("client-", None)),
    ],
)
def test_which_client_a_certificate_is_of(name, number):
    assert client_of(name) == number


def test_two_common_names_are_none():
    part = (("commonName", "client-1"),)
    assert common_name({"subject": (part,)}) == "client-1"
    assert common_name({"subject": (part, (("commonName", "client-2"),))}) == ""
    assert common_name({}) == common_name(None) == ""


def test_a_stranger_s_certificate_is_refused(federation, tmp_path):
    stranger = Federation(tmp_path).client(0)  # another authority's client-0
    with federation.serve(1) as server:
        line = refused(server, replace(stranger, authority=federation.path))
        assert line.startswith("a connection from 127.0.0.1 is refused: its certificate does not hold")
        assert server.transport.connected == frozenset()
        no_certificate = ssl.create_default_context(cafile=federation.path)
        with suppress(OSError), socket.create_connection((HOST, server.port), LONG) as plain:
            assert no_certificate.wrap_socket(plain, server_hostname=HOST).recv(1) == b""
        until(lambda: "peer did not return a certificate" in server.lines[-1])


def test_an_expired_certificate_is_refused_by_both_sides(federation):
    files = federation.issue("client-99", since=-9, until=-2)
    with federation.serve(99) as server:
        assert refused(server, files).endswith("its certificate does not hold: certificate has expired")
        assert "client-99.pem: the certificate expired on" in ending(server.port, files)


def test_a_server_s_certificate_lets_no_client_in(federation):
    files = federation.issue("client-98", server=True)
    with federation.serve(98) as server:
        assert "its certificate does not hold: unsuitable certificate purpose" in refused(server, files)


@pytest.mark.parametrize("name", ["client-3", "client-00", "site1", "client-1x"])
def test_a_number_that_is_not_enrolled_is_refused(federation, name):
    with federation.serve(3) as server:
        assert "the server does not know this client" in ending(server.port, federation.issue(name))
        until(lambda: f"'{name}' is refused: it is not enrolled" in server.lines)


def test_a_revoked_client_is_refused(federation):
    with federation.serve(3, revoked=[1]) as server:
        assert "this client is revoked" in ending(server.port, federation.client(1))
        until(lambda: "'client-1' is refused: it is revoked" in server.lines)


def test_a_server_of_another_name_or_authority_is_none(federation, tmp_path):
    with raw_server(federation.issue("elsewhere", server=True, host="else.org")) as (port, accept):
        threading.Thread(target=pytest.raises, args=(OSError, accept)).start()
        line = ending(port, federation.client(0))
        assert "its certificate does not hold: IP address mismatch" in line
    stranger = Federation(tmp_path)
    with stranger.serve(1) as server:
        client = federation.client(0)
        assert "its certificate does not hold: certificate signature failure" in ending(server.port, client)


def test_a_server_that_was_there_is_waited_for_whoever_is_in_its_place(federation, tmp_path):
    stranger = Federation(tmp_path).server
    with raw_server(federation.server) as (port, accept), federation.joined(port, {0: echo}) as clients:
        for _ in range(2):
            accept().close()
            with pytest.raises(OSError):
                accept(stranger)
        server = accept()
        server.parcel(REQUEST, 1, b"ab")
        assert server.next() == (REPLY, 1, b"ab")
        assert sum("certificate does not hold" in line for line in clients.lines) == 2


def test_a_client_cannot_be_the_server(federation):
    files = federation.client(0)
    with raw_server(files) as (port, accept):
        threading.Thread(target=pytest.raises, args=(OSError, accept)).start()
        assert "its certificate does not hold: unsuitable certificate purpose" in ending(port, federation.client(1))


def test_a_server_that_does_not_take_the_certificate_says_nothing(federation, tmp_path):
    """The line says what it may be."""
    stranger, both = Federation(tmp_path), tmp_path / "both.crt"
    both.write_bytes(stranger.path.read_bytes() + federation.path.read_bytes())
    with stranger.serve(1) as server:
        line = ending(server.port, replace(federation.client(0), authority=both))
    assert "does not take this client's certificate, or has just ended" in line


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(300), b"\x16\x03\x01\x02\x00" + bytes(600)])
def test_garbage_in_the_place_of_tls_is_cut_off(federation, garbage):
    with federation.serve(1) as server:
        with socket.create_connection((HOST, server.port), LONG) as plain:
            plain.sendall(garbage)
            until(lambda: server.lines)
        assert server.lines[0].startswith("a connection from 127.0.0.1 is refused: TLS failed: ")
        with federation.joined(server.port, {0: echo}):
            assert server.exchange({0: b"ab"}) == {0: b"ab"}


@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        (b"flora-tlz\x00\x01", "it does not speak this protocol"),
        (b"flora-tls\x00\x02", "it speaks version 2 of the protocol, and this is version 1: update the older"),
        (b"GET / HTTP/1.1\r\n", "it does not speak this protocol"),
    ],
)
def test_another_greeting_is_cut_off(federation, greeting, why):
    with federation.serve(1) as server, raw_client(federation.client(0), server.port, greeting) as client:
        assert client.ended()
        until(lambda: f"a connection from 127.0.0.1 is refused: {why}" in server.lines)


def test_a_server_of_another_version_ends_the_client(federation):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=federation.path)
    context.load_cert_chain(federation.server.certificate, federation.server.key)
    with socket.create_server((HOST, 0)) as listener:

        def other() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                connection.sendall(b"flora-tls\x00\x02")
                connection.recv(100)

        thread = threading.Thread(target=other)
        thread.start()
        assert "it speaks version 2 of the protocol" in ending(listener.getsockname()[1], federation.client(0))
        thread.join()


@pytest.mark.parametrize(
    ("parcel", "why"),
    [
        (HEADER.pack(REPLY, 1, 4 << 30), "a reply of 4,294,967,296 bytes, and 2,147,483,648 are the most"),
        (HEADER.pack(REPLY, 1, (1 << 31) + 1), "a reply of 2,147,483,649 bytes, and 2,147,483,648 are the most"),
        (HEADER.pack(REQUEST, 1, 0), "a parcel of kind 1, which it may not send"),
        (HEADER.pack(4, 1, 0), "a parcel of kind 4, which it may not send"),
        (HEADER.pack(77, 1, 0), "a parcel of kind 77, which it may not send"),
        (HEADER.pack(BEAT, 0, 1), "a beat of 1 bytes, and 0 are the most"),
        (HEADER.pack(BEAT, 1, 0), "a beat with the number 1"),
    ],
)
def test_a_parcel_that_a_client_may_not_send_is_cut_off(federation, parcel, why):
    with federation.serve(1) as server, raw_client(federation.client(0), server.port) as client:
        server.wait(0)
        client.send(parcel)
        assert client.ended()
        until(lambda: f"client-0 is disconnected: {why}" in server.lines)


def test_a_reply_longer_than_the_server_takes_is_cut_off(federation):
    with (
        federation.serve(2, most_reply=100) as server,
        raw_client(federation.client(0), server.port) as client,
        federation.joined(server.port, {1: echo}),
    ):
        server.wait(0, 1)
        client.send(HEADER.pack(REPLY, 1, 101))
        assert client.ended()
        until(lambda: "client-0 is disconnected: a reply of 101 bytes, and 100 are the most" in server.lines)
        assert server.exchange({1: bytes(100)}) == {1: bytes(100)}


@pytest.mark.parametrize(
    "parcel",
    [HEADER.pack(REQUEST, 1, (1 << 31) + 1), HEADER.pack(REPLY, 1, 0), HEADER.pack(4, 9, 0), HEADER.pack(4, 1, 1)],
)
def test_a_server_that_breaks_the_protocol_is_left(federation, parcel):
    with raw_server(federation.server) as (port, accept), federation.joined(port, {0: echo}) as clients:
        server = accept()
        server.send(parcel)
        assert server.ended()
        until(lambda: any("is not connected" in line for line in clients.lines))
        accept().close()


def test_what_nobody_asked_for_takes_no_memory(federation):
    """100 MB to no request: the server reads on, and keeps nothing of it."""
    with federation.serve(1) as server, raw_client(federation.client(0), server.port) as client:
        server.wait(0)
        tracemalloc.start()
        try:
            client.send(HEADER.pack(REPLY, 1, 20 << 20))
            for _ in range(20):
                client.send(bytes(1 << 20))
            until(lambda: "client-0: a reply of 20,971,520 bytes came too late, or twice" in server.lines)
            assert tracemalloc.get_traced_memory()[1] < 6 << 20
        finally:
            tracemalloc.stop()


def test_an_announcement_takes_no_memory(federation):
    with federation.serve(1) as server, raw_client(federation.client(0), server.port) as client:
        server.wait(0)
        replies = server.transport.exchange({0: b"ab"}, LONG)
        asked = threading.Thread(target=lambda: list(replies))
        asked.start()
        number = client.next()[1]
        tracemalloc.start()
        try:
            client.send(HEADER.pack(REPLY, number, 1 << 31) + bytes(1000))
            client.close()
            until(lambda: any("is disconnected" in line for line in server.lines))
            assert tracemalloc.get_traced_memory()[1] < 3 << 20
        finally:
            tracemalloc.stop()
        server.transport.close()
        asked.join()


def test_a_dead_client_is_noticed(federation):
    timing = Timing(silence=0.3, beat=0.1)
    with federation.serve(1, timing=timing) as server, raw_client(federation.client(0), server.port):
        server.wait(0)
        until(lambda: "client-0 is disconnected: no byte came for 0.3 s" in server.lines)
        assert server.transport.connected == frozenset()


def test_a_dead_server_is_noticed(federation):
    timing = replace(QUICK, silence=0.3, beat=0.1)
    with raw_server(federation.server) as (port, accept), federation.joined(port, {0: echo}, timing=timing) as clients:
        accept()
        accept()  # the first keeps silent
        assert any("no byte came for 0.3 s" in line for line in clients.lines)


def test_beats_keep_a_connection_while_an_answer_takes_long(federation):
    timing = replace(QUICK, silence=1.0, beat=0.05)

    def answer(request: bytes) -> bytes:
        threading.Event().wait(1.4)
        return request

    with federation.serve(1, timing=timing) as server, federation.joined(server.port, {0: answer}, timing=timing):
        assert server.exchange({0: b"ab"}) == {0: b"ab"}
        assert server.lines == ["client-0 is connected"]


def test_those_who_do_not_say_who_they_are_do_not_keep_others_out(federation):
    timing = replace(QUICK, greeting=0.3)
    with federation.serve(1, timing=timing) as server:
        idle = [socket.create_connection((HOST, server.port), LONG) for _ in range(MOST_GREETING + 10)]
        try:
            with federation.joined(server.port, {0: echo}):
                server.wait(0)
            assert any("the other side took too long" in line for line in server.lines)
        finally:
            for one in idle:
                one.close()


def test_nobody_greets_for_ever(federation):
    timing = replace(QUICK, greeting=0.3)
    with federation.serve(1, timing=timing) as server, raw_client(federation.client(0), server.port, b"fl") as client:
        assert client.ended()
        until(lambda: "a connection from 127.0.0.1 is refused: the other side took too long" in server.lines)


def test_a_reset_in_the_middle_of_everything(federation):
    with federation.serve(1) as server:
        for _ in range(5):
            with raw_client(federation.client(0), server.port) as client:
                client.send(HEADER.pack(REPLY, 3, 100) + bytes(50))
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with federation.joined(server.port, {0: echo}):
            assert server.exchange({0: b"ab"}) == {0: b"ab"}


def test_no_server(federation):
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    lines: list[str] = []
    line = ending(port, federation.client(0), log=lines.append)
    assert line.startswith(f"{HOST}:{port}: no server for 0.5 s (")
    assert len(lines) == 1  # and not one for each time that it tried


def test_what_answer_raises_ends_joining(federation):
    def answer(request: bytes) -> bytes:
        raise KeyError("secret")

    with federation.serve(1) as server, federation.joined(server.port, {0: answer}) as clients:
        assert server.exchange({0: b"ab"}, patience=0.3) == {}
        assert isinstance(clients.ends[0].exception(LONG), KeyError)
        assert not any("secret" in line for line in clients.lines + server.lines)


def test_many_clients_of_one_process(federation):
    with federation.serve(20) as server:
        joiners = [Joiner(federation.client(number), echo) for number in range(20)]
        together = threading.Thread(
            target=join_all,
            args=(HOST, server.port, joiners),
            daemon=True,
            kwargs={"threads": 2, "timing": QUICK, "log": lambda line: None},
        )
        together.start()
        server.wait(*range(20))
        outbox = {client: bytes([client]) for client in range(20)}
        assert server.exchange(outbox) == outbox
        assert sum(thread.name == "flora-secure answers" for thread in threading.enumerate()) == 2
        server.transport.dismiss()
        together.join()


def test_one_that_is_refused_does_not_end_the_others(federation):
    with federation.serve(2, revoked=[0]) as server:
        ends: list[Exception] = []
        lines: list[str] = []

        def together() -> None:
            joiners = [Joiner(federation.client(number), echo) for number in range(2)]
            try:
                join_all(HOST, server.port, joiners, threads=1, timing=QUICK, log=lines.append)
            except NetworkError as error:
                ends.append(error)

        thread = threading.Thread(target=together, daemon=True)
        thread.start()
        assert server.exchange({1: b"ab"}) == {1: b"ab"}
        server.transport.dismiss()
        thread.join()
        assert "client-0 at" in str(ends[0])
        assert str(ends[0]) in lines


def test_answerers_give_what_was_raised_and_end():
    answerers = Answerers(2)

    def fail(request: bytes) -> bytes:
        raise ValueError(request)

    replies = [answerers.ask(bytes.upper, b"%d a" % number) for number in range(10)]
    failed = answerers.ask(fail, b"x")
    assert [reply.result(LONG) for reply in replies] == [b"%d A" % number for number in range(10)]
    with pytest.raises(ValueError, match="x"):
        failed.result(LONG)
    answerers.close()
    assert not answerers.busy
    with pytest.raises(ValueError, match="0 threads"):
        Answerers(0)
