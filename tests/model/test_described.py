"""What no shape shows of weights: the model is the one that a tag or a folder's configuration means, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg
from safetensors.torch import save_file

from flora_secure.errors import ModelError
from flora_secure.model.clip import Clip
from flora_secure.model.loading import load_clip
from flora_secure.model.pretrained.configuration import described_by_tag

SMALL: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49_408, "width": 16, "heads": 2, "layers": 2},
}
TEXTS = ["a photo of a dog", "It's a well-known THING; isn't it?", "café"]
NAME = "described"  # an architecture of open_clip's with the configuration above, and its twin


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("models")
    (folder / f"{NAME}.json").write_text(json.dumps(SMALL))
    (folder / f"{NAME}-quickgelu.json").write_text(json.dumps({**SMALL, "quick_gelu": True}))
    open_clip.add_model_config(folder)


def other(**changes: Any) -> dict[str, Any]:
    """The small configuration with changes; "text__heads" is a field of the text tower."""
    config = json.loads(json.dumps(SMALL))
    for key, value in changes.items():
        tower, _, field = key.partition("__")
        if field:
            config[f"{tower}_cfg"][field] = value
        else:
            config[key] = value
    return config


def folder_of(path: Path, config: dict[str, Any], **preprocess: Any) -> Path:
    """An open_clip folder with random weights that make activations matter."""
    path.mkdir()
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(3)
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    weights = {key: torch.randn(value.shape) * 0.3 if value.ndim > 1 else value + 0.2 * torch.randn(value.shape)
               for key, value in model.state_dict().items()}  # fmt: skip
    save_file({key: value.contiguous() for key, value in weights.items()}, path / "open_clip_model.safetensors")
    return path


def require_equal(clip: Clip, model: Any, tokenizer: Any) -> None:
    """Features of images and of texts, and the tokens of these."""
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    tokens = tokenizer(TEXTS)
    assert torch.equal(clip.tokenizer(TEXTS), tokens)
    model = model.eval()
    with torch.no_grad():
        pairs = [
            (clip.model.encode_image(clip.pixels(images)), model.encode_image(clip.pixels(images))),
            (clip.model.encode_text(tokens), model.encode_text(tokens)),
        ]
    for ours, theirs in pairs:
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


FIELDS = [
    {"text__no_causal_mask": True},
    {"text__heads": 4},
    {"text__pool_type": "last"},
    {"text__pool_type": "eos", "text__eos_id": 49_407},
    {"text__act_kwargs": {"approximate": "tanh"}},
    {"text__norm_kwargs": {"eps": 0.1}},
    {"vision__head_width": 4},
    {"vision__pool_type": "avg"},
    {"vision__norm_kwargs": {"eps": 0.1}},
    {"vision__act_kwargs": {"approximate": "tanh"}},
    {"vision__final_ln_after_pool": True, "vision__pool_type": "avg"},
    {"quick_gelu": True},
]


@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: next(iter(fields)))
def test_fields_that_change_no_shape(fields: dict[str, Any], tmp_path: Path) -> None:
    """By the folder the model is open_clip's own load of it; by the architecture's name it is refused."""
    folder = folder_of(tmp_path / "own", other(**fields))
    clip = load_clip(f"local-dir:{folder}")
    assert clip.warnings == ()
    source = f"local-dir:{folder}"
    require_equal(clip, open_clip.create_model(source), open_clip.get_tokenizer(source))
    key = min(fields).replace("__", "_cfg.")
    with pytest.raises(ModelError, match=rf"another model than '{NAME}': its {key} is .*; use model.model local-dir:/"):
        load_clip(NAME, folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"vision__attentional_pool": True, "vision__attn_pooler_queries": 4, "vision__attn_pooler_heads": 2},
        {"vision__ls_init_value": 0.1, "text__ls_init_value": 0.1},
        {"vision__no_ln_pre": True, "text__proj_bias": True, "text__context_length": 9},
        {"text__embed_cls": True, "custom_text": True},
        {"text__output_tokens": True, "vision__output_tokens": True},  # nobody reads the tokens
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_architectures_outside_the_list(fields: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "own", other(**fields))
    source = f"local-dir:{folder}"
    model = open_clip.create_model(source)
    if "text__output_tokens" in fields:
        model = open_clip.create_model(f"local-dir:{folder_of(tmp_path / 'plain', SMALL)}")
    require_equal(load_clip(source), model, open_clip.get_tokenizer(source))


def test_fields_that_change_nothing_are_no_difference(tmp_path: Path) -> None:
    same = other(vision__patch_dropout=0.5, vision__mlp_ratio=4, text__pad_id=0, vision__image_size=[16, 16])
    folder = folder_of(tmp_path / "own", same)
    clip, plain = load_clip(NAME, folder), load_clip(f"local-dir:{folder}")
    assert clip.model_hash == plain.model_hash
    assert (clip.name, plain.name) == (NAME, "local-dir:own")
    torch.save(clip.model.state_dict(), tmp_path / "w.pt")
    assert load_clip(NAME, tmp_path / "w.pt").model_hash == clip.model_hash


def test_a_hash_tells_models_of_the_same_tensors_apart(tmp_path: Path) -> None:
    torch.save(load_clip(NAME, "none").model.state_dict(), tmp_path / "w.pt")
    hashes = {load_clip(name, tmp_path / "w.pt").model_hash for name in (NAME, f"{NAME}-quickgelu")}
    assert len(hashes) == 2


def test_preprocessing_of_a_folder(tmp_path: Path) -> None:
    said = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "longest"}
    folder = folder_of(tmp_path / "own", SMALL, size=20, fill_color=0, mode="RGB", **said)
    clip = load_clip(f"local-dir:{folder}")
    theirs = open_clip.create_model(f"local-dir:{folder}").visual.preprocess_cfg
    assert (list(clip.mean), list(clip.std), clip.shape.filter, clip.shape.mode) == tuple(said.values())
    assert theirs["size"] == 16 or tuple(theirs["size"]) == clip.image_size
    assert clip.image_size == (16, 16)
    (line,) = clip.warnings
    assert "preprocess_cfg.size is 20, the image tower reads 16 × 16: took the tower's" in line
    bare = load_clip(f"local-dir:{folder_of(tmp_path / 'bare', SMALL)}")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'bare'}").visual.preprocess_cfg
    assert (bare.mean, bare.std) == (tuple(theirs["mean"]), tuple(theirs["std"]))


@pytest.mark.parametrize(
    ("preprocess", "says"),
    [
        ({"interpolation": "nearest"}, r"preprocess_cfg\.interpolation must be one of bicubic, .* got 'nearest'"),
        ({"resize_mode": "stretch"}, r"preprocess_cfg\.resize_mode must be one of"),
        ({"resize_mode": "longest", "fill_color": 128}, r"preprocess_cfg\.fill_color must be 0, .* got 128"),
        ({"mode": "L"}, r"preprocess_cfg\.mode must be one of RGB"),
        ({"std": [0.1, 0, 0.1]}, r"preprocess_cfg\.std must be positive"),
        ({"mean": [0.1, 0.2]}, r"preprocess_cfg\.mean must be three numbers"),
        ({"mean": "grey"}, r"preprocess_cfg\.mean must be three numbers"),
    ],
)
def test_preprocessing_that_cannot_be_respected(preprocess: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "own", SMALL)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": preprocess}))
    for model, weights in ((NAME, folder), (f"local-dir:{folder}", None)):
        with pytest.raises(ModelError, match=says):
            load_clip(model, weights)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (other(text__colour="red"), r"text_cfg\.colour is unknown to open_clip"),
        (other(heads=3), r"model_cfg\.heads is unknown to open_clip"),
        (other(text_cfg=None), r"model_cfg\.text_cfg is missing"),
        (other(embed_dim="wide"), r"embed_dim must be a whole number"),
        (other(text__layers=10**9), r"layers 1000000000 is more than any model has"),
        (other(vision__width=2**40), r"width 1099511627776 is more than any model has"),
        (other(vision__timm_model_name="hf-hub:somebody/else"), r"timm_model_name 'hf-hub:somebody/else' is no arch"),
        (other(text__hf_model_name="./somebody"), r"hf_model_name './somebody' is no text tower of open_clip's"),
        (other(text__tokenizer_kwargs={"trust_remote_code": True}), r"tokenizer_kwargs\.trust_remote_code True is not"),
        (other(text__tokenizer_kwargs={"clean": "scrub"}), r"tokenizer_kwargs\.clean 'scrub' is not supported"),
        (other(text__vocab_size=4_014), r"tokenizer knows 49,408 tokens, its text tower 4,014"),
        (
            other(text__hf_tokenizer_name="somebody/else"),
            r"tokenizer 'somebody/else', whose files are not in the folder",
        ),
        (other(text__heads=3), r"cannot load weights .*own"),
        (other(text__pool_type="none"), r"the embedding of one text is \(1, 12, 24\), and must be 24 numbers"),
        (other(text__width=32), r"do not fit model .*shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_configurations_that_are_refused(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "own", SMALL)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ModelError, match=says) as caught:
        load_clip(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)


def test_a_folder_with_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    """That which is in it is used, under either name, and cleans texts as the configuration says."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    text = {"text__hf_tokenizer_name": "words", "text__vocab_size": 20, "text__pool_type": "first"}
    config = other(**text, text__tokenizer_kwargs={"clean": "canonicalize"})
    folder = folder_of(tmp_path / "own", config)
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "a", "photo", "of", "dog", "its", "thing", "café"])}
    own = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=own, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    source = f"local-dir:{folder}"
    clip = load_clip(source)
    require_equal(clip, open_clip.create_model(source), open_clip.get_tokenizer(source))
    assert clip.tokenizer(["A photo, of it's DOG"]).tolist() == [[2, 3, 4, 6, 5] + [0] * 7]
    damaged = folder / "tokenizer.json"
    damaged.write_text("{")
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        load_clip(source)


