"""A CLIP by name: the embedded one, any architecture of open_clip's with the weights that are asked for, or what an
open_clip folder describes."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.factory import load_checkpoint
from open_clip.model import CustomTextCLIP
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from torch import Tensor, nn

from flora_secure.errors import ModelError, did_you_mean, first_line
from flora_secure.model.clip import Clip
from flora_secure.model.pretrained.configuration import (
    BESIDES_TOWERS,
    FOLDER_CONFIG,
    Description,
    described_by_folder,
    described_by_name,
    described_by_tag,
    facts,
    require_same,
    towers,
)
from flora_secure.model.pretrained.weights import FORMATS, fit_weights, openai_format, read_weights, require_finite
from flora_secure.model.tokenizers import Tokenizer, embedded_tokenizer, folder_tokenizer, open_clip_tokenizer
from flora_secure.planning.names import LOCAL_DIR, pathless


def contrastive_half(coca: CoCa, config: dict[str, Any]) -> CustomTextCLIP:
    """The towers, logit scale and logit bias of `coca`, whose configuration `config` is; the decoder is left out.

    `encode_image` and `encode_text` give what they gave, but for CoCa's normalising them by default. The towers are
    shared and no longer return their tokens, so that `coca` is of no use afterwards.
    """
    with torch.device("meta"):  # its own parameters are thrown away at once
        half = towers({field: value for field, value in config.items() if field not in BESIDES_TOWERS})
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

    `model` is "tiny" (embedded), one of open_clip's architectures, such as "ViT-B-32", or "local-dir:FOLDER", which is
    built as an open_clip folder describes it, with the folder's weights. `pretrained` is a file or open_clip folder of
    weights, one of open_clip's tags (downloaded once), or "none" for random weights; left out, "tiny" and a folder
    take their own weights and any other model is refused. What no shape shows (activation, masks, preprocessing …) is
    the folder's or the tag's; `Clip.warnings` says what was assumed of a bare file. Raises ModelError, one line, for
    what is unknown, unreadable, of another architecture or damaged.
    """
    model, weights = _known(model, None if pretrained is None else str(pretrained))
    folder = Path(model.removeprefix(LOCAL_DIR)) if model.startswith(LOCAL_DIR) else None
    tag = weights if weights in _tag_list(model) else None
    path = None if weights == "none" or tag else Path(weights) if weights else folder or EMBEDDED_FOLDER
    what = "random weights" if weights == "none" else f"weights {tag or str(path)!r}"
    about = None
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            given = None if path is None or path.is_dir() else read_weights(path)
            about = _described(model, folder, tag, path, given)
            if path is not None and given is None:
                given = read_weights(path)
            tokenizer = _tokenizer(model, folder or (path if path and path.is_dir() else None), about)
            torch.manual_seed(0)  # so that random weights are the same in every run
            built = _build(model, about, tag, path, given)
    except ModelError:
        raise
    except Exception as error:  # open_clip, torch, safetensors and the network each raise their own kinds
        done = (
            f"build model {model!r} with random weights" if weights == "none" else f"load {what} into model {model!r}"
        )
        remedy = f"; without a network, `model.pretrained` PATH takes {FORMATS}" if tag else ""
        if about is not None and (hub := hub_text_tower(about.config)):
            remedy += (
                f"; the shape of its text tower is that of {hub!r} on Hugging Face's hub: run once with a network, "
                "which downloads it, or set HF_HOME to a cache that holds it"
            )
        raise ModelError(f"`model.pretrained`: cannot {done}: {first_line(error)}{remedy}") from None
    if not isinstance(built, CustomTextCLIP):
        raise ModelError(f"`model.model` {model!r} is a {type(built).__name__} and no CLIP of two towers; use another")
    built = built.float()
    require_finite(built, what)
    built = built.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    clip = Clip(
        name=pathless(model),
        model=built,
        tokenizer=tokenizer,
        shape=about.preprocessing.shape,
        mean=about.preprocessing.mean,
        std=about.preprocessing.std,
        model_hash=_hash(built, about.config),
        parameter_count=sum(p.numel() for p in built.parameters()),
        config=about.config,
        precision=precision,
        warnings=about.warnings,
    )
    if path is not None and path != EMBEDDED_FOLDER:
        _require_embeddings(clip, what)
    return clip


def hub_text_tower(config: Mapping[str, Any]) -> str | None:
    """The name on Hugging Face's hub of the text tower of one of open_clip's configurations, `None` if it is
    open_clip's own."""
    name: str | None = config["text_cfg"].get("hf_model_name")
    return name


def _tag_list(model: str) -> list[str]:
    return list(open_clip.list_pretrained_tags_by_model(model))


def _tags(model: str) -> str:
    """A few tags to propose: those that were trained with the architecture's own activation first."""
    other = {tag: bool(described_by_tag(model, tag).warnings) for tag in _tag_list(model)}
    found = sorted(other, key=other.__getitem__)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more or "none known"


