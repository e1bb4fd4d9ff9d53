"""What a model is beside its weights: facts that no shape shows, and how images reach it.

Two models of the same shapes differ in activation, masks, heads, pooling and preprocessing, and weights of the one are
nonsense in the other. What is known of weights comes from a folder's configuration, from the tag that they are
published under, or is assumed of a bare file, which is said.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import open_clip
import timm
from open_clip.coca_model import CoCa
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg

from flora_secure.boundary.foreign import json_of, printable, read_text
from flora_secure.data.files.pixels import Shape
from flora_secure.errors import ForeignError, ModelError
from flora_secure.planning.names import LOCAL_DIR

FOLDER_CONFIG = "open_clip_config.json"
BESIDES_TOWERS = ("custom_text", "multimodal_cfg")  # of open_clip's configurations
_TOWERS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg}
_REST = {"embed_dim", "quick_gelu", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", *BESIDES_TOWERS}
_UNSEEN = {  # fields that change neither an embedding in evaluation nor a shape; tokens are the tokenizer's
    "vision_cfg": {"patch_dropout", "output_tokens", "timm_model_pretrained", "timm_drop", "timm_drop_path"},
    "text_cfg": {"output_tokens", "hf_model_pretrained", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"},
}
_MOST, _MOST_LAYERS = 1 << 24, 1_000  # of any number in a stranger's configuration, whose model is then built


@dataclass(frozen=True)
class Preprocessing:
    """How an image reaches the image tower: `shape`, and `mean` and `std` of each channel, of values in 0…1."""

    shape: Shape
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Description:
    """A model without its weights: `config` as open_clip's `model_cfg` says it, `warnings` about what was guessed."""

    config: dict[str, Any]
    preprocessing: Preprocessing
    warnings: tuple[str, ...] = ()


def described_by_folder(folder: Path, own: bool = False) -> Description:
    """The model that an open_clip folder describes; `own`: it came with this package.

    Raises ModelError, one line, for a configuration that cannot be read, holds what open_clip does not know or cannot
    be respected, or would have something fetched from elsewhere.
    """
    table = _folder_table(folder)
    config, where = table["model_cfg"], f"`model.pretrained`: folder {str(folder)!r}: {FOLDER_CONFIG}"
    for tower, kind in _TOWERS.items():
        if not isinstance(config.get(tower), dict):
            raise ModelError(f"{where}: model_cfg.{tower} is missing")
        _require_known(config[tower], {field.name for field in dataclasses.fields(kind)}, f"{where}: {tower}")
    _require_known(config, {*_TOWERS, *_REST}, f"{where}: model_cfg")
    if type(config.get("embed_dim")) is not int:
        raise ModelError(f"{where}: model_cfg.embed_dim must be a whole number, got {config.get('embed_dim')!r:.40}")
    for key, value in [*config.items(), *config["vision_cfg"].items(), *config["text_cfg"].items()]:
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int | float)]
        if any(abs(n) > (_MOST_LAYERS if key == "layers" else _MOST) for n in numbers):
            raise ModelError(f"{where}: {key} {value!r:.60} is more than any model has")
    if not own:
        _require_local(config, where)
    preprocessing, warnings = _preprocessing(table.get("preprocess_cfg") or {}, config, where)
    return Description(config, preprocessing, warnings)


def described_by_tag(model: str, tag: str) -> Description:
    """One of open_clip's architectures as the weights of this `tag` need it.

    Tags say by `quick_gelu` that they were trained with QuickGELU, whatever the architecture of that name has. Where
    the architecture has it and the tag does not say so, the architecture is right, as for open_clip.
    """
    config, published = _architecture(model), get_pretrained_cfg(model, tag)
    warnings: tuple[str, ...] = ()
    if published.get("quick_gelu") and not config.get("quick_gelu"):
        config["quick_gelu"] = True
        warnings = (f"weights {tag!r} were trained with QuickGELU: {model} is built with it, as {twin(model)}",)
    return Description(config, _preprocessing(published, config, f"tag {tag!r}")[0], warnings)