PAIRS = open_clip.list_pretrained()


class Recorded(torch.nn.Module):
    """In the place of open_clip's classes: what it would be built of."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config
        size = config["vision_cfg"].get("image_size", 224)
        self.visual = SimpleNamespace(image_size=(size, size) if isinstance(size, int) else tuple(size))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIP", "CustomTextCLIP", "CoCa"):
        monkeypatch.setattr(open_clip.factory, name, Recorded)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: "weights.pt")
    monkeypatch.setattr(open_clip.factory, "load_checkpoint", lambda *_, **__: {})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_tag_as_open_clip_takes_it(recorded: None) -> None:
    """Activation and preprocessing of each pair of architecture and tag are those of `create_model_and_transforms`; of
    the 27 whose tag was trained with QuickGELU and whose architecture has none, those of the architecture's twin."""
    twins = 0
    for model, tag in PAIRS:
        about = described_by_tag(model, tag)
        quick = bool(get_pretrained_cfg(model, tag).get("quick_gelu"))
        name = model
        if quick and not open_clip.get_model_config(model).get("quick_gelu"):
            name, twins = f"{model}-quickgelu", twins + 1
            assert about.warnings == (
                f"weights {tag!r} were trained with QuickGELU: {model} is built with it, as {name}",
            )
        else:
            assert about.warnings == ()
        theirs, _, _ = open_clip.create_model_and_transforms(name, pretrained=tag)
        want = theirs.visual.preprocess_cfg
        size = want["size"] if not isinstance(want["size"], int) else (want["size"],) * 2
        said, shape = about.preprocessing, about.preprocessing.shape
        assert bool(about.config.get("quick_gelu")) == bool(theirs.config.get("quick_gelu")), (model, tag)
        assert bool(theirs.config.get("quick_gelu")) >= quick, (model, tag)
        assert (said.mean, said.std) == (tuple(want["mean"]), tuple(want["std"])), (model, tag)
        assert (shape.filter, shape.mode, shape.size) == (want["interpolation"], want["resize_mode"], tuple(size))
        for tower in ("vision_cfg", "text_cfg"):
            flags = {"timm_model_pretrained", "hf_model_pretrained"}
            ours, built = about.config[tower], theirs.config[tower]
            assert {k: v for k, v in ours.items() if k not in flags} == {
                k: v for k, v in built.items() if k not in flags
            }, (model, tag)
    assert twins == sum(bool(described_by_tag(*pair).warnings) for pair in PAIRS) >= 27


