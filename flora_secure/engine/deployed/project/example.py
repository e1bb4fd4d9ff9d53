"""Images to try a federation with: the embedded icons, whose sets are dealt whole among the sites.

DIR/sites/siteN/images/CLASS/*.png    the icon sets of that site
DIR/server/images/CLASS/*.png         test images: other icons of the same sets
DIR/sites/siteN/public, DIR/server/public    house styles that belong to no site
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flora_secure.data.dataset import Split
from flora_secure.engine.deployed.keys.enrolment_file import read_enrolment
from flora_secure.engine.deployed.keys.places import Places
from flora_secure.errors import ConfigError, require
from flora_secure.planning.config import load_config
from flora_secure.records.durable import PRIVATE_FOLDER, replace_file

_IMAGES_LINE = re.compile(r"(?m)^total_images = \d+")


@dataclass(frozen=True)
class Written:
    """What was written: images of each site by its number, the test images, the public ones of each party."""

    sites: dict[int, int]
    test: int
    public: int


def write_example(folder: Path) -> Written:
    """Write the example's images into the folder of a federation whose sites are enrolled, and set `data.total_images`.

    Raises ConfigError where there are no sites' folders, where images are there already, for a config.toml that cannot
    be read, and where something cannot be written.
    """
    from flora_secure.data.embedded.icons import icons

    places = Places(folder)
    enrolment = read_enrolment(places.enrolment)
    sites = [client for client in range(enrolment.clients) if client not in enrolment.revoked]
    for client in sites:
        require(
            places.site(client).is_dir(),
            f"{places.site(client)} is missing: the example is for a pilot, whose sites' folders lie here "
            "(`flora-secure flower certs DIR --clients 3`)",
        )
    parties = [places.site(client) for client in sites] + [folder / "server"]
    for party in parties:
        for name in ("images", "public"):
            require(
                not os.path.lexists(party / name),
                f"{party / name} is there, and nothing is overwritten; move it away, or remove it",
            )
    dataset = icons(unseen_clients=False)
    assert dataset.owners is not None
    _set_images(folder / "app" / "federation" / "config.toml", len(dataset.private))
    parts = dealt(dataset.owners.of, len(sites))
    try:
        for client, part in zip(sites, parts, strict=True):
            _write(places.site(client) / "images", dataset.private.at(part), dataset.class_names)
        _write(folder / "server" / "images", dataset.test, dataset.class_names)
        for party in parties:
            _write(party / "public", dataset.public, dataset.class_names)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}; make room, remove the folders images and public "
            "of the sites and the server, and begin again"
        ) from None
    return Written({client: len(part) for client, part in zip(sites, parts, strict=True)}, len(dataset.test),
                   len(dataset.public))  # fmt: skip


def dealt(owners: NDArray[np.int64], sites: int) -> list[NDArray[np.int64]]:
    """Places of each site's images: whole owners, the largest first, each to the site with the fewest images so far."""
    counts = np.bincount(owners)
    held: list[list[int]] = [[] for _ in range(sites)]
    sizes = [0] * sites
    for owner in np.argsort(-counts, kind="stable").tolist():
        site = sizes.index(min(sizes))
        held[site].append(owner)
        sizes[site] += int(counts[owner])
    return [np.flatnonzero(np.isin(owners, mine)).astype(np.int64) for mine in held]


def _write(folder: Path, split: Split, class_names: tuple[str, ...]) -> None:
    from PIL import Image

    folder.mkdir(PRIVATE_FOLDER)
    for name in class_names:
        (folder / name.replace(" ", "_")).mkdir(PRIVATE_FOLDER)
    assert isinstance(split.images, np.ndarray)
    for pixels, label, index in zip(split.images, split.labels.tolist(), split.indices.tolist(), strict=True):
        Image.fromarray(pixels).save(folder / class_names[label].replace(" ", "_") / f"{index:05d}.png")


def _set_images(path: Path, images: int) -> None:
    """`data.total_images` of the federation's configuration is `images`, where its unit is example."""
    config = load_config(path)
    if config.privacy.unit == "client" or config.data.total_images == images:
        return
    text, changed = _IMAGES_LINE.subn(f"total_images = {images}", path.read_text(encoding="utf-8"))
    require(changed == 1, f"{path}: set `data.total_images` to {images} yourself, its line is not as it was written")
    replace_file(path, text.encode())
