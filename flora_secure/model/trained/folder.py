"""What is written beside a trained adapter, and where a run's adapter, its report and its weights are found again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import open_clip
import torch

from flora_secure.data.dataset import Dataset
from flora_secure.data.images import EncodedImages
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.errors import AdapterError, DataError, ModelError, RunFolderError
from flora_secure.model.clip import Clip
from flora_secure.model.factors import Factors
from flora_secure.model.image_views import ImageViews
from flora_secure.model.loading import EMBEDDED as TINY
from flora_secure.model.loading import load_clip
from flora_secure.model.matrices import Matrix, matrices_of
from flora_secure.model.peft_format import output_added, read_adapter
from flora_secure.planning.config import RunConfig, load_config
from flora_secure.planning.names import LOCAL_DIR, last_part
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.sections import Crops, ModelConfig
from flora_secure.records.adapter_card import (
    ARRAYS,
    AVERAGING,
    CARD,
    EMBEDDED,
    FILES,
    LOCAL,
    RANDOM,
    TAG,
    AdapterCard,
    adapter_hash,
    read_card,
    write_card,
)
from flora_secure.records.reading import read_report
from flora_secure.records.report import Report

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def describe_adapter(folder: Path, config: RunConfig, clip: Clip, dataset: Dataset, rank: int) -> None:
    """Write `flora.json` beside the adapter of `rank` that peft's format holds in `folder`.

    `clip` is the frozen model and `dataset` the data of the run that `config` describes. Raises `OSError`.
    """
    given, test = config.model, dataset.test.images
    rendering = test.rendering if isinstance(test, EncodedImages) else PLAIN
    how, pretrained = _weights(given.model, given.pretrained)
    card = AdapterCard(
        adapter_hash=adapter_hash(folder),
        model=clip.name,
        weights=how,
        pretrained=pretrained,
        model_hash=clip.model_hash,
        precision=config.training.precision,
        image_size=list(clip.image_size),
        resize_mode=clip.shape.mode,
        interpolation=clip.shape.filter,
        mean=list(clip.mean),
        std=list(clip.std),
        images=FILES if isinstance(test, EncodedImages) else ARRAYS,
        window=rendering.window,
        background=rendering.background,
        mirror=dataset.mirror if given.mirror is None else given.mirror,
        crops=given.crops,
        captioned=dataset.captioned,
        class_names=list(dataset.class_names),
        templates=list(dataset.templates),
        averaging=AVERAGING,
        logit_scale=config.training.logit_scale,
        placement=given.placement,
        last_layers=given.last_layers,
        rank=rank,
        scale=given.scale(rank),
        output_added=output_added(),
    )
    write_card(folder, card)


def _weights(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """How `load_clip` has the weights, and their name; of a local file no more than that."""
    if model.startswith(LOCAL_DIR) and pretrained is None:
        return LOCAL, last_part(model.removeprefix(LOCAL_DIR))
    if pretrained == "none":
        return RANDOM, None
    if model == TINY and pretrained in (None, "embedded"):
        return EMBEDDED, None
    if model != TINY and pretrained in open_clip.list_pretrained_tags_by_model(model):
        return TAG, pretrained
    return LOCAL, last_part(pretrained or "")


def rendering_of(card: AdapterCard) -> Rendering:
    """How the run showed the values of image files. Raises `DataError` for a card that says neither."""
    return Rendering(card.window, card.background)


def views_of(card: AdapterCard) -> ImageViews:
    """The views of an image that the run embedded together."""
    return ImageViews(card.mirror, cast(Crops, card.crops))


@dataclass(frozen=True, eq=False)
class TrainedAdapter:
    """An adapter read from disk: its card, the frozen model it fits, its factors in the model's units, and the report
    of its run where that is beside it."""

    card: AdapterCard
    clip: Clip
    matrices: tuple[Matrix, ...]
    factors: Factors
    report: Report | None


def open_adapter(run: Path, device: str | torch.device = "cpu", pretrained: str | None = None) -> TrainedAdapter:
    """The adapter of the run folder or the adapter folder `run`, with its model loaded.

    `pretrained`: where the model's weights lie now, if they are local files that were moved. Raises an
    `InputError`, one line: for a folder without an adapter, an adapter that the run's
    report does not know, weights that are missing or another model's, and factors that do not fit.
    """
    folder, report, configured = run, None, None
    if os.path.lexists(run / "config.toml"):
        folder = run / "adapter"
        if not os.path.isdir(folder):
            raise RunFolderError(f"{run} holds no adapter: finish the run with flora-secure simulate --resume {run}")
        if os.path.lexists(run / "report.json"):
            report = read_report(run)
        configured = _configured(load_config(run / "config.toml").model)
    elif not os.path.isdir(run):
        raise RunFolderError(f"there is no folder {run}: name a run folder, or the adapter/ in one")
    card = read_card(folder)
    told = None if report is None else report.provenance.adapter_hash
    if told is not None and told != card.adapter_hash:
        raise RunFolderError(
            f"{folder} is not the adapter of this run: its SHA-256 is {card.adapter_hash:.12}…, report.json knows "
            f"{told:.12}…; bring back the run's own, or name the adapter folder alone"
        )
    try:
        rendering_of(card)
    except DataError as error:
        raise AdapterError(f"{folder / CARD}: {error}") from None
    clip = _model(card, folder, device, pretrained, configured)
    matrices = matrices_of(clip.model, PLACEMENTS[card.placement], card.last_layers)
    factors = read_adapter(folder, matrices, card.rank, card.output_added)
    return TrainedAdapter(card, clip, matrices, factors.to(clip.model.logit_scale.device), report)


def _configured(model: ModelConfig) -> str | None:
    """The path of the weights, or of the folder that is the model."""
    return model.model.removeprefix(LOCAL_DIR) if model.model.startswith(LOCAL_DIR) else model.pretrained


def _model(
    card: AdapterCard, folder: Path, device: str | torch.device, given: str | None, configured: str | None
) -> Clip:
    """The frozen model that the card describes, from the weights that are `given`. Where none are, the card says
    which, but names no path: that of local ones is the run's `configured` one."""
    known: dict[str, str | None] = {EMBEDDED: None, RANDOM: "none", TAG: card.pretrained, LOCAL: configured}
    weights = known[card.weights] if given is None else given
    described = card.model.startswith(LOCAL_DIR)  # by a folder: without it there is no model
    if described:
        weights = configured if given is None else given
    if card.weights == LOCAL or described:
        if weights is None:
            raise ModelError(
                f"the adapter in {folder} needs the weights that it was trained on, a local file or folder "
                f"{card.pretrained or card.model!r}: name it by `model.pretrained`"
            )
        if not (os.path.isfile(weights) or os.path.isdir(weights)):  # a pipe would be waited for
            raise ModelError(
                f"the weights {weights!r} of the adapter in {folder} are no file or folder here: name them with "
                "`model.pretrained`"
            )
    unknown = card.weights == TAG and card.pretrained not in open_clip.list_pretrained_tags_by_model(card.model)
    if unknown and given is None:
        raise ModelError(
            f"model {card.model!r} of the adapter in {folder} has no weights {card.pretrained!r} in this release of "
            "open_clip; use the release that it was trained with"
        )
    if described:
        random = "none" if card.weights == RANDOM else None
        clip = load_clip(f"{LOCAL_DIR}{weights}", random, device, PRECISIONS[card.precision])
    else:
        clip = load_clip(card.model, weights, device, PRECISIONS[card.precision])
    if clip.model_hash != card.model_hash:
        raise ModelError(
            f"the adapter in {folder} belongs to another model: {card.model!r} with SHA-256 {card.model_hash:.12}…, "
            f"and these weights have {clip.model_hash:.12}…; bring back the weights of the run (`model.pretrained`)"
        )
    for key, here, there in (
        ("image_size", list(clip.image_size), card.image_size),
        ("resize_mode", clip.shape.mode, card.resize_mode),
        ("interpolation", clip.shape.filter, card.interpolation),
        ("mean", list(clip.mean), card.mean),
        ("std", list(clip.std), card.std),
    ):
        if here != there:
            raise AdapterError(
                f"the adapter in {folder} was trained with {key} {there}, and these weights come with {here}: bring "
                "back the folder of weights that the run had (`model.pretrained`)"
            )
    return clip
