"""Class names and prompt templates of data sets whose files do not hold them, and such lists from files.

Names and templates are those of CLIP (https://github.com/openai/CLIP, data/prompts.md), Radford et al. 2021, arXiv
2103.00020, appendix A.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flora_secure.boundary.foreign import read_text
from flora_secure.data.labels import alike, likeness, some
from flora_secure.errors import DataError, ForeignError

TEMPLATES = ("a photo of a {}", "a {}", "an image of a {}", "a picture of a {}")
_LOOKS = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ", "small ", "big ")
CIFAR_TEMPLATES = tuple(f"a {look}photo of {article} {{}}." for look in _LOOKS for article in ("a", "the"))
EUROSAT_TEMPLATES = tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the "))
FLOWERS_TEMPLATES = ("a photo of a {}, a type of flower.",)
FOOD_TEMPLATES = ("a photo of {}, a type of food.",)
PETS_TEMPLATES = ("a photo of a {}, a type of pet.",)

# numbers, letters, WordNet's and other identifiers, "class_01", "no label" as tables have it, paths
_CODE = re.compile(
    r"[+-]?[0-9.,]+(e[+-]?[0-9]+)?|[a-z]|n[0-9]{8}|(?=.*[0-9])[0-9a-f-]{8,}|.*\\.*|.*\.(jpe?g|png|webp|tiff?|tar)|"
    r"(class|cls|label|category|cat|group|type|id|c|k|l)[ _-]?[0-9]+|nan|null|none|n/a|true|false",
    re.IGNORECASE,
)
_JOINED = re.compile(r"_|[a-z][A-Z]")

EUROSAT_CLASSES = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}
FLOWERS_CLASSES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold",
    "tiger lily", "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot",
    "king protea", "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily",
    "balloon flower", "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger",
    "grape hyacinth", "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william",
    "carnation", "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya",
    "cape flower", "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily",
    "poinsettia", "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion",
    "petunia", "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium",
    "orange dahlia", "pink-yellow dahlia", "cautleya spicata", "japanese anemone", "black-eyed susan",
    "silverbush", "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy",
    "gazania", "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus",
    "toad lily", "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow",
    "magnolia", "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove",
    "bougainvillea", "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper",
    "blackberry lily",
)  # fmt: skip


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """The lines of a UTF-8 file, stripped, empty ones left out. DataError where there are none or one comes twice."""
    try:
        lines = tuple(line.strip() for line in read_text(path).split("\n") if line.strip())
    except ForeignError as error:
        raise DataError(f"{what} {str(path)!r} cannot be read: {error}") from None
    if not lines:
        raise DataError(f"{what} {str(path)!r} is empty: one a line is needed")
    line, count = Counter(lines).most_common(1)[0]
    if count > 1:
        raise DataError(f"{what} {str(path)!r} lists {line!r} {'twice' if count == 2 else f'{count:,} times'}")
    return lines


def odd_names(names: Sequence[str]) -> list[str]:
    """Lines to warn a person with, about class names from which a text tower learns nothing, or other than meant."""
    told = []
    if codes := [name for name in names if _CODE.fullmatch(name) or not name.isprintable()]:
        told.append(
            f"{len(codes)} of {len(names)} class names, {some(codes)}, say nothing to a text tower, whose prompts are "
            f'such as "a photo of a {codes[0]}": give words by `data.class_names`'
        )
    if joined := [name for name in names if _JOINED.search(name) and name not in codes]:
        told.append(
            f"{len(joined)} of {len(names)} class names, {some(joined)}, are no words as a text tower knows them, and "
            "prompts have them as they are: `data.class_names` may list them with spaces"
        )
    if pairs := alike(names):
        one, other = pairs[0]
        more = f" and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        told.append(f"class names {one!r} and {other!r}{more} are two classes, and look like one")
    return told


def require_in_place(lines: Sequence[str], known: Sequence[Sequence[str]], name: str) -> None:
    """DataError unless `lines` can name the classes of data set `name` in their order: as many, and none that is what
    another class is called. `known`: what each class is called by the data set itself."""
    if len(lines) != len(known):
        raise DataError(f"`data.class_names` has {len(lines)} lines, data set {name!r} has {len(known)} classes")
    place_of = {likeness(one): place for place, called in enumerate(known) for one in called}
    for place, line in enumerate(lines):
        if (other := place_of.get(likeness(line), place)) != place:
            raise DataError(
                f"`data.class_names`, line {place + 1}: {line!r} would name {known[place][0]!r}, and is class "
                f"{other + 1} of data set {name!r}: list the classes in its order"
            )


def has_one_place(template: str) -> bool:
    """Whether a prompt template has one `{}` for the class's name, and no other braces."""
    rest = template.replace("{}", "", 1)
    return rest != template and not {*rest} & {*"{}"}


def read_templates(path: Path) -> tuple[str, ...]:
    """Prompt templates from a file, one a line, with `{}` (or `{c}`, as CLIP_benchmark writes it) for the name."""
    templates = tuple(line.replace("{c}", "{}") for line in read_lines(path, "`data.templates`"))
    for template in templates:
        if not has_one_place(template):
            raise DataError(f"`data.templates` {str(path)!r}: {template!r} needs one {{}} for the class's name")
    return templates