def described_by_name(model: str, file: Path | None = None, openai: bool = False) -> Description:
    """One of open_clip's architectures with weights in a bare `file`, which says nothing of them, or with random ones.

    `openai`: the file has OpenAI's own format, whose weights all want QuickGELU.
    """
    config, tags = _architecture(model), open_clip.list_pretrained_tags_by_model(model)
    found = [_preprocessing(get_pretrained_cfg(model, tag), config, "")[0] for tag in tags]
    # of two that are as frequent the first one
    preprocessing = Counter(found).most_common(1)[0][0] if found else _preprocessing({}, config, "")[0]
    if file is None:
        return Description(config, preprocessing)
    assumed, other = list[str](), twin(model)
    if openai and other:
        config["quick_gelu"] = True
        assumed.append(f"QuickGELU, since the file is OpenAI's (built as {other})")
    elif other:
        assumed.append(
            f"the activation GELU (weights of OpenAI, MetaCLIP or DFN want QuickGELU: `model.model` {other})"
        )
    if found and (len(set(found)) > 1 or found[0] != _preprocessing({}, config, "")[0]):
        like = ", ".join(tag for tag, one in zip(tags, found, strict=True) if one == preprocessing)
        unlike = [tag for tag, one in zip(tags, found, strict=True) if one != preprocessing]
        shape, mean = preprocessing.shape, preprocessing.mean[0]
        assumed.append(
            f"images prepared as for the tags {like} (mean {mean:.3g} …, {shape.filter}, {shape.mode})"
            + (f", unlike {', '.join(unlike)}" if unlike else "")
        )
    warnings = () if not assumed else (
        f"weights {file.name!r} do not say how they were trained; assumed: {'; '.join(assumed)}. "
        f"A folder with {FOLDER_CONFIG} says it",
    )  # fmt: skip
    return Description(config, preprocessing, tuple(map(printable, warnings)))


def require_same(found: Description, wanted: Description, model: str, folder: Path) -> None:
    """Raise ModelError, which names the first field, where a folder describes another model than the one `wanted`,
    which is called `model`."""
    theirs, ours = facts(found.config), facts(wanted.config)
    for key in sorted(theirs.keys() | ours.keys()):
        if theirs.get(key) != ours.get(key):
            known = f" (or {other})" if key == "quick_gelu" and (other := _other_activation(model)) else ""
            raise ModelError(
                f"`model.pretrained`: folder {str(folder)!r} holds another model than {model!r}: its {key} is "
                f"{theirs.get(key)!r:.60}, not {ours.get(key)!r:.60}; use `model.model` {LOCAL_DIR}{folder}{known}, "
                "which builds what the folder describes"
            )


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every field that makes a difference to embeddings, "text_cfg.heads" → 8, defaults filled in: equal for equal
    models."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    theirs = {"vision_cfg": bool(vision.get("timm_model_name")), "text_cfg": bool(text.get("hf_model_name"))}
    found: dict[str, Any] = {"embed_dim": config["embed_dim"]}
    if not all(theirs.values()):  # towers of timm's and of transformers' have an activation of their own
        found["quick_gelu"] = bool(config.get("quick_gelu"))
    for tower, kind in _TOWERS.items():
        for key, value in {**dataclasses.asdict(kind()), **config[tower]}.items():
            foreign = key.startswith(("timm_", "hf_")) or (theirs[tower] and key in ("image_size", "context_length"))
            if key not in _UNSEEN[tower] and (foreign if theirs[tower] else not key.startswith(("timm_", "hf_"))):
                found[f"{tower}.{key}"] = [*_pair(value)] if key == "image_size" else _plain(value)
    return found


def towers(config: Mapping[str, Any]) -> CustomTextCLIP | CoCa:
    """The model of one of open_clip's configurations, with weights as torch draws them; nothing is downloaded."""
    fields = {key: value for key, value in config.items() if key != "custom_text"}
    fields["vision_cfg"] = {**fields["vision_cfg"], "timm_model_pretrained": False}
    fields["text_cfg"] = {**fields["text_cfg"], "hf_model_pretrained": False}
    if "multimodal_cfg" in fields:
        return CoCa(**fields)
    for tower in _TOWERS:  # with its tokens, a tower returns two things
        fields[tower]["output_tokens"] = False
    return CustomTextCLIP(**fields)


def twin(model: str) -> str | None:
    """The architecture that differs from `model` in having QuickGELU alone; None where there is none."""
    name = f"{model}-quickgelu"
    return name if name in open_clip.list_models() else None


def _other_activation(model: str) -> str | None:
    return twin(model) or (model.removesuffix("-quickgelu") if model.endswith("-quickgelu") else None)


