"""Captions without labels: tables and shards become pairs, which are split, dealt, counted and hashed as such."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import encoded, write
from listings import lines, names, skipped, write_shard

from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset, Owners, Split
from flora_secure.data.federation import Federation, load_federation
from flora_secure.data.partitions import Dirichlet, Iid, Natural, Shards, partition_captioned
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError
from flora_secure.planning.sections import DataConfig


def pairs(split: Split) -> list[tuple[str, str]]:
    assert split.captions is not None
    return list(zip(names(split), split.captions, strict=True))


def captioned_table(folder: Path, images: int = 20, captions: int = 3, extra: str = "") -> Path:
    """`captions` rows for each of `images`, by turns, so that an image's rows do not lie together."""
    for i in range(images):
        write(folder / f"{i}.jpg", i)
    rows = [f"{i}.jpg,view {j} of picture {i}" for j in range(captions) for i in range(images)]
    return lines(folder / "captions.csv", f"path,caption{extra and ','}{extra}", *rows)


# tables


def test_several_rows_of_an_image_are_several_pairs(tmp_path: Path) -> None:
    rows = ['a.jpg,"a cat, asleep",anna,train', "b.jpg,a dog,bert,train", "a.jpg,fur,anna,train", "c.jpg,7,,test"]
    for number, name in enumerate("abc"):
        write(tmp_path / f"{name}.jpg", number)
    path = lines(tmp_path / "t.csv", "path,caption,client,split", *rows)
    data = load_dataset("table", path)
    assert data.captioned
    assert pairs(data.private) == [("a.jpg", "a cat, asleep"), ("b.jpg", "a dog"), ("a.jpg", "fur")]
    assert pairs(data.test) == [("c.jpg", "7")]
    assert data.public.captions == ()
    assert (data.class_names, data.templates, data.mirror) == ((), (), False)
    assert data.private.labels.tolist() == [0, 0, 0]
    assert data.owners is not None
    assert data.owners.of.tolist() == [0, 1, 0]
    federation = load_federation(DataConfig(dataset="table", data_root=str(path), clients=2, partition="natural"), 0)
    assert [part.tolist() for part in federation.clients] == [[0, 2], [1]]
    assert federation.lines == [
        "data table: 2 private, 0 public, 1 test images with 3, 0 and 1 captions; 1 / 1 / 1 images a client "
        "(min, median, max)",
        "read 4 rows of the table",
    ]


def test_labels_win_over_captions(tmp_path: Path) -> None:
    for i in range(10):
        write(tmp_path / f"{i}.jpg", i)
    rows = [f"{i}.jpg,a caption,{'cat' if i % 2 else 'dog'}" for i in range(10)]
    data = load_dataset("table", lines(tmp_path / "t.csv", "path,caption,label", *rows))
    assert not data.captioned
    assert data.class_names == ("cat", "dog")
    assert data.private.captions is None


def test_no_image_has_captions_on_two_sides_of_a_split(tmp_path: Path) -> None:
    data = load_dataset("table", captioned_table(tmp_path))
    assert (len(data.private), len(data.test)) == (48, 12)
    assert not data.private.digests() & data.test.digests()
    assert len(data.test.distinct[0]) == 4
    assert pairs(load_dataset("table", tmp_path / "captions.csv").test) == pairs(data.test)


def test_one_in_five_images_of_each_client(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / f"{i}.jpg", i)
    rows = [f"{i}.jpg,caption {j},c{i % 2}" for i in range(20) for j in range(2)]
    data = load_dataset("table", lines(tmp_path / "t.csv", "path,caption,client", *rows))
    held = [int(name.removesuffix(".jpg")) % 2 for name in names(data.test)]
    assert sorted(held) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert not data.private.digests() & data.test.digests()


def test_rows_without_a_caption_and_bad_images_are_counted_once(tmp_path: Path) -> None:
    path = captioned_table(tmp_path)
    (tmp_path / "3.jpg").write_bytes(b"")
    path.write_text(path.read_text() + '0.jpg,\n0.jpg,"  "\n,no image\nabsent.jpg,a\nabsent.jpg,b\n')
    data = load_dataset("table", path)
    assert len(data.private) + len(data.test) == 57
    assert skipped(data) == {
        "row without a path or a caption": (3, ("row 61", "row 62", "row 63")),
        "empty file": (1, ("3.jpg",)),
        "cannot be read: No such file or directory": (1, ("absent.jpg",)),
    }


