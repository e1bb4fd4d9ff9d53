"""Whose the images are where nobody says it: the data set's own clients, all of them; and what is left out is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from images import write
from listings import lines, skipped

import flora_secure
from flora_secure.data.federation import Federation, load_federation
from flora_secure.errors import ConfigError, DataError
from flora_secure.planning.config import RunConfig, from_toml, load_config, override
from flora_secure.planning.sections import DataConfig


def table(folder: Path, clients: list[str], column: str = "label") -> Path:
    """Five images for each of `clients`, the last of each a test image."""
    rows = []
    for place, client in enumerate(clients):
        for i in range(5):
            name = f"{place}-{i}.png"
            write(folder / name, 100 * place + i, "PNG")
            rows.append(f"{name},{'dog' if i % 2 else 'cat'},{client},{'test' if i == 4 else 'train'}")
    return lines(folder / "table.csv", f"path,{column},client,split", *rows)


def federation(path: Path, **settings: object) -> Federation:
    return load_federation(DataConfig(dataset="table", data_root=str(path), **settings), 0)  # type: ignore[arg-type]


def test_natural_is_taken_where_the_data_name_clients(tmp_path: Path) -> None:
    found = federation(table(tmp_path, [f"c{i:03}" for i in range(123)]))
    assert (found.partition, len(found.clients)) == ("natural", 123)
    assert found.lines[1] == "partition natural: the data set says which of its 123 clients holds each image"
    assert found.dataset.warnings == ()
    assert found.dataset.skipped == ()


def test_all_clients_take_part_unless_a_number_is_given_and_the_others_are_counted(tmp_path: Path) -> None:
    path = table(tmp_path, [f"c{i:03}" for i in range(123)])
    assert len(federation(path, partition="natural").clients) == 123
    found = federation(path, partition="natural", clients=100)
    assert len(found.clients) == 100
    left_out = skipped(found.dataset)
    assert left_out["client that was not drawn"][0] == 23
    count, images = left_out["image of a client that was not drawn"]
    assert (count, len(found.dataset.private)) == (92, 400)
    gone = set(left_out["client that was not drawn"][1])
    assert {f"c{int(name.partition('-')[0]):03}" for name in images} == gone


def test_a_clients_test_images_are_known_where_the_data_name_it(tmp_path: Path) -> None:
    """Those of clients that take no part are nobody's, and dealt anew nothing is anybody's."""
    path = table(tmp_path, ["a", "b", "c", "d"])
    found = federation(path, partition="natural", clients=3)
    data, own = found.dataset, found.own_tests
    assert own is not None
    assert [len(part) for part in own] == [1, 1, 1]
    for mine, part in zip(found.clients, own, strict=True):
        (holder,) = {data.private.name(place).partition("-")[0] for place in mine.tolist()}
        assert [data.test.name(place) for place in part.tolist()] == [f"{holder}-4.png"]
    assert len(data.test) == 4
    assert federation(path, partition="iid", clients=2).own_tests is None


def test_test_images_of_clients_without_others_are_nobodys(tmp_path: Path) -> None:
    for place in range(8):
        write(tmp_path / f"{place}.png", place, "PNG")
    kinds = ["cat", "dog", "cow"]
    rows = [f"{i}.png,{kinds[i % 3]},{'ab'[i % 2] if i < 7 else 'z'},{'test' if i > 3 else 'train'}" for i in range(8)]
    path = lines(tmp_path / "table.csv", "path,label,client,split", *rows)
    found = federation(path, partition="natural")
    assert found.own_tests is not None
    assert [part.tolist() for part in found.own_tests] == [[0, 2], [1]]
    assert found.dataset.owners is not None
    assert found.dataset.owners.of_test is not None
    assert found.dataset.owners.of_test.tolist() == [0, 1, 0, -1]
    apart = federation(path, partition="natural", unseen_classes=("dog",)).own_tests  # images 4 and 7
    assert apart is not None
    assert [part.tolist() for part in apart] == [[1], [0]]


def test_another_partition_says_that_clients_are_ignored(tmp_path: Path) -> None:
    path = table(tmp_path, ["a", "b", "c"])
    found = federation(path, partition="iid", clients=2)
    assert found.dataset.warnings[0].startswith("the 3 clients that the data set has are ignored, since partition iid")
    assert found.partition == "iid"
    with pytest.raises(DataError, match=r"data\.clients 5, but the data set has 3 of its own: use 3, or deal"):
        federation(path, clients=5)


def test_a_single_client_is_no_federation(tmp_path: Path) -> None:
    path = table(tmp_path, ["a", "a"])
    found = federation(path, clients=2)
    assert found.partition == "dirichlet:0.5"
    assert found.dataset.warnings == ("all images are of one client: dirichlet:0.5 deals them",)
    with pytest.raises(DataError, match=r"natural: all images are of one client, and a federation has two at least"):
        federation(path, partition="natural")


def test_clients_of_some_images_are_none_and_that_is_said(tmp_path: Path) -> None:
    found = federation(table(tmp_path, ["a", "b", ""]), clients=2)
    assert found.partition == "dirichlet:0.5"
    assert found.dataset.warnings == (
        "clients are ignored: 4 of 12 private images name none; name a client for every one, or for none",
    )


def test_captions_are_dealt_iid_by_default(tmp_path: Path) -> None:
    found = federation(table(tmp_path, [""] * 3, "caption"), clients=4)
    assert found.partition == "iid"
    assert found.lines[1] == "partition iid: captions have no labels to deal by"
    (tmp_path / "own").mkdir()
    natural = federation(table(tmp_path / "own", ["a", "b", "c"], "caption"))
    assert (natural.partition, len(natural.clients)) == ("natural", 3)


def test_a_config_is_settled_by_the_data(tmp_path: Path) -> None:
    path = table(tmp_path, ["a", "b", "c"])
    config = override(RunConfig(), {"data.dataset": "table", "data.data_root": str(path)})
    found = load_federation(config.data, 0).settled(config)
    assert (found.clients, found.partition) == (3, "natural")
    assert from_toml(found.to_toml()) == found
    again = load_federation(found.data, 0)
    assert again.settled(found) == found
    assert not [line for line in again.lines if line.startswith("partition")]  # now it is given
    given = override(config, {"data.clients": 2, "data.partition": "shards:02"})
    assert load_federation(given.data, 0).settled(given) == given
    with pytest.raises(ConfigError, match=r"aggregation\.threshold must lie in 2…3 \(the clients of a round\), got 4"):
        load_federation(config.data, 0).settled(override(config, {"aggregation.threshold": 4}))


def test_a_config_without_choices_is_the_one_that_it_was() -> None:
    """Runs that give clients and partition, and runs on data without clients, keep their digest."""
    assert load_federation(DataConfig(dataset="digits"), 0).settled(
        override(RunConfig(), {"data.dataset": "digits"})
    ) == override(RunConfig(), {"data.dataset": "digits", "data.clients": 100, "data.partition": "dirichlet:0.5"})
    text = override(RunConfig(), {"data.clients": 100, "data.partition": "dirichlet:0.5"}).to_toml()
    assert '\nclients = 100\npartition = "dirichlet:0.5"\n' in text
    assert "layout" not in text


def test_the_run_folder_holds_what_was_taken(tmp_path: Path) -> None:
    path = table(tmp_path, [f"c{i}" for i in range(4)])
    run = flora_secure.simulate(
        dataset="table", data_root=path, rounds=1, secagg="off", epsilon=50, out=tmp_path / "run", cache=False
    )
    config = load_config(tmp_path / "run" / "config.toml")
    assert (config.clients, config.data.partition) == (4, "natural")
    assert run.report.data.partition == "natural"
    assert run.report.aggregation.clients == 4
    assert run.report.provenance.config_hash == config.digest
