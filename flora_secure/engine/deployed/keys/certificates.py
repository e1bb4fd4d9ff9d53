"""X.509 for a federation: its own authority, the server's certificate, and one for each client (mutual TLS).

Keys are EC P-256. A certificate serves one end only: the server's has the extended use serverAuth, a client's
clientAuth, and the authority may sign no further authorities (RFC 5280, sections 4.2.1.3, 4.2.1.9 and 4.2.1.12), so
that no client can pass for the server. All extensions that `ssl.VERIFY_X509_STRICT` asks for are there.

These keys say who is connected. What a client signs in the protocol it signs with its identity key
(`flora_secure.engine.deployed.keys.identity`), which no certificate replaces.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flora_secure.engine.tls.certificates import client_name
from flora_secure.errors import ConfigError, require

LOCAL_HOSTS = ("localhost", "127.0.0.1")
"""What every server certificate names besides the hosts that are asked for."""

_EARLY = timedelta(days=1)  # clocks are off
_AUTHORITY_LIFE = timedelta(days=3652)  # ten years
_LIFE = timedelta(days=825)
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DNS = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True)
class Pair:
    """A public file and the secret one that belongs to it, as bytes; the secret is in no `repr`."""

    public: bytes
    secret: bytes = field(repr=False)


def checked_host(text: str) -> str:
    """A DNS name in small letters, or an IP address in its usual form.

    Raises ConfigError for what no certificate should name: a scheme, a port, a wildcard, letters outside of ASCII.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        name = text.lower()
    digits = name.rpartition(".")[2].isdigit()  # an address that is none, such as 10.0.0.256
    if len(name) > 253 or digits or not _DNS.fullmatch(name):
        raise ConfigError(
            f"host {text[:80]!r} is neither a DNS name nor an IP address; give it alone, without scheme and port, such "
            "as fl.example.org or 192.0.2.7"
        )
    return name


class Authority:
    """The certificate authority of one federation: whoever holds its key decides who can connect.

    Make one with `Authority.new`, or read one with `Authority.read`. Its key is shown by `pair` alone.
    """

    def __init__(self, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    def __repr__(self) -> str:
        return f"Authority({self._certificate.subject.rfc4514_string()})"

    @classmethod
    def new(cls, now: datetime | None = None) -> Authority:
        """An authority with a fresh key, for ten years. `now`: when it begins, less a day; the present if left out."""
        key = generate_private_key(SECP256R1())
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        # a name of its own: two federations' authorities must not look alike where both are trusted
        name = _name(f"flora-secure authority {identifier.digest.hex()[:8]}")
        uses = dict.fromkeys(_USES, False) | {"key_cert_sign": True, "crl_sign": True}
        begin = (now or datetime.now(UTC)) - _EARLY
        certificate = (
            _builder(name, name, key.public_key(), begin, begin + _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**uses), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def read(cls, certificate: bytes, key: bytes, now: datetime | None = None) -> Authority:
        """The authority of a PEM certificate and the PEM key that belongs to it, from a folder of ours.

        Raises ConfigError, which names no file, where either is none, they do not belong together, it is no authority,
        or its time is over.
        """
        read = read_certificate(certificate)
        try:
            secret = load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # what they say may quote the file
            raise ConfigError("its key is no unencrypted key in PEM") from None
        require(isinstance(secret, EllipticCurvePrivateKey), "its key is not one of an elliptic curve")
        assert isinstance(secret, EllipticCurvePrivateKey)
        require(secret.public_key() == read.public_key(), "its key is not the certificate's")
        try:
            authority = read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, ValueError):
            authority = False
        require(authority, "its certificate is not one of an authority")
        end = read.not_valid_after_utc
        require((now or datetime.now(UTC)) < end, f"its certificate ended on {end:%Y-%m-%d}")
        return cls(read, secret)

    def pair(self) -> Pair:
        """Certificate and key of the authority, in PEM (PKCS #8)."""
        return Pair(self._certificate.public_bytes(Encoding.PEM), _pem(self._key))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hex, as other tools show it without their colons."""
        return self._certificate.fingerprint(SHA256()).hex()

    def server(self, hosts: Iterable[str], now: datetime | None = None) -> Pair:
        """A certificate and fresh key for the server at `hosts`, beside `LOCAL_HOSTS`, for 825 days; PEM.

        Raises ConfigError as `checked_host`.
        """
        names = dict.fromkeys((*LOCAL_HOSTS, *map(checked_host, hosts)))
        alternatives = x509.SubjectAlternativeName([_general(name) for name in names])
        return self._issue(_name("flora-secure server"), ExtendedKeyUsageOID.SERVER_AUTH, now, alternatives)

    def client(self, client: int, now: datetime | None = None) -> Pair:
        """A certificate and fresh key for the client of that number of the enrolment, for 825 days; PEM."""
        return self._issue(_name(client_name(client)), ExtendedKeyUsageOID.CLIENT_AUTH, now)

    def _issue(
        self,
        name: x509.Name,
        use: x509.ObjectIdentifier,
        now: datetime | None,
        alternatives: x509.SubjectAlternativeName | None = None,
    ) -> Pair:
        key = generate_private_key(SECP256R1())
        begin = (now or datetime.now(UTC)) - _EARLY
        end = min(begin + _LIFE, self._certificate.not_valid_after_utc)
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(name, self._certificate.subject, key.public_key(), begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**dict.fromkeys(_USES, False) | {"digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return Pair(builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM), _pem(key))


def read_certificate(raw: bytes) -> x509.Certificate:
    """The certificate in a PEM file. Raises ConfigError, which names no file, where there is none."""
    try:
        return x509.load_pem_x509_certificate(raw)
    except ValueError:
        raise ConfigError("it holds no certificate in PEM") from None


def hosts_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses that a certificate is for, in its order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def node_key(client: int) -> Pair:
    """A Flower node key (EC P-384): the private half in OpenSSH's format, the public one as OpenSSH's line.

    Flower 1.42 takes the public line in `flwr supernode register`, and the private file where a SuperNode is started.
    """
    key = generate_private_key(SECP384R1())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return Pair(public + f" {client_name(client)}\n".encode(), secret)


_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _builder(
    name: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
