"""The general engine: against the closed form, against plain autograd a client or an example at a time."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from small_clip import COCA, CONFIG, SIGLIP, placements_and_lasts, small_clip
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.client.autograd import Autograd
from flora_secure.client.closed_form import ClientBatch
from flora_secure.client.objectives import ClassLabels, Pairs
from flora_secure.model.factors import Factors, fresh_factors
from flora_secure.model.head import Head
from flora_secure.model.matrices import TextProjection, matrices_of
from flora_secure.model.steepness import steepness
from flora_secure.model.towers import Fixed, Held, Placed, Projected, Through, cut, embedded
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.rules import ALTERNATE, BOTH_FACTORS, FROZEN_A, LOCAL_ALTERNATE, PROMPT_BASIS, Rule

CLASSES, PROMPTS, SIZES = 5, 2, [1, 7, 3, 4]
RULES = [BOTH_FACTORS, FROZEN_A, LOCAL_ALTERNATE, ALTERNATE.of_round(1), ALTERNATE.of_round(2)]
EVERY = pytest.mark.parametrize(
    ("placement", "last"), placements_and_lasts(), ids=lambda part: getattr(part, "name", str(part))
)
KINDS = pytest.mark.parametrize("config", [CONFIG, SIGLIP, COCA], ids=["clip", "siglip", "coca"])
CLIENTS = [np.sort(part) for part in np.split(np.random.default_rng(0).permutation(sum(SIZES)), np.cumsum(SIZES)[:-1])]


def general(
    placement, last=None, *, captions: bool = False, gains: float = 1.0, config=CONFIG
) -> tuple[Autograd, Factors]:
    """A small federation on a small model, the adapter away from its start."""
    torch.manual_seed(0)
    model, generator = small_clip(config), torch.Generator().manual_seed(1)
    matrices = matrices_of(model, placement, last)
    factors = fresh_factors(matrices, 3, generator)
    factors = Factors(a=factors.a, b=torch.randn(factors.b.shape, generator=generator))
    placed = Placed(matrices, (gains,) * len(matrices), scale=0.7)
    count = sum(SIZES)
    tokens = torch.randint(1, 40, (count if captions else CLASSES, 1 if captions else PROMPTS, 8), generator=generator)
    tokens[..., 5], tokens[..., 6:] = 49, 0  # the end of the text, and what fills it up
    pixels = torch.randn(count, 2, 3, 16, 16, generator=generator)  # two views

    text, image = Fixed(), Fixed()
    texts, images = torch.randn(len(tokens), 24, generator=generator), torch.randn(count, 24, generator=generator)
    if any(m.tower == "text" and "resblocks" in m.parameter for m in matrices):
        text, texts = Through.of_text(placed, model.text, 12), cut(model.text, tokens)
    elif placed.of_tower("text"):
        projection = TextProjection.of(model.text)
        text = Projected(placed, placed.of_tower("text")[0], projection.matrix, projection.bias)
        texts = torch.randn(len(tokens), 1, 32, generator=generator)
    if any(m.tower == "visual" and "resblocks" in m.parameter for m in matrices):
        image, images = Through.of_images(placed, model.visual, 2), pixels
    elif placed.of_tower("visual"):
        image = Projected(placed, placed.of_tower("visual")[0], model.visual.proj.detach(), torch.randn(24))
        images = torch.randn(count, 2, 16, generator=generator)
    texts = F.normalize(texts, dim=-1) if isinstance(text, Fixed) else texts
    images = F.normalize(images, dim=-1) if isinstance(image, Fixed) else images
    target = torch.randint(0, 6 if captions else CLASSES, (count,), generator=generator)
    objective = Pairs(10.0) if captions else ClassLabels(10.0)
    return Autograd(text, image, objective, Held(texts), Held(images), target, CLIENTS), factors


def embeddings(engine: Autograd, factors: Factors) -> tuple[Tensor, Tensor]:
    return embedded(engine.text, engine.texts, factors), embedded(engine.image, engine.images, factors)


def one_by_one(engine: Autograd, rule: Rule, factors: Factors, steps: int, rate: float) -> Tensor:
    """Each client alone in plain autograd: its own images, no filling, no vmap."""
    updates = []
    for own in engine.clients:
        rows = torch.from_numpy(own)
        vector = factors.vector(rule)
        for step in range(steps):
            leaf = vector.clone().requires_grad_()
            now = factors.with_vector(rule, leaf)
            texts = engine.texts.rows if engine.objective.shares_text else engine.texts.rows[rows]
            text, image = engine.text(texts, now), engine.image(engine.images.rows[rows], now)
            loss = engine.objective(text, image, engine.target[rows], torch.full((len(own),), 1 / len(own)))
            (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
            size = factors.b.numel() * rule.trains_b
            gradient = gradient.clone()
            if rule.alternates == "steps":
                gradient[size:] *= step % 2 == 1
                gradient[:size] *= step % 2 == 0
            vector = vector - rate * gradient
        updates.append(vector - factors.vector(rule))
    return torch.stack(updates)


@KINDS
@pytest.mark.parametrize(
    ("rule", "scale"),
    [(rule, scale) for rule in [PROMPT_BASIS, *RULES] for scale in (1.0, 0.4)],
    ids=lambda part: getattr(part, "name", str(part)),
)
def test_the_closed_form_gives_the_same_update(rule: Rule, scale: float, config) -> None:
    generator = torch.Generator().manual_seed(3)
    prompts, base = torch.randn(CLASSES, 32, generator=generator), torch.randn(32, 24, generator=generator)
    bias = torch.randn(24, generator=generator) if config is SIGLIP else None
    head = Head.normalised(prompts, base, 10.0, scale, bias)
    features = F.normalize(torch.randn(sum(SIZES), 24, generator=generator), dim=-1)
    labels = torch.randint(0, CLASSES, (sum(SIZES),), generator=generator)
    factors = Factors(a=torch.randn(32, 4, generator=generator) / 4, b=torch.randn(4, 24, generator=generator) / 4)
    batch = ClientBatch(features, labels, [torch.from_numpy(own) for own in CLIENTS], CLASSES)
    torch.manual_seed(0)
    placed = Placed(matrices_of(small_clip(config), PLACEMENTS["text-projection"]), (1.0,), scale)
    engine = Autograd(
        Projected(placed, 0, head.base, head.bias),
        Fixed(),
        ClassLabels(10.0),
        Held(head.prompts[:, None]),
        Held(features),
        labels,
        CLIENTS,
    )
    closed = batch.train(head, rule, factors, 3, 0.1)
    assert float(closed.norm(dim=1).min()) > 0.01
    torch.testing.assert_close(engine.train(rule, factors, 3, 0.1), closed, rtol=0, atol=1e-5)


@KINDS
@EVERY
@pytest.mark.parametrize("captions", [False, True], ids=["labels", "captions"])
@pytest.mark.parametrize("rule", [FROZEN_A, LOCAL_ALTERNATE], ids=lambda rule: rule.name)
def test_clients_in_batches_train_as_one_by_one(placement, last, captions, rule, config) -> None:
    engine, factors = general(placement, last, captions=captions, config=config)
    expected = one_by_one(engine, rule, factors, 2, 0.1)
    assert float(expected[1:].norm(dim=1).min()) > 1e-3
    torch.testing.assert_close(engine.train(rule, factors, 2, 0.1), expected, rtol=1e-4, atol=1e-5)
    cohort = [3, 1]
    torch.testing.assert_close(engine.train(rule, factors, 2, 0.1, cohort), expected[cohort], rtol=1e-4, atol=1e-5)


@EVERY
@pytest.mark.parametrize("captions", [False, True], ids=["labels", "captions"])
def test_images_that_do_not_fit_together_give_the_same(placement, last, captions) -> None:
    engine, factors = general(placement, last, captions=captions)
    parts = replace(engine, image=replace(engine.image, rows=2), text=replace(engine.text, rows=2))
    whole = engine.train(FROZEN_A, factors, 2, 0.1)
    torch.testing.assert_close(parts.train(FROZEN_A, factors, 2, 0.1), whole, rtol=1e-4, atol=1e-5)
    for few, all_ in zip(
        embeddings(parts, factors),
        embeddings(engine, factors),
        strict=True,
    ):
        torch.testing.assert_close(few, all_)


@EVERY
@pytest.mark.parametrize("rows", [1 << 14, 2], ids=["together", "in parts"])
@pytest.mark.parametrize("rule", RULES[:2], ids=lambda rule: rule.name)
def test_every_examples_gradient_equals_autograd(placement, last, rule, rows) -> None:
    engine, factors = general(placement, last)
    engine = replace(engine, image=replace(engine.image, rows=rows), text=replace(engine.text, rows=rows))
    parts = [np.array([4, 0, 9]), np.array([2])]
    found = torch.cat(list(engine.example_gradients(rule, factors, parts)))
    for row, index in zip(found, np.concatenate(parts), strict=True):
        leaf = factors.vector(rule).requires_grad_()
        now = factors.with_vector(rule, leaf)
        text, image = engine.text(engine.texts.rows, now), engine.image(engine.images.rows[index][None], now)
        loss = F.cross_entropy(10.0 * image @ text.T, engine.target[index][None])
        torch.testing.assert_close(row, torch.autograd.grad(loss, leaf)[0], rtol=1e-4, atol=1e-5)


def test_texts_without_what_fills_them_up_are_embedded_the_same() -> None:
    engine, factors = general(PLACEMENTS["text-mlp"])
    whole = torch.nn.functional.pad(engine.texts.rows, (0, 2))
    assert engine.texts.rows.shape[-1] == 6
    torch.testing.assert_close(engine.text(whole, factors), engine.text(engine.texts.rows, factors))
    tokens = whole.clone()
    tokens[0, 0, 5], tokens[0, 0, 7] = 1, 49  # one text that is as long as the context: nothing is cut
    assert cut(engine.text.tower, tokens).shape == tokens.shape


def test_a_tower_that_looks_ahead_reads_what_fills_texts_up_too() -> None:
    engine, factors = general(PLACEMENTS["text-mlp"], config=SIGLIP)
    tokens = engine.texts.rows
    assert tokens.shape[-1] == 8
    other = tokens.clone()
    other[..., 7] = 1
    assert not torch.allclose(engine.text(other, factors), engine.text(tokens, factors), atol=1e-3)


@KINDS
@pytest.mark.parametrize("name", ["text-projection", "text-attention", "text-mlp"])
def test_a_fresh_adapter_gives_the_models_own_embeddings(name: str, config) -> None:
    """What a text tower is split into, put together again: the mean of its prompts' unnormalised outputs."""
    engine, factors = general(PLACEMENTS[name], config=config)
    start = replace(factors, b=torch.zeros_like(factors.b))
    torch.manual_seed(0)
    model = small_clip(config)
    if name == "text-projection":
        rows = engine.texts.rows[:, 0]
        expected = TextProjection.of(model.text)(rows)
    else:
        rows = F.pad(engine.texts.rows, (0, 8 - engine.texts.rows.shape[-1]))
        expected = model.encode_text(rows.flatten(0, 1)).view(*rows.shape[:2], -1).mean(1)
    torch.testing.assert_close(engine.text(engine.texts.rows, start), F.normalize(expected, dim=-1))


