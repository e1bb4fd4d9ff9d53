"""Models whose text tower is one of Hugging Face's transformers: the placements that they have, and the others.

The towers are small ones of the kinds that open_clip's architectures name (RoBERTa, mT5's encoder, NLLB's), described
in local folders as the hub describes them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from federations import FEW, captioned, few_images, finish, prepare, small
from peft import PeftModel
from small_clip import CONFIG
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional as F  # noqa: N812
from transformers import M2M100Config, MT5Config, PreTrainedTokenizerFast, RobertaConfig, XLMRobertaConfig

from flora_secure.client.autograd import Autograd
from flora_secure.client.closed_form import ClosedForm
from flora_secure.data.federation import load_federation
from flora_secure.engine.summary import summarise
from flora_secure.errors import AdapterError
from flora_secure.model.clip import ModelError, class_prompts
from flora_secure.model.loading import load_clip
from flora_secure.model.tokenizers import cut_at_context

WORDS = tuple("a an photo picture image of digit the number one two 0 1 2 3 4 5 6 7 8 9".split())  # noqa: SIM905
ROBERTA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SIZES = {"vocab_size": 64, "max_position_embeddings": 40}
TOWERS = {
    "roberta": (RobertaConfig(**ROBERTA, **SIZES, pad_token_id=1), {"hf_pooler_type": "mean_pooler"}),
    "xlm-roberta": (
        XLMRobertaConfig(**ROBERTA, **SIZES, pad_token_id=1),
        {"hf_pooler_type": "cls_pooler", "hf_proj_type": "linear"},
    ),
    "mt5": (
        MT5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=1),
        {"hf_pooler_type": "mean_pooler"},
    ),
    "nllb": (
        M2M100Config(
            **SIZES, d_model=32, encoder_layers=2, encoder_ffn_dim=48, encoder_attention_heads=2, pad_token_id=1
        ),
        {"hf_pooler_type": "cls_pooler", "hf_proj_type": "linear"},
    ),
}


@pytest.fixture(scope="module", params=TOWERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an architecture with such a tower, known to open_clip from here on."""
    return added(request.param, tmp_path_factory.mktemp(request.param), **TOWERS[request.param][1])


