"""What is wrong with a port, certificates or keys of one's own: one line each, before anything is sent."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from loopback import HOST, LONG, Federation

from flora_secure.engine.tls.certificates import client_context, server_context
from flora_secure.engine.tls.joining import join
from flora_secure.engine.tls.server import TlsTransport
from flora_secure.errors import InputError, NetworkError

BOTH = pytest.mark.parametrize("context", [server_context, client_context])


def line(context, files) -> str:
    with pytest.raises(NetworkError) as caught:
        context(files)
    told = str(caught.value)
    assert "\n" not in told
    assert "PRIVATE" not in told
    return told


@BOTH
@pytest.mark.parametrize("missing", ["authority", "certificate", "key"])
def test_a_missing_file(federation, tmp_path, context, missing):
    files = replace(federation.client(0), **{missing: tmp_path / "gone.pem"})
    assert line(context, files) == f"{tmp_path / 'gone.pem'}: not read: No such file or directory"


@BOTH
@pytest.mark.parametrize("content", [b"", b"hello", bytes(100), b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_that_is_none(federation, tmp_path, context, content):
    path = tmp_path / "odd.pem"
    path.touch(0o600)
    path.write_bytes(content)
    files = federation.client(0)
    for name in ("authority", "certificate"):
        assert line(context, replace(files, **{name: path})).startswith(f"{path}: no certificate in PEM format")
    assert line(context, replace(files, key=path)) == f"{path}: no secret key in PEM format"


@BOTH
def test_a_key_that_does_not_fit(federation, context):
    files = replace(federation.client(0), key=federation.client(1).key)
    assert "client-1.key: not the key of the certificate" in line(context, files)


@BOTH
def test_a_key_that_others_may_read(federation, tmp_path, context):
    key = tmp_path / "open.key"
    key.write_bytes(federation.client(0).key.read_bytes())
    key.chmod(0o644)
    assert f"{key}: a secret key that others may read (mode 644); chmod 600 it" == line(
        context, replace(federation.client(0), key=key)
    )


@BOTH
def test_a_key_with_a_password_asks_nobody(federation, tmp_path, context):
    path = tmp_path / "locked.key"
    path.touch(0o600)
    key = load_pem_private_key(federation.client(0).key.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))
    assert "the key has a password" in line(context, replace(federation.client(0), key=path))


@BOTH
def test_certificates_that_do_not_hold_now(federation, context):
    old, early = federation.issue("client-90", since=-9, until=-2), federation.issue("client-91", since=2)
    assert "client-90.pem: the certificate expired on 20" in line(context, old)
    assert "client-91.pem: the certificate begins on 20" in line(context, early)


@BOTH
def test_a_certificate_of_another_authority(federation, tmp_path, context):
    files = replace(federation.client(0), authority=Federation(tmp_path).path)
    assert "client-0.pem: not issued by the authority in" in line(context, files)


def test_a_pipe_in_the_place_of_a_key_is_not_waited_for(federation, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is no regular file" in line(client_context, replace(federation.client(0), key=tmp_path / "pipe"))


def test_only_tls_1_3(federation):
    for context in (server_context(federation.server), client_context(federation.client(0))):
        assert context.minimum_version.name == "TLSv1_3"


def test_a_port_in_use(federation):
    with socket.create_server((HOST, 0)) as taken, pytest.raises(InputError, match="Address already in use"):
        TlsTransport(HOST, taken.getsockname()[1], federation.server, 1, log=print)


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [
        (HOST, 65536, "port 65536: must lie in 0…65535"),
        (HOST, -1, "port -1: must lie in 0…65535"),
        ("203.0.113.7", 0, "cannot listen at 203.0.113.7, port 0: Cannot assign requested address"),
        ("no such host", 0, "cannot listen at no such host, port 0: "),
        ("x" * 70 + ".org", 0, "cannot listen at xxx"),
    ],
)
def test_a_place_that_cannot_be_listened_at(federation, host, port, why):
    with pytest.raises(NetworkError) as caught:
        TlsTransport(host, port, federation.server, 1, log=print)
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [
        (HOST, 0, "port 0: must lie in 1…65535"),
        (HOST, 65536, "port 65536: must lie in 1…65535"),
        ("x" * 70 + ".org", 8000, "no place to connect to: "),
    ],
)
def test_a_place_that_cannot_be_connected_to(federation, host, port, why):
    with pytest.raises(NetworkError) as caught:
        join(host, port, federation.client(0), bytes, patience=0.5, log=print)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_clients_than_files_that_may_be_open(federation):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with pytest.raises(NetworkError, match=f"this process may have {most}; begin it after: ulimit -n"):
        TlsTransport(HOST, 0, federation.server, most, log=print)


def test_ctrl_c_waits_for_the_answer_in_hand(federation):
    """The client is another process: one Ctrl-C while it answers, which is then made to its end."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from flora_secure.engine.tls.certificates import TlsFiles\n"
        "from flora_secure.engine.tls.joining import join\n"
        "def answer(request):\n"
        "    print('asked', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print('answered', flush=True)\n"
        "    return request\n"
        "def log(line): print(line, flush=True)\n"
        "try:\n"
        "    join(sys.argv[1], int(sys.argv[2]), TlsFiles(*map(Path, sys.argv[3:])), answer, log=log)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
        "    sys.exit(130)\n"
    )
    files = federation.client(0)
    with federation.serve(1) as server:
        arguments = [HOST, str(server.port), str(files.authority), str(files.certificate), str(files.key)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", program, *arguments], text=True, **pipes) as client:
            replies: list[tuple[int, bytes]] = []
            asked = threading.Thread(target=lambda: replies.extend(server.transport.exchange({0: b"ab"}, LONG)))
            asked.start()
            assert client.stdout.readline() == f"client-0 is connected to {HOST}:{server.port}\n"
            assert client.stdout.readline() == "asked\n"
            client.send_signal(signal.SIGINT)
            assert client.stdout.readline() == "ends when the answer in hand is made; Ctrl-C (again) ends at once\n"
            out, err = client.communicate("\n", timeout=LONG)
            assert (out, err, client.returncode) == ("answered\ninterrupted\n", "", 130)
            server.transport.close()
            asked.join()
            assert replies == []
