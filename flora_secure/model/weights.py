"""Weights from local files into a model that is already built, refused where a tensor does not fit.

open_clip's own loader interpolates position embeddings of another size without a word, and says of anything else only
that it does not fit. Here every tensor must have the name and shape that the architecture gives it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from flora_secure.errors import ModelError, first_line

FOLDER_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
FOLDER_CONFIG = "open_clip_config.json"
FORMATS = "an open_clip state dict (.safetensors, .pt, .bin) or a folder with open_clip_config.json and its weights"


def weights_file(path: Path) -> Path:
    """The file of weights that `path` is, or holds as an open_clip folder; ModelError where there is none."""
    if not path.is_dir():
        return path
    found = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
    if found is None:
        raise ModelError(
            f"`model.pretrained`: folder {str(path)!r} holds no weights: one of {', '.join(FOLDER_FILES)} is needed"
        )
    return found


def folder_config(path: Path) -> dict[str, Any]:
    """What an open_clip folder's configuration says, an empty one for a file. ModelError where it cannot be read."""
    if not path.is_dir():
        return {}
    try:
        config = json.loads((path / FOLDER_CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config["model_cfg"], dict):
            raise TypeError("model_cfg is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"`model.pretrained`: folder {str(path)!r} is no open_clip folder: {FOLDER_CONFIG}: {error}"
        ) from None
    return dict(config)


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Copy the weights in `path` into `model`, whose architecture is called `name`.

    `path`: a state dict that open_clip writes, as .safetensors or by `torch.save` (itself or under "state_dict", with
    or without "module." before each name), or an open_clip folder. Nothing in it is executed. Raises ModelError, one
    line, for a file that cannot be read and for weights of another architecture, naming the first that does not fit.
    """
    file = weights_file(path)
    try:
        given = load_state_dict(str(file), weights_only=True)
        given = convert_state_dict(model, dict(given))
        if "positional_embedding" in given:
            given = convert_to_custom_text_state_dict(given)
        if not all(isinstance(value, Tensor) for value in given.values()):
            raise TypeError("it holds other things than tensors")
    except Exception as error:  # torch, safetensors and zip each raise their own kinds
        reason = first_line(error)
        if "TorchScript" in str(error):
            reason = "a TorchScript archive; use the tag openai, or save its state dict"
        raise ModelError(
            f"`model.pretrained`: cannot load weights {str(path)!r} into model {name!r}: {reason}; local files that "
            f"work: {FORMATS}"
        ) from None
    wanted = model.state_dict()
    for scalar in ("logit_scale", "logit_bias"):  # a number to some releases, a vector of one to others
        if scalar in given and scalar in wanted and given[scalar].numel() == wanted[scalar].numel():
            given[scalar] = given[scalar].reshape(wanted[scalar].shape)
    differences = _differences(given, wanted)
    if differences:
        rest = f" and {len(differences) - 1:,} more" if len(differences) > 1 else ""
        raise ModelError(
            f"`model.pretrained`: weights {str(path)!r} do not fit model {name!r}: {differences[0]}{rest}; name the "
            "architecture that they were trained with"
        )
    model.load_state_dict(given, strict=False)


def _differences(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """What does not fit: shapes first, since they tell two architectures apart most plainly."""
    # old releases stored constants that newer ones derive: a buffer may be missing, a parameter may not
    derived = {"attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids"}
    shapes = [
        f"{key} has shape {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    missing = [f"{key} is missing" for key in wanted if key not in given and key not in derived]
    surplus = [f"{key} has no place" for key in given if key not in wanted and key not in derived]
    for key in derived & given.keys() - wanted.keys():
        del given[key]
    return shapes + missing + surplus


def check_activation(config: dict[str, Any], built: dict[str, Any], path: Path, name: str) -> None:
    """Refuse a folder whose activation is not the architecture's: no shape tells QuickGELU from GELU."""
    theirs, ours = bool(config.get("model_cfg", {}).get("quick_gelu")), bool(built.get("quick_gelu"))
    if config and theirs != ours:
        other = name.removesuffix("-quickgelu") if ours else f"{name}-quickgelu"
        raise ModelError(
            f"`model.pretrained`: weights {str(path)!r} do not fit model {name!r}: they were trained with quick_gelu "
            f"{theirs}, it has {ours}; use `model.model` {other}"
        )
