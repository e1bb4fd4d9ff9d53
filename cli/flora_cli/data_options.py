"""Options of the data set, its classes and prompts, how it is dealt, and where features are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

Partition = Annotated[
    str | None, Option(help="iid, dirichlet:A, shards:K or natural.  [default: dirichlet:0.5]", metavar="SCHEME")
]
Dataset = Annotated[
    str | None,
    Option(
        help="embedded, fashion-mnist, digits, cifar10, cifar100, eurosat, oxford-pets, flowers102, food101, or "
        "files of your own: folder, table, webdataset.  [default: embedded]",
        metavar="NAME",
    ),
]
DataRoot = Annotated[Path | None, Option(help="Folder (or file) of the data set.")]
ClassNames = Annotated[Path | None, Option(help="File of class names, one a line, for the data set's own.")]
Templates = Annotated[
    Path | None, Option(help="File of prompt templates, one a line, {} for the name.  [default: the data set's]")
]
UnseenClasses = Annotated[
    str | None,
    Option(
        help="Classes that nothing trains on, to see what becomes of them; names separated by commas.",
        metavar="NAMES",
    ),
]
FeatureCache = Annotated[
    Path | None,
    Option(help="Folder that keeps image features between runs.  [default: ~/.cache/flora-secure]", metavar="DIR"),
]
NoFeatureCache = Annotated[bool, Option("--no-feature-cache", help="Keep no image features on disk.")]
