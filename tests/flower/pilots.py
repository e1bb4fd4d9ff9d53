"""A pilot's folder with few and small images: three sites that train in seconds."""

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from flora_secure.data.embedded.icons import icons
from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.engine.deployed.project.begin import begin

SITES = 3
EACH = 2  # images of each class at each party


def make_pilot(folder: Path, rounds: int = 1) -> Path:
    """A federation of unit client, whose budget has a closed form, in `folder`; gives the folder of its app."""
    begin(folder, clients=SITES, rounds=rounds, unit="client")
    make_federation(folder, SITES)
    dataset = icons(unseen_clients=False)
    for place, party in enumerate([*(site_of(folder, site) for site in range(SITES)), folder / "server"]):
        shutil.copy(folder / "enrolment.toml", party)
        if place < SITES:
            shutil.copy(folder / "policy.toml", party)
        split = dataset.private if place < SITES else dataset.test
        for label, name in enumerate(dataset.class_names):
            own = np.flatnonzero(split.labels == label)[place * EACH : (place + 1) * EACH]
            target = party / "images" / name
            target.mkdir(parents=True)
            for index in own.tolist():
                Image.fromarray(split.images[index]).save(target / f"{index}.png")
    return folder / "app" / "federation"


def site_of(folder: Path, site: int) -> Path:
    return folder / "sites" / f"site{site}"


def with_policy(site: Path, **terms: object) -> None:
    """Change terms of a site's policy.toml."""
    path = site / "policy.toml"
    text = path.read_text()
    for key, value in terms.items():
        text, changed = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert changed == 1, key
    path.write_text(text)
