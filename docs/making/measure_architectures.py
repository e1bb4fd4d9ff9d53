"""Re-create `flora_secure/assets/architectures.json`: `python docs/making/measure_architectures.py`.

Sizes of open_clip's architectures, so that `flora-secure plan` needs neither torch nor weights. Models are built
without memory for their parameters. Architectures whose text tower is one of transformers' are listed with its name on
Hugging Face's hub, where its shape is. Of CoCa it is the two towers that are measured, as they are used.
"""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from open_clip.model import CustomTextCLIP
from open_clip.transformer import VisionTransformer

from flora_secure.errors import AdapterError
from flora_secure.model.loading import hub_text_tower
from flora_secure.model.matrices import matrices_of
from flora_secure.model.pretrained.configuration import BESIDES_TOWERS
from flora_secure.planning.placements import PLACEMENTS

ROOT = Path(__file__).resolve().parents[2]


def measure(config: dict[str, object]) -> dict[str, int | None]:
    """Parameters of the whole model and its `flora_secure.planning.placements.Shapes`."""
    with torch.device("meta"):
        model = CustomTextCLIP(**{field: value for field, value in config.items() if field not in BESIDES_TOWERS})
    blocks, visual = model.text.transformer.resblocks, model.visual
    plain = isinstance(visual, VisionTransformer)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": model.text.width,
        "embed": model.text.output_dim,
        "layers": len(blocks),
        "mlp": blocks[0].mlp.c_fc.out_features,
        "visual_pooled": pooled_width(model),
        "visual_width": visual.transformer.width if plain else None,
        "visual_layers": len(visual.transformer.resblocks) if plain else None,
        **({} if model.text.text_projection is not None else {"projected": False}),
    }


def pooled_width(model: CustomTextCLIP) -> int | None:
    """Inputs of the matrix that ends the image tower; None where it ends otherwise."""
    try:
        return matrices_of(model, PLACEMENTS["visual-projection"])[0].inputs
    except AdapterError:
        return None


def main() -> None:
    embedded = json.loads((ROOT / "flora_secure/assets/tiny_clip/open_clip_config.json").read_text(encoding="utf-8"))
    found, unmeasured = {"tiny": measure(embedded["model_cfg"])}, {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if hub := hub_text_tower(config):
            unmeasured[name] = hub
        else:
            found[name] = measure(config)
    sizes, hubs = (
        ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(table.items()))
        for table in (found, unmeasured)
    )
    text = (
        f'{{\n "open_clip": "{open_clip.__version__}",\n "architectures": {{\n{sizes}\n }},\n'
        f' "unmeasured": {{\n{hubs}\n }}\n}}\n'
    )
    (ROOT / "flora_secure/assets/architectures.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
