"""Settings that somebody has set and that do nothing in the run: refused, with the other setting and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

import flora_secure
from flora_secure.errors import ConfigError
from flora_secure.planning.config import _IDLE, from_toml
from flora_secure.planning.names import proposed

EXAMPLE, OFF, IMAGES = "[privacy]\nunit = 'example'", "[aggregation]\nsecagg = 'off'", "[model]\nplacement = "
CASES = [
    ("[data]\ndata_root = 'x'", "data.data_root x is not read by data.dataset icons, which ships"),
    ("[data]\ndataset = 'digits'\ndata_root = 'x'", "data.data_root x is not read by data.dataset digits"),
    ("[data]\nlayout = 'classes'", "data.layout classes is for data.dataset folder, not icons"),
    ("[data]\ndataset = 'table'\nlayout = 'clients'", "data.layout clients is for data.dataset folder, not table"),
    ("[data]\ndataset = 'folder'\nlayout = 'classes'\npartition = 'natural'", "data.layout classes has no clients"),
    ("[model]\nrule = 'alternate'\n[training]\nrounds = 1", "model.rule alternate takes turns by round"),
    ("[model]\nrule = 'local-alternate'\n[training]\nlocal_steps = 1", "and with training.local_steps 1 the second"),
    (f"{EXAMPLE}\n[training]\nlocal_steps = 5", "training.local_steps 5 is for privacy.unit client"),
    (f"{EXAMPLE}\n[training]\nlocal_rate = 0.5", "training.local_rate 0.5 is for privacy.unit client"),
    (f"{EXAMPLE}\n[training]\ncontrol_variate = 0.5", "training.control_variate 0.5 is for privacy.unit client"),
    (
        f"{IMAGES}'text-mlp'\n[training]\nwarm_start = 'images'",
        "training.warm_start images is for model.placement text-projection",
    ),
    (f"{IMAGES}'text-mlp'\n[training]\ncontrol_variate = 0.5", "text-projection, not text-mlp: leave it out"),
    ("[privacy]\nepsilon = inf\ndelta = 1e-6", "privacy.delta 1e-06 is of a budget, and with privacy.epsilon inf"),
    ("[privacy]\nadaptive_clip = 0.5\n[training]\nrounds = 1", "and training.rounds is 1: set privacy.clip_norm"),
    (f"{OFF}\nmasking = 'counted'", "aggregation.masking counted is of masks, and with aggregation.secagg off"),
    (f"{OFF}\nneighbours = 8", "aggregation.neighbours 8 is of masks, and with aggregation.secagg off"),
    (f"{OFF}\nthreshold = 8", "aggregation.threshold 8 is of masks, and with aggregation.secagg off"),
    (f"{OFF}\nslots = 8", "aggregation.slots 8 is of masks, and with aggregation.secagg off"),
    (f"{OFF}\nsuite = 'x25519'", "aggregation.suite x25519 is of masks, and with aggregation.secagg off"),
    (
        f"{EXAMPLE}\n[evidence]\ncanaries = 5",
        "evidence.canaries 5 are clients, and privacy.unit example",
    ),
    (
        "[privacy]\nepsilon = inf\n[evidence]\ncanaries = 5",
        "evidence.canaries 5 measure noise, and with",
    ),
    (
        "[privacy]\nadaptive_clip = 0.5\n[evidence]\ncanaries = 5",
        "evidence.canaries 5 are longer than any clip norm, or zero",
    ),
    (
        "[aggregation]\nmasking = 'counted'\n[evidence]\ntranscript = true",
        "evidence.transcript True keeps the messages of masks, and aggregation.secagg semi-honest with",
    ),
    (
        "[participation]\nrate = 0.5\nsampling = 'fixed'\n[aggregation]\nslots = 2",
        "aggregation.slots 2 prepares rounds of one cohort, and participation.sampling fixed draws another one in each",
    ),
]


@pytest.mark.parametrize(("text", "says"), CASES)
def test_a_setting_without_effect_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_toml(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(caught.value.settings) >= 2  # its own, and that which makes it idle


def test_every_row_of_the_table_has_a_case() -> None:
    assert {key for key, _, _ in _IDLE} <= {says.split()[0] for _, says in CASES} | {
        f"{line.removesuffix(']')[1:]}.{following.split(' = ')[0]}"
        for text, _ in CASES
        for line, following in zip(text.split("\n"), text.split("\n")[1:], strict=False)
        if line.startswith("[")
    }


@pytest.mark.parametrize(
    "text",
    [
        "[data]\ndataset = 'folder'\ndata_root = 'x'\nlayout = 'clients'",
        f"{EXAMPLE}\n[training]\nlocal_steps = 3\ncontrol_variate = 0.0",  # the default; what happens anyway
        f"{IMAGES}'text-mlp'\n[training]\nwarm_start = 'none'\ncontrol_variate = 0.0",
        f"{OFF}\ncorrupt = 0.2\ndropout = 0.1",  # which size the noise
        "[privacy]\nepsilon = inf\nsimulation_noise = true",  # which draws cohorts and coins, too
        "[privacy]\nadaptive_clip = 0.5\nclip_norm = 0.2",  # where the norm begins
    ],
)
def test_what_has_an_effect_or_says_what_happens_stays(text: str) -> None:
    assert from_toml(from_toml(text).to_toml()) == from_toml(text)


def test_the_commands_switches_too(coarse, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"images 50 is for privacy\.unit example"):
        flora_secure.plan(images=50)
    assert flora_secure.plan(images=50_000, unit="example", rounds=2, epsilon=1.0).privacy.unit == "example"
    with pytest.raises(ConfigError, match=r"compare no-noise .* privacy\.epsilon inf is by itself"):
        flora_secure.simulate(epsilon=float("inf"), compare=["no-noise"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_data_set_is_proposed_by_what_lies_there(tmp_path: Path) -> None:
    def root(*names: str) -> Path:
        top = tmp_path / str(len([*tmp_path.iterdir()]))
        for name in names:
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).touch()
        return top

    assert proposed(root("cat/0.jpg", "dog/0.jpg")).endswith("`data.dataset` folder")
    assert proposed(root("train-000.tar")).endswith("`data.dataset` webdataset")
    assert proposed(root("train/000.tar", "test/000.tar")).endswith("`data.dataset` webdataset")
    top = root("labels.csv", "0.jpg")
    assert (
        proposed(top) == f"for the table in it, `data.dataset` table and `data.data_root` {str(top / 'labels.csv')!r}"
    )
    assert proposed(top / "labels.csv") == "a table is `data.dataset` table"
    assert proposed(root("cifar-10-batches-py/test_batch")).endswith("`data.dataset` cifar10")
    assert proposed(tmp_path / "nowhere") == "say what lies there by `data.dataset`: folder, table, webdataset"
    with pytest.raises(ConfigError, match=r"leave it out; folders of images are data\.dataset folder"):
        from_toml(f"[data]\ndata_root = {str(tmp_path / '0')!r}")


def test_what_clients_do_is_looked_at_when_they_are_known() -> None:
    """A data set of one's own may have more clients than the default."""
    run = from_toml("[data]\ndataset = 'folder'\n[aggregation]\nthreshold = 120")
    assert run.clients == 100
    with pytest.raises(ConfigError, match=r"threshold must lie in 2…100"):
        from_toml("[data]\ndataset = 'digits'\n[aggregation]\nthreshold = 120")
    assert from_toml("[data]\ndataset = 'digits'").partition == "dirichlet:0.5"
    assert from_toml("[aggregation]\nthreshold = 120").partition == "natural"


