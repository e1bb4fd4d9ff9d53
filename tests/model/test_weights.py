"""Local weights: every format that open_clip writes gives the same model, and another architecture's are refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from flora_secure.model.clip import Clip, ModelError
from flora_secure.model.loading import load_clip
from flora_secure.model.pretrained.configuration import towers
from flora_secure.planning.architectures import of_size

Tensors = dict[str, torch.Tensor]
MODEL = "small-resnet"  # of the kind of RN50, and quick to build
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 49_408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def small_resnet(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("models") / f"{MODEL}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Of the plain `CLIP` class, as open_clip's training and its published files have them."""
    torch.manual_seed(5)
    return {key: value.clone() for key, value in open_clip.create_model(MODEL).state_dict().items()}


@pytest.fixture(scope="module")
def wanted(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("weights") / "w.pt"
    torch.save(weights, path)
    return load_clip(MODEL, path)


def write_folder(folder: Path, weights: dict[str, torch.Tensor], **config: object) -> Path:
    """An open_clip folder as `open_clip.push_to_hf_hub.save_for_hf` lays it out."""
    folder.mkdir()
    model = {**open_clip.get_model_config(MODEL), **config}
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic", "resize_mode": "squash"}
    text = json.dumps({"model_cfg": model, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def bare(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    torch.save(weights, path / "w.bin")
    return path / "w.bin"


def checkpoint(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    parallel = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"epoch": 3, "state_dict": parallel, "optimizer": {"lr": 0.1}}, path / "epoch_3.pt")
    return path / "epoch_3.pt"


def safetensors(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file(weights, path / "w.safetensors")
    return path / "w.safetensors"


@pytest.mark.parametrize("write", [bare, checkpoint, safetensors, lambda p, w: write_folder(p / "m", w)])
def test_each_local_format_gives_the_same_model(
    write: Callable[[Path, dict[str, torch.Tensor]], Path],
    weights: dict[str, torch.Tensor],
    wanted: Clip,
    tmp_path: Path,
) -> None:
    clip = load_clip(MODEL, write(tmp_path, weights))
    assert clip.model_hash == wanted.model_hash
    assert torch.equal(clip.text_projection, weights["text_projection"])


def test_a_folder_brings_its_preprocessing(weights: dict[str, torch.Tensor], wanted: Clip, tmp_path: Path) -> None:
    clip = load_clip(MODEL, write_folder(tmp_path / "m", weights))
    assert (clip.mean, clip.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert clip.mean != wanted.mean


def test_another_activation_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", weights, quick_gelu=True)
    with pytest.raises(
        ModelError, match=r"another model than 'small-resnet': its quick_gelu is True, not False; use model"
    ):
        load_clip(MODEL, folder)


def narrower(weights: dict[str, torch.Tensor]) -> None:
    weights["visual.conv1.weight"] = torch.zeros(2, 3, 3, 3)


def longer(weights: dict[str, torch.Tensor]) -> None:
    weights["positional_embedding"] = torch.zeros(16, 16)


def short(weights: dict[str, torch.Tensor]) -> None:
    del weights["ln_final.bias"]


def more(weights: dict[str, torch.Tensor]) -> None:
    weights["visual.adapter"] = torch.zeros(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (narrower, r"visual\.conv1\.weight has shape \(2, 3, 3, 3\), not \(4, 3, 3, 3\);"),
        # open_clip itself would stretch it without a word
        (longer, r"text\.positional_embedding has shape \(16, 16\), not \(8, 16\);"),
        (short, r"text\.ln_final\.bias is missing;"),
        (more, r"visual\.adapter has no place;"),
    ],
)
def test_weights_of_another_architecture(
    change: Callable[[dict[str, torch.Tensor]], None],
    message: str,
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    changed = dict(weights)
    change(changed)
    torch.save(changed, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"do not fit model 'small-resnet': " + message) as caught:
        load_clip(MODEL, tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="cannot load weights"):
        load_clip("tiny", tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_config_or_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no open_clip folder: open_clip_config\.json"):
        load_clip(MODEL, tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"holds no weights: one of open_clip_model\.safetensors"):
        load_clip(MODEL, tmp_path)


def test_without_weights_the_message_says_how_to_get_them() -> None:
    with pytest.raises(ModelError, match=r"needs weights: model.pretrained TAG .*laion2b_e16.*PATH .*none") as caught:
        load_clip("ViT-B-32")
    assert "\n" not in str(caught.value)


def test_a_torchscript_archive_is_told(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match="a TorchScript archive; use the tag openai, or save its state dict; local"):
        load_clip("tiny", tmp_path / "w.pt")


def without(
    weights: dict[str, torch.Tensor], value: float, name: str = "visual.conv1.weight"
) -> dict[str, torch.Tensor]:
    changed = {key: tensor.clone() for key, tensor in weights.items()}
    changed[name].view(-1)[1:3] = value
    return changed


@pytest.mark.parametrize("write", [bare, safetensors, lambda p, w: write_folder(p / "m", w)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_named(
    value: float, write: Callable[[Path, Tensors], Path], weights: Tensors, tmp_path: Path
) -> None:
    path = write(tmp_path, without(weights, value))
    with pytest.raises(ModelError, match=r"are damaged: 2 values in visual\.conv1\.weight are no finite numbers") as e:
        load_clip(MODEL, path)
    assert str(path) in str(e.value)


def test_numbers_that_float32_cannot_hold(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wide = {key: value.double() if value.is_floating_point() else value for key, value in weights.items()}
    path = bare(tmp_path, without(wide, 1e300))
    with pytest.raises(
        ModelError, match=r"2 values in visual\.conv1\.weight are no finite numbers in float32; take an"
    ):
        load_clip(MODEL, path)
    path = bare(tmp_path, {**weights, "text_projection": torch.full((16, 16), 3e38)})  # finite, and no embedding is
    with pytest.raises(ModelError, match="do not work in 'small-resnet': the embedding of one text is numbers that"):
        load_clip(MODEL, path)


def test_statistics_are_weights_too(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = bare(tmp_path, without(weights, math.nan, "visual.bn1.running_var"))
    with pytest.raises(ModelError, match=r"2 values in visual\.bn1\.running_var are no finite numbers"):
        load_clip(MODEL, path)


def test_random_and_tagged_weights_are_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights) -> None:
    tag = {"file": str(bare(tmp_path, without(weights, math.nan))), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, {"here": tag})
    with pytest.raises(ModelError, match=r"weights 'here' are damaged: 2 values in visual\.conv1"):
        load_clip(MODEL, "here")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_narrow_weights_are_widened(kind: torch.dtype, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    narrow = {key: value.to(kind) if value.is_floating_point() else value for key, value in weights.items()}
    clip = load_clip(MODEL, safetensors(tmp_path, narrow))
    assert clip.text_projection.dtype == torch.float32
    assert torch.equal(clip.text_projection, narrow["text_projection"].float())


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_number(kind: torch.dtype, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    other = {**weights, "text_projection": weights["text_projection"].to(kind)}
    name = str(kind).removeprefix("torch.")
    with pytest.raises(ModelError, match=rf"text\.text_projection is of {name}, and must be of floating point numbers"):
        load_clip(MODEL, bare(tmp_path, other))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 605143\n", "Git LFS .*git lfs pull"),
        (b"\n <!DOCTYPE html>\n<html>", "a web page in the place of the weights"),
        (b"<html lang=en>", "a web page in the place of the weights"),
        (b"", "the file is empty"),
    ],
)
def test_what_stands_in_the_place_of_weights(content: bytes, says: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        load_clip(MODEL, tmp_path / f"w{suffix}")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_of_tensors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ModelError, match="it is no regular file"):
        load_clip(MODEL, tmp_path / "pipe.pt")
    for content in ({}, [torch.zeros(1)], {"state_dict": {}}, {"epoch": 3}):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(ModelError, match="it holds other things than tensors by their names, or nothing"):
            load_clip(MODEL, tmp_path / "w.pt")
    torch.save({"vision_model.embeddings.class_embedding": torch.zeros(8)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="it has the names of transformers' CLIP; take open_clip's"):
        load_clip(MODEL, tmp_path / "w.pt")


def test_the_architecture_that_weights_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights) -> None:
    """Of those whose number of parameters is near, the ones of exactly these shapes."""
    from flora_secure.model.pretrained import weights as module

    asked = list[int]()

    def near(values: int) -> list[str]:
        asked.append(values)
        return ["tiny", "RN50", MODEL]

    monkeypatch.setattr(module, "of_size", near)
    with pytest.raises(ModelError, match=r"do not fit model 'ViT-S-32': .*; they fit model.model small-resnet$"):
        load_clip("ViT-S-32", bare(tmp_path, weights))
    assert asked == [sum(value.numel() for value in weights.values())]


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16", "convnext_base", "coca_ViT-B-32"])
def test_the_table_of_sizes_finds_an_architecture(name: str) -> None:
    with torch.device("meta"):
        config = open_clip.get_model_config(name)
        values = sum(value.numel() for value in towers(config).state_dict().values())
    assert (name in of_size(values)) == (not name.startswith("coca"))  # whose decoder is counted nowhere
