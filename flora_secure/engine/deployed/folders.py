"""From folders to parties: what all parties of a federation have, and what a site and the server have for themselves.

    APP      config.toml, data.py: the same at all parties
    SITE     policy.toml, enrolment.toml, signing.pub, identity.key, its images; state/, adapter/ and receipts/ are
             written there
    SERVER   enrolment.toml, certs/ or signing.key, the test images; the run's folder is written in it

`data.py` has two functions, `site_images(folder)` and `server_images(folder)`, which give a `PartyData`. It is a
program of whoever wrote it, and runs with the rights of the party that reads it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flora_protocols import identity_public
from flora_secure.client.policy import Policy
from flora_secure.data.cache import ArrayCache
from flora_secure.engine.deployed.keys.enrolment_file import NAME as ENROLMENT
from flora_secure.engine.deployed.keys.enrolment_file import read_enrolment
from flora_secure.engine.deployed.keys.identity import NAME as IDENTITY
from flora_secure.engine.deployed.keys.identity import read_identity
from flora_secure.engine.deployed.keys.signing import read_public
from flora_secure.engine.deployed.site import Site
from flora_secure.errors import ConfigError, InputError, first_line, require
from flora_secure.planning.config import RunConfig, load_config
from flora_secure.planning.names import PASSED
from flora_secure.rounds.enrolment import Enrolment

if TYPE_CHECKING:
    from flora_secure.data.dataset import Dataset
    from flora_secure.data.passed.party import PartyData, Side
    from flora_secure.engine.deployed.training import SiteTraining

POLICY = "policy.toml"


@dataclass(frozen=True)
class App:
    """What all parties of a federation have alike. `folder` holds config.toml and data.py."""

    folder: Path

    def config(self, clients: int) -> RunConfig:
        """The federation's configuration for so many enrolled clients. Raises ConfigError for what cannot be read, and
        for what a real federation may not do (`deployable.deployable`)."""
        from flora_secure.engine.deployed.deployable import deployable

        return deployable(load_config(self.folder / "config.toml"), clients)

    def load(self, side: Side, folder: Path, config: RunConfig, cache: ArrayCache | None) -> Dataset:
        """The images of the party in `folder`, as data.py gives them. Raises ConfigError for a data.py that does not,
        `errors.DataError` for images that cannot be had."""
        name = {"private": "site_images", "test": "server_images"}[side]
        given: PartyData = self._called(name, folder)
        return given.load(side, config.data.dataset.removeprefix(PASSED), cache)

    def _called(self, name: str, folder: Path) -> PartyData:
        from flora_secure.data.passed.party import PartyData

        path = self.folder / "data.py"
        require(path.is_file(), f"{path} is missing: it says where the images of each party lie")
        spec = importlib.util.spec_from_file_location("flora_secure_federation_data", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            given = getattr(module, name)(folder)
        except InputError:
            raise
        except Exception as error:  # it is a program of its own, and may raise anything
            raise ConfigError(f"{path}, {name}: {type(error).__name__}: {first_line(error)}") from error
        require(
            isinstance(given, PartyData),
            f"{path}: {name} gives a {type(given).__name__}; it must give a flora_secure.PartyData",
        )
        found: PartyData = given
        return found


def open_site(app: App, folder: Path, log: Callable[[str], None]) -> Site:
    """The site in `folder`. Nothing is loaded but its policy, its key and the enrolment.

    Raises an `errors.InputError`, one line, for what is missing or cannot be read, and for a key that is not enrolled.
    """
    require(folder.is_dir(), f"{folder} is no folder; a site has its policy, enrolment, identity key and images there")
    policy = read_policy(folder)
    identity = read_identity(folder / IDENTITY)
    enrolment = read_enrolment(folder / ENROLMENT)
    enrolment.number_of(identity_public(identity))
    config = app.config(enrolment.clients)

    def training() -> SiteTraining:
        from flora_secure.engine.deployed.training import SiteTraining

        cache = ArrayCache(folder / "state" / "features", log)
        data = app.load("private", folder, config, cache)
        for line in (*(skipped.line for skipped in data.skipped), *(f"warning: {line}" for line in data.warnings)):
            log(line)
        return SiteTraining.of(config, data, cache)

    return Site(folder, config, enrolment, identity, policy, training, log, read_public(folder))


def read_policy(folder: Path) -> Policy:
    """The site's own terms. Raises ConfigError that says how to get some where there are none."""
    path = folder / POLICY
    require(
        path.exists(),
        f"{path} is missing: a site takes part on its own terms; `flora-secure flower init` writes one to begin with",
    )
    return Policy.read(path)


def server_enrolment(folder: Path) -> Enrolment:
    """The enrolment that the server goes by. Raises an `errors.InputError` for what is missing or cannot be read."""
    return read_enrolment(folder / ENROLMENT)
