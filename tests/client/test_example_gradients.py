"""Unit example: gradients of single examples, against plain autograd through the real peft model."""

import numpy as np
import pytest
import torch
from one_block import CLASSES, attach, one_block, pooled, prompt_tokens, random_factors

from flora_secure.client.example_gradients import CHUNK, ClientExamples, clip_rows, example_gradients, gradient_sums
from flora_secure.model.head import Head
from flora_secure.planning.rules import ALTERNATE, BOTH_FACTORS, FROZEN_A, PROMPT_BASIS

SIZES = [3, 1, 5]


@pytest.fixture(
    params=[PROMPT_BASIS, BOTH_FACTORS, FROZEN_A, ALTERNATE.of_round(1), ALTERNATE.of_round(2)],
    ids=["prompt-basis", "ab", "frozen-a", "alternate-b", "alternate-a"],
)
def problem(request):
    """Rule, head and factors, features and labels, and each example's gradient by autograd, one at a time."""
    rule, model, tokens = request.param, one_block(), prompt_tokens()
    prompts = pooled(model, tokens)
    base, factors = model.text.text_projection.detach().clone(), random_factors(request.param, prompts)
    generator = torch.Generator().manual_seed(3)
    features = torch.nn.functional.normalize(torch.randn(sum(SIZES), 24, generator=generator), dim=-1)
    labels = torch.randint(0, CLASSES, (sum(SIZES),), generator=generator)
    head = Head(prompts=prompts, base=base, logit_scale=10.0)
    wrapped = attach(model, factors)
    trained = {
        name: parameter.requires_grad_(True)
        for name, parameter in wrapped.named_parameters()
        if (rule.trains_b and "lora_A" in name) or (rule.trains_a and "lora_B" in name)
    }
    expected = []
    for feature, label in zip(features, labels, strict=True):
        text = torch.nn.functional.normalize(wrapped.encode_text(tokens), dim=-1)
        loss = torch.nn.functional.cross_entropy(10.0 * feature[None] @ text.T, label[None])
        found = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
        expected.append(torch.cat([found[name].flatten() for name in sorted(found)]))  # lora_A (our B) sorts first
    return rule, head, factors, features, labels, torch.stack(expected)


def sums_of(problem, chosen, norm):
    rule, head, factors, features, labels, expected = problem

    def gradients(parts):
        return (example_gradients(head, rule, factors, features[part], labels[part]) for part in parts)

    return gradient_sums(gradients, chosen, expected.shape[1], norm)


def test_every_gradient_equals_autograd_through_peft(problem) -> None:
    rule, head, factors, features, labels, expected = problem
    found = example_gradients(head, rule, factors, features, labels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_sums_are_of_gradients_clipped_one_by_one(problem) -> None:
    *_, expected = problem
    clients = [np.arange(3), np.array([3]), np.arange(4, 9)]
    chosen = [clients[0][[0, 2]], clients[1][:0], clients[2]]
    lengths = expected.double().norm(dim=1)
    norm = 1.001 * float(lengths.median())  # some are clipped, some are not, and none is a tie
    found = sums_of(problem, chosen, norm)
    for row, indices in enumerate(chosen):
        total = np.zeros(expected.shape[1])
        for index in indices:
            total += (expected[index].double() * min(1.0, norm / float(lengths[index]))).numpy()
        np.testing.assert_allclose(found.sums[row], total, rtol=1e-4, atol=1e-5 * norm)
    assert found.drawn.tolist() == [2, 0, 5]
    assert found.clipped.tolist() == [int((lengths[indices] > norm).sum()) for indices in chosen]
    assert 0 < found.clipped.sum() < found.drawn.sum()


def test_one_example_moves_its_clients_sum_by_at_most_the_clip_norm(problem) -> None:
    def total(indices) -> np.ndarray:
        return sums_of(problem, [np.array(indices, np.int64)], 1e-3).sums[0]

    for left_out in range(9):
        moved = np.linalg.norm(total(range(9)) - total([i for i in range(9) if i != left_out]))
        assert 0.999e-3 < moved <= 1e-3


def test_clipping_keeps_directions_and_says_the_norms() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0]], dtype=torch.float64)
    clipped, norms = clip_rows(rows, 1.0)
    torch.testing.assert_close(clipped[:3], torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64))
    assert norms[:3].tolist() == pytest.approx([5.0, 0.5, 0.0])
    assert not clipped[3:].any()  # and they take nothing else with them


def test_coins_fall_with_the_rate_and_follow_from_a_key_only_if_there_is_one() -> None:
    """4,000 coins at 0.3: mean 1,200, standard deviation 29; outside 1,000 to 1,400 once in 1e11."""
    own = np.arange(100, 4100)
    examples = ClientExamples([own])
    drawn = examples.draw(0, 0.3, None)
    assert 1000 < len(drawn) < 1400
    assert set(drawn) <= set(own)
    assert not np.array_equal(drawn, examples.draw(0, 0.3, None))
    assert np.array_equal(examples.draw(0, 0.3, b"key"), examples.draw(0, 0.3, b"key"))
    assert not np.array_equal(examples.draw(0, 0.3, b"key"), examples.draw(0, 0.3, b"other"))
    assert np.array_equal(examples.draw(0, 1.0, None), own)


def test_gradients_are_asked_for_in_parts_of_one_size(problem) -> None:
    """So that the rounding of one does not depend on how many others were drawn with it."""
    *_, expected = problem
    asked = []

    def gradients(parts):
        asked.extend(len(part) for part in parts)
        return (expected[part] for part in parts)

    chosen = [np.arange(5), np.resize(np.arange(9), CHUNK)]
    found = gradient_sums(gradients, chosen, expected.shape[1], 1e9)
    assert asked == [CHUNK, CHUNK]
    assert found.drawn.tolist() == [5, CHUNK]
    for row, own in zip(found.sums, chosen, strict=True):
        np.testing.assert_allclose(row, expected[own].double().sum(0).numpy(), rtol=1e-5, atol=1e-6)
