"""The warm start: its gradient against autograd, what it gains, and that no label enters."""

from dataclasses import replace

import numpy as np
import torch
from federations import prepare

from flora_secure.data.dataset import Split
from flora_secure.data.federation import Federation, load_federation
from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.planning.config import RunConfig, override
from flora_secure.server.warm_start import MOST, PENALTY, gradient, public_sample, warm_start


def clusters(*, off: float = 1.0) -> tuple[Head, Factors, torch.Tensor, torch.Tensor]:
    """Images around five centres, a head whose class embeddings are `off` from these, features and labels."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.nn.functional.normalize(torch.randn(5, 16, generator=generator), dim=1)
    labels = torch.arange(400) % 5
    noise = 0.1 * torch.randn(400, 16, generator=generator)
    features = torch.nn.functional.normalize(centres[labels] + noise, dim=1)
    base = torch.nn.functional.normalize(centres + off * torch.randn(5, 16, generator=generator) / 4, dim=1)
    head = Head(prompts=torch.eye(5), base=base, logit_scale=20.0)
    return head, Factors(a=torch.eye(5), b=torch.zeros(5, 16)), features, labels


def test_the_gradient_is_that_of_penalty_less_mutual_information() -> None:
    head, _, features, _ = clusters()
    mixed = torch.randn(5, 5, generator=torch.Generator().manual_seed(4))
    b = (0.3 * torch.randn(5, 16, generator=torch.Generator().manual_seed(5))).requires_grad_()
    p = torch.softmax(head.logits(features, Factors(a=mixed, b=b)), dim=1)
    mean = p.mean(0)
    information = -(mean * mean.log()).sum() + (p * p.log()).sum(1).mean()
    (expected,) = torch.autograd.grad(PENALTY * (b**2).sum() - information, b)
    found = gradient(head, Factors(a=mixed, b=b.detach()), features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_unlabelled_clusters_correct_class_embeddings() -> None:
    head, factors, features, labels = clusters(off=3.0)

    def accuracy(adapter: Factors) -> float:
        return float((head.logits(features, adapter).argmax(1) == labels).float().mean())

    assert accuracy(factors) < 0.9
    assert accuracy(warm_start(head, factors, features, 100)) > accuracy(factors) + 0.05


def test_without_public_images_or_steps_nothing_moves() -> None:
    head, factors, features, _ = clusters()
    assert torch.equal(warm_start(head, factors, features[:0], 100).b, factors.b)
    assert torch.equal(warm_start(head, factors, features, 0).b, factors.b)


def test_the_sample_is_all_of_a_few_images_and_spread_over_many() -> None:
    assert public_sample(7).tolist() == list(range(7))
    assert public_sample(0).tolist() == []
    many = public_sample(10 * MOST)
    assert len(np.unique(many)) == MOST
    assert abs(many.mean() / (10 * MOST) - 0.5) < 0.05  # 8 standard errors


def test_the_first_adapter_depends_on_public_images_but_on_no_label() -> None:
    torch.set_num_threads(1)
    config = override(RunConfig(), {"data.dataset": "digits", "data.clients": 5})
    federation = load_federation(config.data, config.seed)
    data = federation.dataset

    def start(changed: Federation, steps: int = 100) -> torch.Tensor:
        return prepare(override(config, {"training.warm_start": steps}), changed).initial.b

    def with_public(split: Split) -> Federation:
        return Federation(replace(data, public=split), federation.clients)

    def shuffled(split: Split) -> Split:
        return replace(split, labels=np.roll(split.labels, 1))

    warm = start(federation)
    assert warm.abs().max() > 0
    others = replace(data, **{name: shuffled(getattr(data, name)) for name in ("private", "public", "test")})
    assert torch.equal(start(Federation(others, federation.clients)), warm)
    half = Split(data.public.images[::2], data.public.labels[::2], data.public.origin, data.public.indices[::2])
    assert not torch.equal(start(with_public(half)), warm)
    assert start(federation, 0).abs().max() == 0