def _architecture(model: str) -> dict[str, Any]:
    return cast(dict[str, Any], open_clip.get_model_config(model))


def _folder_table(folder: Path) -> dict[str, Any]:
    try:
        table = json_of(read_text(folder / FOLDER_CONFIG, 1 << 20))
        if not isinstance(table, dict) or not isinstance(table.get("model_cfg"), dict):
            raise ForeignError("model_cfg is missing")
        if not isinstance(table.get("preprocess_cfg") or {}, dict):
            raise ForeignError("preprocess_cfg is no object")
    except ForeignError as error:
        raise ModelError(
            f"`model.pretrained`: folder {str(folder)!r} is no open_clip folder: {FOLDER_CONFIG}: {error}"
        ) from None
    return table


def _require_known(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(table.keys() - known):
        raise ModelError(f"{where}.{printable(unknown[0])[:60]} is unknown to open_clip {open_clip.__version__}")


def _require_local(config: Mapping[str, Any], where: str) -> None:
    """A stranger's configuration may name what is installed here, and no other place to fetch code or shapes from."""
    trunk, text = config["vision_cfg"].get("timm_model_name"), config["text_cfg"].get("hf_model_name")
    if trunk and (not isinstance(trunk, str) or not timm.is_model(trunk)):
        raise ModelError(f"{where}: vision_cfg.timm_model_name {trunk!r:.60} is no architecture of timm's")
    hubs = {_architecture(name)["text_cfg"].get("hf_model_name") for name in open_clip.list_models()}
    if text and text not in hubs:
        raise ModelError(
            f"{where}: text_cfg.hf_model_name {text!r:.60} is no text tower of open_clip's architectures; those are "
            + ", ".join(sorted(filter(None, hubs)))
        )


def _preprocessing(
    given: Mapping[str, Any], config: Mapping[str, Any], where: str
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Of a folder or tag, open_clip's defaults for what is left out; ModelError for what cannot be respected."""
    table = {**dataclasses.asdict(PreprocessCfg()), **{key: value for key, value in given.items() if value is not None}}
    size, warnings = _pair(config["vision_cfg"].get("image_size", 224)), list[str]()
    if (told := given.get("size")) is not None and _pair(told) != size:
        warnings.append(f"{where}: preprocess_cfg.size is {told!r:.40}, the image tower reads {size[0]} × {size[1]}: "
                        "took the tower's, as open_clip does")  # fmt: skip
    for key, known in (
        ("mode", ("RGB",)),
        ("interpolation", ("bicubic", "bilinear", "random")),
        ("resize_mode", ("shortest", "longest", "squash")),
    ):
        if table[key] not in known:
            raise ModelError(f"{where}: preprocess_cfg.{key} must be one of {', '.join(known)}, got {table[key]!r:.40}")
    if table["resize_mode"] == "longest" and table["fill_color"] != 0:
        raise ModelError(
            f"{where}: preprocess_cfg.fill_color must be 0, black, for resize_mode longest, got "
            f"{table['fill_color']!r:.40}"
        )
    channels = {key: _channels(table[key], f"{where}: preprocess_cfg.{key}") for key in ("mean", "std")}
    if min(channels["std"]) <= 0:
        raise ModelError(f"{where}: preprocess_cfg.std must be positive, got {table['std']!r:.60}")
    # at random: in training; open_clip evaluates with bicubic
    shape = Shape(size, table["resize_mode"], "bilinear" if table["interpolation"] == "bilinear" else "bicubic")
    return Preprocessing(shape, channels["mean"], channels["std"]), tuple(map(printable, warnings))


def _channels(value: Any, what: str) -> tuple[float, float, float]:
    each = value if isinstance(value, list | tuple) else [value] * 3
    if len(each) != 3 or not all(type(one) in (int, float) and math.isfinite(one) for one in each):
        raise ModelError(f"{what} must be three numbers, got {value!r:.60}")
    return float(each[0]), float(each[1]), float(each[2])


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Sequence) and not isinstance(size, str):
        return (size[0], size[0]) if len(size) == 1 else (size[0], size[1])
    return size, size


def _plain(value: Any) -> Any:
    """The same for values that mean the same: 4 and 4.0, a tuple and a list, no keywords and none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [*value] if isinstance(value, tuple) else None if value == {} else value
