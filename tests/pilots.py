"""A federation of three sites in folders, as people have it before its first round: keys, certificates, images."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import tomli_w
from sites import CONFIG, POLICY, SITES

from flora_secure.client.policy import Policy
from flora_secure.data.sources import load_dataset
from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.planning.config import RunConfig

DATA = """
import numpy as np
from flora_secure import PartyData

def site_images(folder):
    held = np.load(folder / "images.npz")
    public = [(image, 0) for image in held["public"]]
    items = [(image, int(label)) for image, label in zip(held["images"], held["labels"])]
    return PartyData([f"digit {i}" for i in range(10)], items, public=public)

server_images = site_images
"""


class Pilot:
    """The folders of a federation below `folder`; `sites[i]` is site i's, `server` the coordinator's."""

    def __init__(self, folder: Path, config: RunConfig = CONFIG, policy: Policy = POLICY) -> None:
        make_federation(folder, SITES, (), ())
        self.server, self.app = folder, folder / "app"
        self.sites = [folder / "sites" / f"site{number}" for number in range(SITES)]
        self.app.mkdir()
        (self.app / "data.py").write_text(DATA)
        self.configure(config)
        digits = load_dataset("digits")
        parts = [(digits.private, np.arange(number * 300, number * 300 + 300)) for number in range(SITES)]
        for place, (split, which) in zip([*self.sites, folder], [*parts, (digits.test, np.arange(150))], strict=True):
            part, public = split.at(which), digits.public.images[:50]
            np.savez(place / "images.npz", images=part.images[:], labels=part.labels, public=public[:])
        for site in self.sites:
            self.insist(site, policy)
            shutil.copy(folder / "enrolment.toml", site / "enrolment.toml")

    def configure(self, config: RunConfig) -> None:
        (self.app / "config.toml").write_text(config.to_toml())

    def insist(self, site: Path, policy: Policy) -> None:
        """Give the site that policy."""
        table = {**dataclasses.asdict(policy), "last_round": policy.last_round or policy.most_rounds}
        (site / "policy.toml").write_text(tomli_w.dumps(table))
