from pathlib import Path

import pytest
import torch
from one_block import CLASSES, attach, one_block, pooled, prompt_tokens, random_factors
from open_clip.model import CustomTextCLIP
from peft import PeftModel

from flora_secure.client.closed_form import ClientBatch
from flora_secure.errors import AdapterError
from flora_secure.model import peft_format
from flora_secure.model.factors import Factors, initial_factors
from flora_secure.model.head import Head
from flora_secure.model.matrices import matrices_of
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.rules import ALTERNATE, BOTH_FACTORS, FROZEN_A, PROMPT_BASIS, RULES, rule_named

# what trains in a round: with ALTERNATE one factor in odd rounds, the other in even ones
OF_ROUNDS = [(rule, number) for rule in RULES for number in ((1, 2) if rule is ALTERNATE else (1,))]


@pytest.fixture
def model() -> CustomTextCLIP:
    return one_block()


@pytest.fixture
def tokens() -> torch.Tensor:
    return prompt_tokens()


def save_adapter(model: CustomTextCLIP, factors: Factors, folder: Path, scale: float = 1.0) -> None:
    peft_format.save_adapter(model, matrices_of(model, PLACEMENTS["text-projection"]), factors, folder, scale)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
class TestEveryRule:
    def test_a_saved_adapter_loads_with_peft_and_gives_the_same_logits(self, rule, model, tokens, tmp_path) -> None:
        prompts, features = pooled(model, tokens), torch.randn(7, 24)
        factors = random_factors(rule, prompts)
        head = Head(prompts=prompts, base=model.text.text_projection.detach().clone(), logit_scale=30.0)
        expected = head.logits(features, factors)

        save_adapter(model, factors, tmp_path)
        loaded = PeftModel.from_pretrained(model, str(tmp_path))
        text = torch.nn.functional.normalize(loaded.encode_text(tokens), dim=-1)
        torch.testing.assert_close(30.0 * features @ text.T, expected, rtol=1e-5, atol=1e-5)

    def test_saving_leaves_the_model_as_it_was(self, rule, model, tokens, tmp_path) -> None:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        out = model.encode_text(tokens)
        save_adapter(model, random_factors(rule, pooled(model, tokens)), tmp_path)
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert torch.equal(model.encode_text(tokens), out)

    def test_a_fresh_adapter_changes_nothing(self, rule, model, tokens) -> None:
        out = model.encode_text(tokens)
        factors = initial_factors(rule, pooled(model, tokens), 24, None, torch.Generator().manual_seed(0))
        torch.testing.assert_close(attach(model, factors).encode_text(tokens), out)

    def test_vector_and_with_vector_are_inverse(self, rule, model, tokens) -> None:
        factors = random_factors(rule, pooled(model, tokens))
        vector = factors.vector(rule)
        assert vector.shape == (factors.dimension(rule),)
        again = factors.with_vector(rule, vector)
        assert torch.equal(again.a, factors.a)
        assert torch.equal(again.b, factors.b)
        with pytest.raises(AdapterError, match="update of length"):
            factors.with_vector(rule, vector[:-1])


@pytest.mark.parametrize(("whole", "number"), OF_ROUNDS, ids=lambda part: getattr(part, "name", part))
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_closed_form_training_equals_autograd_through_peft(whole, number, scale, model, tokens) -> None:
    """The reference trains one client at a time through the real peft model, in plain autograd."""
    rule = whole.of_round(number)
    prompts = pooled(model, tokens)
    base = model.text.text_projection.detach().clone()
    factors = random_factors(rule, prompts)
    generator = torch.Generator().manual_seed(3)
    sizes = [1, 4, 9, 2]
    features = torch.nn.functional.normalize(torch.randn(sum(sizes), 24, generator=generator), dim=-1)
    labels = torch.randint(0, CLASSES, (sum(sizes),), generator=generator)
    clients = list(torch.randperm(sum(sizes), generator=generator).split(sizes))
    head = Head(prompts=prompts, base=base, logit_scale=10.0, scale=scale)
    steps, rate = 3, 0.05

    updates = ClientBatch(features, labels, clients, CLASSES).train(head, rule, factors, steps, rate)

    wrapped = attach(model, factors, scale)
    trained = {
        name: parameter
        for name, parameter in wrapped.named_parameters()
        if (rule.trains_b and "lora_A" in name) or (rule.trains_a and "lora_B" in name)
    }
    start = {name: parameter.detach().clone() for name, parameter in trained.items()}
    for index, client in enumerate(clients):
        for name, parameter in trained.items():
            parameter.data.copy_(start[name])
            parameter.requires_grad_(True)
        for step in range(steps):
            text = torch.nn.functional.normalize(wrapped.encode_text(tokens), dim=-1)
            loss = torch.nn.functional.cross_entropy(10.0 * features[client] @ text.T, labels[client])
            gradients = torch.autograd.grad(loss, list(trained.values()))
            with torch.no_grad():
                for (name, parameter), gradient in zip(trained.items(), gradients, strict=True):
                    if rule.alternates != "steps" or ("lora_A" in name) == (step in (0, 2)):
                        parameter -= rate * gradient
        delta = {name: (parameter - start[name]).detach() for name, parameter in trained.items()}
        expected = torch.cat([delta[n].flatten() for n in sorted(delta)])  # lora_A (our B) sorts first
        torch.testing.assert_close(updates[index], expected, rtol=1e-4, atol=1e-6)


