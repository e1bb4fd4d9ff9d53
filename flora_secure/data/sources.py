"""The data sets by name, each split into the clients' images, a public slice and test images that never overlap.

| name | private | public | test |
|---|---|---|---|
| embedded | Fashion-MNIST train[0:20000] | train[50000:60000] | t10k[0:4000] |
| fashion-mnist | train[0:50000] | train[50000:60000] | all of t10k |
| digits | scikit-learn's, two thirds | a sixth | a sixth |
| cifar10, cifar100 | train[0:40000] | train[40000:50000] | test |

The others are files, listed by the modules of `files`; docs/data.md has their layouts.

The public slice is what pretraining, the choice of hyper-parameters, the warm start and the control variate may see.
Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flora_secure.data.cache import ArrayCache
from flora_secure.data.class_names import TEMPLATES, odd_names, read_lines, read_templates, require_in_place
from flora_secure.data.dataset import Dataset
from flora_secure.data.files.folders import list_folder, require_folder
from flora_secure.data.files.photographs import PHOTOGRAPHS
from flora_secure.data.files.samples import Naming, Sample, assemble, assemble_captioned
from flora_secure.data.files.shards import list_shards
from flora_secure.data.files.tables import list_table
from flora_secure.data.fixed import _fixed
from flora_secure.data.labels import alike, read_by_list, some, whole
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError, did_you_mean
from flora_secure.planning.names import FIXED, GENERIC, data_sets

CLASS_FILE, TEMPLATE_FILE = "classnames.txt", "zeroshot_classification_templates.txt"  # as CLIP_benchmark has them


def load_dataset(
    name: str = "embedded",
    data_root: str | Path | None = None,
    *,
    natural: bool = False,
    class_names: str | Path | None = None,
    label_base: int | None = None,
    templates: str | Path | None = None,
    cache: ArrayCache | None = None,
) -> Dataset:
    """The data set called `name`; `data_root` is where it lies ("embedded" and "digits" need none).

    `natural`: the folders above the classes of data set "folder" are clients. `class_names` and `templates` are files
    of one a line that take the place of the data set's own; `label_base` is the label that the first of the names is
    for, where labels are whole numbers. `cache` remembers which image files are damaged. Raises
    DataError for an unknown name, a missing folder or files, files that are not what they should be, and class names or
    templates for captions, which need neither.
    """
    root = None if data_root is None else Path(data_root)
    lines = None if class_names is None else read_lines(Path(class_names), "`data.class_names`")
    prompts = None if templates is None else read_templates(Path(templates))
    if label_base is not None and name not in GENERIC and name in data_sets():
        raise DataError(f"data set {name!r} has class names of its own, in order: leave out `data.label_base`")
    if name in FIXED:
        dataset = _fixed(name, root)
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
        return assemble(name, samples, naming, prompts or kind.templates, mirror=True, cache=cache, notes=notes)
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
    if lines is None and (beside / CLASS_FILE).is_file():
        what = f"{CLASS_FILE} beside the data"
        lines = read_lines(beside / CLASS_FILE, "class name file")
        found.append(f"class names of {CLASS_FILE}")
    if prompts is None and (beside / TEMPLATE_FILE).is_file():
        prompts = read_templates(beside / TEMPLATE_FILE)
        found.append(f"templates of {TEMPLATE_FILE}")
    if name == "folder":
        listing = list(list_folder(folder, natural=natural, notes=notes))
    elif name == "table":
        listing = list_table(folder, notes=notes)
    else:
        listing = list_shards(folder, lines, notes=notes)
    _say_twins(listing, notes)
    if any(sample.caption for sample in listing):
        if asked:
            raise DataError(
                f"data set {name!r} has captions, which are used as they are: leave out {' and '.join(asked)}"
            )
        return replace(assemble_captioned(name, listing, cache=cache, notes=notes), read=notes.read)
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
    dataset = assemble(name, listing, naming, prompts or TEMPLATES, mirror=False, cache=cache, notes=notes)
    return replace(
        dataset,
        warnings=(*dataset.warnings, *odd_names(dataset.class_names)),
        read=", ".join(filter(None, (notes.read, *found))),
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