def test_parquet_with_lists_of_captions_is_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for i in range(5):
        write(tmp_path / f"{i}.jpg", i)
    rows = [f"{i}.jpg,{text} {i}" for i in range(5) for text in ("one", "two")]
    csv = load_dataset("table", lines(tmp_path / "t.csv", "path,caption", *rows))
    columns = {"path": [f"{i}.jpg" for i in range(5)], "caption": [[f"one {i}", "", f"two {i}"] for i in range(5)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    data = load_dataset("table", tmp_path / "t.parquet")
    assert pairs(data.private) == pairs(csv.private)
    assert data.data_hash == csv.data_hash


@pytest.mark.parametrize("options", [("class_names",), ("templates",), ("class_names", "templates")])
def test_class_names_and_templates_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = captioned_table(tmp_path)
    lines(tmp_path / "classnames.txt", "cat", "dog")  # what lies beside was not asked for
    assert load_dataset("table", path).captioned
    files = {option: lines(tmp_path / option, "the {}" if option == "templates" else "cat") for option in options}
    flags = " and ".join(f"data.{option}" for option in options)
    with pytest.raises(DataError, match=f"has captions, which are used as they are: leave out {flags}$"):
        load_dataset("table", path, **files)


def test_without_any_caption_there_is_no_data_set(tmp_path: Path) -> None:
    write(tmp_path / "0.jpg", 0)
    with pytest.raises(DataError, match="no image was found"):
        load_dataset("table", lines(tmp_path / "t.csv", "path,caption", "0.jpg,"))
    with pytest.raises(DataError, match=r"no usable test image left \(1 listed\)"):
        load_dataset("table", lines(tmp_path / "t.csv", "path,caption", "0.jpg,a"))


# shards


def test_shards_with_text_members_are_captioned(tmp_path: Path) -> None:
    members = [
        item
        for i in range(10)
        for item in ((f"{i}.jpg", encoded(i)), (f"{i}.txt", f"picture {i}\n\n view of {i} \n".encode()))
    ]
    odd = [("e.jpg", encoded(50)), ("e.txt", b" \n"), ("n.jpg", encoded(51))]
    data = load_dataset("webdataset", write_shard(tmp_path / "data.tar", [*members, *odd]))
    assert data.captioned
    assert sorted(pairs(data.private) + pairs(data.test)) == sorted(
        (f"data.tar/{i}.jpg", text) for i in range(10) for text in (f"picture {i}", f"view of {i}")
    )
    assert (len(data.private), len(data.test)) == (16, 4)
    assert skipped(data) == {"sample without a caption": (2, ("data.tar/e", "data.tar/n"))}


def test_shards_with_captions_in_json(tmp_path: Path) -> None:
    def about(i: int) -> bytes:
        caption: object = [f"one {i}", "", f"two {i}", None] if i % 2 else f"one\nline {i}"
        return json.dumps({"caption": caption, "client": i % 2}).encode()

    members = [item for i in range(10) for item in ((f"{i}.jpg", encoded(i)), (f"{i}.json", about(i)))]
    data = load_dataset("webdataset", write_shard(tmp_path / "data.tar", members))
    texts = {text for _, text in pairs(data.private) + pairs(data.test)}
    assert texts == {f"{n} {i}" for i in range(1, 10, 2) for n in ("one", "two")} | {
        f"one\nline {i}" for i in range(0, 10, 2)
    }
    assert data.owners is not None
    assert data.owners.names == ("0", "1")
    with pytest.raises(DataError, match=r"leave out data\.class_names"):
        load_dataset("webdataset", tmp_path / "data.tar", class_names=lines(tmp_path / "names", "one", "two"))


def test_one_label_makes_the_shards_labelled(tmp_path: Path) -> None:
    members = [item for i in range(10) for item in ((f"{i}.jpg", encoded(i)), (f"{i}.cls", str(i % 2).encode()))]
    data = load_dataset(
        "webdataset", write_shard(tmp_path / "d.tar", [*members, ("x.jpg", encoded(20)), ("x.txt", b"a\nb")])
    )
    assert not data.captioned
    assert skipped(data) == {"sample without a label": (1, ("d.tar/x",))}


# who holds what


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 13), st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_an_image_goes_to_one_client_with_all_its_captions(raw: list[int], clients: int, seed: int) -> None:
    order = list(dict.fromkeys(raw))
    images = np.array([order.index(i) for i in raw])
    if clients > len(order):
        with pytest.raises(DataError, match=f"clients {clients} for {len(order)} images"):
            partition_captioned(images, clients, Iid(), np.random.default_rng(seed))
        return
    parts = partition_captioned(images, clients, Iid(), np.random.default_rng(seed))
    held = [set(images[part].tolist()) for part in parts]
    assert sum(map(len, held)) == len(order) == len(set().union(*held))
    assert {len(one) for one in held} <= {len(order) // clients, -(-len(order) // clients)}
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(raw)))
    assert all(part.dtype == np.int64 and np.array_equal(part, np.sort(part)) for part in parts)


@pytest.mark.parametrize("scheme", [Dirichlet(0.5), Shards(2)])
def test_schemes_that_deal_by_label_are_refused(scheme: Dirichlet | Shards) -> None:
    with pytest.raises(DataError, match=f"partition {scheme} deals by label, and captions have none"):
        partition_captioned(np.arange(10), 2, scheme, np.random.default_rng(0))


