"""The folder of a federation's coordinator: authority, server, sites and enrolment, made whole or not at all.

    DIR/enrolment.toml            public: for everybody, by a way that is not the server's
    DIR/certs/ca.crt, ca.key      the authority; its key is needed for new sites alone, and belongs offline in between
    DIR/certs/server.pem, .key    the server's certificate
    DIR/certs/signing.key, .pub   what the server signs receipts with
    DIR/sites/site0/              what client 0 takes to its site: ca.crt, signing.pub, client.pem and client.key (TLS),
                                  node.key and node.key.pub (Flower), and in a pilot identity.key

Nothing that is there is overwritten. A site's folder and its client have the same number (`enrolment_file` says why it
counts from 0). Files with secrets have mode 0600, public ones 0644, folders 0700.

Two ways lead here. In a *pilot* on one machine, `make_federation(folder, clients=3)` makes all keys of all sites, so
that whoever runs it knows them all, and could sign as every client: the malicious-server profile then promises nothing
against that person. In a *federation*, `make_federation(folder)` makes authority and server, each site makes its
identity key by itself (`identity.make_identity`), and `enrol` takes the public keys and makes the rest. Keys for TLS
and Flower are the coordinator's to make in both: they say to the server who is connected, and it is the server's side
that would be deceived by a copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from flora_protocols import identity_public
from flora_secure.boundary.foreign import read_bytes
from flora_secure.engine.deployed.keys import enrolment_file, identity, signing
from flora_secure.engine.deployed.keys.certificates import (
    Authority,
    checked_host,
    hosts_in,
    node_key,
    read_certificate,
)
from flora_secure.engine.deployed.keys.change import Change, changing
from flora_secure.engine.deployed.keys.places import Places
from flora_secure.errors import ConfigError, ForeignError, InputError, require
from flora_secure.records.durable import PRIVATE
from flora_secure.rounds.enrolment import Enrolment

PUBLIC = 0o644
_MOST = 1 << 16  # bytes of a certificate or key


@dataclass(frozen=True)
class Made:
    """What was made, all of it public, and what the folder holds now.

    Attributes:
        places: the coordinator's folder.
        authority: SHA-256 of the authority's certificate in hex; None where the folder has no authority.
        hosts: that the server's certificate names; empty without one.
        until: when the server's certificate ends; None without one.
        server: whether the server's certificate is new.
        clients: numbers of the clients that are new.
        again: numbers of those whose keys for TLS and Flower were made anew.
        enrolment: everybody who is enrolled now; None before the first.
    """

    places: Places
    authority: str | None
    hosts: tuple[str, ...]
    until: datetime | None
    server: bool
    clients: tuple[int, ...]
    again: tuple[int, ...]
    enrolment: Enrolment | None


def make_federation(
    folder: Path,
    clients: int | None = None,
    hosts: Sequence[str] = (),
    again: Sequence[int] = (),
    now: datetime | None = None,
) -> Made:
    """Make what is missing of authority, server certificate and, for a pilot, `clients` sites with all their secrets.

    Args:
        folder: the coordinator's, made where it is missing.
        clients: how many are to be enrolled in the end, at least 2; None for no new site, in a federation whose sites
            make their identity keys themselves.
        hosts: DNS names and IP addresses under which clients reach the server, beside `LOCAL_HOSTS`.
        again: numbers of enrolled clients whose keys for TLS and Flower are made anew, for want of them or because
            their time ends; their folders must have been moved away.
        now: the present, if left out.

    Raises ConfigError, with nothing made, for fewer clients than are enrolled, for a server certificate that is there
    and does not name all `hosts`, for clients of `again` who are not enrolled or are revoked, for files that are
    missing or damaged, and where something cannot be written.
    """
    wanted = [checked_host(host) for host in hosts]
    most = enrolment_file.MOST_CLIENTS
    if clients is not None:
        require(2 <= clients <= most, f"a federation has 2 to {most:,} clients, got {clients}")
    with changing(folder) as change:
        places = Places(folder)
        before = _enrolled(places)
        count = before.clients if before else 0
        total = count if clients is None else clients
        require(
            total >= count,
            f"{places.enrolment} has {count} clients, and {total} are fewer: nobody is taken out, revoke instead",
        )
        for client in again:
            require(again.count(client) == 1, f"client {client} is named twice to be made anew; name it once")
            require(0 <= client < count, f"client {client} is not enrolled in {places.enrolment}, which has {count}")
            require(before is None or client not in before.revoked, f"client {client} is revoked in {places.enrolment}")
        secrets = [identity.new_identity() for _ in range(count, total)]
        authority = _authority(places, now)
        if authority is None:
            authority = _new_authority(change, places, now)
        server = _add_server(change, places, authority, wanted, now)
        signs = _add_signing(change, places)
        for client in again:
            _add_site(change, places, authority, client, None, now, signs)
        for client, secret in enumerate(secrets, start=count):
            _add_site(change, places, authority, client, secret, now, signs)
        after = _extended(before, [identity_public(secret) for secret in secrets])
        _commit(change, places, before, after)
    return _made(places, authority, after, server=server, clients=range(count, total), again=again)


def enrol(folder: Path, publics: Sequence[str], now: datetime | None = None) -> Made:
    """Enrol clients by the public keys, in hex, that their sites have told; the first time at least two.

    Each gets the next number and, where the folder has an authority, a folder with keys for TLS and Flower. Raises
    ConfigError, with nothing changed, for a key that is none or is enrolled already, and as `make_federation`.
    """
    require(bool(publics), "no public identity key to enrol; give those that the sites have told")
    keys = [identity.public_key_of(text, f"public key {place}") for place, text in enumerate(publics, start=1)]
    for place, key in enumerate(keys):
        require(key not in keys[:place], f"public key {place + 1} is the same as {keys.index(key) + 1}; give it once")
    with changing(folder) as change:
        places = Places(folder)
        before = _enrolled(places)
        known = before.identities if before else ()
        for place, key in enumerate(keys, start=1):
            if key in known:
                raise ConfigError(f"public key {place} is that of client {known.index(key)} already")
        after = _extended(before, keys)
        new = range(len(known), len(known) + len(keys))
        authority = _authority(places, now)
        for client in new if authority is not None else ():
            assert authority is not None
            _add_site(change, places, authority, client, None, now, _signing_public(places))
        _commit(change, places, before, after)
    return _made(places, authority, after, server=False, clients=new, again=())


def revoke(folder: Path, client: int) -> Enrolment:
    """Say in the enrolment that a client must not be invited any more, and give what it is now.

    It takes effect where the new file is. Raises ConfigError for a number that nobody has or that is revoked already.
    """
    places = Places(folder)
    enrolment_file.read_enrolment(places.enrolment)  # before anything is locked: the folder may be another one
    with changing(folder) as change:
        before = enrolment_file.read_enrolment(places.enrolment)
        require(
            0 <= client < before.clients,
            f"client {client} is not enrolled in {places.enrolment}, whose clients are 0 to {before.clients - 1}",
        )
        require(client not in before.revoked, f"client {client} is revoked already in {places.enrolment}")
        after = replace(before, revoked=before.revoked | {client})
        _commit(change, places, before, after)
    return after


def _enrolled(places: Places) -> Enrolment | None:
    return enrolment_file.read_enrolment(places.enrolment) if os.path.lexists(places.enrolment) else None


def _extended(before: Enrolment | None, keys: Sequence[bytes]) -> Enrolment | None:
    if not keys:
        return before
    known = before.identities if before else ()
    count, most = len(known) + len(keys), enrolment_file.MOST_CLIENTS
    require(count <= most, f"{count:,} clients are more than the {most:,} that a federation can have")
    revoked = before.revoked if before else frozenset[int]()
    return Enrolment(clients=count, identities=(*known, *keys), revoked=revoked)


def _authority(places: Places, now: datetime | None) -> Authority | None:
    """The folder's authority; None where it has none yet."""
    certificate, key = places.certificates / "ca.crt", places.certificates / "ca.key"
    if not os.path.lexists(certificate):
        require(not os.path.lexists(key), f"{key} is there without {certificate}; bring it back, or move the key away")
        trusting = next(places.sites.glob("site*/ca.crt"), None)
        require(trusting is None, f"{certificate} is not there, and {trusting} is a copy of it; bring it back")
        return None
    require(
        os.path.lexists(key), f"{key} is not there, and new certificates need it; bring it back from where you keep it"
    )
    try:
        return Authority.read(_read(certificate), _read(key), now)
    except InputError as error:
        raise ConfigError(f"authority {certificate}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, _MOST)
    except ForeignError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def _new_authority(change: Change, places: Places, now: datetime | None) -> Authority:
    authority = Authority.new(now)
    pair = authority.pair()
    change.file(places.certificates / "ca.crt", pair.public, PUBLIC)
    change.file(places.certificates / "ca.key", pair.secret, PRIVATE)
    return authority


def _add_server(
    change: Change, places: Places, authority: Authority, hosts: Sequence[str], now: datetime | None
) -> bool:
    """Have the server's certificate made; False where there is one, for all of `hosts`."""
    certificate, key = places.certificates / "server.pem", places.certificates / "server.key"
    there = [path for path in (certificate, key) if os.path.lexists(path)]
    if len(there) == 1:
        raise ConfigError(f"{there[0]} is there without the other of server.pem and server.key; move it away")
    if there:
        named = _server(certificate)[0]
        missing = [host for host in hosts if host not in named]
        require(
            not missing,
            f"{certificate} is there, for {', '.join(named)} and not {', '.join(missing)}; move it and server.key "
            "away to have new ones made",
        )
        return False
    pair = authority.server(hosts, now)
    change.file(certificate, pair.public, PUBLIC)
    change.file(key, pair.secret, PRIVATE)
    return True


def _add_signing(change: Change, places: Places) -> bytes | None:
    """Have the key made that the server signs receipts with, where there is none; what `signing.pub` holds."""
    secret, public = places.certificates / signing.NAME, places.certificates / signing.PUBLIC_NAME
    if os.path.lexists(secret) or os.path.lexists(public):
        return _signing_public(places)
    pair = signing.signing_pair()
    change.file(secret, pair[0], PRIVATE)
    change.file(public, pair[1], PUBLIC)
    return pair[1]


def _signing_public(places: Places) -> bytes | None:
    """What `signing.pub` holds; None in a folder of an older release, which has none."""
    path = places.certificates / signing.PUBLIC_NAME
    return _read(path) if os.path.lexists(path) else None


def _server(path: Path) -> tuple[tuple[str, ...], datetime]:
    """The hosts of the server's certificate, and when it ends."""
    try:
        certificate = read_certificate(_read(path))
    except InputError as error:
        raise ConfigError(f"{path}: {error}") from None
    return hosts_in(certificate), certificate.not_valid_after_utc


def _add_site(
    change: Change, places: Places, authority: Authority, client: int, secret: bytes | None, now: datetime | None,
    signs: bytes | None,
) -> None:  # fmt: skip
    """Have the folder of a new site made, with its identity key where `secret` is given, and the server's public
    signing key where that is known (`signs`)."""
    tls, node = authority.client(client, now), node_key(client)
    files = {
        "ca.crt": (authority.pair().public, PUBLIC),
        "client.pem": (tls.public, PUBLIC),
        "client.key": (tls.secret, PRIVATE),
        "node.key.pub": (node.public, PUBLIC),
        "node.key": (node.secret, PRIVATE),
    }
    if signs is not None:
        files[signing.PUBLIC_NAME] = (signs, PUBLIC)
    if secret is not None:
        files[identity.NAME] = (identity.identity_text(secret), PRIVATE)
    change.folder(places.site(client), files)


def _commit(change: Change, places: Places, before: Enrolment | None, after: Enrolment | None) -> None:
    new = None if after is None or after == before else enrolment_file.enrolment_text(after).encode()
    change.commit(places.enrolment, new, PUBLIC)


def _made(
    places: Places,
    authority: Authority | None,
    after: Enrolment | None,
    *,
    server: bool,
    clients: range,
    again: Sequence[int],
) -> Made:
    path = places.certificates / "server.pem"
    hosts, until = _server(path) if os.path.lexists(path) else ((), None)
    shown = authority.fingerprint if authority is not None else None
    return Made(places, shown, hosts, until, server, tuple(clients), tuple(again), after)
