"""Train the tiny CLIP on, from clothes to icons too: `python docs/making/pretrain_on_icons.py --package FOLDER`.

See docs/model-card.md. Begins with the weights that docs/making/pretrain_tiny_clip.py made (`--start`). Sees public
icons and emoji with their names, rendered images, and the clothes' public slice; nothing of the clients or the tests
of either data set. A run that was stopped goes on from its checkpoint when started again, and ends in the same weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.nn.functional import normalize

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs/making")]

from icon_pack.concepts import CLASSES  # noqa: E402
from icon_pack.package import PUBLIC, VERSION, read_set  # noqa: E402
from pretrain.captions import public_nouns  # noqa: E402
from pretrain.corpora import Icons, Pictured  # noqa: E402
from pretrain.icons import EMOJI, NONE, OTHERS, public_icons  # noqa: E402
from pretrain.probe import accuracy, linear_probe  # noqa: E402
from pretrain.render import render  # noqa: E402
from pretrain.seen import SEEN, digests  # noqa: E402
from pretrain.session import Session  # noqa: E402
from pretrain.train import Phase, Recipe, Trainer, image_embeddings, narrow  # noqa: E402

from flora_secure.data.embedded.icons import ICONS_FOLDER, TEMPLATES  # noqa: E402
from flora_secure.data.embedded.packed import read_pack  # noqa: E402
from flora_secure.data.sources import load_dataset  # noqa: E402
from flora_secure.model.clip import class_prompts  # noqa: E402

WIDTH = 102  # of the embedding: twenty classes are 2,040 values, which a rotation fills up to 2,048
SHARE = 0.05  # of the icons in a batch that are of the twenty things
RECIPE = Recipe(
    phases=(
        Phase(steps=2000, decay=0.6, lr=2e-3, public=80, rendered=16, icons=160, fine=180, decoder=1.0, teacher=1.0),
    ),
    shrink=0.0,  # neither whitened nor tuned at its end
    tune_steps=0,
)


def main(recipe: Recipe = RECIPE) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help="folder of @iconify/json")
    parser.add_argument(
        "--start", type=Path, default=Path(".work/clothes_clip"), help="what pretrain_tiny_clip.py made"
    )
    session, arguments = Session.of(parser, recipe, Path(".work/icons"), ROOT / "flora_secure/assets/tiny_clip")
    recipe, log = session.recipe, session.log

    clothes, pack = load_dataset("clothes"), read_pack(ICONS_FOLDER)
    hidden = np.concatenate([pack["private"].images, pack["test"].images])
    seen = public_icons(arguments.package, hidden, session.work.parent / "icons.npz")
    apart = np.isin(seen.sets, OTHERS)  # the measure: nothing is trained on them
    icons = Icons(
        torch.from_numpy(seen.images[~apart]),
        [noun for noun, left in zip(seen.nouns, apart, strict=True) if not left],
        (seen.labels != NONE)[~apart],
        SHARE,
    )
    images, labels = clothes.public.images, clothes.public.labels
    train, held = slice(0, 9000), slice(9000, 10000)
    nouns = public_nouns(labels[train], clothes.class_names, recipe.phases[0].fine, np.random.default_rng(recipe.seed))
    public = Pictured(torch.from_numpy(images[train].copy()), lambda fine: nouns)
    drawn, drawn_nouns = render(recipe.renders, recipe.seed)
    rendered = Pictured(torch.from_numpy(drawn), lambda fine: drawn_nouns)

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{arguments.start}")
    model = model.to(memory_format=torch.channels_last)
    vocabulary = next(arguments.start.glob("bpe_*.txt.gz"))
    tokenizer = SimpleTokenizer(bpe_path=str(vocabulary), context_length=model.text.context_length)
    narrow(model, torch.cat([public.images, icons.images[:: max(1, len(icons.images) // 9000)]]), WIDTH)
    trainer = Trainer(model, tokenizer, [public, rendered, icons], recipe)

    def embedded(pictures: np.ndarray) -> torch.Tensor:
        view = torch.from_numpy(pictures.copy()).float().div(255).unsqueeze(1)
        return normalize(image_embeddings(model, view), dim=-1)

    @torch.no_grad()
    def classes(names: tuple[str, ...], templates: tuple[str, ...]) -> torch.Tensor:
        prompts = class_prompts(names, templates)
        text = model.encode_text(tokenizer([p for group in prompts for p in group]))
        return normalize(normalize(text, dim=-1).view(len(prompts), -1, text.shape[1]).mean(1), dim=-1)

    others = apart & (seen.labels != NONE)
    away, away_labels = seen.images[others], torch.from_numpy(seen.labels[others])

    def measure() -> dict[str, float]:
        features, own = embedded(images), torch.from_numpy(labels)
        found = {
            "clothes_zero_shot": accuracy(
                features[held] @ classes(clothes.class_names, clothes.templates).T, own[held]
            ),
            "clothes_probe": linear_probe(features[train], own[train], features[held], own[held]),
        }
        found["icons_zero_shot"] = balanced(embedded(away) @ classes(CLASSES, TEMPLATES).T, away_labels)
        return {name: round(value, 2) for name, value in found.items()}

    if session.checkpoint.exists():
        trainer.load(session.checkpoint)
    log({"recipe": asdict(recipe), "icons": len(icons.images), "from_step": trainer.step, **measure()})
    trainer.run(log, session.checkpoint, session.stop_at, measure)
    if trainer.step < recipe.steps:
        return
    found = measure()
    log({"final": found})

    description = json.loads((arguments.start / "open_clip_config.json").read_text(encoding="utf-8"))
    description["model_cfg"]["embed_dim"] = WIDTH
    earlier = json.loads((arguments.start / "pretraining.json").read_text(encoding="utf-8"))
    session.write(trainer, description, {"measured_on_public_hold_out": found, "began_with": earlier})
    if session.out.resolve() != arguments.start.resolve():
        shutil.copyfile(vocabulary, session.out / vocabulary.name)
    (session.out / "NOTICE").write_text(notice(arguments.package), encoding="utf-8", newline="\n")
    SEEN.write_bytes(b"".join(sorted(digests(icons.images.numpy()))))


def notice(package: Path) -> str:
    """Whose icons the model saw, and under which licence."""
    sets = [read_set(package, prefix) for prefix in (*PUBLIC, *EMOJI)]
    head = f"""The weights of this folder were trained on pictures with names, among them icons of {len(sets)} sets of
the npm package @iconify/json {VERSION}, rasterised to 28 × 28 grey pixels. No picture is here. Each set is its
author's, under its own licence. Beside them: Fashion-MNIST, © 2017 Zalando SE, MIT.

set | name | author | licence | source
"""
    rows = (f"{one.prefix} | {one.name} | {one.author} | {one.licence} | {one.author_page}\n" for one in sets)
    return head + "".join(rows)


def balanced(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean over classes of the share of its rows of `scores` whose largest entry is the label, in percent."""
    right = (scores.argmax(1) == labels).double()
    return 100 * float(torch.stack([right[labels == one].mean() for one in labels.unique()]).mean())


if __name__ == "__main__":
    main()
