"""A trained adapter as a classifier: the frozen model with the adapter merged in, used as the run evaluated it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.errors import ConfigError, DataError, require
from flora_secure.model.clip import Clip, class_prompts, joined
from flora_secure.model.devices import device_named
from flora_secure.model.matrices import Matrix
from flora_secure.model.peft_format import merge
from flora_secure.model.tokenizers import cut_at_context
from flora_secure.model.trained.answers import Answer, Guess, Predictions, Unreadable
from flora_secure.model.trained.folder import open_adapter, rendering_of, views_of
from flora_secure.model.trained.images import GivenImages, Listed, listed, prepared
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.records.adapter_card import FILES, AdapterCard
from flora_secure.records.report import Report

_AT_ONCE = 1 << 26  # cosines in memory at a time


def load(run: str | PathLike[str], *, device: str = "cpu", pretrained: str | PathLike[str] | None = None) -> Classifier:
    """The classifier that a run has trained.

    Args:
        run: a run folder, or the `adapter/` in one.
        device: torch's name of where to compute.
        pretrained: the model's weights, where they are local files that the run named by another path.

    The model is loaded as the run loaded it and must have the SHA-256 that the adapter's `flora.json` says. Raises an
    `InputError`, one line, for a folder without an adapter, weights that are missing or
    another model's, and an adapter that does not fit.
    """
    found = open_adapter(Path(run), device_named(device), None if pretrained is None else str(pretrained))
    merge(found.clip.model, found.matrices, found.factors, found.card.scale)
    return Classifier(found.card, found.clip, found.matrices, found.report)


@dataclass(frozen=True, eq=False)
class Classifier:
    """Images and texts under a trained adapter; made by `load`.

    `clip` is the model with the adapter merged in (its `model_hash` is the frozen model's), `report` that of the
    run where its folder was given.
    """

    card: AdapterCard
    clip: Clip = field(repr=False)
    matrices: tuple[Matrix, ...] = field(repr=False)
    report: Report | None = field(default=None, repr=False)

    def predict(
        self,
        images: GivenImages,
        top: int = 1,
        *,
        class_names: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
        skip_unreadable: bool = False,
    ) -> Predictions:
        """The `top` names that fit each image best.

        Args:
            images: see `flora_secure.model.trained.images.listed`: paths, folders, Pillow images, uint8 arrays
                (n, height, width) or (n, height, width, 3), tensors.
            top: how many names an image gets, at most as many as there are.
            class_names: other classes than the run's, put into its prompt templates.
            captions: whole texts to choose from, as they are; a run on captions has no classes and needs them.
            skip_unreadable: list images that cannot be read with the answers, instead of refusing the first.

        With the run's own classes and test images the share of right answers is the report's accuracy. Raises an
        `InputError`, one line, for an image that cannot be read, a list of names that is
        empty, holds one twice or is too long for the model, and a `top` beyond it.
        """
        names, texts = self._names(class_names, captions)
        if not 1 <= top <= len(names):
            raise ConfigError(f"top must lie in 1…{len(names)}, the number of names to choose from; got {top}")
        found = listed(images, rendering_of(self.card))
        features, places, unreadable = self._image_embeddings(found, skip_unreadable)
        answers = list[Answer]()
        rows = max(1, _AT_ONCE // len(names))
        for start in range(0, len(features), rows):
            cosines = features[start : start + rows] @ texts.T
            scores = (self.card.logit_scale * cosines).softmax(-1)
            # stable: of names that fit alike the first one, as argmax gives it
            best = cosines.sort(dim=-1, descending=True, stable=True).indices[:, :top]
            kept = scores.gather(1, best).tolist()
            for place, own, values in zip(places[start : start + rows], best.tolist(), kept, strict=True):
                guesses = tuple(Guess(names[one], value) for one, value in zip(own, values, strict=True))
                answers.append(Answer(found.names[place], guesses))
        return Predictions(tuple(answers), unreadable, found.left_out)

    def embed(self, images: GivenImages) -> NDArray[np.float32]:
        """Unit-norm embeddings, float32 (n, embed), of `images` as `predict` takes them.

        An image's views, as many as the run had, are embedded and averaged. Raises DataError for an image that cannot
        be read.
        """
        return _array(self._image_embeddings(listed(images, rendering_of(self.card)), skip=False)[0])

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit-norm embeddings, float32 (n, embed), of `texts`, each by itself and without a template.

        A text that is longer than the model's context keeps its beginning, and a warning says so.
        """
        if isinstance(texts, str):
            raise ConfigError("texts must be a list of texts, not one string: put it in brackets")
        return _array(self._text_embeddings(list(texts)))

    @cached_property
    def class_embeddings(self) -> Tensor:
        """Unit-norm embeddings of the run's classes, float32 (classes, embed); ConfigError for a run on captions."""
        self._require_classes()
        return self._class_embeddings(self.card.class_names)

    def export(self, path: str | PathLike[str]) -> None:
        """Write weights with the adapter merged in, as a new folder `path` that plain open_clip loads.

        `open_clip.create_model("local-dir:PATH")` then gives the embeddings of one view of an image and of one text.
        Raises ConfigError where `path` exists or cannot be written.
        """
        from flora_secure.model.trained.export import export

        export(self.card, self.clip, self.report, Path(path))

    def _names(self, class_names: Sequence[str] | None, captions: Sequence[str] | None) -> tuple[list[str], Tensor]:
        """What there is to choose from, and its embeddings."""
        if class_names is not None and captions is not None:
            raise ConfigError("give class names or captions, not both")
        given, what = (captions, "captions") if captions is not None else (class_names, "class names")
        if isinstance(given, str):
            raise ConfigError(f"{what} must be a list of texts, not one string")
        if captions is None:
            self._require_classes()
        if given is None:
            return self.card.class_names, self.class_embeddings
        names = list(given)
        require(bool(names), f"{what} must not be empty: there is nothing to choose from")
        require(all(name.strip() for name in names), f"{what} must not be blank, and one of {len(names)} is")
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        require(twice is None, f"{what} must occur once each, and {twice!r:.60} occurs twice")
        return names, self._class_embeddings(names) if captions is None else self._text_embeddings(names)

    def _require_classes(self) -> None:
        if self.card.captioned:
            raise ConfigError(
                "the run trained on captions and has no classes or prompt templates: give the texts to choose from as "
                "captions (--captions FILE, one a line)"
            )

    def _class_embeddings(self, names: Sequence[str]) -> Tensor:
        prompts = class_prompts(names, self.card.templates)
        clip = self._reading("text")
        clip.require_short([prompt for group in prompts for prompt in group])
        return F.normalize(clip.projection(clip.pooled_class_features(prompts)), dim=-1)

    def _text_embeddings(self, texts: list[str]) -> Tensor:
        clip = self._reading("text")
        if not texts:
            return clip.projection(clip.pooled_text_features([""]))[:0]
        tokens, cut = cut_at_context(clip.tokenizer, texts)
        if count := int(cut.sum()):
            warnings.warn(
                f"{count} of {len(texts)} texts are longer than the {tokens.shape[1]} tokens that the model reads and "
                f"keep their beginning, such as {texts[int(cut.nonzero()[0])]!r:.60}",
                stacklevel=3,
            )
        return F.normalize(clip.projection(clip.pooled_token_features(tokens)), dim=-1)

    def _reading(self, tower: str) -> Clip:
        """The model for a tower: what trained in its blocks was float32 in the run, whatever the rest was."""
        trained = PLACEMENTS[self.card.placement].blocks and self.matrices[0].tower == tower
        return replace(self.clip, precision=torch.float32) if trained else self.clip

    def _image_embeddings(self, found: Listed, skip: bool) -> tuple[Tensor, list[int], tuple[Unreadable, ...]]:
        """Embeddings (n, embed) of those that can be read, their places in `found`, in order, and the others."""
        shape = self.clip.shape if self.card.images == FILES else None
        parts, places, unreadable = list[Tensor](), list[int](), list[tuple[int, Unreadable]]()
        for own, what in prepared(found, shape):
            if isinstance(what, Unreadable):
                if not skip:
                    raise DataError(f"image {what.image!r} cannot be read: {what.reason}")
                unreadable.append((own[0], what))
            else:
                parts.append(self._embedded(what))
                places += own
        features = torch.cat(parts) if parts else self._embedded(np.zeros((0, 1, 1), np.uint8))
        order = sorted(range(len(places)), key=places.__getitem__)
        if order != list(range(len(order))):  # images of several sizes are embedded size by size
            features = features[torch.tensor(order, device=features.device)]
        return features, sorted(places), tuple(one for _, one in sorted(unreadable, key=lambda pair: pair[0]))

    def _embedded(self, pixels: np.ndarray) -> Tensor:
        """As the run embeds them: what the adapter does to the last matrix is done in float32."""
        clip, views = self._reading("visual"), views_of(self.card)
        last = next((m for m in self.matrices if m.tower == "visual" and "resblocks" not in m.parameter), None)
        if last is None:
            return clip.image_features(pixels, views=views)
        pooled = clip.pooled_image_features(pixels, views=views)
        stored = dict(clip.model.visual.named_parameters())
        weight = stored[last.parameter] if last.transposed else stored[last.parameter].T
        bias = stored.get(f"{last.parameter.removesuffix('.weight')}.bias") if last.transposed else None
        return joined(F.linear(pooled, weight, bias))

    def _repr_html_(self) -> str:
        card = self.card
        rows = {
            "model": f"{card.model} ({card.pretrained or card.weights} weights)",
            "adapter": f"{card.placement}, rank {card.rank}, SHA-256 {card.adapter_hash[:12]}…",
            "classes": ", ".join(card.class_names) if card.class_names else "none: the run trained on captions",
            "views of an image": str(views_of(card).count),
        }
        if self.report is not None:
            told, privacy = self.report.accuracy, self.report.privacy
            epsilon = "∞, NO DIFFERENTIAL PRIVACY" if privacy.epsilon is None else f"{privacy.epsilon:.4g}"
            rows["accuracy"] = f"{told.final:.2%} {told.measures} on {told.test_examples:,} test images"
            rows["privacy"] = f"ε = {epsilon}, δ = {privacy.delta:g}, per {privacy.unit}"
        cells = "".join(f"<tr><th>{what}</th><td>{escape(text)}</td></tr>" for what, text in rows.items())
        return f"<table>{cells}</table>"


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return found