def test_prompt_basis_makes_the_prompts_orthonormal(model, tokens) -> None:
    prompts = pooled(model, tokens)
    factors = initial_factors(PROMPT_BASIS, prompts, 24, None, torch.Generator())
    u = prompts @ factors.a
    torch.testing.assert_close(u.T @ u, torch.eye(CLASSES), rtol=1e-4, atol=1e-4)


def test_averaging_b_is_exact_for_prompt_basis(model, tokens) -> None:
    """The mean of the products A B_i is the product of A and the mean of B_i."""
    prompts = pooled(model, tokens)
    factors = [
        random_factors(PROMPT_BASIS, prompts),
        initial_factors(PROMPT_BASIS, prompts, 24, None, torch.Generator()),
    ]
    mean_b = (factors[0].b + factors[1].b) / 2
    torch.testing.assert_close((factors[0].a @ factors[0].b + factors[1].a @ factors[1].b) / 2, factors[0].a @ mean_b)


def test_alternation_begins_with_b_and_never_moves_both() -> None:
    """With B = 0 the gradient with respect to A vanishes; RoLoRA (2502.01755) trains B in odd rounds."""
    assert [(ALTERNATE.of_round(t).trains_b, ALTERNATE.of_round(t).trains_a) for t in (1, 2, 3)] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    factors = Factors(a=torch.arange(6.0).reshape(3, 2), b=-torch.arange(8.0).reshape(2, 4))
    whole = factors.vector(ALTERNATE)
    for number in (1, 2):
        now = ALTERNATE.of_round(number)
        assert torch.equal(whole[factors.trained(ALTERNATE).span(number)], factors.vector(now))
        moved = factors.with_vector(now, factors.vector(now) + 1)
        assert torch.equal(moved.a, factors.a) == (number == 1)
        assert torch.equal(moved.b, factors.b) == (number == 2)
    assert ALTERNATE.upload_size(6, 8) == 8 == ALTERNATE.upload_size(8, 6)
    assert factors.trained(BOTH_FACTORS).span(2) == slice(0, 14)
    assert factors.trained(FROZEN_A).span(2) == slice(0, 8)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_exact_is_claimed_where_averaging_uploads_averages_the_products(rule) -> None:
    generator = torch.Generator().manual_seed(4)
    start = Factors(a=torch.randn(5, 2, generator=generator), b=torch.randn(2, 6, generator=generator))
    for number in (1, 2):
        now = rule.of_round(number)
        vectors = [torch.randn(start.dimension(now), generator=generator) for _ in range(3)]
        clients = [start.with_vector(now, vector) for vector in vectors]
        averaged = start.with_vector(now, torch.stack(vectors).mean(0))
        products = torch.stack([client.a @ client.b for client in clients]).mean(0)
        assert torch.allclose(averaged.a @ averaged.b, products, atol=1e-5) == rule.exact


def test_ranks_that_do_not_fit_are_refused(model, tokens) -> None:
    prompts = pooled(model, tokens)
    with pytest.raises(AdapterError, match="rank 6 exceeds the 5 directions"):
        initial_factors(PROMPT_BASIS, prompts, 24, 6, torch.Generator())
    with pytest.raises(AdapterError, match="rank 25 exceeds the projection's own rank 24"):
        initial_factors(BOTH_FACTORS, prompts, 24, 25, torch.Generator())
    doubled = torch.cat([prompts, prompts])
    with pytest.raises(AdapterError, match="exceeds the 5 directions that the 10 class prompts span"):
        initial_factors(PROMPT_BASIS, doubled, 24, None, torch.Generator())


def test_unknown_rule_is_named() -> None:
    with pytest.raises(
        AdapterError, match=r"unknown model\.rule 'b'; known: prompt-basis, ab, frozen-a, alternate, local-alternate"
    ):
        rule_named("b")


def test_a_client_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="client 1 has no images"):
        ClientBatch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), [torch.arange(2), torch.arange(0)], 2)
