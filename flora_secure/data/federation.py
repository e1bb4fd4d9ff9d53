"""Who holds what: a data set and the private images of each client. Needs no model, so bad input is told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flora_secure.boundary.foreign import printable
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset, Owners, Split, Unseen
from flora_secure.data.files.overlaps import with_overlaps
from flora_secure.data.notes import Skipped
from flora_secure.data.partitions import (
    Iid,
    Natural,
    Scheme,
    Skew,
    parse_partition,
    partition,
    partition_captioned,
    skew,
)
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.data.sources import load_dataset
from flora_secure.errors import ConfigError, DataError, did_you_mean
from flora_secure.planning.config import RunConfig
from flora_secure.planning.names import NOT_DRAWN, OF_UNSEEN, PASSED
from flora_secure.planning.sections import CLIENTS, PARTITION, DataConfig


@dataclass(frozen=True, eq=False)
class Federation:
    """`clients[i]`: int64 indices into `dataset.private` of client i's images; together they are all of them.

    `partition`: how they are dealt; `remark`: why so, where nobody has said it and it is not the default.
    """

    dataset: Dataset
    clients: list[NDArray[np.int64]] = field(repr=False)
    partition: str = PARTITION
    remark: str = ""

    def settled(self, config: RunConfig) -> RunConfig:
        """`config` with clients and partition as they are, where it left them to the data: what a run folder holds.
        Raises ConfigError where they do not fit the rest of it."""
        data = config.data
        if data.total_images is not None:
            raise ConfigError(
                f"`data.total_images` {data.total_images} is for real federations; here the data say it, "
                f"{len(self.dataset.private):,}: leave it out"
            )
        return replace(
            config, data=replace(data, clients=len(self.clients), partition=data.partition or self.partition)
        )

    @cached_property
    def own_tests(self) -> list[NDArray[np.int64]] | None:
        """Places in `dataset.test` of each client's own test images, int64, of some clients none; None where nobody
        knows: the images were dealt anew, or the data set does not say whose its test images are."""
        owners = self.dataset.owners
        if owners is None or owners.of_test is None or self.partition != str(Natural()) or not self.clients:
            return None
        return [np.flatnonzero(owners.of_test == owners.of[part[0]]).astype(np.int64) for part in self.clients]

    @cached_property
    def skew(self) -> Skew:
        """How unevenly the images are dealt."""
        private = self.dataset.private
        if self.dataset.captioned:
            return skew(None, [np.unique(private.distinct[1][part]) for part in self.clients])
        return skew(private.labels, self.clients)

    @property
    def image_counts(self) -> tuple[int, int, int]:
        """Private, public and test images, those of unseen classes apart; one with several captions counts once."""
        splits = (self.dataset.private, self.dataset.public, self.dataset.test)
        private, public, test = (len(s.distinct[0] if self.dataset.captioned else s) for s in splits)
        return private, public, test

    @property
    def lines(self) -> list[str]:
        """What a person should know before training: images and classes or captions, the skew, and what was left
        out."""
        data = self.dataset
        private, public, test = self.image_counts
        described = f"images with {len(data.private):,}, {len(data.public):,} and {len(data.test):,} captions"
        if not data.captioned:
            described = f"images, {self._classes}"
        apart = []
        if data.unseen is not None:
            names = ", ".join(data.unseen.class_names)
            apart = [f"unseen classes {names}: {len(data.unseen.test):,} test images apart"]
        return [
            f"data {data.name}: {private:,} private, {public:,} public, {test:,} test {described}; {self.skew.line}",
            *([f"partition {self.partition}: {self.remark}"] if self.remark else []),
            *([f"read {data.read}"] if data.read else []),
            *apart,
            *(skipped.line for skipped in data.skipped),
            *(f"warning: {line}" for line in data.warnings),
        ]

    @property
    def _classes(self) -> str:
        """The classes by name, with their private images: whoever reads it sees what was taken for a class."""
        names = self.dataset.class_names
        counts = np.bincount(self.dataset.private.labels, minlength=len(names)).tolist()
        return f"{len(names):,} classes ({_listed([f'{name} {n:,}' for name, n in zip(names, counts, strict=True)])})"


_SHOWN = 20  # classes in a line


def load_federation(
    config: DataConfig, seed: int, cache: ArrayCache | None = None, passed: Dataset | None = None
) -> Federation:
    """Load the data set, unless it was `passed` by the caller (`flora_secure.data.passed.own.OwnData`), and deal its
    private images.

    Raises `flora_secure.errors.DataError` for what cannot be loaded or dealt, for a run on passed data where
    none are passed, and for other data than those that `config` names.
    """
    given = None if config.partition is None else parse_partition(config.partition)
    if passed is not None or config.dataset.startswith(PASSED):
        dataset = _require_the_same(config, passed)
    else:
        dataset = load_dataset(
            config.name,
            config.data_root,
            layout=config.layout or ("clients" if isinstance(given, Natural) else None),
            class_names=config.class_names,
            label_base=config.label_base,
            templates=config.templates,
            rendering=Rendering(config.window, config.background),
            cache=cache,
            test=config.test,
        )
    if config.name != config.dataset:
        renamed = f"`data.dataset` {config.dataset} is called {config.name} now"
        dataset = replace(dataset, warnings=(renamed, *dataset.warnings))
    if config.unseen_classes is not None:
        dataset = set_apart(dataset, config.unseen_classes)
    dataset = with_overlaps(dataset)
    owners = None if dataset.owners is None else dataset.owners.of
    own = 0 if owners is None else len(np.unique(owners))
    scheme, remark = _scheme(dataset, own) if given is None else (given, "")
    natural = isinstance(scheme, Natural)
    if own and not natural:
        ignored = (
            f"the {own:,} clients that the data set has are ignored" if own > 1 else "all images are of one client"
        )
        line = f"{ignored}, since partition {scheme} deals the images anew; partition natural keeps them"
        dataset = replace(dataset, warnings=(*dataset.warnings, line if own > 1 else f"{ignored}: {scheme} deals them"))
    count = config.clients or (own if natural else 0) or CLIENTS
    rng = np.random.default_rng([seed, 0])
    if dataset.captioned:
        clients = partition_captioned(dataset.private.distinct[1], count, scheme, rng, owners)
    else:
        clients = partition(dataset.private.labels, count, scheme, rng, owners)
    if natural:
        dataset, clients = _only(dataset, clients)
    dataset = replace(dataset, warnings=(*dataset.warnings, *_held_by_nobody(dataset, drawn=natural and count < own)))
    return Federation(dataset, clients, str(scheme), remark)


def _scheme(dataset: Dataset, own: int) -> tuple[Scheme, str]:
    """How images are dealt where nobody has said it, and why so where that is not the default."""
    if own > 1:
        return Natural(), f"the data set says which of its {own:,} clients holds each image"
    if dataset.captioned:
        return Iid(), "captions have no labels to deal by"
    return parse_partition(PARTITION), ""


def _require_the_same(config: DataConfig, passed: Dataset | None) -> Dataset:
    if passed is None:
        raise DataError(
            f"`data.dataset` {config.dataset!r} was passed by the program that began the run, and is in no file: pass "
            "it again from Python, as dataset= of flora_secure.simulate"
        )
    if passed.name != config.dataset:
        raise DataError(
            f"the run is of `data.dataset` {config.dataset!r}, and {passed.name!r} was passed: pass that one"
        )
    named = [key for key in ("data_root", "class_names", "label_base", "templates") if getattr(config, key) is not None]
    named += [key for key in ("window", "background") if getattr(config, key) != getattr(PLAIN, key)]
    named += ["test"] * (config.test != "default")
    if named:
        raise DataError(
            f"a data set that is passed has its own: leave out {' and '.join(f'`data.{k}`' for k in named)}"
        )
    return passed


def _only(dataset: Dataset, clients: list[NDArray[np.int64]]) -> tuple[Dataset, list[NDArray[np.int64]]]:
    """The data set without the private images that no client of the run holds, and the clients' indices into that."""
    kept = np.sort(np.concatenate(clients))
    if len(kept) == len(dataset.private):
        return dataset, clients
    assert dataset.owners is not None
    owners = replace(dataset.owners, of=dataset.owners.of[kept])
    idle = [owners.names[client] for client in np.setdiff1d(dataset.owners.of, owners.of)]
    gone = [dataset.private.name(place) for place in np.setdiff1d(np.arange(len(dataset.private)), kept).tolist()]
    skipped = (*_skipped("client that was not drawn", idle), *_skipped(NOT_DRAWN, gone))
    return (
        replace(dataset, private=dataset.private.at(kept), owners=owners, skipped=(*dataset.skipped, *skipped)),
        [np.searchsorted(kept, part).astype(np.int64) for part in clients],
    )