def _known(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """The model and its weights: a tag, a path, "none" or, where it has its own, None. ModelError for what is not
    known."""
    if model.startswith(LOCAL_DIR):
        if pretrained not in (None, "none"):
            raise ModelError(
                f"`model.model` {model!r} has its weights in the folder: leave out `model.pretrained` {pretrained!r}, "
                "or name an architecture"
            )
        return model, pretrained
    if model != EMBEDDED and model not in open_clip.list_models():
        folder = f": for an open_clip folder write {LOCAL_DIR}{model}" if Path(model).is_dir() else (
            f": use {EMBEDDED!r}, an open_clip architecture such as ViT-B-32, or {LOCAL_DIR}FOLDER for one of your own"
        )  # fmt: skip
        near = did_you_mean(model, [EMBEDDED, *open_clip.list_models()])
        raise ModelError(f"unknown `model.model` {model!r}{folder}{near}")
    if pretrained is None and model != EMBEDDED:
        raise ModelError(
            f"`model.model` {model!r} needs weights: `model.pretrained` TAG downloads them once ({_tags(model)}), PATH "
            f"takes {FORMATS}, none takes random ones"
        )
    if pretrained is None or (model == EMBEDDED and pretrained == "embedded"):
        return model, None
    weights, known = pretrained, pretrained in {"none", *_tag_list(model)}
    if not known and not Path(weights).exists():
        tags = "'embedded'" if model == EMBEDDED else f"a tag ({_tags(model)})"
        others = open_clip.list_pretrained_models_by_tag(weights)
        rest = f"; {weights!r} is a tag of `model.model` {', '.join(others[:3])}" if others else did_you_mean(
            weights, _tag_list(model)
        )  # fmt: skip
        raise ModelError(
            f"`model.pretrained`: model {model!r} has no weights {weights!r}: use an existing file or folder, {tags} "
            f"or 'none'{rest}"
        )
    return model, weights


def _described(
    model: str, folder: Path | None, tag: str | None, path: Path | None, given: Mapping[str, Tensor] | None
) -> Description:
    if folder is not None:
        return described_by_folder(folder)
    if tag is not None:
        return described_by_tag(model, tag)
    embedded = described_by_folder(EMBEDDED_FOLDER, own=True) if model == EMBEDDED else None
    if path is not None and path.is_dir() and path != EMBEDDED_FOLDER:
        found = described_by_folder(path)
        require_same(found, embedded or described_by_name(model), model, path)
        return found
    return embedded or described_by_name(model, path, given is not None and openai_format(given))


def _tokenizer(model: str, folder: Path | None, about: Description) -> Tokenizer:
    """`folder`: of the weights, if they are in one. What it holds is the tokenizer that they were trained with."""
    text = about.config["text_cfg"]
    if folder is not None and (model != EMBEDDED or text.get("hf_tokenizer_name")):
        own = folder_tokenizer(folder, text)
        if own is not None:
            return own
        if model.startswith(LOCAL_DIR):
            raise ModelError(
                f"`model.model` {model!r}: {FOLDER_CONFIG} names the tokenizer {text['hf_tokenizer_name']!r:.60}, "
                "whose files are not in the folder, from where open_clip takes them; save them there"
            )
    if model == EMBEDDED:
        return embedded_tokenizer(VOCABULARY, text["context_length"])
    return open_clip_tokenizer(model)


def _build(
    model: str, about: Description, tag: str | None, path: Path | None, given: Mapping[str, Tensor] | None
) -> nn.Module:
    if given is not None and path is not None and model.startswith(LOCAL_DIR):  # before a stranger's sizes take memory
        with torch.device("meta"):
            fit_weights(towers(about.config), given, path, model)
    built: nn.Module = towers(about.config)
    if tag is not None:
        load_checkpoint(built, download_pretrained(get_pretrained_cfg(model, tag)))
    elif given is not None and path is not None:
        fit_weights(built, given, path, model)
    return contrastive_half(built, about.config) if isinstance(built, CoCa) else built


def _require_embeddings(clip: Clip, what: str) -> None:
    """Raise ModelError where a stranger's weights give no embedding of an image and a text."""
    size = clip.config["embed_dim"]
    try:
        with torch.no_grad():
            x = torch.zeros(1, 3, *clip.image_size, device=clip.model.logit_scale.device)
            tokens = clip.tokenizer(["a photo"]).to(x.device)
            found = {"image": clip.model.encode_image(x), "text": clip.model.encode_text(tokens)}
    except Exception as error:  # a tower of another shape than its input fails in any way there is
        raise ModelError(f"`model.pretrained`: {what} do not work in {clip.name!r}: {first_line(error)}") from None
    for tower, value in found.items():
        if value.shape != (1, size) or not bool(value.isfinite().all()):
            shape = "numbers that are not finite" if value.shape == (1, size) else f"{tuple(value.shape)}"
            raise ModelError(
                f"`model.pretrained`: {what} do not work in {clip.name!r}: the embedding of one {tower} is {shape}, "
                f"and must be {size} numbers"
            )


def _hash(model: nn.Module, config: Mapping[str, Any]) -> str:
    """Of the tensors, and of what makes another model of the same tensors."""
    digest = hashlib.sha256(json.dumps(facts(config), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs progress, and warns of what is said here in a line of our own."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
