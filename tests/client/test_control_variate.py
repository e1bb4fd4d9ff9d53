"""The control variate: against a slow reference and autograd, what it leaves alone, and what it gains."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from federations import prepare
from torch.nn import functional as F  # noqa: N812

from flora_secure.client.closed_form import ClientBatch, ClosedForm
from flora_secure.client.control_variate import ClassGradients, ControlVariate
from flora_secure.data.federation import load_federation
from flora_secure.errors import ConfigError
from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.model.loading import load_clip
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.rules import rule_named
from flora_secure.server.warm_start import public_sample

CLASSES, WIDTH, EMBED, SCALE = 5, 6, 16, 12.0


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=generator(seed)), dim=-1)


def counts_of(clients: int) -> torch.Tensor:
    """Some images of each class, from a handful a client to hundreds."""
    size = torch.logspace(0.5, 2, clients).unsqueeze(1)
    return (size * torch.rand(clients, CLASSES, generator=generator(2))).ceil()


def slow(features: np.ndarray, text: np.ndarray, rows: np.ndarray, weight: float) -> np.ndarray:
    """The module's formula, an image and a class at a time."""
    found = np.zeros((len(rows), *text.shape))
    scores = np.exp(SCALE * features @ text.T)
    p = scores / scores.sum(axis=1, keepdims=True)
    for client, row in enumerate(rows):
        n = row.sum()
        for c, count in enumerate(row):
            for x, own in zip(features, p, strict=True):
                error = own - np.eye(len(row))[c]
                given = own[c] / p[:, c].sum()
                found[client] += n / (n + 150) * (count / n - 1 / len(row)) * given * np.outer(error, x)
    return weight * SCALE * found


@pytest.mark.parametrize("clients", [2, 9])  # fewer and more than classes: without and with a table
def test_it_is_what_a_slow_reference_computes(clients: int) -> None:
    features, text, rows = unit(30, EMBED, seed=3), unit(CLASSES, EMBED, seed=4), counts_of(clients)
    at = ControlVariate(features, 0.6).at(text, SCALE, clients)
    assert (at.table is None) == (clients < CLASSES)
    expected = slow(features.double().numpy(), text.double().numpy(), rows.double().numpy(), 0.6)
    np.testing.assert_allclose(at.of(rows).numpy(), expected, rtol=1e-3, atol=1e-5)


def test_many_mixtures_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features, rows = unit(30, EMBED, seed=3), counts_of(9)
    at = ClassGradients(features, unit(30, CLASSES, seed=5).abs(), SCALE)
    whole = at.of(rows)
    monkeypatch.setattr("flora_secure.client.control_variate._MOST", 2 * 30 * CLASSES)
    torch.testing.assert_close(at.of(rows), whole)
    torch.testing.assert_close(at.tabulated().of(rows), whole)


def test_over_clients_whose_classes_are_equally_frequent_it_adds_up_to_nothing() -> None:
    at = ControlVariate(unit(30, EMBED, seed=3), 1.0).at(unit(CLASSES, EMBED, seed=4), SCALE, CLASSES)
    each = at.of(300 * torch.eye(CLASSES))
    assert float(each.norm()) > 1
    assert float(each.sum(dim=0).norm()) < 1e-4
    assert float(at.of(torch.full((1, CLASSES), 60.0)).norm()) < 1e-4


