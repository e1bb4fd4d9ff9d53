"""Setting up local training for a placement: what each tower reads, units that fit it, and a fresh adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.client.autograd import General
from flora_secure.client.closed_form import ClientBatch
from flora_secure.client.control_variate import ControlVariate
from flora_secure.client.objectives import ClassLabels, Pairs
from flora_secure.client.trainer import AnyPlacement, ClosedForm
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import SkipList, Split
from flora_secure.data.federation import Federation
from flora_secure.data.images import Images, images_at
from flora_secure.errors import AdapterError
from flora_secure.model.clip import Clip, class_prompts
from flora_secure.model.factors import Factors, fresh_factors, initial_factors
from flora_secure.model.features import caption_tokens, split_features, split_pooled_features
from flora_secure.model.head import Head
from flora_secure.model.matrices import matrices_of
from flora_secure.model.towers import Fixed, Held, Inputs, Pixels, Placed, Projected, Through, Tower, cut
from flora_secure.model.units import measure
from flora_secure.model.views import Views
from flora_secure.planning.architectures import CLASSES
from flora_secure.planning.config import RunConfig
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.rules import Rule
from flora_secure.server.warm_start import public_sample, warm_start

_PUBLIC = 64  # public images that units are measured on
# what units are measured on where there are no classes and no public captions
_PHRASES = ("a photo of a person", "a dog", "a red car on a street", "food on a plate", "two cats", "a tall building",
            "a tree by the water", "people in a room", "a bag", "a page of text")  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What every learner is made from."""

    config: RunConfig
    federation: Federation
    clip: Clip
    rule: Rule
    cache: ArrayCache | None

    @property
    def views(self) -> Views:
        """The views of an image that are embedded together."""
        given = self.config.model
        mirror = self.federation.dataset.mirror if given.mirror is None else given.mirror
        return Views(mirror, given.crops)

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.config.seed)

    def class_texts(self, class_names: Sequence[str]) -> list[list[str]]:
        """The prompts of each class; ModelError where one is longer than the context."""
        texts = class_prompts(class_names, self.federation.dataset.templates)
        self.clip.require_short([text for group in texts for text in group])
        return texts

    @property
    def device(self) -> torch.device:
        device: torch.device = self.clip.model.logit_scale.device
        return device

    def features(self, images: Images) -> Tensor:
        return split_features(self.clip, images, views=self.views, cache=self.cache)


def closed_form(setting: Setting) -> tuple[ClosedForm, Factors]:
    """Labels on the text projection: features of all images, the classifier's frozen part, an adapter that may have
    had a warm start."""
    config, data, clip = setting.config, setting.federation.dataset, setting.clip
    prompts = clip.pooled_class_features(setting.class_texts(data.class_names))
    head = Head.normalised(prompts, clip.text_projection, config.training.logit_scale, bias=clip.projection.bias)
    factors = initial_factors(
        setting.rule, head.prompts.cpu(), head.base.shape[1], config.model.rank, setting.generator
    )
    head = replace(head, scale=config.model.scale(factors.rank))
    features, labels = setting.features(data.private.images), torch.from_numpy(data.private.labels).to(prompts.device)
    clients = [torch.from_numpy(indices) for indices in setting.federation.clients]
    batch = ClientBatch(features, labels, clients, len(data.class_names))
    factors = factors.to(setting.device)
    training, variate = config.training, None
    if len(data.public) and (training.warm_start or training.control_variate):
        public = setting.features(images_at(data.public.images, public_sample(len(data.public))))
        factors = warm_start(head, factors, public, training.warm_start)
        if training.control_variate and config.privacy.unit == "client":
            variate = ControlVariate(public, training.control_variate)
    unseen = None
    if data.unseen is not None:
        others = clip.pooled_class_features(setting.class_texts(data.unseen.class_names))
        unseen = head.of_classes(others), setting.features(data.unseen.test.images)
    tests = setting.features(data.test.images)
    return ClosedForm(clip, head, batch, features, labels, tests, variate, unseen), factors


def any_placement(setting: Setting, cuts: SkipList) -> tuple[AnyPlacement, Factors]:
    """Whatever the placement, with labels or captions; ``cuts`` counts captions that are longer than the context.

    Raises AdapterError where the model lacks the placement's matrices or the rank exceeds theirs.
    """
    model, data, clip = setting.config.model, setting.federation.dataset, setting.clip
    placement = PLACEMENTS[model.placement]
    matrices = matrices_of(clip.model, placement, model.last_layers)
    most = min(min(matrix.inputs, matrix.outputs) for matrix in matrices)
    rank = min(placement.rank or CLASSES, most) if model.rank is None else model.rank
    factors = fresh_factors(matrices, rank, setting.generator).to(setting.device)
    placed = Placed(matrices, (1.0,) * len(matrices))
    classes = None if data.captioned else _class_tokens(setting, data.class_names)

    def tokens(split: Split) -> Tensor:
        return caption_tokens(clip, split, cuts)[:, None] if classes is None else classes

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
        found = measure(tower, sample, factors, units)
        width += found.width
        for place in placed.of_tower(name):
            gains[place] = found.gain
    placed = replace(placed, gains=tuple(gains), scale=model.scale(rank))
    text, image = (tower if isinstance(tower, Fixed) else replace(tower, placed=placed) for tower in towers.values())
    scale = setting.config.training.logit_scale
    unseen = None
    if data.unseen is not None:
        others = _texts(_class_tokens(setting, data.unseen.class_names), text, clip)
        unseen = others, _images(data.unseen.test.images, image, setting)
    texts = _texts(tokens(data.private), text, clip)
    general = General(
        text=text,
        image=image,
        objective=Pairs(scale) if data.captioned else ClassLabels(scale),
        texts=texts,
        images=_paired_images(data.private, image, setting)
        if data.captioned
        else _images(data.private.images, image, setting),
        target=torch.from_numpy(data.private.distinct[1] if data.captioned else data.private.labels).to(setting.device),
        clients=setting.federation.clients,
    )
    return AnyPlacement(
        clip=clip,
        general=general,
        placed=placed,
        test_texts=_texts(tokens(data.test), text, clip) if data.captioned else texts,
        test_images=_images(data.test.distinct[0] if data.captioned else data.test.images, image, setting),
        width=width * placed.scale**2,
        unseen=unseen,
    ), factors


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
    public = setting.federation.dataset.public
    texts = list((public.captions or ())[:_PUBLIC]) or list(_PHRASES)
    return setting.clip.tokenizer(texts)[:, None]


def _public_images(setting: Setting) -> Images:
    """Images that units are measured on: public ones, or random colours."""
    public = setting.federation.dataset.public.images
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
    """:func:`_images` for each caption of a split: an image that has several is embedded once."""
    if isinstance(tower, Through):
        return _images(split.images, tower, setting)
    images, which = split.distinct
    found = _images(images, tower, setting)
    return Held(found.take(which))