def test_pairs_are_contrasted_as_open_clip_does() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 8, generator=generator), dim=-1) for _ in range(2))
    weight = torch.full((6,), 1 / 6)
    expected = open_clip.ClipLoss()(images, texts, torch.tensor(12.0))
    torch.testing.assert_close(Pairs(12.0)(texts, images, torch.arange(6), weight), expected)
    # what only fills a batch changes nothing
    more = [torch.cat([part, part[:2]]) for part in (texts, images)]
    filled = Pairs(12.0)(*more, torch.tensor([*range(6), 0, 1]), torch.tensor([1 / 6] * 6 + [0.0] * 2))
    torch.testing.assert_close(filled, expected)


def test_another_caption_of_the_same_image_is_no_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(3, 8, generator=generator), dim=-1) for _ in range(2))
    images[1] = images[0]
    loss = Pairs(12.0)(texts, images, torch.tensor([5, 5, 2]), torch.full((3,), 1 / 3))
    logits = 12.0 * images @ texts.T

    def one(own: int, others: list[int], of: Callable[[int, int], Tensor]) -> Tensor:
        return torch.stack([of(own, own), *(of(own, other) for other in others)]).logsumexp(0) - of(own, own)

    pairs = [(0, [2]), (1, [2]), (2, [0, 1])]
    by_image = sum(one(i, others, lambda a, b: logits[a, b]) for i, others in pairs)
    by_text = sum(one(i, others, lambda a, b: logits[b, a]) for i, others in pairs)
    torch.testing.assert_close(loss, (by_image + by_text) / 6)


