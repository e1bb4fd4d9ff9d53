"""The warm start: the self-training's gradient against autograd, what each kind gains, what it reads and what not."""

import numpy as np
import torch

from flora_secure.model.factors import Factors
from flora_secure.model.fitting import fitted
from flora_secure.model.head import Head
from flora_secure.server.warm_start import MOST, PENALTY, gradient, public_sample, self_trained, warm_start


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


def accuracy(head: Head, adapter: Factors, features: torch.Tensor, labels: torch.Tensor) -> float:
    return float((head.logits(features, adapter).argmax(1) == labels).float().mean())


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
    before = accuracy(head, factors, features, labels)
    assert before < 0.9
    assert accuracy(head, self_trained(head, factors, features), features, labels) > before + 0.05


def test_labels_correct_them_too_and_more() -> None:
    head, factors, features, labels = clusters(off=3.0)
    started = warm_start("labels", head, factors, features, labels)
    assert accuracy(head, started, features, labels) > 0.99
    assert torch.equal(started.b, fitted(head, factors, features, labels).b)


def test_only_labels_reads_labels_and_none_moves_nothing() -> None:
    head, factors, features, labels = clusters()
    turned = labels.roll(1)
    assert torch.equal(warm_start("none", head, factors, features, labels).b, factors.b)
    assert not torch.equal(warm_start("images", head, factors, features, labels).b, factors.b)
    for kind, blind in (("images", True), ("labels", False)):
        one, other = (warm_start(kind, head, factors, features, given) for given in (labels, turned))
        assert torch.equal(one.b, other.b) == blind


def test_without_public_images_or_steps_nothing_moves() -> None:
    head, factors, features, labels = clusters()
    for kind in ("images", "labels"):
        assert torch.equal(warm_start(kind, head, factors, features[:0], labels[:0]).b, factors.b)
    assert torch.equal(self_trained(head, factors, features, 0).b, factors.b)


def test_the_sample_is_all_of_a_few_images_and_spread_over_many() -> None:
    assert public_sample(7).tolist() == list(range(7))
    assert public_sample(0).tolist() == []
    many = public_sample(10 * MOST)
    assert len(np.unique(many)) == MOST
    assert abs(many.mean() / (10 * MOST) - 0.5) < 0.05  # 8 standard errors
