"""What those reach who need no federation, or no privacy: the competitors beside a run in its report.

All of them have the run's own kind of adapter on the same frozen model, and its test images. Public labels alone see
nothing of a client. The others are computed from the clients' data, and no budget covers them: a simulation has all of
that in one place, and its owner alone may know the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora_secure.client.closed_form import ClosedForm
from flora_secure.data.federation import Federation
from flora_secure.data.images import images_at
from flora_secure.engine.ended import Ended
from flora_secure.engine.frames.projection import Projection
from flora_secure.engine.task import Task
from flora_secure.errors import ConfigError
from flora_secure.model.factors import Factors
from flora_secure.model.fitting import fitted_apart, fitted_to_the_end
from flora_secure.planning.config import RunConfig
from flora_secure.planning.rules import rule_named
from flora_secure.records.report import LARGEST, Alone, Competitors

_CENTRAL_STEPS = 400  # of more images than a client or the public slice has, on which the loss falls for longer

Score = Callable[[int, NDArray[np.bool_]], float]
"""What a client's adapter is worth, given the client and which of its test images are right, bool (n,)."""


def require_possible(names: Collection[str], config: RunConfig, federation: Federation) -> None:
    """ConfigError for the first of the competitors that cannot be had in this run, and why."""
    for name in names:
        if why := why_not(name, config, federation):
            raise ConfigError(f"`compare` {name}: {why}; leave it out")


def why_not(name: str, config: RunConfig, federation: Federation) -> str | None:
    """Why a competitor cannot be had in this run, in words; None where it can."""
    data, model = federation.dataset, config.model
    if name == "no-noise":
        return None
    if data.captioned:
        return f"it needs labels, and data set {data.name!r} has captions"
    if model.placement != "text-projection":
        return f"it is fitted where `model.placement` is text-projection, and here that is {model.placement}"
    if rule_named(model.trained_rule).trains_a and (model.rank or len(data.class_names)) < len(data.class_names):
        return (
            f"B alone is fitted, and at a `model.rank` of {model.rank} for {len(data.class_names)} classes "
            f"`model.rule` {model.trained_rule} gains by training A too"
        )
    if name == "public" and len(data.public) == 0:
        return f"data set {data.name!r} has no public images"
    if name == "public" and len(np.unique(data.public.labels)) == 1:
        return "the public images all have one label, which tells nothing of the classes"
    if name == "local" and _images(config, federation) == "mixed":
        unknown = np.setdiff1d(data.private.labels, data.test.labels)
        if len(unknown):
            return f"clients hold {data.class_names[unknown[0]]!r}, and no test image shows one"
    return None


def competitors_of(run: Ended, names: Collection[str] = (), no_noise: float | None = None) -> Competitors:
    """The report's competitors of a run that has ended: public labels alone, and those of `names`.

    `no_noise`: what `flora_secure.engine.simulation.without_noise` gave, where that was asked for.
    """
    task, why = run.task, why_not("public", run.config, run.task.federation)
    return Competitors(
        public=None if why else task.evaluator.accuracy(public_adapter(task)),
        central=task.evaluator.accuracy(central_adapter(task)) if "central" in names else None,
        local=_alone(run) if "local" in names else None,
        no_noise=no_noise,
        left_out={"public": why} if why else {},
    )


def public_adapter(task: Task) -> Factors:
    """The fresh adapter fitted to all public labels. It sees no private and no test image."""
    frame = _projection(task)
    public = frame.setting.public
    labels = torch.from_numpy(public.labels).to(frame.setting.device)
    return fitted_to_the_end(frame.head, frame.fresh, public_features(frame), labels)


def central_adapter(task: Task) -> Factors:
    """The fresh adapter fitted to all private labels in one place. It sees no test image."""
    frame = _projection(task)
    return fitted_to_the_end(frame.head, frame.fresh, *_private(task, frame), _CENTRAL_STEPS)


def public_features(frame: Projection) -> Tensor:
    """Features of all public images, float32 (n, embed); those that training has seen are not embedded again."""
    images, known = frame.setting.public.images, frame.public.features
    sample = torch.from_numpy(frame.public.places)
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[sample] = False
    whole = known.new_empty(len(images), known.shape[1])
    whole[sample] = known
    if bool(rest.any()):
        whole[rest] = frame.setting.features(images_at(images, np.flatnonzero(rest.numpy())))
    return whole


def _projection(task: Task) -> Projection:
    assert isinstance(task.frame, Projection), "see why_not"
    return task.frame