def test_units_of_the_text_projection_with_the_prompts_basis_are_its_own() -> None:
    """Its singular values are all 1, and a class embedding turns by each of its coordinates but one."""
    generator = torch.Generator().manual_seed(0)
    prompts, base = torch.randn(CLASSES, 32, generator=generator), torch.randn(32, 24, generator=generator)
    base = base / (prompts @ base).norm(dim=1).mean()
    _, singular, vt = torch.linalg.svd(prompts, full_matrices=False)
    values = prompts @ base
    base = torch.linalg.lstsq(prompts, F.normalize(values, dim=1)).solution  # every class embedding of length 1
    factors = Factors(a=vt.T / singular, b=torch.zeros(CLASSES, 24))
    torch.manual_seed(0)
    placed = Placed(matrices_of(small_clip(), PLACEMENTS["text-projection"]), (1.0,))
    units = steepness(Projected(placed, 0, base), prompts[:, None], factors, CLASSES)
    assert units.gain == pytest.approx(1, abs=0.02)
    assert units.width == pytest.approx(23, rel=0.25)  # 8 probes of 115 directions: standard deviation 0.05


@EVERY
def test_under_its_units_the_steepest_direction_has_slope_one(placement, last) -> None:
    engine, factors = general(placement, last)
    start = Factors(a=factors.a, b=torch.zeros_like(factors.b))
    for tower, inputs in ((engine.text, engine.texts.rows), (engine.image, engine.images.rows)):
        if isinstance(tower, Fixed):
            continue
        plain = replace(tower, placed=replace(tower.placed, scale=1.0))
        gain = steepness(plain, inputs, start, CLASSES).gain
        unit = replace(plain, placed=replace(plain.placed, gains=(gain,) * len(plain.placed.gains)))

        def flat(b: Tensor, unit=unit, inputs=inputs) -> Tensor:
            return unit(inputs, replace(start, b=b)).flatten() * (CLASSES / len(inputs)) ** 0.5

        jacobian = torch.autograd.functional.jacobian(flat, start.b).flatten(1)
        assert float(torch.linalg.matrix_norm(jacobian, 2)) == pytest.approx(
            1.05, abs=0.06
        )  # the power iteration ends below
