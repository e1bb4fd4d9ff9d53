"""The embedded icons: counts, clients, both test splits, no test image near a training image, and whose they are."""

from __future__ import annotations

import hashlib
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.embedded.icons import ICONS_FOLDER, NAMES
from flora_secure.data.embedded.packed import read_pack
from flora_secure.data.federation import load_federation
from flora_secure.data.passed.own import OwnData
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.planning.architectures import classes_of, own_clients, private_images
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.names import FIXED
from flora_secure.planning.sections import DataConfig, Test

MANIFEST = json.loads((ICONS_FOLDER / "manifest.json").read_text(encoding="utf-8"))
SETS = {one["prefix"]: one for one in MANIFEST["sets"]}
PACKAGE = Path(__file__).parents[2] / "node_modules" / "@iconify" / "json"
SPLITS = ("default", "unseen-clients")


@pytest.fixture(scope="module", params=SPLITS)
def icons(request: pytest.FixtureRequest) -> Dataset:
    return load_dataset("icons", test=request.param)


def names() -> list[str]:
    return lzma.decompress((ICONS_FOLDER / NAMES).read_bytes()).decode().splitlines()


def set_of(split: Split) -> np.ndarray:
    listed = names()
    return np.array([listed[place].partition(":")[0] for place in split.indices])


