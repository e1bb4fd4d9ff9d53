"""Both sides of `bench training`: the library's batch, and what one would write by hand with open_clip and peft."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import open_clip
import torch
from open_clip.model import CustomTextCLIP
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_bench.measure import Clock, Stopwatch
from flora_secure.client.closed_form import ClientBatch
from flora_secure.engine.memory import peak_memory
from flora_secure.model.factors import Factors, initial_factors
from flora_secure.model.head import Head
from flora_secure.model.loading import load_clip
from flora_secure.model.matrices import matrices_of
from flora_secure.model.peft_format import attach
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.rules import PROMPT_BASIS

CLASSES, TEMPLATES, IMAGES, STEPS = 10, 4, 50, 10  # of a client; steps over all its images
SCALE = 20.0
_Action = Callable[[], object]


def clock_of(device: str) -> Clock:
    """CPU seconds of the process; on an accelerator seconds on the clock, read when its work is done."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def _most_memory(device: str) -> int | None:
    """Most bytes of the device that this process has held, `None` where the platform does not tell."""
    return peak_memory() if device == "cpu" else torch.cuda.max_memory_allocated(device)


def _prompts(templates: int = TEMPLATES) -> list[str]:
    return [f"a photo of a thing number {c} of kind {t}" for c in range(CLASSES) for t in range(templates)]


def _data(count: int, embed: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(count, embed, generator=generator), dim=-1)
    return features.to(device), torch.randint(CLASSES, (count,), generator=generator).to(device)


def _fresh(prompts: Tensor, embed: int) -> Factors:
    return initial_factors(PROMPT_BASIS, prompts.cpu(), embed, None, torch.Generator()).to(prompts.device)


def batched_clients(count: int, device: str) -> Callable[[], _Action]:
    """The library's way: `count` clients of the embedded model in one call."""
    clip = load_clip(device=device)
    pooled = clip.pooled_text_features(_prompts()).view(CLASSES, TEMPLATES, -1).mean(1)
    head = Head.normalised(pooled, clip.text_projection, SCALE)
    features, labels = _data(count * IMAGES, head.base.shape[1], device)
    factors = _fresh(head.prompts, head.base.shape[1])
    batch = ClientBatch(features, labels, list(torch.split(torch.arange(count * IMAGES), IMAGES)), CLASSES)
    return lambda: lambda: batch.train(head, PROMPT_BASIS, factors, STEPS, 1.0)


def peft_client(device: str) -> Callable[[], _Action]:
    """One client by hand: class prompts through the text tower with peft's adapter in every step, images cached."""
    clip = load_clip(device=device)
    pooled = clip.pooled_text_features(_prompts()).view(CLASSES, TEMPLATES, -1).mean(1)
    embed = clip.text_projection.shape[1]
    factors = _fresh(pooled, embed)
    model = attach(clip.model, matrices_of(clip.model, PLACEMENTS["text-projection"]), factors)
    tokens = clip.tokenizer(_prompts()).to(device)
    features, labels = _data(IMAGES, embed, device)
    trained = [p for name, p in model.named_parameters() if "lora_A" in name]  # this holds B: peft transposes
    for parameter in trained:
        parameter.requires_grad_(True)

    def train() -> None:
        optimiser = torch.optim.SGD(trained, lr=1.0)
        for _ in range(STEPS):
            text = model.encode_text(tokens).view(CLASSES, TEMPLATES, -1).mean(1)
            loss = F.cross_entropy(SCALE * features @ F.normalize(text, dim=-1).T, labels)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()

    return lambda: train


def image_features(model: str, count: int, precision: str, device: str) -> Callable[[], _Action]:
    """The frozen image tower, with random weights, on so many images of its own size."""
    clip = load_clip(model, "none", device, getattr(torch, precision))
    images = np.random.default_rng(0).integers(0, 256, (count, *clip.image_size, 3), dtype=np.uint8)
    return lambda: lambda: clip.image_features(images)


def epoch(kind: str, model: str, images: int, repeats: int, device: str, batch: int = 32) -> None:
    """Print the seconds of `repeats` local epochs after a first one (`clock_of`), and the peak memory in bytes.

    `kind`: "full" trains every parameter with AdamW; "first" computes the features of the images, then trains the
    adapter; "cached" trains it from features and pooled prompts, without the model. Run it in a fresh process.
    """
    torch.set_num_threads(1)
    config = open_clip.get_model_config(model)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (images,), generator=generator).to(device)
    if kind == "cached":
        width, embed = config["text_cfg"]["width"], config["embed_dim"]
        pooled, base = torch.randn(CLASSES, width, generator=generator), torch.randn(width, embed, generator=generator)
        features, _ = _data(images, embed, device)
        step = _adapter_epoch(pooled.to(device), base.to(device), features, labels, batch)
    else:
        clip = CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"}).to(device)
        pixels = torch.randn(images, 3, 224, 224, generator=generator).to(device)
        tokens = open_clip.get_tokenizer(model)(_prompts(templates=1)).to(device)
        step = (_full_epoch if kind == "full" else _first_epoch)(clip, pixels, tokens, labels, batch)
    unseen, seconds = kind != "first" or device != "cpu", []  # an accelerator is slow the first time
    for _ in range(repeats + unseen):
        with Stopwatch(clock_of(device)) as watch:
            step()
        seconds.append(watch.seconds)
    print(*seconds[unseen:], _most_memory(device))


def _full_epoch(clip: CustomTextCLIP, pixels: Tensor, tokens: Tensor, labels: Tensor, batch: int) -> _Action:
    optimiser = torch.optim.AdamW(clip.parameters(), lr=1e-5)
    clip.train()

    def run() -> None:
        for start in range(0, len(pixels), batch):
            image = clip.encode_image(pixels[start : start + batch], normalize=True)
            text = clip.encode_text(tokens, normalize=True)
            loss = F.cross_entropy(SCALE * image @ text.T, labels[start : start + batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()

    return run


@torch.no_grad()
def _pooled(clip: CustomTextCLIP, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Text features before the projection, and the projection."""
    projection = clip.text.text_projection
    clip.text.text_projection = None
    pooled = clip.encode_text(tokens)
    clip.text.text_projection = projection
    return pooled, projection.detach()


def _first_epoch(clip: CustomTextCLIP, pixels: Tensor, tokens: Tensor, labels: Tensor, batch: int) -> _Action:
    clip.eval().requires_grad_(False)

    def run() -> None:
        features = torch.cat([clip.encode_image(part, normalize=True) for part in torch.split(pixels, batch)])
        _adapter_epoch(*_pooled(clip, tokens), features, labels, batch)()

    return run


def _adapter_epoch(pooled: Tensor, base: Tensor, features: Tensor, labels: Tensor, batch: int) -> _Action:
    """A step on each batch of the images, as full fine-tuning takes."""
    head = Head.normalised(pooled, base, SCALE)
    start = _fresh(head.prompts, base.shape[1])
    parts = [ClientBatch(features, labels, [part], CLASSES) for part in torch.split(torch.arange(len(labels)), batch)]

    def run() -> None:
        factors = start
        for part in parts:
            update = part.train(head, PROMPT_BASIS, factors, 1, 1.0)[0]
            factors = factors.with_vector(PROMPT_BASIS, factors.vector(PROMPT_BASIS) + update)

    return run
