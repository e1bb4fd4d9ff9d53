"""Weights from local files into a model that is already built, refused where a tensor does not fit.

open_clip's own loader interpolates position embeddings of another size without a word, and says of anything else only
that it does not fit. Here every tensor must have the name and shape that the architecture gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from flora_secure.boundary.foreign import first_bytes, printable
from flora_secure.errors import ForeignError, ModelError, first_line
from flora_secure.model.pretrained.configuration import FOLDER_CONFIG, towers
from flora_secure.planning.architectures import of_size

FOLDER_FILES = (  # in open_clip's order
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
FORMATS = f"an open_clip state dict (.safetensors, .pt, .bin) or a folder with {FOLDER_CONFIG} and its weights"
_OPENAI = {"input_resolution", "context_length", "vocab_size"}  # OpenAI's archives have these among their tensors

_AT_THE_ROOT = {"text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final"}


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in `path` by their names: a state dict that open_clip writes, as .safetensors or by `torch.save`
    (itself or under "state_dict", with or without "module." before each name), or an open_clip folder's.

    Nothing in it is executed. Raises ModelError, one line, for a file that cannot be read.
    """
    file = weights_file(path)
    try:
        _require_weights(file)
        found: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
        if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
            found = found["state_dict"]
        if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
            raise TypeError("it holds other things than tensors by their names, or nothing")
        if all(name.startswith("module.") for name in found):
            found = {name.removeprefix("module."): value for name, value in found.items()}
        if any(name.startswith(("vision_model.", "text_model.")) for name in found):
            raise TypeError("it has the names of transformers' CLIP; take open_clip's weights of the same model")
    except Exception as error:  # torch, safetensors and zip each raise their own kinds
        reason = first_line(error)
        if "TorchScript" in str(error):
            reason = "a TorchScript archive; use the tag openai, or save its state dict"
        raise ModelError(
            f"`model.pretrained`: cannot load weights {str(path)!r}: {printable(reason)}; local files that work: "
            f"{FORMATS}"
        ) from None
    return dict(found)


def openai_format(given: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are OpenAI's own state dict, all of whose models have QuickGELU."""
    return given.keys() >= _OPENAI


def _require_weights(file: Path) -> None:
    """ForeignError for what is no regular file, and for what stands in the place of weights after a failed download."""
    begin = first_bytes(file, 512)
    if begin.startswith(b"version https://git-lfs"):
        raise ForeignError("a pointer of Git LFS in the place of the weights: fetch them with git lfs pull")
    if begin.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ForeignError("a web page in the place of the weights: download the file itself")
    if not begin:
        raise ForeignError("the file is empty")


def fit_weights(model: nn.Module, given: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Copy the tensors read from `path` into `model`, whose architecture is called `name`.

    Raises ModelError, one line, for weights of another architecture, naming the first tensor that does not fit, and an
    architecture that they do fit, if open_clip has one.
    """
    wanted = model.state_dict()
    tensors = _as_in(model, given, wanted)
    differences = _differences(tensors, wanted)
    if differences:
        rest = f" and {len(differences) - 1:,} more" if len(differences) > 1 else ""
        remedy = "name the architecture that they were trained with"
        if fits := [other for other in _fitting(given) if other != name]:
            remedy = f"they fit `model.model` {' or '.join(fits)}"
        raise ModelError(
            f"`model.pretrained`: weights {str(path)!r} do not fit model {name!r}: {printable(differences[0])}{rest}; "
            f"{remedy}"
        )
    model.load_state_dict(tensors, strict=False)


def require_finite(model: nn.Module, what: str) -> None:
    """Raise ModelError, which names the tensor, where weights (`what`) hold infinities or what is no number."""
    bad = {name: n for name, value in model.state_dict().items() if (n := int((~torch.isfinite(value)).sum()))}
    if bad:
        first = next(iter(bad))
        rest = f" and in {len(bad) - 1:,} more tensors" if len(bad) > 1 else ""
        raise ModelError(
            f"`model.pretrained`: {what} are damaged: {bad[first]:,} values in {first} are no finite numbers in "
            f"float32{rest}; take another copy of them"
        )


def _as_in(model: nn.Module, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`given` with the names that `model` has for them."""
    tensors = {key: value for key, value in given.items() if key not in _OPENAI}
    tensors = convert_state_dict(model, tensors)
    if "positional_embedding" in tensors:  # of the plain `CLIP` class; open_clip leaves them where there is no matrix
        tensors = {f"text.{key}" if key.split(".")[0] in _AT_THE_ROOT else key: value for key, value in tensors.items()}
    for scalar in ("logit_scale", "logit_bias"):  # a number to some releases, a vector of one to others
        if scalar in tensors and scalar in wanted and tensors[scalar].numel() == wanted[scalar].numel():
            tensors[scalar] = tensors[scalar].reshape(wanted[scalar].shape)
    return dict(tensors)


def _differences(given: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What does not fit: shapes first, since they tell two architectures apart most plainly."""
    # old releases stored constants that newer ones derive: a buffer may be missing, a parameter may not
    derived = {"attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids"}
    both = [key for key in wanted if key in given]
    shapes = [
        f"{key} has shape {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in both
        if given[key].shape != wanted[key].shape
    ]
    types = [
        f"{key} is of {str(given[key].dtype).removeprefix('torch.')}, and must be of floating point numbers"
        for key in both
        if wanted[key].is_floating_point() and not given[key].is_floating_point()
    ]
    missing = [f"{key} is missing" for key in wanted if key not in given and key not in derived]
    surplus = [f"{key} has no place" for key in given if key not in wanted and key not in derived]
    for key in derived & given.keys() - wanted.keys():
        del given[key]
    return shapes + types + missing + surplus


def _fitting(given: Mapping[str, Tensor]) -> list[str]:
    """The architectures of open_clip's that the tensors fit, found by their number and then by every shape."""
    found = list[str]()
    for name in of_size(sum(value.numel() for key, value in given.items() if key not in _OPENAI)):
        if name not in open_clip.list_models():
            continue
        with torch.device("meta"):  # no memory for parameters
            model = towers(open_clip.get_model_config(name))
        wanted = model.state_dict()
        if not _differences(_as_in(model, given, wanted), wanted):
            found.append(name)
    return found
