"""The frame of any placement, with labels or captions: what each tower reads, units that fit it, a fresh adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.client.autograd import Autograd
from flora_secure.client.objectives import ClassLabels, Pairs
from flora_secure.data.dataset import Split, Unseen
from flora_secure.data.images import Images, images_at
from flora_secure.data.notes import Notes
from flora_secure.engine.frames.setting import Setting, target_of
from flora_secure.errors import AdapterError
from flora_secure.model.clip import Clip
from flora_secure.model.factors import Factors, fresh_factors
from flora_secure.model.features import caption_tokens, split_features, split_pooled_features
from flora_secure.model.matrices import matrices_of
from flora_secure.model.peft_format import save_adapter
from flora_secure.model.steepness import steepness
from flora_secure.model.towers import (
    Fixed,
    Held,
    Indices,
    Inputs,
    Pixels,
    Placed,
    Projected,
    Through,
    Tower,
    cut,
    embedded,
)
from flora_secure.planning.architectures import CLASSES
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.server.evaluator import Embeddings, Evaluator

_PUBLIC = 64  # public images that units are measured on
# what units are measured on where there are no classes and no public captions
_PHRASES = ("a photo of a person", "a dog", "a red car on a street", "food on a plate", "two cats", "a tall building",
            "a tree by the water", "people in a room", "a bag", "a page of text")  # fmt: skip


@dataclass(frozen=True, eq=False)
class PlacedFrame:
    """Where the adapter sits, and what it leaves of each tower.

    Attributes:
        setting: what both sides know.
        placed: the adapted matrices, with their gains.
        text, image: the towers, as functions of constant inputs and the adapter.
        initial: the fresh adapter.
        width: trained values of a text projection that move an embedding as much as one of these does.
    """

    setting: Setting
    placed: Placed
    text: Tower = field(repr=False)
    image: Tower = field(repr=False)
    initial: Factors = field(repr=False)
    width: float

    @classmethod
    def of(cls, setting: Setting) -> PlacedFrame:
        """The frame for a setting. Raises AdapterError where the model lacks the placement's matrices or the rank
        exceeds theirs."""
        model, clip = setting.config.model, setting.clip
        placement = PLACEMENTS[model.placement]
        matrices = matrices_of(clip.model, placement, model.last_layers)
        most = min(min(matrix.inputs, matrix.outputs) for matrix in matrices)
        rank = min(placement.rank or CLASSES, most) if model.rank is None else model.rank
        factors = fresh_factors(matrices, rank, setting.generator).to(setting.device)
        placed = Placed(matrices, (1.0,) * len(matrices))
        classes = None if setting.captioned else _class_tokens(setting, setting.class_names)
        units = CLASSES if classes is None else len(classes)
        probe = _probe_tokens(setting) if classes is None else classes
        public = _public_images(setting)
        # captions may be as long as the context; class prompts are known
        read = clip.model.text.context_length if classes is None else cut(clip.model.text, classes)[0].numel()
        towers, gains, width = _towers(placed, setting, read), [1.0] * len(matrices), 0.0
        for name, tower in towers.items():
            if isinstance(tower, Fixed):
                continue
            inputs = _texts(probe, tower, clip) if name == "text" else _images(public, tower, setting)
            few = np.arange(min(len(inputs), _PUBLIC, max(4, tower.rows)))
            sample = inputs.take(few)
            if name == "visual":
                _require_same(tower(sample, factors), _images(images_at(public, few), Fixed(), setting))
            found = steepness(tower, sample, factors, units)
            width += found.width
            for place in placed.of_tower(name):
                gains[place] = found.gain
        placed = replace(placed, gains=tuple(gains), scale=model.scale(rank))
        text, image = (
            tower if isinstance(tower, Fixed) else replace(tower, placed=placed) for tower in towers.values()
        )
        return cls(setting, placed, text, image, factors, width * placed.scale**2)

    def learner(self, private: Split, clients: Sequence[Indices], cuts: Notes) -> Autograd:
        """Local training by automatic differentiation, see `setting.Frame`."""
        setting, scale = self.setting, self.setting.config.training.logit_scale
        target = private.distinct[1] if setting.captioned else private.labels
        return Autograd(
            text=self.text,
            image=self.image,
            objective=Pairs(scale) if setting.captioned else ClassLabels(scale),
            texts=self._split_texts(private, cuts),
            images=_paired_images(private, self.image, setting)
            if setting.captioned
            else _images(private.images, self.image, setting),
            target=torch.from_numpy(target).to(setting.device),
            clients=clients,
        )

    def evaluator(self, test: Split, unseen: Unseen | None, cuts: Notes) -> Evaluator:
        """The evaluator through the towers, see `setting.Frame`."""
        setting, apart = self.setting, None
        if unseen is not None:
            others = _texts(_class_tokens(setting, unseen.class_names), self.text, setting.clip)
            embeddings = self._embeddings(others, _images(unseen.test.images, self.image, setting))
            apart = embeddings, torch.from_numpy(unseen.test.labels).to(setting.device)
        texts = self._split_texts(test, cuts)
        images = _images(test.distinct[0] if setting.captioned else test.images, self.image, setting)
        target = target_of(test, setting.device, captioned=setting.captioned)
        return Evaluator(self._embeddings(texts, images), target, captioned=setting.captioned, unseen=apart)

    def save(self, factors: Factors, folder: Path) -> None:
        """Write the adapter in peft's format."""
        placed = self.placed
        save_adapter(self.setting.clip.model, placed.matrices, placed.to_model(factors), folder, placed.scale)

    def _embeddings(self, texts: Inputs, images: Inputs) -> Embeddings:
        return lambda factors: (embedded(self.text, texts, factors), embedded(self.image, images, factors))

    def _split_texts(self, split: Split, cuts: Notes) -> Inputs:
        """What the text tower reads for a split: its captions, or the classes'."""
        if not self.setting.captioned:
            return self._class_inputs
        return _texts(caption_tokens(self.setting.clip, split, cuts)[:, None], self.text, self.setting.clip)

    @cached_property
    def _class_inputs(self) -> Inputs:
        return _texts(_class_tokens(self.setting, self.setting.class_names), self.text, self.setting.clip)


