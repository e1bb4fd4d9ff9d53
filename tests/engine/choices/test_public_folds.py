"""Choices on public images alone: how these are cut, who wins, and tasks on which each of them is known to be right."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flora_secure.data.partitions import parse_partition
from flora_secure.engine.choices.federation import CLIENTS, PublicFederation
from flora_secure.engine.choices.public_folds import FOLDS, PublicFolds, chosen, leads, share
from flora_secure.engine.choices.starts import candidates, held_out, labelled
from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.planning.rules import rule_named
from flora_secure.rounds.optimiser import MomentumAverage
from flora_secure.server.warm_start import warm_start

CLASSES, EMBED = 5, 24
FRESH = Factors(a=torch.eye(CLASSES), b=torch.zeros(CLASSES, EMBED))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def axes(count: int) -> torch.Tensor:
    """So many directions, each at a right angle to all others."""
    return torch.linalg.qr(torch.randn(EMBED, count, generator=generator(1))).Q.T


def head_of(base: torch.Tensor, off: float) -> Head:
    """A head whose class embeddings are near the rows of `base`."""
    base = base + off * torch.randn(base.shape, generator=generator(2))
    return Head(prompts=torch.eye(CLASSES), base=F.normalize(base, dim=1), logit_scale=20.0)


def images(centres: torch.Tensor, spread: float) -> torch.Tensor:
    noise = spread * torch.randn(centres.shape, generator=generator(3))
    return F.normalize(centres + noise, dim=1)


# --- folds


def test_every_class_is_in_every_fold_and_every_half() -> None:
    labels = torch.arange(600).sort().values % CLASSES
    folds = PublicFolds.cut(labels, None, CLASSES)
    for fold in range(FOLDS):
        for half in (False, True):
            counts = torch.bincount(labels[(folds.fold == fold) & (folds.half == half)], minlength=CLASSES)
            assert counts.tolist() == [20] * CLASSES
    again = PublicFolds.cut(labels, None, CLASSES)
    assert torch.equal(folds.fold, again.fold)
    assert torch.equal(folds.half, again.half)


def test_two_images_of_a_class_are_enough_and_one_is_not() -> None:
    many = torch.arange(60) % 4
    assert PublicFolds.cut(torch.cat([many, torch.tensor([4, 4])]), None, CLASSES).everywhere
    assert not PublicFolds.cut(torch.cat([many, torch.tensor([4])]), None, CLASSES).everywhere
    assert not PublicFolds.cut(many, None, CLASSES).everywhere


@pytest.mark.parametrize("sources", [2, 3, 7])
def test_a_source_is_in_one_fold(sources: int) -> None:
    labels, of = torch.arange(700) % CLASSES, np.arange(700) // 5 % sources
    folds = PublicFolds.cut(labels, of, CLASSES)
    assert folds.count == min(FOLDS, sources)
    for source in range(sources):
        assert len(set(folds.fold[of == source].tolist())) == 1
    assert int(torch.bincount(folds.fold).min()) >= 200


def test_sources_that_cannot_be_cut_between_are_not() -> None:
    labels = torch.arange(600) % CLASSES
    spread = PublicFolds.cut(labels, None, CLASSES)
    one, few = np.zeros(600, np.int64), (np.arange(600) < 5).astype(np.int64)
    of_its_own = (labels == 4).numpy().astype(np.int64)  # a class that one source alone shows
    for sources in (one, few, of_its_own):
        assert torch.equal(PublicFolds.cut(labels, sources, CLASSES).fold, spread.fold)


@pytest.mark.parametrize("sources", [None, np.arange(600) // 5 % 3, np.arange(600) // 5 % 2])
def test_what_judges_was_neither_seen_nor_dealt_and_judges_once(sources: np.ndarray | None) -> None:
    folds = PublicFolds.cut(torch.arange(600) % CLASSES, sources, CLASSES)
    times = torch.zeros(600, dtype=torch.int64)
    for fold in range(folds.count):
        test, seen = folds.judging(fold), folds.fold == fold
        assert not (test & seen).any()
        dealt = ~test & ~seen
        assert 0.4 < float(test.sum() / (test | dealt).sum()) < 0.6
        # the clients' sources are those that judge
        assert set(folds.fold[test].tolist()) == set(folds.fold[dealt].tolist())
        times += test
    assert int(times.max()) == 1
    assert int(times.sum()) == (600 if folds.count == FOLDS else 300)


# --- who wins


def pattern(wins: int, losses: int, count: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    """What two choices have right where the first has so many that the other lacks, and lacks so many."""
    right, other = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    right[:wins], other[wins : wins + losses] = True, True
    return right, other


def test_a_lead_has_to_be_twice_its_standard_error() -> None:
    # (wins - losses) against 2 sqrt(wins + losses), nearly
    assert not leads(*pattern(0, 0))
    assert not leads(*pattern(3, 0))
    assert leads(*pattern(5, 0))
    assert not leads(*pattern(59, 41))
    assert leads(*pattern(62, 38))
    assert not leads(*pattern(38, 62))


def test_the_least_intervention_stays_where_none_leads() -> None:
    better, none = pattern(50, 0)
    assert chosen({"none": none, "images": none, "labels": none}) == "none"
    assert chosen({"none": none, "images": better, "labels": better}) == "images"
    assert chosen({"none": none, "images": none, "labels": better}) == "labels"
    assert chosen({"none": better, "images": none, "labels": none}) == "none"


# --- warm start


def test_labels_that_tell_nothing_are_none() -> None:
    assert not labelled(torch.zeros(600, dtype=torch.int64))
    assert not labelled(torch.arange(49) % CLASSES)
    assert labelled(torch.arange(50) % CLASSES)


def test_labels_of_some_classes_judge_and_are_not_fitted() -> None:
    assert candidates(PublicFolds.cut(torch.arange(600) % CLASSES, None, CLASSES)) == ("none", "images", "labels")
    assert candidates(PublicFolds.cut(torch.arange(600) % 4, None, CLASSES)) == ("none", "images")


def judged(head: Head, features: torch.Tensor, labels: torch.Tensor) -> tuple[str, dict[str, float]]:
    folds = PublicFolds.cut(labels, None, CLASSES)
    found = held_out(head, FRESH, features, folds, candidates(folds))
    return chosen(found), {kind: share(right) for kind, right in found.items()}


def test_clusters_that_are_classes_are_learned_without_labels() -> None:
    classes, labels = axes(CLASSES), torch.arange(600) % CLASSES
    best, found = judged(head_of(classes, 0.4), images(classes[labels], 0.15), labels)
    assert best == "images"
    assert found["images"] > found["none"] + 0.02


def styled() -> tuple[Head, torch.Tensor, torch.Tensor]:
    """Images whose clusters are styles, of which each class has all, with a model that takes a style for a class."""
    both, labels = axes(2 * CLASSES), torch.arange(600) % CLASSES
    styles = torch.randint(CLASSES, (600,), generator=generator(4))
    features = images(both[labels] + 3 * both[CLASSES + styles], 0.15)
    return head_of(both[:CLASSES] + 0.3 * both[CLASSES:], 0.15), features, labels


def test_clusters_that_are_no_classes_are_not_trusted() -> None:
    head, features, labels = styled()
    best, found = judged(head, features, labels)
    assert best == "labels"
    assert found["images"] < found["none"] - 0.05
    some = labels != 4  # without all classes there are no labels to fit
    best, found = judged(head, features[some], labels[some])
    assert best == "none"
    assert found["images"] < found["none"]


def test_labels_that_are_wrong_are_not_trusted_either() -> None:
    classes, labels = axes(CLASSES), torch.arange(600) % CLASSES
    shuffled = torch.randint(CLASSES, (600,), generator=generator(5))
    few = torch.rand(600, generator=generator(6)) < 0.3  # of which so many are as they should be
    told = torch.where(few, labels, shuffled)
    best, found = judged(head_of(classes, 0.02), images(classes[labels], 0.15), told)
    assert best == "none"
    assert found["labels"] < found["none"] - 0.02


def test_a_source_is_judged_by_what_others_taught() -> None:
    """Each source draws every class in the way of another one: what two of them taught misleads with the third. Folds
    that spread sources would not see it."""
    both, labels, of = axes(2 * CLASSES), torch.arange(600) % CLASSES, torch.arange(600) // 5 % 3
    features = images(0.3 * both[labels] + 2 * both[CLASSES + (labels + of) % CLASSES], 0.05)
    head = head_of(both[:CLASSES], 0.05)
    right = {}
    for sources in (None, of.numpy()):
        folds = PublicFolds.cut(labels, sources, CLASSES)
        found = held_out(head, FRESH, features, folds, ("none", "labels"))
        right[sources is None] = share(found["labels"]), chosen(found)
    assert right[True][0] > 0.95
    assert right[False][0] < 0.6
    assert right[False][1] == "none"


# --- control variate


def federation(head: Head, scheme: str, **changes: object) -> PublicFederation:
    given = {
        "head": head,
        "fresh": FRESH,
        "start": "none",
        "rule": rule_named("frozen-a"),
        "steps": 3,
        "rate": 0.4,
        "clip_norm": 0.15,
        "rounds": 10,
        "noise": 0.05,
        "optimiser": MomentumAverage(0.3, 0.5),
        "clients": 100,
        "scheme": parse_partition(scheme),
    }
    return PublicFederation(**(given | changes))


def compared(simulated: PublicFederation, features: torch.Tensor, labels: torch.Tensor) -> tuple[float, list[float]]:
    found = simulated.held_out(features, PublicFolds.cut(labels, None, CLASSES), (0.0, 1.0))
    return chosen(found), [share(right) for right in found.values()]


def test_clients_of_one_class_each_gain_and_clients_of_all_do_not() -> None:
    classes, labels = axes(CLASSES), torch.arange(1500) % CLASSES
    head, features = head_of(classes.roll(1, 0), 0.2), images(classes[labels], 0.3)
    best, (without, with_it) = compared(federation(head, "shards:1"), features, labels)
    assert best == 1.0
    assert with_it > without + 0.005
    assert compared(federation(head, "iid"), features, labels)[0] == 0.0


def test_where_classes_are_unequal_it_costs() -> None:
    often = torch.tensor([0.5**c for c in range(CLASSES)])
    labels = torch.multinomial(often, 1500, replacement=True, generator=generator(7))
    classes = axes(CLASSES)
    head, features = head_of(classes, 0.2), images(classes[labels], 0.4)
    long = {"clip_norm": 1.0, "rounds": 20, "noise": 0.0, "optimiser": MomentumAverage(1.0, 0.5)}
    best, (without, with_it) = compared(federation(head, "dirichlet:0.1", **long), features, labels)
    assert best == 0.0
    assert with_it < without - 0.01


def test_more_shards_than_images_are_a_deal_without_order() -> None:
    classes, labels = axes(CLASSES), torch.arange(150) % CLASSES
    features = images(classes[labels], 0.3)
    head = head_of(classes, 0.2)
    one, other = (
        federation(head, scheme).held_out(features, PublicFolds.cut(labels, None, CLASSES), (0.0,))[0.0]
        for scheme in (f"shards:{150 // CLIENTS}", "iid")
    )
    assert torch.equal(one, other)


def test_the_simulated_federation_begins_with_the_runs_warm_start() -> None:
    head, features, labels = styled()
    folds = PublicFolds.cut(labels, None, CLASSES)
    idle = {"rounds": 0, "start": "labels"}
    found = federation(head, "iid", **idle).held_out(features, folds, (0.0,))[0.0]
    seen, test = folds.fold == 0, folds.judging(0)
    started = warm_start("labels", head, FRESH, features[seen], labels[seen])
    right = head.logits(features[test], started).argmax(1) == labels[test]
    assert torch.equal(found[: int(test.sum())], right)
