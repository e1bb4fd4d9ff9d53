"""Weights with an adapter merged in, as a folder that plain open_clip loads.

open_clip reads `open_clip_config.json` and `open_clip_model.safetensors` from `local-dir:FOLDER`, and the files
of a tokenizer beside them where the configuration names one. CoCa's decoder, which embeds nothing, is left out.
"""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, SimpleTokenizer
from safetensors.torch import save_file

from flora_secure.errors import ConfigError
from flora_secure.model.clip import Clip
from flora_secure.model.pretrained.configuration import BESIDES_TOWERS, FOLDER_CONFIG
from flora_secure.model.pretrained.weights import FOLDER_FILES
from flora_secure.model.trained.folder import views_of
from flora_secure.records.adapter_card import AdapterCard
from flora_secure.records.durable import replace_folder
from flora_secure.records.report import Report


def export(card: AdapterCard, clip: Clip, report: Report | None, path: Path) -> None:
    """Write `clip`, into whose model the adapter of `card` is merged, as the new folder `path`.

    Whole or not at all. Raises ConfigError where `path` exists or cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"out {path} exists already; choose a new folder, nothing was overwritten")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".export-") as scratch:
            fresh = Path(scratch) / "export"
            fresh.mkdir()
            _write(card, clip, report, fresh)
            replace_folder(fresh, path)
    except OSError as error:
        raise ConfigError(f"out {path} cannot be written: {error.strerror or error}; choose another folder") from None


def _write(card: AdapterCard, clip: Clip, report: Report | None, folder: Path) -> None:
    config = _config(clip)
    _write_tokenizer(clip, config["text_cfg"], folder)
    table = {"model_cfg": config, "preprocess_cfg": _preprocess(clip)}
    (folder / FOLDER_CONFIG).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    weights = {name: value.detach().cpu().contiguous() for name, value in clip.model.state_dict().items()}
    save_file(weights, folder / FOLDER_FILES[0], {"format": "pt"})
    (folder / "card.json").write_text(card.to_json(), encoding="utf-8")
    (folder / "README.txt").write_text(_readme(card, report), encoding="utf-8")


def _config(clip: Clip) -> dict[str, Any]:
    """The architecture as open_clip's configuration says it: two towers, whose tokens nobody reads."""
    config = {key: deepcopy(value) for key, value in clip.config.items() if key not in BESIDES_TOWERS}
    for tower in ("vision_cfg", "text_cfg"):
        config[tower].pop("output_tokens", None)
    return {**config, "custom_text": True}


def _preprocess(clip: Clip) -> dict[str, Any]:
    return {
        "size": list(clip.image_size),
        "mode": "RGB",
        "mean": list(clip.mean),
        "std": list(clip.std),
        "interpolation": clip.shape.filter,
        "resize_mode": clip.shape.mode,
    }


def _write_tokenizer(clip: Clip, text: dict[str, Any], folder: Path) -> None:
    """The files from which `open_clip.get_tokenizer("local-dir:…")` makes the model's tokenizer, where it is not
    open_clip's own; `text` is told of them."""
    tokenizer = clip.tokenizer
    if isinstance(tokenizer, SimpleTokenizer) and tokenizer.vocab_size != SimpleTokenizer().vocab_size:
        _byte_pairs(tokenizer, folder)
        text.update(hf_tokenizer_name="of this folder", tokenizer_kwargs={"clean": "lower"})
    elif isinstance(tokenizer, HFTokenizer | SigLipTokenizer):
        tokenizer.tokenizer.save_pretrained(folder)
        text.setdefault("hf_tokenizer_name", "of this folder")


def _byte_pairs(own: SimpleTokenizer, folder: Path) -> None:
    """open_clip knows its byte pairs by one vocabulary of its own alone; the same as one of transformers' tokenizers.

    Its filler is the end of the text, not the zero: behind the end the text tower does not look.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    start, end = "<start_of_text>", "<end_of_text>"
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    pairs = models.BPE(own.encoder, merges, end_of_word_suffix="</w>")
    tokenizer = Tokenizer(pairs)
    words = Regex(r"(?i)'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ids = [(name, own.encoder[name]) for name in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ids)
    kind: Any = PreTrainedTokenizerFast  # whose constructor has no types
    fast = kind(tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=end)
    fast.save_pretrained(folder)


def _readme(card: AdapterCard, report: Report | None) -> str:
    views, prompts = views_of(card).count, len(card.templates)
    ensemble = (
        "The run embedded one view of an image"
        if views == 1
        else f"The run embedded {views} views of an image (mirror images: {card.mirror}; crops: {card.crops}), each "
        "normalised, and normalised their mean; these weights give the embedding of the one image they are shown"
    )
    ensemble += (
        ", and captions as they are."
        if card.captioned
        else f", and of a class the {prompts} prompts below, averaged before the projection and then normalised."
    )
    classes = (
        "The run trained on captions; there are no classes."
        if card.captioned
        else "Classes:\n"
        + "".join(f"  {name}\n" for name in card.class_names)
        + "Prompts:\n"
        + "".join(f"  {template}\n" for template in card.templates)
    )
    return f"""CLIP weights with an adapter of flora-secure merged in

Model       {card.model}, {card.pretrained or card.weights} weights; SHA-256 of its parameters before the adapter:
            {card.model_hash}
Adapter     {card.placement}, rank {card.rank}; SHA-256 of its adapter_model.safetensors:
            {card.adapter_hash}
Privacy     {_privacy(report)}

The adapter was trained by a federation. These weights follow from its released adapter and the public model alone, so
publishing them reveals no more about the clients' data than publishing the adapter does: the privacy statement of the
run (privacy.statement in its report.json) covers its released models and whatever is computed from them. It does not
cover the data that the model was pretrained on.

Use         model = open_clip.create_model("local-dir:FOLDER").eval()
            tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
{ensemble}
Cosines were multiplied by {card.logit_scale:g} in training; logit_scale of the weights is the pretrained model's.

{classes}
card.json says the same for programs. The licence of the model's own weights applies to these.
"""


def _privacy(report: Report | None) -> str:
    if report is None:
        return "not known here: exported from an adapter without its run's report"
    told = report.privacy
    if told.epsilon is None:
        return "NO DIFFERENTIAL PRIVACY: the run added no noise (epsilon = inf)"
    outsider = "inf" if told.epsilon_outsider is None else f"{told.epsilon_outsider:.4g}"
    line = (
        f"epsilon = {told.epsilon:.4g}, delta = {told.delta:g}, unit {told.unit}, in the server's view;\n"
        f"            epsilon = {outsider} for those who see only released models"
    )
    if not report.provenance.secret_noise:
        line += "\n            SIMULATED NOISE: it follows from the run's seed; whoever knows that can subtract it"
    return line
