"""What both pretrainings do around their training: options, the log, and the folder that they end in."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from pretrain.train import Recipe, Trainer


@dataclass(frozen=True)
class Session:
    """One pretraining as it was asked for. `work` has its checkpoint and its log, `out` gets its weights."""

    recipe: Recipe
    stop_at: int
    work: Path
    out: Path

    @classmethod
    def of(cls, parser: argparse.ArgumentParser, recipe: Recipe, work: Path, out: Path) -> tuple[Session, Any]:
        """The session of the command line, and all options; `work` and `out` are the defaults of theirs."""
        parser.add_argument("--stop-at", type=int, help="stop at this step with a checkpoint, to be continued")
        parser.add_argument("--seed", type=int, default=recipe.seed)
        parser.add_argument("--work", type=Path, default=work, help="checkpoint and log")
        parser.add_argument("--out", type=Path, default=out)
        parser.add_argument("--threads", type=int, default=2)
        options = parser.parse_args()
        recipe = replace(recipe, seed=options.seed)
        torch.set_num_threads(options.threads)
        torch.manual_seed(recipe.seed)
        for folder in (options.work, options.out):
            folder.mkdir(parents=True, exist_ok=True)
        return cls(recipe, min(recipe.steps, options.stop_at or recipe.steps), options.work, options.out), options

    @property
    def checkpoint(self) -> Path:
        """Where training goes on from."""
        return self.work / "checkpoint.pt"

    def log(self, record: Mapping[str, object]) -> None:
        """A line on the screen and in the log."""
        line = json.dumps(record)
        print(line, flush=True)
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write(self, trainer: Trainer, description: object, card: Mapping[str, object]) -> None:
        """The weights in float16, what open_clip builds them by, and how they were made."""
        state = trainer.model.state_dict()
        weights = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
        save_file(weights, self.out / "open_clip_model.safetensors", metadata={"format": "pt"})
        versions = {"python": platform.python_version(), "torch": torch.__version__, "open_clip": open_clip.__version__}
        whole = {"recipe": asdict(self.recipe), **card, "made_with": versions}
        for name, table in (("open_clip_config.json", description), ("pretraining.json", whole)):
            text = json.dumps(table, indent=2) + "\n"
            (self.out / name).write_text(text, encoding="utf-8", newline="\n")
