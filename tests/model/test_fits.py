"""An adapter fitted to labelled images: at the optimum, each part as if alone, and a few images spoil nothing."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.model import fitting
from flora_secure.model.factors import Factors
from flora_secure.model.fitting import fitted_apart, fitted_to_the_end
from flora_secure.model.head import Head


def clusters(off: float, spread: float = 0.15) -> tuple[Head, Factors, Tensor, Tensor]:
    """Images around five centres, a head whose class embeddings are `off` from these, features and labels."""
    generator = torch.Generator().manual_seed(3)
    centres = F.normalize(torch.randn(5, 16, generator=generator), dim=1)
    labels = torch.arange(300) % 5
    features = F.normalize(centres[labels] + spread * torch.randn(300, 16, generator=generator), dim=1)
    base = F.normalize(centres + off * torch.randn(5, 16, generator=generator) / 4, dim=1)
    return Head(torch.eye(5), base, logit_scale=20.0), Factors(torch.eye(5), torch.zeros(5, 16)), features, labels


def accuracy(head: Head, factors: Factors, features: Tensor, labels: Tensor) -> float:
    return float((head.logits(features, factors).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_it_ends_where_loss_and_penalty_are_least(scale: float) -> None:
    """Their gradient, by autograd, is next to nothing there; the scale of the adapter changes no embedding."""
    head, factors, features, labels = clusters(off=2.0)
    generator = torch.Generator().manual_seed(4)
    factors = dataclasses.replace(factors, a=torch.eye(5) + 0.3 * torch.randn(5, 5, generator=generator))
    scaled = dataclasses.replace(head, scale=scale)

    def slope(b: Tensor) -> Tensor:
        b = b.clone().requires_grad_()
        logits = scaled.logits(features, dataclasses.replace(factors, b=b))
        loss = F.cross_entropy(logits, labels) + (scale * b).square().sum() * fitting.PENALTY_APART / len(features)
        return torch.autograd.grad(loss, b)[0]

    found = fitted_to_the_end(scaled, factors, features, labels, 600)
    assert slope(found.b).norm() < 0.002 * slope(factors.b).norm()
    torch.testing.assert_close(
        scaled.text(found), head.text(fitted_to_the_end(head, factors, features, labels, 600)), rtol=0, atol=1e-5
    )
    assert torch.equal(found.a, factors.a)


def test_parts_are_fitted_as_if_each_were_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches with padding, and a few images at a time."""
    head, factors, features, labels = clusters(off=2.0)
    parts = [torch.arange(start, stop) for start, stop in ((0, 7), (7, 8), (8, 68), (68, 300), (20, 27))]
    alone = [fitted_to_the_end(head, factors, features[part], labels[part]).b for part in parts]
    for together, logits in ((1 << 11, 1 << 24), (64, 100)):
        monkeypatch.setattr(fitting, "_TOGETHER", together)
        monkeypatch.setattr(fitting, "_LOGITS", logits)
        found = {}
        for members, b in fitted_apart(head, factors, features, labels, parts):
            found |= dict(zip(members, b, strict=True))
        assert sorted(found) == [0, 1, 2, 3, 4]
        for part, own in enumerate(alone):
            torch.testing.assert_close(found[part], own, rtol=1e-4, atol=1e-5)


def test_few_images_take_little_from_what_the_frozen_model_knew_and_many_mend_it() -> None:
    head, factors, features, labels = clusters(off=1.0, spread=0.3)
    before = accuracy(head, factors, features, labels)
    of_one_class = torch.nonzero(labels == 2).flatten()[:2]
    few = fitted_to_the_end(head, factors, features[of_one_class], labels[of_one_class])
    assert accuracy(head, few, features, labels) >= before
    assert accuracy(head, fitted_to_the_end(head, factors, features, labels), features, labels) > before + 0.15


def test_without_images_or_steps_nothing_moves() -> None:
    head, factors, features, labels = clusters(off=1.0)
    assert fitted_to_the_end(head, factors, features[:0], labels[:0]) is factors
    assert torch.equal(fitted_to_the_end(head, factors, features, labels, 0).b, factors.b)
    with pytest.raises(ValueError, match="part 1 has no images"):
        list(fitted_apart(head, factors, features, labels, [torch.arange(3), torch.arange(0)]))
    assert list(fitted_apart(head, factors, features, labels, [])) == []