def test_a_client_of_few_images_subtracts_less() -> None:
    at = ControlVariate(unit(30, EMBED, seed=3), 1.0).at(unit(CLASSES, EMBED, seed=4), SCALE, CLASSES)
    few, half, many = at.of(torch.tensor([[1.0, 0, 0, 0, 0], [150, 0, 0, 0, 0], [1.5e6, 0, 0, 0, 0]]))
    torch.testing.assert_close(few, many / 151, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(half, many / 2, rtol=1e-3, atol=1e-5)


def batch_of(shares: list[list[int]]) -> tuple[ClientBatch, torch.Tensor, torch.Tensor]:
    """Clients with so many images of each class, around centres that the head does not quite know."""
    labels = torch.tensor([c for share in shares for c, count in enumerate(share) for _ in range(count)])
    noise = 0.2 * torch.randn(len(labels), EMBED, generator=generator(7))
    features = F.normalize(unit(CLASSES, EMBED, seed=6)[labels] + noise, dim=1)
    ends = np.cumsum([sum(share) for share in shares])
    clients = [torch.arange(end - sum(share), end) for share, end in zip(shares, ends, strict=True)]
    return ClientBatch(features, labels, clients, CLASSES), features, labels


def head_of() -> Head:
    base = F.normalize(unit(CLASSES, EMBED, seed=6) + 0.15 * torch.randn(CLASSES, EMBED, generator=generator(8)), dim=1)
    prompts = unit(CLASSES, WIDTH, seed=9)
    return Head(prompts=prompts, base=torch.linalg.lstsq(prompts, base).solution, logit_scale=SCALE, scale=0.5)


@pytest.mark.parametrize("name", ["frozen-a", "ab"])
def test_training_descends_the_loss_less_the_linear_term(name: str) -> None:
    shares = [[9, 1, 0, 0, 0], [0, 4, 4, 4, 0], [2, 2, 2, 2, 2]]
    batch, features, labels = batch_of(shares)
    head, rule, steps, rate = head_of(), rule_named(name), 3, 0.2
    factors = Factors(a=unit(WIDTH, 4, seed=10), b=0.1 * torch.randn(4, EMBED, generator=generator(11)))
    variate = ControlVariate(unit(40, EMBED, seed=12), 0.7)
    found = batch.train(head, rule, factors, steps, rate, variate=variate)
    start = 0
    for client, share in enumerate(shares):
        own = slice(start, start + sum(share))
        start += sum(share)
        row = torch.tensor([share], dtype=torch.float32)
        subtracted = variate.at(head.text(factors), SCALE, 1).of(row)[0]
        vector = factors.vector(rule)
        for _ in range(steps):
            vector = vector.detach().requires_grad_()
            now = factors.with_vector(rule, vector)
            loss = F.cross_entropy(head.logits(features[own], now), labels[own]) - (subtracted * head.text(now)).sum()
            (gradient,) = torch.autograd.grad(loss, vector)
            vector = vector - rate * gradient
        torch.testing.assert_close(found[client], vector.detach() - factors.vector(rule), rtol=1e-4, atol=1e-5)


def test_clients_of_different_classes_agree_more() -> None:
    # each holds two of the five classes, and another two than its neighbours
    shares = [[200 * (c == i % CLASSES) + 100 * (c == (i + 1) % CLASSES) for c in range(CLASSES)] for i in range(10)]
    batch, features, _ = batch_of(shares)
    head, rule = head_of(), rule_named("frozen-a")
    factors = Factors(a=torch.linalg.qr(unit(WIDTH, CLASSES, seed=13)).Q, b=torch.zeros(CLASSES, EMBED))

    def agreement(weight: float) -> float:
        variate = ControlVariate(features, weight) if weight else None
        updates = batch.train(head, rule, factors, 1, 0.1, variate=variate)
        return float(F.normalize(updates, dim=1).mean(dim=0).norm())

    assert agreement(1.0) > 1.1 * agreement(0.5) > 1.2 * agreement(0.0)


def test_it_reads_public_images_alone_and_is_for_whole_clients() -> None:
    torch.set_num_threads(1)
    given = {"data.dataset": "digits", "data.clients": 5, "training.warm_start": "none"}
    config = override(RunConfig(), given | {"training.control_variate": 0.7})
    federation = load_federation(config.data, config.seed)

    def variate(changes: dict[str, object]) -> ControlVariate | None:
        learner = prepare(override(config, changes), federation).learner
        assert isinstance(learner, ClosedForm)
        return learner.variate

    found = variate({})
    assert found is not None
    assert found.weight == 0.7
    public = federation.dataset.public
    expected = load_clip().image_features(public.images[public_sample(len(public))])
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-5)
    assert variate({"training.control_variate": 0.0}) is None
    example = override(RunConfig(), given | {"privacy.unit": "example"})
    learner = prepare(example, federation).learner
    assert isinstance(learner, ClosedForm)
    assert learner.variate is None
    without = replace(federation.dataset, public=federation.dataset.public.at(np.arange(0)))
    learner = prepare(override(RunConfig(), given), replace(federation, dataset=without)).learner
    assert isinstance(learner, ClosedForm)
    assert learner.variate is None


def test_a_run_trains_with_it() -> None:
    given = {"data.dataset": "digits", "data.clients": 5, "training.warm_start": "none"}
    config = override(RunConfig(), given | {"training.control_variate": 1.0})
    task = prepare(config, load_federation(config.data, config.seed))
    learner = task.learner
    assert isinstance(learner, ClosedForm)
    asked = (learner.head, task.rule, task.initial, 2, 0.4)
    found = learner.train(task.rule, task.initial, 2, 0.4, range(5))
    assert torch.equal(found, learner.batch.train(*asked, variate=learner.variate))
    without = learner.batch.train(*asked)
    assert float((found - without).norm()) > 0.05 * float(without.norm())


def test_its_weight_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"control_variate must lie between 0 and 1, got 1\.5"):
        override(RunConfig(), {"training.control_variate": 1.5})
