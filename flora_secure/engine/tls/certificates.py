"""Certificates of a federation, as TLS contexts: version 1.3 alone, and both sides show a certificate of its authority.

What is wrong with the files of one's own is said before anything is sent. Sessions are never resumed, so that every
connection shows a certificate that is valid now.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from flora_secure.boundary.foreign import printable, read_bytes
from flora_secure.errors import ForeignError, NetworkError, first_line

_MOST_PEM = 1 << 20  # bytes; a chain of certificates has some thousand
_CLIENT = re.compile(r"client-(0|[1-9][0-9]{0,8})", re.ASCII)


@dataclass(frozen=True)
class TlsFiles:
    """Where one side of a connection has its PEM files.

    Attributes:
        authority: the certificate of the federation's authority, which signed those of all others.
        certificate: this side's own, with the chain to the authority where there is one.
        key: the secret key that belongs to it, without a password, and readable by no others.
    """

    authority: Path
    certificate: Path
    key: Path


def client_name(client: int) -> str:
    """The common name in the certificate of the client of that number of the enrolment: "client-0" for number 0."""
    return f"client-{client}"


def client_of(name: str) -> int | None:
    """The number in the enrolment of the client whose certificate has the common name `name`, such as "client-0" for
    number 0; None for a name that is no client's. Only the certificate's signature makes it true."""
    found = _CLIENT.fullmatch(name)
    return int(found[1]) if found else None


def common_name(certificate: Mapping[str, Any] | None) -> str:
    """The common name in a certificate as `ssl.SSLSocket.getpeercert` gives it; "" where there is not exactly one."""
    parts = [part for level in (certificate or {}).get("subject", ()) for part in level]
    names = [value for kind, value in parts if kind == "commonName"]
    return names[0] if len(names) == 1 else ""


def own_name(files: TlsFiles) -> str:
    """The common name in the certificate of `files`, as it can be printed. Raises NetworkError as `server_context`."""
    names = _certificates(files.certificate)[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return printable(str(names[0].value)) if len(names) == 1 else ""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What a server accepts connections with: those of clients whose certificate the authority signed.

    Raises NetworkError, one line that names the file: missing, not PEM, expired, of another authority, a key that does
    not fit, has a password or may be read by others.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """What a client connects with: to a server whose certificate the authority signed for the name that was dialled.
    Raises NetworkError as `server_context`."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)  # which checks certificate and host name from the start


def _context(side: int, files: TlsFiles) -> ssl.SSLContext:
    _require_sound(files)
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(files.authority)
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")  # asks nobody on a terminal
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise NetworkError(f"{files.certificate} with {files.key}: TLS does not take it: {first_line(error)}") from None
    return context


def _require_sound(files: TlsFiles) -> None:
    authorities, own = _certificates(files.authority), _certificates(files.certificate)
    now = datetime.now(UTC)
    for path, certificate in ((files.authority, authorities[0]), *((files.certificate, one) for one in own)):
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > last:
            raise NetworkError(f"{path}: the certificate expired on {last:%Y-%m-%d}; have it issued again")
        if now < first:
            raise NetworkError(f"{path}: the certificate begins on {first:%Y-%m-%d %H:%M} UTC; see to the clock")
    if not any(_issued(own[-1], authority) for authority in authorities):
        raise NetworkError(f"{files.certificate}: not issued by the authority in {files.authority}; give its own one")
    key = _key(files.key).public_key()
    plain = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_bytes(*plain) != own[0].public_key().public_bytes(*plain):
        raise NetworkError(
            f"{files.key}: not the key of the certificate {files.certificate}; give the one made with it"
        )


def _certificates(path: Path) -> list[x509.Certificate]:
    raw = _read(path)
    try:
        return x509.load_pem_x509_certificates(raw)
    except ValueError:
        raise NetworkError(
            f"{path}: no certificate in PEM format; give one that begins -----BEGIN CERTIFICATE-----"
        ) from None


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _key(path: Path) -> Any:
    raw = _read(path)
    if os.name == "posix" and (mode := stat.S_IMODE(path.stat().st_mode)) & stat.S_IRWXO:
        raise NetworkError(f"{path}: a secret key that others may read (mode {mode:o}); chmod 600 it")
    try:
        return load_pem_private_key(raw, None)
    except TypeError:
        raise NetworkError(f"{path}: the key has a password; give one without, readable by you alone") from None
    except Exception:  # cryptography has a class of its own for algorithms; its text might quote the file
        raise NetworkError(f"{path}: no secret key in PEM format") from None


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, _MOST_PEM)
    except ForeignError as error:
        raise NetworkError(f"{path}: not read: {error}") from None
