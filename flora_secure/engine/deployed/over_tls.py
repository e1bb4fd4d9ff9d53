"""A federation from its folders over mutual TLS, without a framework: the server's side, and a site's.

The server listens before it loads anything that takes long, so that sites may come meanwhile; torch and the accountants
it imports when enough of them are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from flora_protocols import ParameterError, Profile, SessionParams, Suite, most_bytes
from flora_secure.data.cache import ArrayCache
from flora_secure.engine.deployed.folders import App, open_site, server_enrolment
from flora_secure.engine.deployed.keys.signing import server_signer
from flora_secure.engine.tls.certificates import TlsFiles, client_of, own_name
from flora_secure.engine.tls.joining import join as join_server
from flora_secure.engine.tls.server import TlsTransport
from flora_secure.engine.tls.wire import MOST_BYTES
from flora_secure.errors import ConfigError, require
from flora_secure.planning.architectures import architecture
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import slots_of
from flora_secure.privacy.noise_plan import tolerated
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.terms import MOST_BYTES as TERMS_BYTES

if TYPE_CHECKING:
    from flora_secure.engine.run import Progress, Run

_MORE = 30.0  # seconds that the server waits for the other sites, once enough are there
_ENVELOPE = 64  # bytes around a reply, at most


def serve(
    app: App,
    folder: Path,
    *,
    host: str,
    port: int,
    certificates: Path,
    out: Path,
    patience: float,
    trip_patience: float,
    wait: float,
    progress: Progress | None,
    log: Callable[[str], None],
) -> Run:
    """Run the federation of `app` from the server's folder; where `out` holds a part of the run, on from there.

    Args:
        app: config.toml and data.py.
        folder: the server's, with enrolment.toml and whatever data.py finds the test images by.
        host: a name or address of this machine, "0.0.0.0" for all that it has.
        port: to listen at; 0 for any free one.
        certificates: a folder with ca.crt, server.pem and server.key.
        out: the run's folder.
        patience: seconds for what takes training, or the adapter.
        trip_patience: seconds for all other messages, and for a site that has no connection.
        wait: seconds until enough sites are there, before the first round.
        progress: told of every round.
        log: told, in lines for people, what happens.

    Raises an `errors.InputError`, one line, for bad input and too few sites; `errors.RunInterrupted` at Ctrl-C inside
    the rounds, KeyboardInterrupt before; `privacy.cross_check.CrossCheckError` where accountants disagree.
    """
    if os.path.lexists(out / "report.json"):
        from flora_secure.engine.run import Surroundings, resume_run

        return resume_run(out, Surroundings(log=log))
    enrolment = server_enrolment(folder)
    config = app.config(enrolment.clients)
    signer = server_signer(folder, log, certificates)
    files = TlsFiles(*(certificates / name for name in ("ca.crt", "server.pem", "server.key")))
    transport = TlsTransport(
        host, port, files, enrolment.clients, revoked=enrolment.revoked, absence=trip_patience, log=log
    )
    with closing(transport):
        log(f"listens at {host}, port {transport.port}")
        cache = ArrayCache(folder / "features", log)
        data = app.load("test", folder, config, cache)
        transport.most_reply = longest_reply(config, enrolment, len(data.class_names))
        _await_sites(transport, config, enrolment, wait, log)
        log("loads the model and asks the sites …")
        from flora_secure.engine.deployed.course import Host
        from flora_secure.engine.deployed.masked_rounds import Patience

        found = Host(
            config, data, enrolment, transport, Patience(patience, trip_patience), cache, progress, log, signer
        ).run(out)  # fmt: skip
        transport.dismiss()
    return found


def join(
    app: App, folder: Path, host: str, port: int, *, patience: float, log: Callable[[str], None]
) -> tuple[Path | None, float, int]:
    """Take part in a federation as the site in `folder`, until its server says that it is over.

    `patience`: seconds without a server after which this gives up. Returns the folder of the trained adapter, None
    where none was sent; ε of the site's own ledger at its policy's δ; and how many rounds that ledger counts.

    Raises an `errors.InputError`, one line: as `folders.open_site` and `tls.joining.join`, and for a certificate of
    another client than the site's identity key is of.
    """
    site = open_site(app, folder, log)
    files = TlsFiles(*(folder / name for name in ("ca.crt", "client.pem", "client.key")))
    name = own_name(files)
    require(
        client_of(name) == site.number,
        f"{files.certificate} is of {name or 'nobody'}, and the identity key beside it is client {site.number} in the "
        f"enrolment; put the certificate of client-{site.number} there (the coordinator's sites/site{site.number})",
    )
    before = _version(folder / "adapter")
    join_server(host, port, files, site.answer, patience=patience, log=log)
    after, ledger = _version(folder / "adapter"), site.ledger
    kept = folder / "adapter" if after not in (None, before) else None
    return kept, ledger.epsilon(site.policy.delta), len(ledger.given)


def longest_reply(config: RunConfig, enrolment: Enrolment, classes: int) -> int:
    """Bytes of the longest reply that a site of this federation may give; the most of any, where the sizes of the model
    are not known before it is loaded."""
    try:
        length = 2 * architecture(config.model.model).dimension(config.model, classes)  # the rotation pads
        session = SessionParams(
            clients=enrolment.clients,
            neighbours=enrolment.clients - 1,
            threshold=enrolment.clients // 2 + 1,
            bits=32,
            dimension=length,
            profile=Profile.MALICIOUS_SERVER,
            suite=Suite.X25519_MLKEM768,
            slots=slots_of(config),
            identities=enrolment.identities,
        )
        return min(MOST_BYTES, max(TERMS_BYTES, most_bytes(session)) + _ENVELOPE)
    except (ConfigError, ParameterError):
        return MOST_BYTES


def _await_sites(
    transport: TlsTransport, config: RunConfig, enrolment: Enrolment, wait: float, log: Callable[[str], None]
) -> None:
    """Wait until enough sites for the noise are connected, then a little for the others. Raises ConfigError."""
    everybody = frozenset(range(enrolment.clients)) - enrolment.revoked
    least = max(2, len(everybody) - tolerated(enrolment.clients, config.dropout_tolerance))
    log(f"waits for {least} of {len(everybody)} sites …")
    here = transport.wait_for(everybody, least, wait)
    require(
        len(here) >= least,
        f"{len(here)} of {len(everybody)} sites are connected after {wait:g} s, and the noise needs {least}: start the "
        "others (flora-secure join), or wait longer (--wait)",
    )
    here = transport.wait_for(everybody, len(everybody), min(wait, _MORE))
    if missing := sorted(everybody - here):
        log(f"begins without {', '.join(f'site{client}' for client in missing)}")


def _version(path: Path) -> tuple[int, int] | None:
    """What tells one folder from another that took its place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