def _require_same(found: Tensor, whole: Inputs) -> None:
    """AdapterError unless a tower with a fresh adapter gives what the model itself gives."""
    if not torch.allclose(found, whole.take(np.arange(len(found))), atol=0.02):  # bfloat16 is that coarse
        raise AdapterError("the image tower does not end in its last matrix; use a `model.placement` in the text tower")


def _towers(placed: Placed, setting: Setting, tokens: int) -> dict[str, Fixed | Projected | Through]:
    """What the adapter leaves of each tower."""
    found: dict[str, Fixed | Projected | Through] = {}
    for name in ("text", "visual"):
        tower, places = getattr(setting.clip.model, name), placed.of_tower(name)
        matrix = placed.matrices[places[0]] if places else None
        if matrix is None:
            found[name] = Fixed()
        elif "resblocks" in matrix.parameter:
            through = Through.of_text(placed, tower, tokens) if name == "text" else None
            found[name] = through or Through.of_images(placed, tower, setting.views.count)
        else:
            parts = dict(tower.named_parameters())
            base = parts[matrix.parameter].detach().float()
            bias = parts.get(f"{matrix.parameter.removesuffix('.weight')}.bias") if matrix.transposed else None
            found[name] = Projected(placed, places[0], base.T if matrix.transposed else base, bias)
    return found


def _class_tokens(setting: Setting, class_names: Sequence[str]) -> Tensor:
    """int64 (classes, prompts, context)."""
    return torch.stack([setting.clip.tokenizer(group) for group in setting.class_texts(class_names)])


def _probe_tokens(setting: Setting) -> Tensor:
    """Captions that units are measured on: public ones, or phrases that are nobody's."""
    public = setting.public
    texts = list((public.captions or ())[:_PUBLIC]) or list(_PHRASES)
    return setting.clip.tokenizer(texts)[:, None]


def _public_images(setting: Setting) -> Images:
    """Images that units are measured on: public ones, or random colours."""
    public = setting.public.images
    if len(public):
        return images_at(public, np.arange(min(len(public), _PUBLIC)))
    return np.random.default_rng(0).integers(0, 256, (_PUBLIC, 8, 8, 3), dtype=np.uint8)


def _texts(tokens: Tensor, tower: Tower, clip: Clip) -> Inputs:
    """What the text tower reads of tokens (n, prompts, context); the average over prompts is of pooled features."""
    if isinstance(tower, Through):
        return Held(cut(clip.model.text, tokens).to(clip.model.logit_scale.device))
    pooled = clip.pooled_token_features(tokens.flatten(0, 1))
    pooled = pooled.view(*tokens.shape[:2], -1).mean(1)
    return Held(pooled[:, None] if isinstance(tower, Projected) else F.normalize(clip.projection(pooled), dim=-1))


def _images(images: Images, tower: Tower, setting: Setting) -> Inputs:
    """What the image tower reads of images."""
    clip = setting.clip
    if isinstance(tower, Through):
        return Pixels(clip, images, setting.views)
    embed = split_pooled_features if isinstance(tower, Projected) else split_features
    return Held(embed(clip, images, views=setting.views, cache=setting.cache))


def _paired_images(split: Split, tower: Tower, setting: Setting) -> Inputs:
    """`_images` for each caption of a split: an image that has several is embedded once."""
    if isinstance(tower, Through):
        return _images(split.images, tower, setting)
    images, which = split.distinct
    found = _images(images, tower, setting)
    return Held(found.take(which))
