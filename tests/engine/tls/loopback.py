"""A federation on loopback: certificates, clients in a thread, and both ends byte by byte."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flora_secure.engine.tls.certificates import TlsFiles
from flora_secure.engine.tls.connection import Timing
from flora_secure.engine.tls.joining import Joiner, attend
from flora_secure.engine.tls.server import TlsTransport
from flora_secure.engine.tls.threads import Answerers, LoopThread

HOST, LONG = "127.0.0.1", 30.0  # seconds; nothing that goes well takes as long
QUICK = Timing(pause=0.01, most_pause=0.05)
HEADER = struct.Struct(">BQQ")
REQUEST, REPLY, BEAT, DISMISSAL = 1, 2, 3, 4
GREETING = b"flora-tls\x00\x01"


class Authority:
    """An authority that issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.certificate = self._signed(self.name, self._key, x509.BasicConstraints(True, None))
        self.path = folder / "ca.crt"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def _signed(self, name, key, *extensions, since=-1, until=30):
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now + timedelta(since)).not_valid_after(now + timedelta(until))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str, *, server: bool = False, host: str = HOST, **days: int) -> TlsFiles:
        """The files of a client, or of a server at `host`. `days`: `since` and `until` when, from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        use = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        extensions = [x509.ExtendedKeyUsage([use])]
        if server:
            known = x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            extensions.append(x509.SubjectAlternativeName([known]))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        files = TlsFiles(self.path, *(self._folder / f"{name}.{end}" for end in ("pem", "key")))
        files.certificate.write_bytes(self._signed(subject, key, *extensions, **days).public_bytes(Encoding.PEM))
        files.key.touch(0o600)
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files


class Federation(Authority):
    """An authority with a server and clients, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = self.issue("server", server=True)
        self._clients: dict[int, TlsFiles] = {}

    def client(self, number: int) -> TlsFiles:
        if number not in self._clients:
            self._clients[number] = self.issue(f"client-{number}")
        return self._clients[number]

    @contextmanager
    def serve(self, clients: int, port: int = 0, **options) -> Iterator["Served"]:
        """A server, closed in the end."""
        lines: list[str] = []
        transport = TlsTransport(HOST, port, self.server, clients, log=lines.append, **{"timing": QUICK, **options})
        try:
            yield Served(transport, lines)
        finally:
            transport.close()

    @contextmanager
    def joined(self, port: int, answers: Mapping[int, Callable[[bytes], bytes]], **options) -> Iterator["Joined"]:
        """Clients in a thread, told to stop in the end."""
        joined = Joined(port, {self.client(number): answer for number, answer in answers.items()}, options)
        try:
            yield joined
        finally:
            joined.close()


class Served:
    """A server and what it has logged."""

    def __init__(self, transport: TlsTransport, lines: list[str]) -> None:
        self.transport, self.port, self.lines = transport, transport.port, lines

    def wait(self, *clients: int) -> None:
        assert self.transport.wait_for(clients, len(clients), LONG) == set(clients)

    def exchange(self, outbox: Mapping[int, bytes], patience: float = LONG) -> dict[int, bytes]:
        replies = list(self.transport.exchange(outbox, patience))
        assert len(dict(replies)) == len(replies)
        return dict(replies)


class Joined:
    """Clients that have joined, how each has ended, and what they have logged."""

    def __init__(self, port: int, answers: Mapping[TlsFiles, Callable[[bytes], bytes]], options: dict) -> None:
        self.lines: list[str] = []
        self._thread, self._answerers = LoopThread("clients"), Answerers(4)
        options = {"timing": QUICK, "patience": LONG, **options}
        doors = self._thread.start(_semaphore()).result()
        self.ends = [
            self._thread.start(
                attend(HOST, port, Joiner(files, answer), self._answerers, doors, log=self.lines.append, **options)
            )
            for files, answer in answers.items()
        ]

    def close(self) -> None:
        self._thread.close()
        self._answerers.close()


async def _semaphore() -> asyncio.Semaphore:
    return asyncio.Semaphore(64)


class Raw:
    """One end of a TLS connection, byte by byte."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.socket = sock
        sock.settimeout(LONG)

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def parcel(self, kind: int, number: int = 0, message: bytes = b"") -> None:
        self.send(HEADER.pack(kind, number, len(message)) + message)

    def take(self, length: int) -> bytes:
        raw = b""
        while len(raw) < length:
            part = self.socket.recv(length - len(raw))
            if not part:
                raise EOFError
            raw += part
        return raw

    def next(self) -> tuple[int, int, bytes]:
        """The next parcel that is no beat."""
        while True:
            kind, number, length = HEADER.unpack(self.take(HEADER.size))
            if kind != BEAT:
                return kind, number, self.take(length)

    def ended(self) -> bool:
        """Whether the other side ends the connection, with no more than beats before."""
        try:
            self.next()
        except (EOFError, ConnectionError):
            return True
        return False

    def close(self) -> None:
        self.socket.close()


@contextmanager
def raw_client(files: TlsFiles, port: int, greeting: bytes = GREETING) -> Iterator[Raw]:
    """A client that has sent its greeting."""
    context = ssl.create_default_context(cafile=files.authority)
    context.load_cert_chain(files.certificate, files.key)
    with socket.create_connection((HOST, port), LONG) as plain:
        raw = Raw(context.wrap_socket(plain, server_hostname=HOST))
        try:
            raw.send(greeting)
            if greeting == GREETING:
                assert raw.take(len(GREETING)) == GREETING
            yield raw
        finally:
            raw.close()


@contextmanager
def raw_server(files: TlsFiles) -> Iterator[tuple[int, Callable[..., Raw]]]:
    """A port, and a function that gives the next connection there, greeted."""
    held: list[Raw] = []

    def accept(files: TlsFiles = files) -> Raw:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(files.certificate, files.key)
        held.append(Raw(context.wrap_socket(listener.accept()[0], server_side=True)))
        assert held[-1].take(len(GREETING)) == GREETING
        held[-1].send(GREETING)
        return held[-1]

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(LONG)
        try:
            yield listener.getsockname()[1], accept
        finally:
            for raw in held:
                raw.close()


@contextmanager
def soon(action: Callable[[], object]) -> Iterator[None]:
    """Do it beside what the block does, a little later; the block ends when it is done."""
    timer = threading.Timer(0.1, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that is about to hold."""
    tick = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it never came to that")
