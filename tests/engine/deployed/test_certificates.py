"""Certificates as OpenSSL judges them: real handshakes on loopback, strict checks, strangers and wrong ends refused."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from flora_secure.engine.deployed.keys.certificates import (
    Authority,
    Pair,
    checked_host,
    hosts_in,
    node_key,
    read_certificate,
)
from flora_secure.engine.tls.certificates import client_name, client_of
from flora_secure.errors import ConfigError

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


def context(folder: Path, name: str, trusted: Authority, own: Pair | None, *, server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=trusted.pair().public.decode())
    if own is not None:
        (folder / f"{name}.pem").write_bytes(own.public)
        (folder / f"{name}.key").write_bytes(own.secret)
        made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return made


def met(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> str:
    """The common name that the server sees, and answers with; raises what the client meets, or what the server did."""
    failures: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            taken, _ = listening.accept()
            try:
                with server.wrap_socket(taken, server_side=True) as stream:
                    told = stream.getpeercert()
                    assert told is not None
                    stream.sendall(dict(entry[0] for entry in told["subject"])["commonName"].encode())
            except (ssl.SSLError, OSError) as error:
                failures.append(error)

        serving = Thread(target=serve)
        serving.start()
        try:
            with (
                socket.create_connection(listening.getsockname(), timeout=10) as plain,
                client.wrap_socket(plain, server_hostname=host) as stream,
            ):
                said = stream.recv(100)  # in TLS 1.3 a client hears here that it was refused
        finally:
            serving.join(10)
        if failures:
            raise failures[0]
        return said.decode()


def test_client_and_server_meet_by_every_name_of_the_server(authority: Authority, tmp_path: Path) -> None:
    pair = authority.server(["FL.example.org", "192.0.2.7", "2001:DB8::1", "127.0.0.1"])
    server = context(tmp_path, "server", authority, pair, server=True)
    client = context(tmp_path, "client", authority, authority.client(7), server=False)
    names = ("localhost", "127.0.0.1", "fl.example.org", "192.0.2.7", "2001:db8::1")
    assert hosts_in(read_certificate(pair.public)) == names
    for host in names:
        name = met(server, client, host)
        assert (name, client_of(name)) == ("client-7", 7)
    for host in ("example.org", "other.example.org", "192.0.2.8"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
            met(server, client, host)


def test_strangers_and_nobody_are_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority.new()
    server = context(tmp_path, "server", authority, authority.server([]), server=True)
    for own in (other.client(0), None):
        with pytest.raises(ssl.SSLError, match=r"unknown ca|certificate required|UNKNOWN_CA|CERTIFICATE_REQUIRED"):
            met(server, context(tmp_path, "client", authority, own, server=False))
    false = context(tmp_path, "false", authority, other.server([]), server=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        met(false, context(tmp_path, "client", authority, authority.client(0), server=False))


def test_each_certificate_serves_one_end_alone(authority: Authority, tmp_path: Path) -> None:
    """Else a client could pass for the server at another client."""
    server, site = authority.server([]), authority.client(0)
    for ours, theirs in ((site, site), (server, server)):
        with pytest.raises(ssl.SSLError, match=r"(?i)unsuitable certificate purpose|unsupported certificate"):
            met(
                context(tmp_path, "server", authority, ours, server=True),
                context(tmp_path, "client", authority, theirs, server=False),
            )


def test_a_certificate_that_has_ended_is_refused(authority: Authority, tmp_path: Path) -> None:
    client = context(tmp_path, "client", authority, authority.client(0), server=False)
    old = Authority.new(NOW - timedelta(days=2000)).pair()
    earlier = Authority.read(old.public, old.secret)
    late = context(tmp_path, "late", earlier, earlier.server([], NOW - timedelta(days=827)), server=True)
    client.load_verify_locations(cadata=old.public.decode())
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        met(late, client)


def test_times_and_extensions_are_as_told(authority: Authority) -> None:
    day = timedelta(days=1)
    made = Authority.new(NOW)
    top = read_certificate(made.pair().public)
    assert abs(top.not_valid_before_utc - (NOW - day)) < timedelta(seconds=1)
    assert abs(top.not_valid_after_utc - top.not_valid_before_utc - 3652 * day) < timedelta(seconds=1)
    for pair in (made.server([], NOW), made.client(0, NOW)):
        leaf = read_certificate(pair.public)
        assert abs(leaf.not_valid_before_utc - (NOW - day)) < timedelta(seconds=1)
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == 825 * day
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert hosts_in(read_certificate(made.client(0, NOW).public)) == ()
    assert top.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    near_the_end = read_certificate(made.client(0, NOW + 3600 * day).public)
    assert near_the_end.not_valid_after_utc == top.not_valid_after_utc
    assert top.subject != read_certificate(authority.pair().public).subject


def test_an_authority_is_read_strictly(authority: Authority) -> None:
    pair, other, leaf = authority.pair(), Authority.new().pair(), authority.client(0)
    assert Authority.read(pair.public, pair.secret).fingerprint == authority.fingerprint
    node = node_key(0)
    for public, secret, says in (
        (b"", pair.secret, "holds no certificate in PEM"),
        (pair.secret, pair.secret, "holds no certificate in PEM"),
        (pair.public, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no unencrypted key in PEM"),
        (pair.public, node.secret, "no unencrypted key in PEM"),
        (pair.public, other.secret, "not the certificate's"),
        (leaf.public, leaf.secret, "not one of an authority"),
    ):
        with pytest.raises(ConfigError, match=says):
            Authority.read(public, secret)
    with pytest.raises(ConfigError, match=r"ended on \d{4}-\d\d-\d\d"):
        Authority.read(pair.public, pair.secret, NOW + timedelta(days=3652))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://fl.example.org",
        "fl.example.org:8000",
        "[2001:db8::1]",
        "*.example.org",
        "fl example",
        "fl..example",
        "-fl.example",
        "fl.example.",
        "bücher.example",
        "10.0.0.256",
        "fl.example\n",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "fl.example\0.org",
        "192.0.2.0/24",
    ],
)
def test_hosts_that_no_certificate_should_name(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_host(text)
    assert "neither a DNS name nor an IP address" in str(caught.value)
    assert str(caught.value).isprintable()


def test_hosts_in_their_usual_form() -> None:
    given = ["FL.Example.org", "flora_server", "xn--bcher-kva.example", "2001:DB8:0::1", "10.0.0.7", "a"]
    usual = ["fl.example.org", "flora_server", "xn--bcher-kva.example", "2001:db8::1", "10.0.0.7", "a"]
    assert list(map(checked_host, given)) == usual


def test_common_names_are_numbers_of_the_enrolment_and_nothing_else() -> None:
    assert [client_of(client_name(client)) for client in (0, 1, 10, 65535)] == [0, 1, 10, 65535]
    for name in (
        "client-",
        "client-01",
        "client--1",
        "client-1 ",
        "Client-1",
        "client-¹",
        "client-٣",
        "xclient-1",
        "1",
    ):
        assert client_of(name) is None
    assert client_of("client-1\n") is None


def test_node_keys_are_openssh_keys_of_one_pair() -> None:
    pair = node_key(3)
    secret, public = load_ssh_private_key(pair.secret, None), load_ssh_public_key(pair.public)
    assert secret.public_key() == public
    assert pair.public.startswith(b"ecdsa-sha2-nistp384 ")
    assert pair.public.endswith(b" client-3\n")
    assert node_key(3).public != pair.public


def test_flower_takes_node_keys(tmp_path: Path) -> None:
    register = pytest.importorskip("flwr.cli.supernode.register")
    supernode = pytest.importorskip("flwr.supernode.cli.flower_supernode")
    from types import SimpleNamespace

    pair = node_key(0)
    (tmp_path / "node.key").write_bytes(pair.secret)
    (tmp_path / "node.key.pub").write_bytes(pair.public)
    public = register.try_load_public_key(tmp_path / "node.key.pub")
    given = SimpleNamespace(auth_supernode_private_key=str(tmp_path / "node.key"), auth_supernode_public_key=None)
    secret, own = supernode._try_setup_client_authentication(given)
    assert public == register.public_key_to_bytes(own)
    assert secret.public_key() == own


def test_ssh_keygen_takes_node_keys(tmp_path: Path) -> None:
    pair, path = node_key(0), tmp_path / "node.key"
    path.write_bytes(pair.secret)
    path.chmod(stat.S_IRUSR)
    try:
        done = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("needs ssh-keygen")
    assert done.stdout.split()[:2] == pair.public.split()[:2]


def test_no_secret_is_in_a_repr(authority: Authority) -> None:
    for pair in (authority.pair(), authority.client(0), authority.server([]), node_key(0)):
        assert "PRIVATE" not in repr(pair)
        assert repr(pair.secret) not in repr(pair)
    assert repr(authority).startswith("Authority(CN=flora-secure authority ")
