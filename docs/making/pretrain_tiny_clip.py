"""The first pretraining of the embedded tiny CLIP, on clothes: `python docs/making/pretrain_tiny_clip.py`.

See docs/model-card.md; `pretrain_on_icons.py` goes on from its weights, in `.work/clothes_clip`.
Sees rendered images and the public slice, Fashion-MNIST train[50000:59000]; measures itself on train[59000:60000]. Uses
neither the clients' images nor the test set. A run that was stopped goes on from its checkpoint when started again,
and ends in the same weights.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from torch.nn.functional import normalize

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs/making")]

from pretrain.captions import public_nouns  # noqa: E402
from pretrain.corpora import Pictured  # noqa: E402
from pretrain.probe import accuracy, linear_probe  # noqa: E402
from pretrain.render import render  # noqa: E402
from pretrain.session import Session  # noqa: E402
from pretrain.train import Recipe, Trainer, image_embeddings, tune_text, whiten  # noqa: E402
from pretrain.views import MEAN, STD  # noqa: E402

from flora_secure.data.sources import load_dataset  # noqa: E402
from flora_secure.model.clip import class_prompts  # noqa: E402

MERGES, CONTEXT = 3500, 16
RECIPE = Recipe()
MODEL = {
    "embed_dim": 192,
    "custom_text": True,
    "vision_cfg": {"image_size": 56, "timm_model_name": "test_resnet", "timm_pool": "catavgmax", "timm_proj": ""},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 512 + MERGES + 2, "width": 128, "heads": 4, "layers": 3},
}
PREPROCESS = {"mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bilinear", "resize_mode": "squash"}


def write_vocabulary(path: Path) -> None:
    """open_clip's byte-pair vocabulary cut to its first merges."""
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    path.write_bytes(gzip.compress("\n".join(lines[: MERGES + 1]).encode(), mtime=0))


def main(recipe: Recipe = RECIPE) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    session, _ = Session.of(parser, recipe, Path(".work/pretrain"), Path(".work/clothes_clip"))
    recipe, log = session.recipe, session.log
    data = load_dataset("clothes")
    images, labels = data.public.images, data.public.labels
    train, held = slice(0, 9000), slice(9000, 10000)

    @cache
    def nouns(fine: int) -> list[str]:
        return public_nouns(labels[train], data.class_names, fine, np.random.default_rng(recipe.seed))

    public = Pictured(torch.from_numpy(images[train].copy()), nouns)
    drawn, drawn_nouns = render(recipe.renders, recipe.seed)
    write_vocabulary(session.out / "bpe_3500.txt.gz")
    tokenizer = SimpleTokenizer(bpe_path=str(session.out / "bpe_3500.txt.gz"), context_length=CONTEXT)
    model = CustomTextCLIP(**{k: v for k, v in MODEL.items() if k != "custom_text"}, init_logit_scale=math.log(15))
    model = model.to(memory_format=torch.channels_last)
    rendered = Pictured(torch.from_numpy(drawn), lambda fine: drawn_nouns)
    trainer = Trainer(model, tokenizer, [public, rendered], recipe)

    pixels = torch.from_numpy(images.copy()).float().div(255).unsqueeze(1)
    classes = torch.from_numpy(labels)

    def measure() -> dict[str, float]:
        features = normalize(image_embeddings(model, pixels), dim=-1)
        prompts = class_prompts(data.class_names, data.templates)
        with torch.no_grad():
            text = model.encode_text(tokenizer([p for group in prompts for p in group]))
            text = normalize(text.view(len(prompts), -1, text.shape[1]).mean(1), dim=-1)
        zero_shot = accuracy(features[held] @ text.T, classes[held])
        linear = linear_probe(features[train], classes[train], features[held], classes[held])
        return {"held_out_zero_shot": round(zero_shot, 2), "held_out_probe": round(linear, 2)}

    if session.checkpoint.exists():
        trainer.load(session.checkpoint)
    log({"recipe": asdict(recipe), "parameters": sum(p.numel() for p in model.parameters()), "from_step": trainer.step})
    trainer.run(log, session.checkpoint, session.stop_at, measure)
    if trainer.step < recipe.steps:
        return
    before = measure()
    whiten(model, public.images, recipe.shrink)
    tune_text(trainer, [public], log)
    after = measure()
    log({"before_whitening": before, "after": after})

    found = {"before_whitening": before, "final": after}
    description = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    session.write(trainer, description, {"measured_on_public_hold_out": found})


if __name__ == "__main__":
    main()