def test_natural_keeps_pairs_and_leaves_out_clients(tmp_path: Path) -> None:
    images, owners = np.array([0, 1, 0, 2]), np.array([0, 0, 1, 2])
    parts = partition_captioned(images, 3, Natural(), np.random.default_rng(0), owners)
    assert [part.tolist() for part in parts] == [[0, 1], [2], [3]]

    rows = [f"{i}.jpg,caption {j} {i},c{i % 4},train" for i in range(12) for j in range(2)]
    for i in range(13):
        write(tmp_path / f"{i}.jpg", i)
    table = lines(tmp_path / "t.csv", "path,caption,client,split", *rows, "12.jpg,last,,test")
    config = DataConfig(dataset="table", data_root=str(table), clients=3, partition="natural")
    federation = load_federation(config, 0)
    private = federation.dataset.private
    assert len(private) == 18
    assert federation.image_counts == (9, 0, 1)
    assert all(text.endswith(f" {name.removesuffix('.jpg')}") for name, text in pairs(private))
    assert (federation.skew.minimum, federation.skew.maximum, federation.skew.mean_classes) == (3, 3, None)
    for part in federation.clients:
        assert len({int(names(private)[i].removesuffix(".jpg")) % 4 for i in part}) == 1


def test_iid_federation_of_a_table(tmp_path: Path) -> None:
    path = captioned_table(tmp_path)
    config = DataConfig(dataset="table", data_root=str(path), clients=4, partition="iid")
    federation = load_federation(config, 0)
    assert federation.lines[0] == (
        "data table: 16 private, 0 public, 4 test images with 48, 0 and 12 captions; "
        "4 / 4 / 4 images a client (min, median, max)"
    )
    with pytest.raises(DataError, match=r"dirichlet:0\.5 deals by label"):
        load_federation(replace(config, partition="dirichlet:0.5"), 0)
    with pytest.raises(DataError, match="clients 17 for 16 images"):
        load_federation(replace(config, clients=17), 0)


# hash, cache and copies


def test_the_data_hash_sees_captions(tmp_path: Path) -> None:
    path = captioned_table(tmp_path)
    before = load_dataset("table", path).data_hash
    assert load_dataset("table", path).data_hash == before
    path.write_text(path.read_text().replace("view 2 of picture 7\n", "view 2 of picture 8\n"))
    assert load_dataset("table", path).data_hash != before


def test_hashes_of_labelled_data_sets_stay() -> None:
    """As they were before there were captions: a run that began then goes on."""
    split = Split(np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.array([0, 1, 1]), "x", np.arange(3))
    data = Dataset("x", split, split.at(np.arange(0)), split, ("a", "b"), ("{}",), False, Owners(("o",), np.zeros(3)))
    assert data.data_hash == "b7ff4f57dc1cdf35f76442e341ae6ac41351d424d86a2b1f6165b23ac7564911"
    empty = replace(data, private=replace(split, captions=("", "", "")), class_names=())
    other = replace(empty, private=replace(split, captions=("", '", "', "")))
    assert len({data.data_hash, empty.data_hash, other.data_hash}) == 3


def test_verdicts_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = captioned_table(tmp_path)
    (tmp_path / "3.jpg").write_bytes(b"none")
    cache = ArrayCache(tmp_path / "cache", lambda line: pytest.fail(line))
    first = load_dataset("table", path, cache=cache)
    monkeypatch.setattr("flora_secure.data.files.samples.check", lambda *_, **__: pytest.fail("decoded again"))
    second = load_dataset("table", path, cache=cache)
    assert first.data_hash == second.data_hash
    assert first.skipped == second.skipped != ()


def test_distinct_images_by_content(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1), ("c", 0), ("d", 2)):
        write(tmp_path / f"{name}.jpg", seed)
    order = ["b", "a", "c", "b", "d", "a"]
    data = load_dataset("table", lines(tmp_path / "t.csv", "path,caption,split",
                                       *(f"{name}.jpg,{i},train" for i, name in enumerate(order)),
                                       "d.jpg,x,test"))  # fmt: skip
    images, which = data.private.distinct
    assert [file.name for file in images.files] == ["b.jpg", "a.jpg", "d.jpg"]  # type: ignore[union-attr]
    assert which.tolist() == [0, 1, 1, 0, 2, 1]
    pixels = np.array([[[1]], [[0]], [[1]]], np.uint8)
    of_pixels = Split(pixels, np.zeros(3, np.int64), "x", np.arange(3)).distinct
    assert np.array_equal(of_pixels[0], pixels[:2])
    assert of_pixels[1].tolist() == [0, 1, 0]


def test_a_split_with_too_few_captions_is_a_bug() -> None:
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        Split(np.zeros((2, 1, 1), np.uint8), np.zeros(2, np.int64), "x", np.arange(2), ("a",))


def test_federation_of_labelled_images_counts_every_image() -> None:
    split = Split(np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1]), "x", np.arange(4))
    data = Dataset("x", split, split.at(np.arange(0)), split.at(np.arange(2)), ("a", "b"), ("{}",), False)
    assert Federation(data, [np.arange(4)]).image_counts == (4, 0, 2)
