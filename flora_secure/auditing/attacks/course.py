"""Attacks on one run's federation: its data and model loaded again, each attack made, findings and pictures kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flora_secure.auditing.asked import Asked
from flora_secure.auditing.attacked import MEMBERSHIP, RECONSTRUCTION, SITES, Attacks, Outcome, last_line_hash
from flora_secure.auditing.attacks.membership import membership
from flora_secure.auditing.attacks.pictures import draw_membership, draw_reconstruction, draw_sites
from flora_secure.auditing.attacks.reconstruction import reconstruct
from flora_secure.auditing.attacks.sites import infer_sites
from flora_secure.auditing.attacks.statistics import Allowed
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset
from flora_secure.data.federation import load_federation
from flora_secure.engine.task import Task, prepare
from flora_secure.errors import ConfigError, RunFolderError
from flora_secure.planning.names import PASSED
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, replace_file
from flora_secure.records.reading import read_run
from flora_secure.rounds.float16 import to_wire


def attack(
    run: Path, out: Path, asked: Asked, passed: Dataset | None, cache: ArrayCache | None, say: Callable[[str], None]
) -> Attacks:
    """Attack the federation of the run in the folder `run`, and write attacks.json and pictures into `out`.

    Raises an `flora_secure.errors.InputError` for a run or data that cannot be read, and for what cannot be attacked.
    """
    config, records, report = read_run(run)
    if not records:
        raise RunFolderError(f"{run / 'rounds.jsonl'} holds no complete round: there is nothing to attack")
    if config.data.dataset.startswith(PASSED) and passed is None:
        raise ConfigError(
            f"`data.dataset` {config.data.dataset!r} was passed by the program that began the run, and is in no file: "
            "attack it from Python, with dataset= of flora_secure.attack"
        )
    _make(out)
    federation = load_federation(config.data, config.seed, cache, passed)
    if federation.dataset.captioned:
        raise ConfigError(
            f"`data.dataset` {config.data.dataset} has captions, and attacks need labels: what a client sends depends "
            "on all of its pairs together"
        )
    if len(federation.clients) != config.data_clients:
        raise RunFolderError(
            f"{run} is of {config.data_clients} clients, and the data that were loaded have {len(federation.clients)}: "
            "they are others than the run's"
        )
    task = prepare(config, federation, cache)
    if records[0].model_hash != _first_hash(task):
        say(
            "warning: model or public images are not quite what the run had (another machine's arithmetic, or other "
            "files): the attacks are on a federation of what was loaded now"
        )
    allowed = Allowed.of(Case(run, config, records, report, []))
    outcomes, pictures = list[Outcome](), list[Callable[[], None]]()
    if RECONSTRUCTION in asked.attacks:
        found = reconstruct(config, task, allowed, asked.seed, say)
        outcomes += found.outcomes
        private, file = federation.dataset.private, out / "reconstruction.png"
        pictures.append(partial(draw_reconstruction, found.trials, found.candidates, private, task.clip, file))
    if MEMBERSHIP in asked.attacks:
        shown = membership(config, task, allowed, asked.shadows, asked.seed, say)
        outcomes += shown.outcomes
        who = "client" if config.privacy.unit == "client" else "image"
        file = out / "membership.png"
        pictures.append(partial(draw_membership, shown.curves, allowed, who, file))
    if SITES in asked.attacks:
        sites = infer_sites(config, task, allowed, asked.seed, say)
        outcomes += sites
        pictures.append(partial(draw_sites, sites, out / "sites.png"))
    attacks = Attacks(
        rounds_hash=last_line_hash(run),
        seed=asked.seed,
        shadows=asked.shadows if MEMBERSHIP in asked.attacks else 0,
        outcomes=outcomes,
    )
    try:
        replace_file(out / "attacks.json", (attacks.to_json() + "\n").encode(), mode=PRIVATE)
        for draw in pictures:
            draw()
    except OSError as error:
        raise ConfigError(f"`out` {out} cannot be written to: {error.strerror}; choose another folder") from None
    return attacks


def _make(out: Path) -> None:
    """The folder for what is found, for its owner's eyes alone, before minutes of work."""
    try:
        out.parent.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        out.mkdir(PRIVATE_FOLDER, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"`out` {out} cannot be made: {error.strerror}; choose another folder") from None
    if not os.access(out, os.W_OK):
        raise ConfigError(f"`out` {out} cannot be written to; choose another folder")


def _first_hash(task: Task) -> str:
    """What the log of a run has of the model and the adapter that its first round began with."""
    broadcast = to_wire(task.initial.vector(task.rule).cpu().numpy().astype("f8"))
    return hashlib.sha256(bytes.fromhex(task.clip.model_hash) + broadcast).hexdigest()
