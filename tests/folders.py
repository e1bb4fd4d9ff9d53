"""A federation of three sites as folders: keys, enrolment, policies, an app whose data.py makes images of digits."""

from dataclasses import asdict
from pathlib import Path

import tomli_w
from sites import CONFIG, POLICY

from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.planning.config import RunConfig

DATA = '''"""Images of scikit-learn's digits: private ones at each site, the test images at the server."""
from pathlib import Path

import numpy as np

from flora_secure import PartyData
from flora_secure.data.sources import load_dataset

DIGITS = load_dataset("digits")


def part(split, which):
    chosen = split.at(which)
    items = [(image, int(label)) for image, label in zip(chosen.images, chosen.labels)]
    return PartyData(DIGITS.class_names, items, templates=DIGITS.templates)


def site_images(folder: Path) -> PartyData:
    number = int(folder.name.removeprefix("site"))
    return part(DIGITS.private, np.arange(number * 300, number * 300 + 200))


def server_images(folder: Path) -> PartyData:
    return part(DIGITS.test, np.arange(150))
'''


def federation_folder(folder: Path, config: RunConfig = CONFIG, clients: int = 3) -> Path:
    """DIR with app/, server/ and sites/siteN/, each with what it needs."""
    make_federation(folder, clients=clients)
    app = folder / "app"
    app.mkdir()
    (app / "config.toml").write_text(config.to_toml())
    (app / "data.py").write_text(DATA)
    (folder / "server").mkdir()
    enrolment = (folder / "enrolment.toml").read_text()
    policy = {key: value for key, value in asdict(POLICY).items() if value is not None}
    policy |= {"placements": list(POLICY.placements), "last_round": POLICY.last_round or POLICY.most_rounds}
    for place in (folder / "server", *(folder / "sites").iterdir()):
        (place / "enrolment.toml").write_text(enrolment)
    for place in (folder / "sites").iterdir():
        (place / "policy.toml").write_text(tomli_w.dumps(policy))
    return folder
