"""The sections of a run's description that say what is trained on what: what each key may be, and which go together.

Those of privacy and aggregation are in `flora_secure.planning.protection`.

A field is a key of the TOML file, a keyword of `flora_secure.simulate` and, where it has one, a flag. `None` means
"derived from the rest". Bad values raise `ConfigError`: its message names key, value and remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flora_secure.errors import require, require_positive
from flora_secure.planning.names import ICONS, called_now, data_sets, models, partitions
from flora_secure.planning.options import SIMULATE, option
from flora_secure.planning.placements import PLACEMENTS

Placement = Literal[
    "text-projection",
    "text-attention",
    "text-attention-full",
    "text-mlp",
    "visual-projection",
    "both-projections",
    "visual-attention",
]
Layout = Literal["classes", "clients"]
Crops = Literal[1, 2, 4]
LabelBase = Literal[0, 1]
Rule = Literal["prompt-basis", "ab", "frozen-a", "alternate", "local-alternate"]
Precision = Literal["float32", "bfloat16"]
Test = Literal["default", "unseen-clients"]
WarmStart = Literal["none", "images", "labels"]

MOST_ROUNDS, MOST_CLIENTS = 100_000, 1_000_000  # what the accountants can count, in seconds
# where neither a person nor the data say otherwise; the default data set does
CLIENTS, PARTITION = 100, "dirichlet:0.5"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the clients hold."""

    dataset: str = option(
        ICONS,
        "--dataset",
        "A data set by name: icons, clothes, fashion-mnist, digits, cifar10, cifar100, eurosat, oxford-pets, "
        "flowers102, food101; or files of your own: folder, table, webdataset.",
        commands=(SIMULATE,),
        everyday=True,
        known=data_sets,
    )
    data_root: str | None = option(
        None, "--data-root", "Folder (or file) of the data set.", metavar="PATH", commands=(SIMULATE,), everyday=True
    )
    class_names: str | None = option(
        None,
        "--class-names",
        "File of class names, one a line.",
        metavar="PATH",
        derived="the data set's",
        commands=(SIMULATE,),
    )
    label_base: LabelBase | None = option(
        None,
        "--label-base",
        "The label that the first class name is for, where labels are whole numbers.",
        derived="0 where label 0 occurs and n is none of n names",
        commands=(SIMULATE,),
    )
    templates: str | None = option(
        None,
        "--templates",
        "File of prompt templates, one a line, {} for the name.",
        metavar="PATH",
        derived="the data set's",
        commands=(SIMULATE,),
    )
    window: str = option(
        "auto",
        "--window",
        "Values of image files that are black and white where they have more than 8 bits, such as 0:4095; image, each "
        "image's own least and greatest; or auto, by the kind of file.",
        metavar="LOW:HIGH",
        commands=(SIMULATE,),
        known=lambda: ("auto", "image"),
    )
    background: str = option(
        "black",
        "--background",
        "What transparent images show: black, white or #rrggbb.",
        metavar="COLOUR",
        commands=(SIMULATE,),
        known=lambda: ("black", "white"),
    )
    unseen_classes: tuple[str, ...] | None = option(
        None,
        "--unseen-classes",
        "Classes that nothing trains on, to see what becomes of them; names separated by commas.",
        metavar="NAMES",
        commands=(SIMULATE,),
    )
    layout: Layout | None = option(
        None,
        "--layout",
        "Of data set folder: whether the folders are classes, or clients with the classes inside.",
        metavar="KIND",
        derived="classes, where they cannot be clients",
        commands=(SIMULATE,),
    )
    test: Test = option(
        "default",
        "--test",
        "Test images: default, or unseen-clients (of studios that are no clients; data set icons).",
        metavar="SPLIT",
        commands=(SIMULATE,),
    )
    clients: int | None = option(
        None,
        "--clients",
        "Number of clients, at most 1,000,000, and 65,536 in one round of masks; of partition natural, so many of "
        "the data set's own.",
        derived="100, of partition natural all",
        everyday=True,
    )
    total_images: int | None = option(
        None,
        None,
        "Images of all clients together, of a real federation with unit example, where nobody has them in one place.",
        derived="the data's own",
    )
    partition: str | None = option(
        None,
        "--partition",
        "How images are dealt to clients: iid, dirichlet:A, shards:K, or natural (as the data set has them).",
        metavar="SCHEME",
        derived="natural where the data set has clients, else dirichlet:0.5 (captions: iid)",
        commands=(SIMULATE,),
        known=partitions,
    )

    @property
    def name(self) -> str:
        """The data set's name of today; `dataset` stays as it was written, since a run's hashes are of that."""
        return called_now(self.dataset)

    def __post_init__(self) -> None:
        names = self.unseen_classes
        require(
            names is None or (len(names) > 0 and all(names) and len(set(names)) == len(names)),
            "`data.unseen_classes` must name at least one class, and each once; got "
            + (", ".join(map(repr, names or ())) or "nothing"),
        )
        require(
            self.clients is None or self.clients >= 2,
            f"`data.clients` must be at least 2, since one client's sum is its own update; got {self.clients}",
        )
        require(
            self.clients is None or self.clients <= MOST_CLIENTS,
            f"`data.clients` must be at most {MOST_CLIENTS:,}, got {self.clients}",
        )
        require(
            self.total_images is None or self.total_images >= 2,
            f"`data.total_images` must be at least 2, got {self.total_images}",
        )
        require(
            self.layout != "classes" or self.partition != "natural",
            "`data.layout` classes has no clients, and `data.partition` natural takes the data set's own: choose one",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The frozen CLIP and where its adapter sits."""

    model: str = option(
        "tiny",
        "--model",
        "tiny (embedded), an open_clip architecture, or local-dir:FOLDER, as an open_clip folder describes it.",
        everyday=True,
        known=models,
    )
    pretrained: str | None = option(
        None,
        "--pretrained",
        "open_clip tag, local file or open_clip folder of the architecture, or none for random weights.",
        metavar="WEIGHTS",
        derived="the embedded model's own",
        commands=(SIMULATE,),
    )
    placement: Placement = option(
        "text-projection",
        "--placement",
        "Where LoRA sits: text-projection, text-attention (q, v), text-attention-full (q, k, v, out), text-mlp, "
        "visual-projection, both-projections or visual-attention.",
        metavar="PLACE",
    )
    rule: Rule | None = option(
        None,
        "--rule",
        "What trains: prompt-basis, frozen-a (B only), ab (both), alternate (in turn by round) or local-alternate (in "
        "turn by local step).",
        metavar="RULE",
        derived="prompt-basis, off the text projection frozen-a",
    )
    rank: int | None = option(None, "--rank", "LoRA rank.", derived="one for each class, off the text projection 4")
    alpha: float | None = option(None, "--alpha", "LoRA alpha: A B is added alpha ÷ rank times.", derived="the rank")
    last_layers: int | None = option(
        None, "--last-layers", "Adapt only the last so many blocks of the tower.", derived="all"
    )
    mirror: bool | None = option(
        None,
        "--mirror/--no-mirror",
        "Embed each image together with its mirror image.",
        derived="as the data set allows",
        commands=(SIMULATE,),
    )
    crops: Crops = option(
        1,
        "--crops",
        "1, 2 or 4 crops of each image embedded together: the whole image, also a little smaller, also a little lower "
        "and higher. More accurate, as much slower.",
        commands=(SIMULATE,),
    )

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"`model.rank` must be at least 1, got {self.rank}")
        require(
            self.placement == "text-projection" or self.rule != "prompt-basis",
            f"`model.rule` prompt-basis is for `model.placement` text-projection, not {self.placement}; use frozen-a "
            "or ab",
        )
        require_positive("model.alpha", self.alpha)
        require(
            self.last_layers is None or self.last_layers >= 1,
            f"`model.last_layers` must be at least 1, got {self.last_layers}",
        )
        require(
            self.last_layers is None or PLACEMENTS[self.placement].blocks,
            f"`model.last_layers` {self.last_layers} is for a `model.placement` in a tower's blocks, such as "
            f"text-attention; {self.placement} has one matrix a tower",
        )

    @property
    def trained_rule(self) -> str:
        """The rule's name: as given, or the placement's default."""
        return self.rule or PLACEMENTS[self.placement].rule

    def scale(self, rank: int) -> float:
        """What A B is multiplied by: alpha ÷ `rank`."""
        return 1.0 if self.alpha is None else self.alpha / rank


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Rounds, local steps and the server optimiser. Unit `example` takes one gradient a round."""

    rounds: int = option(20, "--rounds", "Training rounds, at most 100,000.", everyday=True)
    local_steps: int = option(3, None, "Local steps of a client in a round, each over all its images; unit client.")
    local_rate: float | None = option(None, None, "Local learning rate; unit client.", derived="the rule's")
    logit_scale: float = option(28.0, None, "What cosine similarities are multiplied by in the loss.")
    server_step: float | None = option(
        None, "--server-step", "Step of the server's FedAvgM.", derived="fitted to the noise", commands=(SIMULATE,)
    )
    server_momentum: float = option(0.5, "--server-momentum", "Momentum of the server's FedAvgM.", commands=(SIMULATE,))
    warm_start: WarmStart | None = option(
        None,
        "--warm-start",
        "What the adapter learns of public images before round 1: labels, images (self-training, without labels) or "
        "none.",
        metavar="KIND",
        derived="the best on held-out public images",
        commands=(SIMULATE,),
    )
    control_variate: float | None = option(
        None,
        None,
        "How much of what public images say about a client's class frequencies its gradient leaves out, 0 to 1.",
        derived="0 or 1, the better on held-out public images",
    )
    device: str = option(
        "cpu", "--device", "torch device.", metavar="DEVICE", commands=(SIMULATE,), known=lambda: ("cpu", "cuda")
    )
    precision: Precision = option(
        "float32",
        "--precision",
        "Of the products in towers that stay frozen: float32, or bfloat16 (mixed). All that trains is float32.",
        metavar="KIND",
        commands=(SIMULATE,),
    )

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"`training.rounds` must be at least 1, got {self.rounds}")
        require(self.rounds <= MOST_ROUNDS, f"`training.rounds` must be at most {MOST_ROUNDS:,}, got {self.rounds}")
        require(self.local_steps >= 1, f"`training.local_steps` must be at least 1, got {self.local_steps}")
        require(
            self.control_variate is None or 0 <= self.control_variate <= 1,
            f"`training.control_variate` must lie between 0 and 1, got {self.control_variate}",
        )
        for name in ("local_rate", "server_step", "logit_scale"):
            require_positive(f"training.{name}", getattr(self, name))
        require(
            0 <= self.server_momentum < 1,
            f"`training.server_momentum` must be at least 0 and below 1, got {self.server_momentum}",
        )
