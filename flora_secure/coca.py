"""CoCa's contrastive half as a CLIP of two towers (Yu et al. 2022, arXiv 2205.01917).

CoCa trains an image and a text tower by contrast and, on top of both, a decoder that writes captions. Its embeddings
never see the decoder, so that the two towers alone are the model here.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP

BESIDES_TOWERS = ("custom_text", "multimodal_cfg")  # of open_clip's configurations


def contrastive_half(coca: CoCa, config: dict[str, Any]) -> CustomTextCLIP:
    """The towers, logit scale and logit bias of ``coca``, whose configuration ``config`` is; the decoder is left out.

    `encode_image` and `encode_text` give what they gave, but for CoCa's normalising them by default. The towers are
    shared and no longer return their tokens, so that ``coca`` is of no use afterwards.
    """
    towers = {field: value for field, value in config.items() if field not in BESIDES_TOWERS}
    towers["text_cfg"] = {**towers["text_cfg"], "hf_model_pretrained": False}  # nothing to download
    with torch.device("meta"):  # its own parameters are thrown away at once
        half = CustomTextCLIP(**towers)
    half.visual, half.text = coca.visual, coca.text
    half.visual.output_tokens = half.text.output_tokens = False
    half.logit_scale, half.logit_bias = coca.logit_scale, coca.logit_bias
    return half