def test_the_shipped_files_are_the_manifests_and_small() -> None:
    files = [path for path in ICONS_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    for entry in MANIFEST["pieces"].values():
        assert hashlib.sha256((ICONS_FOLDER / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert set(MANIFEST["rendered_with"]) == {"cairosvg", "cairo"}


def test_counts_are_the_manifests_and_images_show_something() -> None:
    data = load_dataset("icons")
    assert len(data.class_names) == 20
    for name, split in (("private", data.private), ("public", data.public), ("test", data.test)):
        entry = MANIFEST["pieces"][name]
        assert split.images.shape == (entry["range"][1] - entry["range"][0], 28, 28)
        assert np.bincount(split.labels, minlength=20).tolist() == entry["classes"]
        assert min(entry["classes"]) >= 35
        assert split.images.mean((1, 2)).min() >= 3.5
    assert len(load_dataset("icons", test="unseen-clients").test) == MANIFEST["unseen_test_images"]


def test_clients_are_the_sets_and_the_public_ones_are_apart(icons: Dataset) -> None:
    assert icons.owners is not None
    assert len(set(icons.owners.names)) == len(icons.owners.names)
    assert np.array_equal(np.array(icons.owners.names)[icons.owners.of], set_of(icons.private))
    assert np.bincount(icons.owners.of).min() >= 8
    assert set(set_of(icons.public)) == set(MANIFEST["public_sets"])
    assert not set(icons.owners.names) & set(MANIFEST["public_sets"])


def test_test_images_are_of_the_clients_that_drew_them_or_of_none(icons: Dataset) -> None:
    assert icons.owners is not None
    of_test = icons.owners.of_test
    if of_test is None:
        assert not set(set_of(icons.test)) & set(icons.owners.names)
    else:
        assert np.array_equal(np.array(icons.owners.names)[of_test], set_of(icons.test))


def test_an_author_is_a_source_of_public_images(icons: Dataset) -> None:
    assert icons.public.sources is not None
    authors = [SETS[name]["author"] for name in set_of(icons.public)]
    pairs = set(zip(authors, icons.public.sources.tolist(), strict=True))
    assert len(pairs) == len(set(authors)) == len(set(icons.public.sources.tolist())) == 3
    some = icons.public.at(np.array([700, 3]))
    assert some.sources.tolist() == [icons.public.sources[700], icons.public.sources[3]]
    assert icons.private.sources is None


def test_a_set_has_at_most_twenty_images_of_a_class() -> None:
    pieces = read_pack(ICONS_FOLDER).values()
    cells = np.concatenate([piece.columns[0] * 20 + piece.labels for piece in pieces])
    assert np.bincount(cells).max() <= 20


def test_either_split_tests_what_it_says() -> None:
    same, unseen = (load_dataset("icons", test=test) for test in SPLITS)
    assert same.owners is not None
    assert unseen.owners is not None
    assert set(set_of(same.test)) <= set(same.owners.names)
    away = set(set_of(unseen.test))
    assert away == {prefix for prefix in same.owners.names if SETS[prefix]["author"] in MANIFEST["unseen_authors"]}
    assert set(unseen.owners.names) == set(same.owners.names) - away
    authors = {SETS[prefix]["author"] for prefix in (*unseen.owners.names, *MANIFEST["public_sets"])}
    assert len(MANIFEST["unseen_authors"]) == 26
    assert not authors & set(MANIFEST["unseen_authors"])
    assert same.data_hash != unseen.data_hash


def test_no_image_twice_and_none_of_the_test_near_one_of_training(icons: Dataset) -> None:
    from icon_pack.splits import is_near

    splits = (icons.private, icons.public, icons.test)
    assert len(set.union(*(split.digests() for split in splits))) == sum(map(len, splits))
    training = np.concatenate([icons.private.images, icons.public.images])
    some = np.random.default_rng(0).permutation(len(icons.test))[:150]
    assert not is_near(icons.test.images[some], training).any()


@pytest.mark.slow
def test_no_image_of_the_test_at_all_is_near_one_of_training(icons: Dataset) -> None:
    from icon_pack.splits import is_near

    assert not is_near(icons.test.images, np.concatenate([icons.private.images, icons.public.images])).any()


def test_what_near_means() -> None:
    from icon_pack.splits import is_near

    image = np.zeros((1, 4, 4), np.uint8)
    image[0, 0, :2] = 100, 200
    norm = np.hypot(100, 200)
    for change, near in ((int(norm / 4) - 1, True), (int(norm / 4) + 4, False)):
        other = image.copy()
        other[0, 3, 3] = change
        assert is_near(image, other).tolist() == [near]
        assert is_near(image, other[:, :, ::-1]).tolist() == [near]


def test_the_notice_names_every_set_with_its_licence() -> None:
    text = (ICONS_FOLDER / "NOTICE").read_text(encoding="utf-8")
    assert "rasterised to 28 × 28 grey" in text
    rows = {line.split(" | ")[0]: line.split(" | ")[1:4] for line in text.splitlines() if line.count(" | ") >= 4}
    held = {name.partition(":")[0] for name in names()}
    assert set(SETS) == held
    for prefix, one in SETS.items():
        assert rows[prefix] == [one["name"], one["author"], one["licence"]]
        licence = ICONS_FOLDER / "LICENSES" / f"{one['licence']}.txt"
        elsewhere = one["licence"] in {"Apache-2.0", "CC-BY-4.0", "CC-BY-3.0", "Unlicense"}
        assert elsewhere or licence.is_file()


def test_a_run_deals_them_as_they_are() -> None:
    federation = load_federation(DataConfig(), seed=0)
    assert federation.dataset.name == "icons"
    assert len(federation.clients) == len(SETS) - len(MANIFEST["public_sets"])
    assert (
        federation.image_counts[0]
        == MANIFEST["pieces"]["private"]["range"][1] - (MANIFEST["pieces"]["private"]["range"][0])
    )
    assert "20 classes" in federation.lines[0]


@pytest.mark.parametrize("test", SPLITS)
def test_a_plan_knows_without_the_images_what_a_run_finds(test: Test) -> None:
    """Of the default data set, so that `plan` plans what `simulate` runs."""
    config = override(RunConfig(), {"data.test": test})
    federation = load_federation(config.data, 0)
    assert (config.clients, config.partition) == (own_clients(config.data), "natural")
    assert (config.clients, private_images(config.data)) == (len(federation.clients), federation.image_counts[0])
    assert classes_of(config.data) == len(federation.dataset.class_names)
    settled = federation.settled(config)
    assert (settled.data.clients, settled.data.partition) == (config.clients, "natural")
    dealt = override(config, {"data.partition": "iid"})
    assert (dealt.clients, dealt.partition) == (len(load_federation(dealt.data, 0).clients), "iid") == (100, "iid")


def test_more_clients_than_there_are_and_too_few_for_all_classes_are_a_line() -> None:
    with pytest.raises(DataError) as caught:
        load_federation(DataConfig(clients=500), 0)
    assert str(caught.value) == (
        "data.clients 500, but the data set has 157 of its own: use 157, or deal the images anew by a data.partition "
        "such as iid"
    )
    assert len(load_federation(DataConfig(clients=500, partition="iid"), 0).clients) == 500
    federation = load_federation(DataConfig(clients=3), 0)
    data = federation.dataset
    lacking = [name for label, name in enumerate(data.class_names) if label not in data.private.labels]
    assert 1 <= len(lacking) <= 10
    assert data.warnings == (
        f"no client holds an image of {len(lacking)} of 20 classes ({', '.join(lacking)}), so that training only "
        "pushes them away: take more `data.clients`, or set them apart by `data.unseen_classes`",
    )
    assert f"warning: {data.warnings[0]}" in federation.lines
    apart = load_federation(DataConfig(clients=3, unseen_classes=tuple(lacking)), 0)
    assert not any("no client holds" in line for line in apart.dataset.warnings)


def test_a_class_with_test_images_alone_is_told() -> None:
    grey = [np.full((4, 4), value, np.uint8) for value in range(6)]
    private = {"one": [(grey[0], 0), (grey[1], 1)], "other": [(grey[2], 1)]}
    passed = OwnData(private=private, test=[(grey[3], 0), (grey[4], 2)], class_names=("a", "b", "c")).load()
    found = load_federation(DataConfig(dataset=passed.name), 0, passed=passed).dataset.warnings
    (line,) = [line for line in found if "no client holds" in line]
    assert line.startswith("no client holds an image of 1 of 3 classes (c), so that training only pushes them away: ")
    assert "data.clients" not in line  # more of them would not help


@pytest.mark.parametrize("name", [name for name in FIXED if name != "icons"] + ["folder", "food101"])
def test_other_data_sets_have_one_test_split(name: str) -> None:
    with pytest.raises(DataError, match=f"data.test unseen-clients is for data set icons; '{name}' has one"):
        load_dataset(name, test="unseen-clients")


def test_a_data_set_that_is_passed_has_its_own_test_images() -> None:
    item = [(np.zeros((4, 4), np.uint8), 0), (np.full((4, 4), 9, np.uint8), 1)]
    passed = OwnData(private=item, test=item, class_names=("a", "b")).load()
    config = DataConfig(dataset=passed.name, test="unseen-clients", partition="iid", clients=2)
    with pytest.raises(DataError, match=r"leave out data.test"):
        load_federation(config, 0, passed=passed)


def test_names_say_what_an_icon_shows() -> None:
    from icon_pack.concepts import CLASSES, concept_of

    def shown(name: str, prefix: str = "x", category: str | None = None) -> str | None:
        found = concept_of(prefix, category, name)
        return None if found is None else CLASSES[found[0]]

    assert shown("calendar-event-outline") == "calendar"
    assert shown("add-user") == "person"
    assert shown("magnifying-glass-plus") == "magnifying glass"
    assert shown("search-user") is None  # of two
    assert shown("keyboard") is None
    assert shown("key-return") is None  # strict: a key of a keyboard
    assert shown("settings-bluetooth") is None
    assert shown("gear-bluetooth") == "gear"
    assert shown("smiling-face-with-heart") is None  # the word does not lead, and a face is no mark
    assert shown("flag-france") is None
    assert shown("bell-pepper") is None
    assert shown("favorite", "ic") == "heart"
    assert shown("favorite") is None
    assert shown("phone", "fluent") is None
    drawings = [concept_of("x", None, name) for name in ("home-24-filled", "home-16-regular", "home-2", "home-add")]
    assert drawings[0] == drawings[1]
    assert len(set(drawings)) == 3


@pytest.mark.slow
@pytest.mark.skipif(not PACKAGE.is_dir(), reason="needs npm install --ignore-scripts @iconify/json@2.2.535")
def test_the_script_repeats_the_pack_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cairosvg")
    from icon_pack.rendering import versions
    from pack_icons import main

    if versions() != MANIFEST["rendered_with"]:
        pytest.skip(f"rendered with {MANIFEST['rendered_with']}, and here is {versions()}")
    monkeypatch.setattr("sys.argv", ["pack", "--package", str(PACKAGE), "--out", str(tmp_path)])
    main()
    for name in ("manifest.json", "private.xz", "public.xz", "test.xz", NAMES, "NOTICE"):
        assert (tmp_path / name).read_bytes() == (ICONS_FOLDER / name).read_bytes(), name