def tagged(monkeypatch: pytest.MonkeyPatch, **tags: dict[str, Any]) -> None:
    usual = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash"}
    found = {name: {**usual, **tag} for name, tag in tags.items()}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, found)
    quick = {name: tag for name, tag in found.items() if tag.get("quick_gelu")}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, f"{NAME}-quickgelu", quick)


def test_a_tag_that_was_trained_with_the_other_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "w", SMALL)
    file = str(tmp_path / "w" / "open_clip_model.safetensors")
    tagged(monkeypatch, quick={"file": file, "quick_gelu": True}, plain={"file": file})
    clip = load_clip(NAME, "quick")
    assert clip.warnings == (
        f"weights 'quick' were trained with QuickGELU: {NAME} is built with it, as {NAME}-quickgelu",
    )
    require_equal(clip, open_clip.create_model(f"{NAME}-quickgelu", "quick"), open_clip.get_tokenizer(NAME))
    assert clip.config["quick_gelu"]
    named = load_clip(f"{NAME}-quickgelu", "quick")
    assert (named.warnings, named.model_hash) == ((), clip.model_hash)
    plain = load_clip(NAME, "plain")
    assert plain.warnings == ()
    assert plain.model_hash != clip.model_hash
    require_equal(plain, open_clip.create_model(NAME, "plain"), open_clip.get_tokenizer(NAME))
    with pytest.raises(ModelError, match=r"needs weights: model.pretrained TAG downloads them once \(plain, quick\)"):
        load_clip(NAME)  # the one of the architecture's own activation first