def _held_by_nobody(dataset: Dataset, *, drawn: bool) -> tuple[str, ...]:
    """A line about classes of which no client of the run has an image, or none. `drawn`: other clients may have some,
    which were not drawn."""
    names = dataset.class_names
    counts = np.bincount(dataset.private.labels, minlength=len(names))
    lacking = [name for name, count in zip(names, counts.tolist(), strict=False) if count == 0]
    if not lacking or dataset.captioned:
        return ()
    remedy = "take more `data.clients`, or set them apart by" if drawn else "give clients some, or set them apart by"
    return (
        f"no client holds an image of {len(lacking):,} of {len(names):,} classes ({_listed(lacking)}), so that "
        f"training only pushes them away: {remedy} `data.unseen_classes`",
    )


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return ", ".join(map(printable, words[:_SHOWN])) + more


_LISTED = 100  # class names in a message


def set_apart(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """`dataset` with the classes called `names` unseen; `dataset.unseen` is `None` before.

    The classes that stay, and those that go, keep their order and are numbered from 0 each. Private and public images
    of unseen classes are left out and counted, their test images move to `Unseen.test`. Raises DataError for captions,
    an unknown name, fewer than two classes left, and where a side has no test image or the clients no image left.
    """
    known = dataset.class_names
    if dataset.captioned:
        raise DataError(f"data set {dataset.name!r} has captions and no classes: leave out `data.unseen_classes`")
    if unknown := [name for name in names if name not in known]:
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        raise DataError(
            f"`data.unseen_classes` {unknown[0]!r} is none of data set {dataset.name!r}; known: "
            f"{', '.join(known[:_LISTED])}{more}{did_you_mean(unknown[0], known)}"
        )
    apart = np.array([name in names for name in known])
    if (left := int((~apart).sum())) < 2:
        raise DataError(f"`data.unseen_classes` leave {left} of {len(known)} classes to train: at least 2 are needed")
    number = np.where(apart, np.cumsum(apart), np.cumsum(~apart)) - 1

    def part(split: Split, which: NDArray[np.bool_]) -> Split:
        kept = split.at(np.flatnonzero(which[split.labels]).astype(np.int64))
        return replace(kept, labels=number[kept.labels].astype(np.int64))

    private, public, test = (part(split, ~apart) for split in (dataset.private, dataset.public, dataset.test))
    unseen = Unseen(tuple(name for name in known if name in names), part(dataset.test, apart))
    for split, what in ((private, "private image of any other class"), (test, "test image of any other class"),
                        (unseen.test, "test image of them")):  # fmt: skip
        if len(split) == 0:
            raise DataError(f"`data.unseen_classes` {', '.join(names)}: data set {dataset.name!r} has no {what}")
    gone = [
        split.name(place)
        for split in (dataset.private, dataset.public)
        for place in np.flatnonzero(apart[split.labels]).tolist()
    ]
    owners, idle = dataset.owners, list[str]()
    if owners is not None:
        of = owners.of[~apart[dataset.private.labels]]
        idle = [owners.names[client] for client in np.setdiff1d(owners.of, of)]
        of_test = None if owners.of_test is None else owners.of_test[~apart[dataset.test.labels]]
        owners = Owners(owners.names, of, of_test)
    return replace(
        dataset,
        private=private,
        public=public,
        test=test,
        class_names=tuple(name for name in known if name not in names),
        owners=owners,
        skipped=(
            *dataset.skipped,
            *_skipped(OF_UNSEEN, gone),
            *_skipped("client with images of unseen classes alone", idle),
        ),
        unseen=unseen,
    )


def _skipped(reason: str, names: list[str]) -> tuple[Skipped, ...]:
    return (Skipped(reason, tuple(names)),) if names else ()
