"""The data sets by name, each split into the clients' images, a public slice and test images that never overlap.

| name | private | public | test |
|---|---|---|---|
| clothes | Fashion-MNIST train[0:20000] | train[50000:60000] | t10k[0:4000] |
| icons | icons of 157 sets | of Google's and MDI's | others of the same sets; or of unseen studios |
| fashion-mnist | train[0:50000] | train[50000:60000] | all of t10k |
| digits | scikit-learn's, two thirds | a sixth | a sixth |
| cifar10, cifar100 | train[0:40000] | train[40000:50000] | test |

The others are files, listed by the modules of `files`; docs/data.md has their layouts.

The public slice is what pretraining, the choice of hyper-parameters, the warm start and the control variate may see.
Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flora_secure.data.cache import ArrayCache
from flora_secure.data.class_names import TEMPLATES, odd_names, read_lines, read_templates, require_in_place
from flora_secure.data.dataset import Dataset
from flora_secure.data.embedded.icons import icons
from flora_secure.data.files.photographs import PHOTOGRAPHS
from flora_secure.data.files.samples import Naming, Sample, assemble, assemble_captioned
from flora_secure.data.files.shards import list_shards
from flora_secure.data.files.tables import list_table
from flora_secure.data.fixed import _fixed
from flora_secure.data.folders.listing import list_folder, require_folder
from flora_secure.data.folders.tree import lies_below
from flora_secure.data.images import EncodedFile
from flora_secure.data.labels import alike, read_by_list, some, whole
from flora_secure.data.notes import Notes
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.errors import DataError, did_you_mean
from flora_secure.planning.names import FIXED, GENERIC, data_sets, proposed
from flora_secure.planning.sections import Layout, Test

CLASS_FILE, TEMPLATE_FILE = "classnames.txt", "zeroshot_classification_templates.txt"  # as CLIP_benchmark has them


def load_dataset(
    name: str,
    data_root: str | Path | None = None,
    *,
    layout: Layout | None = None,
    class_names: str | Path | None = None,
    label_base: int | None = None,
    templates: str | Path | None = None,
    rendering: Rendering = PLAIN,
    cache: ArrayCache | None = None,
    test: Test = "default",
) -> Dataset:
    """The data set called `name`; `data_root` is where it lies ("icons", "clothes" and "digits" need none).

    `layout`: whether the folders of data set "folder" are classes or clients (`list_folder`). `class_names` and
    `templates` are files of one a line that take the place of the data set's own; `label_base` is the label that the
    first of the names is for, where labels are whole numbers. `rendering`: how the values of image files are shown.
    `cache` remembers which of them are damaged. `test`: which test images; but for "icons", data sets have one split of
    them.

    Raises DataError for an unknown name, a missing folder or files, files that are not what they should be, class names
    or templates for captions, which need neither, and a test split that the data set does not have.
    """
    root = None if data_root is None else Path(data_root)
    lines = None if class_names is None else read_lines(Path(class_names), "`data.class_names`")
    prompts = None if templates is None else read_templates(Path(templates))
    if test != "default" and name != "icons" and name in data_sets():
        raise DataError(f"`data.test` {test} is for data set icons; {name!r} has one test split: leave it out")
    if label_base is not None and name not in GENERIC and name in data_sets():
        raise DataError(f"data set {name!r} has class names of its own, in order: leave out `data.label_base`")
    if name in FIXED:
        if rendering != PLAIN:
            raise DataError(
                f"data set {name!r} holds 8-bit images that are never transparent: leave out `data.window` and "
                "`data.background`"
            )
        dataset = icons(test == "unseen-clients") if name == "icons" else _fixed(name, root)
        if lines is not None:
            require_in_place(lines, [(called,) for called in dataset.class_names], name)
            dataset = replace(dataset, class_names=lines, warnings=(*dataset.warnings, *odd_names(lines)))
        return dataset if prompts is None else replace(dataset, templates=prompts)
    notes = Notes()
    if name in PHOTOGRAPHS:
        kind = PHOTOGRAPHS[name]
        samples, naming = kind.listing(require_folder(root, name), notes)
        if lines is not None:
            assert naming.labels is not None
            known = zip(naming.names or naming.labels, naming.labels, strict=True)
            require_in_place(lines, [*known], name)
            naming = Naming(naming.labels, lines)
        return assemble(
            name, samples, naming, prompts or kind.templates, mirror=True, cache=cache, notes=notes, rendering=rendering
        )
    if name not in GENERIC:
        raise DataError(
            f"unknown `data.dataset` {name!r}: use one of {', '.join(data_sets())}{did_you_mean(name, data_sets())}"
        )
    folder = require_folder(root, name)
    beside = folder if folder.is_dir() else folder.parent
    asked = [
        option
        for option, given in (
            ("`data.class_names`", class_names),
            ("`data.label_base`", label_base),
            ("`data.templates`", templates),
        )
        if given is not None
    ]
    what, found = "`data.class_names`", list[str]()
    if lines is None and _lies_in(beside, CLASS_FILE):
        what = f"{CLASS_FILE} beside the data"
        lines = read_lines(beside / CLASS_FILE, "class name file")
        found.append(f"class names of {CLASS_FILE}")
    if prompts is None and _lies_in(beside, TEMPLATE_FILE):
        prompts = read_templates(beside / TEMPLATE_FILE)
        found.append(f"templates of {TEMPLATE_FILE}")
    if name == "folder":
        listing = list_folder(folder, layout=layout, notes=notes, least=2 if lines is None else 1)
    elif name == "table":
        listing = list_table(folder, notes=notes)
        _warn_of_elsewhere(beside, listing, notes)
    else:
        listing = list_shards(folder, lines, notes=notes)
    if not listing:
        raise DataError(
            f"`data.data_root` {str(folder)!r}: no image was found that data set {name!r} reads; "
            + proposed(folder, name)
            + notes.told()
        )
    _say_twins(listing, notes)
    if any(sample.caption for sample in listing):
        if asked:
            raise DataError(
                f"data set {name!r} has captions, which are used as they are: leave out {' and '.join(asked)}"
            )
        dataset = assemble_captioned(name, listing, cache=cache, notes=notes, rendering=rendering)
        return replace(dataset, read=notes.read)
    listing = _in_one_spelling(listing, notes)
    naming = Naming()
    if lines is not None:
        reading = read_by_list({sample.label for sample in listing}, lines, label_base, notes.warn, what)
        listing = [replace(one, label=reading.spelled.get(one.label, one.label)) for one in listing]
        naming = Naming(reading.labels, lines)
    elif label_base is not None:
        raise DataError(
            f"`data.label_base` {label_base} is the label that the first class name is for, and there are none: give "
            "them by `data.class_names`"
        )
    used = prompts or TEMPLATES
    dataset = assemble(name, listing, naming, used, mirror=False, cache=cache, notes=notes, rendering=rendering)
    return replace(
        dataset,
        warnings=(*dataset.warnings, *odd_names(dataset.class_names)),
        read=", ".join(filter(None, (notes.read, *found))),
    )


def _lies_in(folder: Path, name: str) -> bool:
    """Whether `folder` holds this file; a link to a file elsewhere does not count, since its lines would be told."""
    return (folder / name).is_file() and lies_below(folder / name, os.path.realpath(folder))


def _warn_of_elsewhere(folder: Path, listing: Sequence[Sample], notes: Notes) -> None:
    """A table says where its images lie, and may say anywhere; but who was given the table should know."""
    real = os.path.realpath(folder)
    paths = {sample.file.path for sample in listing if isinstance(sample.file, EncodedFile)}
    if outside := sum(not lies_below(path, real) for path in paths):
        notes.warn(
            f"{outside:,} of {len(paths):,} paths of the table lead out of its folder; they are read all the same"
        )


def _say_twins(samples: Sequence[Sample], notes: Notes) -> None:
    """Tells of clients that look like one: the budget of each covers a part of what may be one client's images."""
    clients = sorted({sample.client for sample in samples if sample.client is not None})
    if pairs := alike(clients):
        notes.warn(
            f"{len(pairs):,} of {len(clients):,} clients are named like another but for case, spaces, _, - or zeros "
            "before a number, and count as clients of their own"
        )


def _in_one_spelling(samples: Sequence[Sample], notes: Notes) -> list[Sample]:
    """The samples with labels that are whole numbers (03, 3.0) written as 3; two labels that become one are told."""
    spelled = {label: whole(label) or label for label in dict.fromkeys(sample.label for sample in samples)}
    padded: dict[str, list[str]] = {}
    for label, number in spelled.items():
        if "." not in label:
            padded.setdefault(number, []).append(label)
    if several := next((of for of in padded.values() if len(of) > 1), None):
        notes.warn(f"labels {some(sorted(several))} are one whole number, and so one class")
    return [replace(one, label=spelled[one.label]) for one in samples]