def test_what_is_assumed_of_a_bare_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged(monkeypatch, here={}, there={}, odd={"resize_mode": "shortest"})
    torch.save(load_clip(NAME, "none").model.state_dict(), tmp_path / "w.pt")
    clip = load_clip(NAME, tmp_path / "w.pt")
    assert clip.warnings == (
        "weights 'w.pt' do not say how they were trained; assumed: the activation GELU (weights of OpenAI, MetaCLIP or "
        f"DFN want QuickGELU: `model.model` {NAME}-quickgelu); images prepared as for the tags here, there (mean "
        "0.5 …, bicubic, squash), unlike odd. A folder with open_clip_config.json says it",
    )
    assert (clip.mean, clip.shape.mode) == ((0.5, 0.5, 0.5), "squash")
    assert load_clip(NAME, "none").warnings == ()
    tagged(monkeypatch)
    assert load_clip(f"{NAME}-quickgelu", tmp_path / "w.pt").warnings == ()  # whoever names it has chosen


def test_openais_own_format_has_quick_gelu(tmp_path: Path) -> None:
    state = open_clip.create_model(NAME).state_dict()
    sizes = {"input_resolution": torch.tensor(16), "context_length": torch.tensor(12), "vocab_size": torch.tensor(9)}
    torch.save({**{key: value.half() for key, value in state.items()}, **sizes}, tmp_path / "w.pt")
    clip = load_clip(NAME, tmp_path / "w.pt")
    assert clip.config["quick_gelu"]
    assert f"assumed: QuickGELU, since the file is OpenAI's (built as {NAME}-quickgelu)" in clip.warnings[0]
    assert load_clip(f"{NAME}-quickgelu", tmp_path / "w.pt").model_hash == clip.model_hash
