"""On a GPU, where there is one: training, features and whole runs give what they give on the processor."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from federations import FEW, captioned, few_images, finish, small, task_of

from flora_secure.data.federation import load_federation
from flora_secure.engine.task import Task, prepare
from flora_secure.errors import ConfigError
from flora_secure.model.loading import load_clip

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions in float32 throughout: cuDNN's TF32, torch's default, is a thousandth off."""
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


def require_the_same(here: Task, there: Task, steps: int = 3, rate: float = 0.3) -> None:
    """One round's updates of both tasks, and the gradient of every image."""
    assert there.initial.b.device.type == "cuda"
    rule = here.rule.of_round(1)
    # the warm start's hundred steps let rounding grow, so both train from one start
    torch.testing.assert_close(there.initial.b.cpu(), here.initial.b, rtol=0, atol=2e-3)
    start = here.initial.to("cuda")
    expected = here.learner.train(rule, here.initial, steps, rate)
    found = there.learner.train(rule, start, steps, rate)
    assert float(expected.norm(dim=1).min()) > 1e-4
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    parts = [np.arange(7), np.arange(7, 9)]
    for some, one in zip(
        there.learner.example_gradients(rule, start, parts),
        here.learner.example_gradients(rule, here.initial, parts),
        strict=True,
    ):
        torch.testing.assert_close(some.cpu(), one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))
    for some, one in zip(there.learner.test_embeddings(start), here.learner.test_embeddings(here.initial), strict=True):
        torch.testing.assert_close(some.cpu(), one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", ["prompt-basis", "frozen-a", "ab", "alternate"])
def test_the_closed_form(rule: str) -> None:
    """Warm start and control variate included."""
    require_the_same(*(task_of(small(model__rule=rule, training__device=device)) for device in ("cpu", "cuda")))


@pytest.mark.parametrize("rule", ["frozen-a", "ab"])
@pytest.mark.parametrize(
    "placement",
    ["text-attention", "text-attention-full", "text-mlp", "visual-projection", "both-projections", "visual-attention"],
)
def test_every_other_placement(placement: str, rule: str, transformer: str) -> None:
    model = {
        "model__model": transformer, "model__pretrained": "none", "model__placement": placement, "model__rule": rule,
        "model__crops": 2,
    }  # fmt: skip
    require_the_same(few_images(**model), few_images(**model, training__device="cuda"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"privacy__unit": "example"},
        {"model__rule": "ab"},
        {"participation__rate": 0.5, "participation__sampling": "fixed", "privacy__adaptive_clip": 0.5},
    ],
    ids=["client", "example", "both", "cohorts"],
)
def test_a_run_is_as_accurate(changes: dict[str, object], tmp_path: Path) -> None:
    """Same seed, same noise; rounding may turn a value of the grid here and there, and so an answer."""
    found = []
    for device in ("cpu", "cuda"):
        config = small(**{"training__rounds": 3, **changes, "training__device": device})
        simulation = finish(config, task_of(config))
        found.append(simulation)
        assert simulation.factors.b.device.type == device
    here, there = (simulation.records for simulation in found)
    assert len(here) == len(there) == 3
    assert math.isclose(here[-1].accuracy, there[-1].accuracy, abs_tol=0.02)
    difference = found[1].factors.b.cpu() - found[0].factors.b
    assert float(difference.norm()) < 0.05 * float(found[0].factors.b.norm())
    found[1].save_adapter(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_a_run_repeats_to_the_last_bit() -> None:
    config = small(training__device="cuda", training__rounds=2)
    first, again = (finish(config, task_of(config)) for _ in range(2))
    assert torch.equal(first.factors.b, again.factors.b)


def test_captions() -> None:
    """Pairs of captioned images: their gradients, and the ranks of retrieval."""
    tasks = []
    for device in ("cpu", "cuda"):
        config = small(**FEW, model__placement="both-projections", training__device=device)
        tasks.append(prepare(config, captioned(load_federation(config.data, config.seed))))
    here, there = tasks
    rule = here.rule
    expected, found = (task.learner.train(rule, task.initial, 2, 0.3) for task in tasks)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert there.ranks(there.initial).recall(5) == pytest.approx(here.ranks(here.initial).recall(5), abs=0.05)


def test_bfloat16_features_are_close() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    expected = load_clip().image_features(images)
    coarse = load_clip(device="cuda", precision=torch.bfloat16).image_features(images)
    assert coarse.dtype == torch.float32
    assert float((coarse.cpu() * expected).sum(dim=1).min()) > 0.999


def test_a_device_that_is_not_there_is_refused_by_number() -> None:
    config = small(training__device=f"cuda:{torch.cuda.device_count()}")
    with pytest.raises(ConfigError, match="cannot be used"):
        task_of(config)