def _private(task: Task, frame: Projection) -> tuple[Tensor, Tensor]:
    """Features and labels of all private images, on the model's device; the features are those that the clients train
    on, or come from the cache."""
    private = task.federation.dataset.private
    features = task.learner.features if isinstance(task.learner, ClosedForm) else frame.setting.features(private.images)
    return features, torch.from_numpy(private.labels).to(features.device)


def _images(config: RunConfig, federation: Federation) -> str:
    """On which test images clients alone are scored, see `Alone`."""
    if config.data.test == "unseen-clients":
        return "all"
    own = federation.own_tests
    return "mixed" if own is None or not any(map(len, own)) else "own"


@dataclass(frozen=True, eq=False)
class ByClient:
    """Fractions of right answers on each client's own test images, float64 (clients,), NaN where a client has none.

    Attributes:
        images: on which, see `Alone`.
        members: the clients that have any.
        weights: of each client in a mean.
        alone: of an adapter fitted to the client's own images from the fresh one.
        federated: of the run's adapter.
        fitted_on: of that, fitted on to the client's own images.
    """

    images: str
    members: list[int]
    weights: NDArray[np.int64]
    alone: NDArray[np.float64]
    federated: NDArray[np.float64]
    fitted_on: NDArray[np.float64]

    def mean(self, of: NDArray[np.float64], some: Sequence[int]) -> float:
        """The weighted mean over some of the members."""
        return float(np.average(of[some], weights=self.weights[some]))


def by_client(run: Ended) -> ByClient:
    """Each client's own adapter on the test images that are to be its own, beside the run's."""
    task, federation = run.task, run.task.federation
    kind, clients = _images(run.config, federation), federation.clients
    everything = np.arange(len(task.evaluator.target))
    places = [everything] * len(clients) if kind != "own" else federation.own_tests or []
    members = [client for client, own in enumerate(places) if len(own)]
    score = _score(kind, federation, task.evaluator.target.cpu().numpy())

    def of_own(begin: Factors) -> NDArray[np.float64]:
        found = np.full(len(clients), np.nan)
        for client, right in _right(task, begin, members, places):
            found[client] = score(client, right)
        return found

    whole = (task.evaluator.predicted(run.factors) == task.evaluator.target).cpu().numpy()
    return ByClient(
        images=kind,
        members=members,
        weights=np.array([len(own) if kind == "own" else 1 for own in places]),
        alone=of_own(_projection(task).fresh),
        federated=np.array([score(client, whole[own]) if len(own) else np.nan for client, own in enumerate(places)]),
        fitted_on=of_own(run.factors),
    )


def _alone(run: Ended) -> Alone:
    found, clients = by_client(run), run.task.federation.clients
    members = found.members
    largest = sorted(members, key=lambda client: -len(clients[client]))[:LARGEST]
    return Alone(
        images=found.images,
        clients=len(members),
        mean=found.mean(found.alone, members),
        federated=found.mean(found.federated, members),
        fitted_on=found.mean(found.fitted_on, members),
        best=float(found.alone[members].max()) if found.images == "all" else None,
        largest=len(largest),
        mean_of_largest=found.mean(found.alone, largest),
        federated_of_largest=found.mean(found.federated, largest),
        fitted_on_of_largest=found.mean(found.fitted_on, largest),
    )


def _score(kind: str, federation: Federation, target: NDArray[np.int64]) -> Score:
    if kind != "mixed":
        return lambda client, right: float(right.mean())
    labels, classes = federation.dataset.private.labels, len(federation.dataset.class_names)
    shown = np.bincount(target, minlength=classes)

    def mixed(client: int, right: NDArray[np.bool_]) -> float:
        """As `flora_secure.server.scores.evaluate` counts a client's accuracy."""
        recall = np.bincount(target[right], minlength=classes) / np.maximum(shown, 1)
        return float(recall[labels[federation.clients[client]]].mean())

    return mixed


@torch.no_grad()
def _right(
    task: Task, begin: Factors, members: Sequence[int], places: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Of each of `members`, which of the test images at its `places` the adapter gets right that begins at `begin` and
    is fitted to its own images."""
    frame = _projection(task)
    features, labels = _private(task, frame)
    _, images = task.evaluator.test(frame.fresh)
    parts = [torch.from_numpy(task.federation.clients[client]) for client in members]
    for group, b in fitted_apart(frame.head, begin, features, labels, parts):
        for row, own in zip(group, b, strict=True):
            where = torch.from_numpy(places[members[row]]).to(images.device)
            text = frame.head.text(Factors(begin.a, own))
            right = (images[where] @ text.T).argmax(dim=1) == task.evaluator.target[where]
            yield members[row], right.cpu().numpy()
