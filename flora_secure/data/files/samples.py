"""From a list of encoded images with labels or captions, however it was stored, to a data set of images that can be
used.

Every loader of files lists `Sample` objects and leaves the rest to `assemble` or
`assemble_captioned`: labels become numbers, bad images are found and left out, images without a split are split.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from flora_secure.data.cache import ArrayCache, cache_key
from flora_secure.data.checking import Finding, check, tell
from flora_secure.data.dataset import Dataset, Owners, Split
from flora_secure.data.files.decoding import digest, mapper
from flora_secure.data.files.pixels import readers, require_pillow
from flora_secure.data.images import EncodedImages, ImageFile
from flora_secure.data.labels import ordered
from flora_secure.data.notes import Notes
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.errors import DataError

NEEDS = ("private", "test")  # the parts without which a data set is none
TEST_SHARE = 5  # one in so many becomes a test image where the data set has none
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
        *(".avif", ".heic", ".heif", ".dcm", ".dicom"),
    )
)
_SPLITS = {
    "train": "private", "training": "private", "private": "private",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
    "public": "public",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """An image as listed, with a label or else a caption, the other being "". `split`: "private", "public", "test",
    "val" or `None`; see `split_named`."""

    file: ImageFile
    label: str
    client: str | None = None
    split: str | None = None
    caption: str = ""


@dataclass(frozen=True)
class Naming:
    """How labels are read. `labels`: every label that counts, in the order of the classes (`None`: those that occur);
    `names`: what prompts call them (`None`: the labels themselves)."""

    labels: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None


def split_named(text: str) -> str | None:
    """The split that a folder or a table calls `text` ("train", "val", …), `None` for no such name."""
    return _SPLITS.get(text.strip().lower())


def assemble(
    name: str,
    samples: Iterable[Sample],
    naming: Naming,
    templates: tuple[str, ...],
    *,
    mirror: bool,
    cache: ArrayCache | None,
    notes: Notes | None = None,
    rendering: Rendering = PLAIN,
    needs: Collection[str] = NEEDS,
) -> Dataset:
    """The data set of all samples that can be used.

    Left out, and counted by reason: labels outside `naming.labels`, files that are missing, empty, no image, damaged
    or of more than `pixels.MOST_PIXELS` pixels. Every such file is decoded once to its end; `cache` remembers what
    came out. Where no sample is a test image, those of "val" are, else one in five of each client (of each class,
    where no client is named), by a fixed seed and never the last one, each with all its copies; with test images,
    "val" joins the public slice. Where `needs` has no "test", none becomes one: these are the images of one party.
    Raises DataError where no private or no test image, if it `needs` them, or only one class is left.
    """
    require_pillow()
    notes = Notes() if notes is None else notes
    listed = _listed(name, samples, notes)
    order = naming.labels if naming.labels is not None else ordered({sample.label for sample in listed})
    admitted = {label: index for index, label in enumerate(order)}
    known = [sample for sample in listed if sample.label in admitted]
    for sample in listed:
        if sample.label not in admitted:
            notes.skip("label outside the class list", f"{sample.file.name}: {sample.label}")
    usable, hashes = _usable(name, known, rendering, cache, notes)
    if naming.labels is None:
        # a class of which nothing can be used is no class
        present = {sample.label for sample in usable}
        for label in order:
            if label not in present:
                notes.skip("class without a usable image", label)
        order = tuple(label for label in order if label in present)
        admitted = {label: index for index, label in enumerate(order)}
    names = order if naming.names is None else naming.names
    if len(names) < 2:
        held = f" ({names[0]!r}, {len(usable):,} images)" if names else ""
        raise DataError(
            f"data set {name!r} has {len(names)} class(es){held} with a usable image: at least 2 are needed"
            + notes.told()
        )

    labels = np.array([admitted[sample.label] for sample in usable], np.int64)
    images = EncodedImages(tuple(sample.file for sample in usable), hashes, rendering)
    whole = Split(images, labels, name, np.arange(len(usable)))
    where = _placed(usable, labels.tolist(), whole.distinct[1], divided="test" in needs)
    private, public, test = _splits(whole, where, len(listed), notes, needs)
    owners = _owners([usable[i] for i in private.indices], [usable[i] for i in test.indices], listed, notes)
    return Dataset(
        name, private, public, test, tuple(names), templates, mirror, owners, notes.skipped(), notes.warnings()
    )


def assemble_captioned(
    name: str,
    samples: Iterable[Sample],
    *,
    cache: ArrayCache | None,
    notes: Notes | None = None,
    rendering: Rendering = PLAIN,
) -> Dataset:
    """The captioned data set of all samples that can be used: pairs, several of one image where it has several
    captions.

    As `assemble`, without labels and classes. Images without a split are split as images, so that none has
    captions on two sides; all that have no client are one group.
    """
    require_pillow()
    notes = Notes() if notes is None else notes
    listed = _listed(name, samples, notes)
    # a file is read, decoded and, if it is bad, counted once, however many captions it has
    distinct = [*{sample.file: sample for sample in listed}.values()]
    once, found = _usable(name, distinct, rendering, cache, notes)
    row = {sample.file: place for place, sample in enumerate(once)}
    usable = [sample for sample in listed if sample.file in row]
    hashes = found[[row[sample.file] for sample in usable]]
    whole = Split(
        EncodedImages(tuple(sample.file for sample in usable), hashes, rendering),
        np.zeros(len(usable), np.int64),
        name,
        np.arange(len(usable)),
        tuple(sample.caption for sample in usable),
    )
    where = _placed(usable, [0] * len(usable), whole.distinct[1], divided=True)
    private, public, test = _splits(whole, where, len(listed), notes, NEEDS)
    owners = _owners([usable[i] for i in private.indices], [usable[i] for i in test.indices], listed, notes)
    told = notes.skipped(), notes.warnings()
    return Dataset(name, private, public, test, (), (), False, owners, *told)


def _listed(name: str, samples: Iterable[Sample], notes: Notes) -> list[Sample]:
    """The samples whose texts are Unicode: names of folders may be other bytes, and JSON may hold half a character."""
    listed = []
    for sample in samples:
        try:
            "".join((sample.label, sample.client or "", sample.caption)).encode()
        except UnicodeEncodeError:
            notes.skip("label, client or caption that is no Unicode", sample.file.name)
        else:
            listed.append(sample)
    if not listed:
        raise DataError(f"data set {name!r}: no image was found; see docs/data.md for the layout{notes.told()}")
    return listed


def _usable(
    name: str, samples: Sequence[Sample], rendering: Rendering, cache: ArrayCache | None, notes: Notes
) -> tuple[list[Sample], NDArray[np.uint8]]:
    """The samples whose images can be decoded, and their SHA-256, uint8 (n, 32)."""
    with ThreadPoolExecutor() as pool:  # reading and hashing let other threads run
        digests = list(pool.map(lambda sample: digest(sample.file), samples))
    found = np.frombuffer(b"".join(one or bytes(32) for one in digests), np.uint8).reshape(-1, 32)
    key = cache_key("checked images", 2, readers(), rendering, found.tobytes().hex())
    known = None if cache is None else cache.get(key, len(samples), "U")
    if known is not None:
        findings = [Finding.from_text(text) for text in known.tolist()]
    else:
        with mapper(len(samples)) as over:
            findings = [*over(partial(check, rendering=rendering), (sample.file for sample in samples))]
        # what cannot be read today may be there tomorrow, with the same (empty) hash
        if cache is not None and None not in digests:
            cache.put(key, np.array([finding.to_text() for finding in findings], dtype=np.str_))
    tell(name, [(sample.file.name, one) for sample, one in zip(samples, findings, strict=True)], rendering, notes)
    good = np.flatnonzero([not finding.damage for finding in findings])
    return [samples[i] for i in good.tolist()], found[good]


def _splits(
    whole: Split, where: NDArray[np.str_], listed: int, notes: Notes, needs: Collection[str]
) -> tuple[Split, Split, Split]:
    """Private, public and test part of `whole`; DataError where it `needs` private or test images and has none."""
    private, public, test = (
        whole.at(np.flatnonzero(where == which).astype(np.int64)) for which in ("private", "public", "test")
    )
    for part, what in ((private, "private"), (test, "test")):
        if what in needs and len(part) == 0:
            different = len(whole.digests())
            copies = f", of which {different:,} differ" if different < len(whole) else ""
            why = "; one in five images of a class, and never its only one, is a test image where none are given"
            raise DataError(
                f"data set {whole.origin!r} has no usable {what} image left ({listed:,} listed{copies})"
                f"{why if what == 'test' else ''}{notes.told()}"
            )
    return private, public, test


def _placed(
    samples: Sequence[Sample], classes: Sequence[int], images: NDArray[np.int64], *, divided: bool
) -> NDArray[np.str_]:
    """Where each sample goes: "private", "public" or "test". `images` int64 (n,): which image it shows; samples of one
    image go to one place unless their own splits differ. `divided`: test images are needed, whoever names them."""
    given = [sample.split for sample in samples]
    if "test" in given or not divided:
        return np.array([{"val": "public", None: "private"}.get(split, split) for split in given], dtype="<U7")
    if "val" in given:
        return np.array([{"val": "test", None: "private"}.get(split, split) for split in given], dtype="<U7")
    where = np.array(["public" if split == "public" else "private" for split in given], dtype="<U7")
    group_of: dict[int, Hashable] = {}  # an image belongs to the first that has it
    for place, sample in enumerate(samples):
        if where[place] == "private":
            group_of.setdefault(int(images[place]), classes[place] if sample.client is None else sample.client)
    groups: dict[Hashable, list[int]] = {}
    for image, group in group_of.items():
        groups.setdefault(group, []).append(image)
    rng = np.random.default_rng(0)  # the same test images whatever the seed of a run
    drawn = [rng.permutation(members)[: len(members) // TEST_SHARE] for members in groups.values()]
    where[(where == "private") & np.isin(images, np.concatenate([np.empty(0, np.int64), *drawn]))] = "test"
    return where


def _owners(private: Sequence[Sample], test: Sequence[Sample], listed: Sequence[Sample], notes: Notes) -> Owners | None:
    if nobodys := sum(sample.client is None for sample in private):
        if nobodys < len(private):
            notes.warn(
                f"clients are ignored: {nobodys:,} of {len(private):,} private images name none; name a client for "
                "every one, or for none"
            )
        return None
    present = {str(sample.client) for sample in private}
    for client in sorted({s.client for s in listed if s.client is not None and s.split != "test"} - present):
        notes.skip("client without a usable private image", client)
    names = tuple(sorted(present))
    position = {client: index for index, client in enumerate(names)}
    of, of_test = (
        np.array([-1 if one.client is None else position.get(str(one.client), -1) for one in part], np.int64)
        for part in (private, test)
    )
    return Owners(names, of, of_test if (of_test >= 0).any() else None)