def added(kind: str, folder: Path, **text: Any) -> str:
    hub = folder / "hub"
    TOWERS[kind][0].save_pretrained(hub)
    vocabulary = {word: place for place, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(hub)
    path = folder / f"small-{kind}.json"
    text = {"hf_model_name": str(hub), "hf_tokenizer_name": str(hub), "context_length": 12, **text}
    path.write_text(json.dumps({**CONFIG, "text_cfg": text}))
    open_clip.add_model_config(path)
    return path.stem


def require_the_saved_adapter_predicts_the_same(model: str, folder: Path, **changes: Any) -> None:
    settings = {"model__model": model, "model__pretrained": "none", **changes}
    task = few_images(**settings)
    assert isinstance(task.learner, Autograd if "model__placement" in changes else ClosedForm)
    simulation = finish(small(**FEW, **settings), task)
    assert float(simulation.factors.b.abs().max()) > 1e-4
    simulation.save_adapter(folder)
    report = summarise(simulation, total_seconds=1.0)
    assert report.communication.full_model_bytes > 4 * sum(p.numel() for p in task.clip.model.text.parameters())

    fresh, data = load_clip(model, "none"), task.federation.dataset
    assert fresh.model_hash == task.clip.model_hash  # random weights are the same in every run
    loaded = PeftModel.from_pretrained(fresh.model, str(folder))
    with torch.no_grad():
        prompts = class_prompts(data.class_names, data.templates)
        texts = torch.stack([loaded.encode_text(fresh.tokenizer(group)).mean(0) for group in prompts])
        images = loaded.encode_image(fresh.pixels(data.test.images))
    expected_texts, expected_images = task.evaluator.test(simulation.factors)
    torch.testing.assert_close(F.normalize(texts, dim=-1), expected_texts, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(F.normalize(images, dim=-1), expected_images, rtol=1e-3, atol=1e-4)


def test_the_projection_trains_and_its_saved_adapter_predicts_the_same(model: str, tmp_path: Path) -> None:
    require_the_saved_adapter_predicts_the_same(model, tmp_path, model__rule="ab", model__alpha=6.0)


@pytest.mark.parametrize("placement", ["both-projections", "visual-attention"])
def test_so_do_other_placements(placement: str, tmp_path: Path) -> None:
    name = added("mt5", tmp_path, **TOWERS["mt5"][1])
    require_the_saved_adapter_predicts_the_same(name, tmp_path / "adapter", model__placement=placement)


def test_captions_train(model: str) -> None:
    config = small(**FEW, model__model=model, model__pretrained="none", model__placement="text-projection")
    simulation = finish(config, prepare(config, captioned(load_federation(config.data, config.seed))))
    assert len(simulation.records) == 2
    assert float(simulation.factors.b.abs().max()) > 1e-4


@pytest.mark.parametrize("placement", ["text-attention", "text-mlp"])
def test_placements_inside_the_tower_are_refused(placement: str, model: str) -> None:
    with pytest.raises(AdapterError, match=f"placement {placement} knows the blocks of open_clip's own text towers"):
        few_images(model__model=model, model__pretrained="none", model__placement=placement)


def test_what_the_tokenizer_cuts_off_is_found(model: str) -> None:
    clip = load_clip(model, "none")
    tokens, cut = cut_at_context(clip.tokenizer, ["a photo", " ".join(["one"] * 10), " ".join(["one"] * 11)])
    assert tokens.shape == (3, 12)
    assert cut.tolist() == [False, False, True]


def test_without_a_projection_there_is_none_to_adapt(tmp_path: Path) -> None:
    """open_clip leaves it out where the tower is as wide as the embedding."""
    name = added("roberta", tmp_path, hf_proj_type=None)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "embed_dim": 32}))
    open_clip.add_model_config(path)
    with pytest.raises(ModelError, match="has no text projection to adapt"):
        few_images(model__model=name, model__pretrained="none")
    simulation = finish(
        small(**FEW, model__placement="visual-projection"),
        few_images(model__model=name, model__pretrained="none", model__placement="visual-projection"),
    )
    assert float(simulation.factors.b.abs().max()) > 1e-4


def test_cocas_contrastive_half(tmp_path: Path) -> None:
    """As coca_roberta-ViT-B-32: the hub's weights are not asked for, and embeddings are CoCa's own."""
    name = added("roberta", tmp_path, hf_pooler_type="cls_pooler", hf_proj_type="linear", output_tokens=True)
    path = tmp_path / f"{name}.json"
    config = json.loads(path.read_text())
    config["vision_cfg"]["output_tokens"] = True
    config["multimodal_cfg"] = {"context_length": 12, "vocab_size": 64, "width": 24, "heads": 2, "layers": 1}
    path.write_text(json.dumps({**config, "custom_text": True}))
    open_clip.add_model_config(path)
    clip = load_clip(name, "none")
    torch.manual_seed(0)
    whole = open_clip.create_model(name, pretrained_text=False).eval()
    tokens = clip.tokenizer(["a photo of the number one", "two"])
    with torch.no_grad():
        torch.testing.assert_close(clip.model.encode_text(tokens), whole.encode_text(tokens, normalize=False))
    assert np.isfinite(few_images(model__model=name, model__pretrained="none").initial.b.numpy()).all()


def test_a_tower_whose_shape_is_not_at_hand_is_named(tmp_path: Path) -> None:
    name = added("roberta", tmp_path)
    (tmp_path / "hub" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"the shape of its text tower is that of .* on Hugging Face's hub"):
        load_clip(name, "none")
