"""A CLIP by name: the embedded one, or any architecture of open_clip's with the weights that are asked for."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP
from torch import nn

from flora_secure.data.files.pixels import Shape
from flora_secure.errors import ModelError, did_you_mean, first_line
from flora_secure.model.clip import Clip
from flora_secure.model.tokenizers import folder_tokenizer, open_clip_tokenizer
from flora_secure.model.weights import FORMATS, check_activation, folder_config, load_weights

BESIDES_TOWERS = ("custom_text", "multimodal_cfg")  # of open_clip's configurations


def contrastive_half(coca: CoCa, config: dict[str, Any]) -> CustomTextCLIP:
    """The towers, logit scale and logit bias of `coca`, whose configuration `config` is; the decoder is left out.

    `encode_image` and `encode_text` give what they gave, but for CoCa's normalising them by default. The towers are
    shared and no longer return their tokens, so that `coca` is of no use afterwards.
    """
    towers = {field: value for field, value in config.items() if field not in BESIDES_TOWERS}
    towers["text_cfg"] = {**towers["text_cfg"], "hf_model_pretrained": False}  # nothing to download
    with torch.device("meta"):  # its own parameters are thrown away at once
        half = CustomTextCLIP(**towers)
    half.visual, half.text = coca.visual, coca.text
    half.visual.output_tokens = half.text.output_tokens = False
    half.logit_scale, half.logit_bias = coca.logit_scale, coca.logit_bias
    return half


EMBEDDED = "tiny"
EMBEDDED_FOLDER = Path(__file__).parent.parent / "assets" / "tiny_clip"
VOCABULARY = EMBEDDED_FOLDER / "bpe_3500.txt.gz"


def load_clip(
    model: str = EMBEDDED,
    pretrained: str | Path | None = None,
    device: str | torch.device = "cpu",
    precision: torch.dtype = torch.float32,
) -> Clip:
    """The frozen model called `model`.

    `model` is "tiny" (embedded) or one of open_clip's architectures, such as "ViT-B-32". `pretrained` is a file or
    open_clip folder of weights, one of open_clip's tags (downloaded once), or "none" for random weights; left out,
    "tiny" takes the embedded weights and any other model is refused. Raises ModelError, one line, for what is unknown,
    unreadable or of another architecture.
    """
    if model != EMBEDDED and model not in open_clip.list_models():
        raise ModelError(
            f"unknown `model.model` {model!r}: use {EMBEDDED!r} or an open_clip architecture such as ViT-B-32"
            + did_you_mean(model, [EMBEDDED, *open_clip.list_models()])
        )
    weights: str | Path | None = "embedded" if pretrained is None and model == EMBEDDED else pretrained
    if weights is None:
        raise ModelError(
            f"`model.model` {model!r} needs weights: `model.pretrained` TAG downloads them once ({_tags(model)}), PATH "
            f"takes {FORMATS}, none takes random ones"
        )
    known = weights in {"none", "embedded"} if model == EMBEDDED else weights in {"none", *_tag_list(model)}
    if not known and not Path(weights).exists():
        tags = "'embedded'" if model == EMBEDDED else f"a tag ({_tags(model)})"
        raise ModelError(
            f"`model.pretrained`: model {model!r} has no weights {str(weights)!r}: use an existing file or folder, "
            f"{tags} or 'none'"
        )
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            tokenizer = (
                folder_tokenizer(EMBEDDED_FOLDER, VOCABULARY) if model == EMBEDDED else open_clip_tokenizer(model)
            )
            torch.manual_seed(0)  # so that random weights are the same in every run
            built = _build(model, str(weights), known)
    except ModelError:
        raise
    except Exception as error:  # open_clip, torch, safetensors and the network each raise their own kinds
        what = f"load weights {str(weights)!r} into model {model!r}"
        if weights == "none":
            what = f"build model {model!r} with random weights"
        remedy = f"; without a network, `model.pretrained` PATH takes {FORMATS}" if weights in _tag_list(model) else ""
        if model != EMBEDDED and (hub := hub_text_tower(open_clip.get_model_config(model))):
            remedy += (
                f"; the shape of its text tower is that of {hub!r} on Hugging Face's hub: run once with a network, "
                "which downloads it, or set HF_HOME to a cache that holds it"
            )
        raise ModelError(f"`model.pretrained`: cannot {what}: {first_line(error)}{remedy}") from None
    if not isinstance(built, CustomTextCLIP):
        raise ModelError(f"`model.model` {model!r} is a {type(built).__name__} and no CLIP of two towers; use another")
    built = built.float().to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    preprocess = built.visual.preprocess_cfg
    size = preprocess["size"]
    return Clip(
        name=model,
        model=built,
        tokenizer=tokenizer,
        shape=Shape(
            size=(size, size) if isinstance(size, int) else tuple(size),
            mode=preprocess["resize_mode"],
            filter="bilinear" if preprocess["interpolation"] == "bilinear" else "bicubic",
        ),
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        model_hash=_hash(built),
        parameter_count=sum(p.numel() for p in built.parameters()),
        precision=precision,
    )


def hub_text_tower(config: dict[str, Any]) -> str | None:
    """The name on Hugging Face's hub of the text tower of one of open_clip's configurations, `None` if it is
    open_clip's own."""
    name: str | None = config["text_cfg"].get("hf_model_name")
    return name


def _tag_list(model: str) -> list[str]:
    return list(open_clip.list_pretrained_tags_by_model(model))


def _tags(model: str) -> str:
    return ", ".join(_tag_list(model)[:3]) or "none known"


def _build(model: str, weights: str, known: bool) -> CustomTextCLIP:
    """`known`: `weights` is a tag, "embedded" or "none"; otherwise a path."""
    path = Path(weights)
    config = {} if known else folder_config(path)
    if model == EMBEDDED:
        source: str = f"local-dir:{EMBEDDED_FOLDER}"
        extra: dict[str, object] = {"load_weights": weights == "embedded"}
    else:
        source = model
        extra = {"pretrained": weights if known and weights != "none" else None, "pretrained_text": False}
        check_activation(config, open_clip.get_model_config(model), path, model)
    built = open_clip.create_model(
        source, force_custom_text=True, force_preprocess_cfg=config.get("preprocess_cfg"), **extra
    )
    if not known:
        load_weights(built, path, model)
    return contrastive_half(built, open_clip.get_model_config(model)) if isinstance(built, CoCa) else built


def _hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs progress, and a warning whenever weights are random, on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