def test_a_plan_says_what_it_assumes(coarse) -> None:
    assert flora_secure.plan(clients=50, dataset="clothes").assumed == ()
    classes = "20 classes of data set icons, each of which adds to the adapter"
    assert flora_secure.plan(clients=50).assumed == (classes,)  # a person may have another data set in mind
    assert flora_secure.plan(clients=50, rank=10).assumed == ()
    assert dict(flora_secure.plan(dataset="clothes").rows())["assumed"] == "100 clients, since none were given"
    found = flora_secure.plan(unit="example", rounds=2, epsilon=1.0)
    assert found.aggregation.clients == 157
    assert found.assumed == (
        "157 clients of data set icons, since none were given",
        classes,
        "10,424 images of all clients of data set icons together",
    )
    away = flora_secure.plan(unit="example", rounds=2, epsilon=1.0, test="unseen-clients", corrupt=0)
    assert [line.split()[0] for line in away.assumed] == ["130", "20", "8,652"]
    given = flora_secure.plan(unit="example", rounds=2, epsilon=1.0, clients=130, images=8_652, corrupt=0)
    assert (given.assumed, given.privacy) == ((classes,), away.privacy)
    found = flora_secure.plan(dataset="folder", unit="example", rounds=2, epsilon=1.0).to_dict()["assumed"]
    assert found == [
        "100 clients, since none were given; a run takes as many as the data have of their own",
        "10 classes, each of which adds to the adapter",
        "20,000 images of all clients together",
    ]


@pytest.mark.parametrize("compare", [None, [1], 3])
def test_competitors_are_named_by_words(compare: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compare must be a list of names, got "):
        flora_secure.simulate(compare=compare, out=tmp_path / "run")
