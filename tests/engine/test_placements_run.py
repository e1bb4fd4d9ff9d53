"""Runs on every kind of placement, and on captions: they train, and what they save predicts the same through peft."""

from pathlib import Path

import pytest
import torch
from federations import FEW, captioned, few_images, finish, prepare, small
from peft import PeftModel

from flora_secure.data.federation import load_federation
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.summary import summarise
from flora_secure.errors import ConfigError
from flora_secure.model.clip import class_prompts, joined
from flora_secure.model.image_views import ImageViews
from flora_secure.model.loading import load_clip
from flora_secure.model.towers import embedded
from flora_secure.planning.config import override


@pytest.mark.parametrize(
    "changes",
    [
        {"model__placement": "text-attention"},
        {"model__placement": "text-attention-full", "model__last_layers": 1},
        {"model__placement": "text-mlp", "model__alpha": 2.0, "model__rule": "ab"},
        {"model__placement": "visual-projection", "model__mirror": True, "model__crops": 4},
        {"model__placement": "both-projections", "model__rule": "alternate"},
        {"model__placement": "visual-attention", "model__crops": 2},
    ],
    ids=lambda changes: changes["model__placement"],
)
def test_it_trains_and_its_saved_adapter_predicts_the_same(changes, transformer: str, tmp_path: Path) -> None:
    model = {"model__model": transformer, "model__pretrained": "none", **changes}
    task = few_images(**model)
    simulation = finish(small(**FEW, **model), task)
    assert len(simulation.records) == 2
    assert all(record.dropped == [] for record in simulation.records)
    assert float(simulation.factors.b.abs().max()) > 1e-4
    simulation.save_adapter(tmp_path)

    fresh, data = load_clip(transformer, "none"), task.federation.dataset
    loaded = PeftModel.from_pretrained(fresh.model, str(tmp_path))
    with torch.no_grad():
        prompts = class_prompts(data.class_names, data.templates)
        texts = torch.stack([loaded.encode_text(fresh.tokenizer(group)).mean(0) for group in prompts])
        pixels = fresh.pixels(data.test.images)
        views = ImageViews(changes.get("model__mirror", False), changes.get("model__crops", 1))
        images = joined(torch.stack([loaded.encode_image(view) for view in views.of(pixels)], dim=1))
    expected_texts, expected_images = task.evaluator.test(simulation.factors)
    normal = torch.nn.functional.normalize
    torch.testing.assert_close(normal(texts, dim=-1), expected_texts, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(images, expected_images, rtol=1e-3, atol=1e-4)


def test_a_tower_that_trains_learns() -> None:
    """On the embedded model, whose start is good: more right answers after three rounds."""
    changes = {"model__placement": "text-mlp", "model__last_layers": 1, "training__rounds": 3}
    config = small(**{**FEW, **changes})
    federation = load_federation(config.data, config.seed)
    task = prepare(config, federation)
    assert finish(config, task).records[-1].accuracy > task.evaluator.accuracy(task.initial) + 0.05


@pytest.mark.parametrize("placement", ["text-projection", "both-projections"])
def test_mixed_precision_gives_nearly_the_same(placement: str) -> None:
    changes = {"model__placement": placement, "training__warm_start": "none"}
    exact, mixed = few_images(**changes), few_images(**changes, training__precision="bfloat16")
    for one, other in zip(exact.evaluator.test(exact.initial), mixed.evaluator.test(mixed.initial), strict=True):
        assert one.dtype == other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.02)
    images, rough = exact.evaluator.test(exact.initial)[1], mixed.evaluator.test(mixed.initial)[1]
    assert not torch.equal(images, rough)
    config = small(**FEW, **changes)
    updates = [task.learner.train(task.rule, task.initial, 2, 1.0, range(10)) for task in (exact, mixed)]
    assert torch.nn.functional.cosine_similarity(*updates).min() > 0.98
    assert finish(config, mixed).records[-1].dropped == []


def test_single_examples_train_on_any_placement() -> None:
    changes = {"model__placement": "visual-projection", "privacy__unit": "example", "training__local_steps": 3}
    task = few_images(**changes)
    simulation = finish(small(**{**FEW, **changes}), task)
    assert sum(record.contributions for record in simulation.records) > 0
    assert float(simulation.factors.b.abs().max()) > 0


@pytest.mark.parametrize("placement", ["text-projection", "text-mlp", "both-projections"])
def test_captions_train(placement: str) -> None:
    """What every client minimises becomes less; recall is over 160 captions of 80 images, of 10 kinds."""
    config = small(**{**FEW, "model__placement": placement, "training__rounds": 4})
    federation = captioned(load_federation(config.data, config.seed))
    task = prepare(config, federation)
    simulation = finish(config, task)
    engine = task.learner

    def loss(factors) -> float:
        texts, images = embedded(engine.text, engine.texts, factors), embedded(engine.image, engine.images, factors)
        weight = torch.full((16,), 1 / 16)
        return sum(
            float(engine.objective(texts[own], images[own], engine.target[own], weight)) for own in engine.clients
        )

    assert loss(simulation.factors) < loss(task.frozen) - 0.05
    report = summarise(simulation, total_seconds=1.0)
    assert report.retrieval is not None
    assert (report.retrieval.images, report.retrieval.captions) == (80, 160)
    assert report.accuracy.final == simulation.records[-1].accuracy == report.retrieval.final[0].image_to_text


def test_what_captions_cannot_have_is_refused() -> None:
    config = small(**FEW)
    federation = captioned(load_federation(config.data, config.seed))
    with pytest.raises(ConfigError, match="rule prompt-basis needs class prompts"):
        prepare(override(config, {"model.rule": "prompt-basis"}), federation)
    task = prepare(config, federation)
    assert task.rule.name == "frozen-a"
    given = {"training__local_steps": 3, "privacy__unit": "example", "privacy__epsilon": 8.0}
    with pytest.raises(ConfigError, match="unit example needs labels"):
        Simulation(small(**{**FEW, **given}), task)
