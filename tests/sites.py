"""A real federation of three sites in one process: digits of their own, and a transport that may misbehave."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from flora_protocols import identity_public
from flora_secure.client.policy import Policy
from flora_secure.data.passed.party import PartyData
from flora_secure.data.sources import load_dataset
from flora_secure.engine.deployed.course import Host
from flora_secure.engine.deployed.deployable import deployable
from flora_secure.engine.deployed.masked_rounds import Patience
from flora_secure.engine.deployed.site import Site
from flora_secure.engine.deployed.training import SiteTraining
from flora_secure.planning.config import RunConfig, override
from flora_secure.records.receipts.head import Signer
from flora_secure.rounds.enrolment import Enrolment

SITES = 3
IDENTITIES = tuple(bytes([client + 1]) * 32 for client in range(SITES))
SIGNER = Signer(b"signs receipts" + bytes(18), lasting=True)
ENROLMENT = Enrolment(clients=SITES, identities=tuple(map(identity_public, IDENTITIES)))
# unit client, whose budgets have a closed form, so that tests are quick; three sites hide no site
CONFIG = override(
    RunConfig(),
    {
        "data.dataset": "own:digits",
        "training.rounds": 3,
        "training.control_variate": 1.0,
        "privacy.epsilon": 8.0,
        "privacy.dropout_tolerance": 0.34,
        "aggregation.secagg": "malicious-server",
        "aggregation.corrupt": 0.0,
    },
)
EXAMPLES = override(CONFIG, {"privacy.unit": "example", "data.total_images": 900, "training.control_variate": 0.0})
POLICY = Policy(
    profile="malicious-server",
    least_noise=0.1,
    most_epsilon=12.0,  # a site counts the fewest survivors
    delta=1e-5,
    most_rounds=10,
    corrupt=0.0,
    least_clients=2,
    least_threshold=2,
    least_survivors=2,
    unit="client",
    placements=("text-projection",),
)
_DIGITS = load_dataset("digits")


def data_of(
    part: str, which: np.ndarray, class_names: tuple[str, ...] = _DIGITS.class_names, *, labelled: bool = False
) -> PartyData:
    """Digits of one party; public ones all have the same label, or `labelled` their own."""
    split = getattr(_DIGITS, part).at(which)
    items = [(image, int(label)) for image, label in zip(split.images, split.labels, strict=True)]
    labels = _DIGITS.public.labels[:200] if labelled else np.zeros(50, np.int64)
    public = [(image, int(label)) for image, label in zip(_DIGITS.public.images[: len(labels)], labels, strict=True)]
    return PartyData(class_names, items, public=public, templates=_DIGITS.templates)


def site_of(
    folder: Path, number: int, log: Callable[[str], None], *, config: RunConfig = CONFIG, policy: Policy = POLICY,
    images: int = 300, class_names: tuple[str, ...] = _DIGITS.class_names, enrolment: Enrolment = ENROLMENT,
) -> Site:  # fmt: skip
    torch.set_num_threads(1)
    config = deployable(config, enrolment.clients)

    def training() -> SiteTraining:
        part = data_of("private", np.arange(number * 300, number * 300 + images), class_names)
        return SiteTraining.of(config, part.load("private", "digits"), None)

    folder.mkdir(parents=True, exist_ok=True)
    return Site(folder, config, enrolment, IDENTITIES[number], policy, training, log, SIGNER.public)


@dataclass
class Wires:
    """A transport to sites in this process. `spoil` may change, lose (None) or repeat what a site answers."""

    sites: dict[int, Site]
    spoil: Callable[[int, bytes, bytes], bytes | None] = field(default=lambda client, request, reply: reply)
    asked: list[dict[int, bytes]] = field(default_factory=list)

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        self.asked.append(dict(outbox))
        for client, message in outbox.items():
            if client in self.sites:
                reply = self.spoil(client, message, self.sites[client].answer(message))
                if reply is not None:
                    yield client, reply

    def close(self) -> None:
        pass


@dataclass
class Federation:
    """Three sites and their server, in `folder`. `told`: what each logs; -1 is the server."""

    folder: Path
    config: RunConfig = CONFIG
    enrolment: Enrolment = ENROLMENT
    told: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sites = {number: self.site(number) for number in range(SITES)}
        self.wires = Wires(self.sites)

    def site(self, number: int, **more: object) -> Site:
        log = self.told.setdefault(number, []).append
        return site_of(self.folder / f"site{number}", number, log, **{"config": self.config, **more})

    def host(self, **more: object) -> Host:
        parts = {
            "config": self.config,
            "data": data_of("test", np.arange(150)).load("test", "digits"),
            "enrolment": self.enrolment,
            "transport": self.wires,
            "patience": Patience(),
            "cache": None,
            "progress": None,
            "log": self.told.setdefault(-1, []).append,
            "signer": SIGNER,
        }
        return Host(**{**parts, **more})
