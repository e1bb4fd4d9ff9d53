"""`flora_secure.simulate`, `plan` and `audit` as a program calls them, and docs/api.md as it is printed."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import ENVIRONMENT, flora_here
from PIL import Image
from torch.utils.data import Dataset

import flora_secure
from flora_secure.data.federation import load_federation
from flora_secure.errors import CheckpointError, ConfigError, DataError, RunFolderError
from flora_secure.planning.config import RunConfig, load_config
from flora_secure.planning.sections import DataConfig
from flora_secure.records.reading import read_run
from flora_secure.records.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
NAMES = ("zero", "one", "two")
# without the page, which takes longer to draw than the rounds
SMALL = {"rounds": 2, "corrupt": 0, "dropout_tolerance": 0, "epsilon": 8, "simulation_noise": True, "html": False}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


class Drawn(Dataset):
    """Squares of a class's own grey, as a map-style data set gives them."""

    def __init__(self, count: int, seed: int, kind: str = "pil", size: int = 24) -> None:
        self._pixels = np.random.default_rng(seed).integers(0, 60, (count, size, size), np.uint8)
        self._kind = kind

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[object, object]:
        pixels = self._pixels[index] + np.uint8(90 * (index % 3))
        label = index % 3
        match self._kind:
            case "pil":
                return Image.fromarray(pixels), label
            case "array":
                return pixels, np.int64(label)
            case "tensor":
                return torch.from_numpy(pixels)[None], torch.tensor(label)
            case _:
                return np.stack([pixels] * 3, -1), label


def own(kind: str = "pil", **more: object) -> flora_secure.OwnData:
    parts = {"private": {"a": Drawn(9, 1, kind), "b": Drawn(12, 2, kind)}, "test": Drawn(6, 3, kind)}
    return flora_secure.OwnData(**{**parts, "class_names": NAMES, **more})


def test_a_run_is_typed_and_its_folder_says_the_same(tmp_path) -> None:
    seen, lines = [], []
    run = flora_secure.simulate(
        dataset="digits",
        clients=8,
        **{**SMALL, "out": "run"},
        progress=lambda number, rounds, record: seen.append((number, rounds, record)),
        log=lines.append,
        cache=tmp_path / "cache",
    )
    assert isinstance(run, flora_secure.Run)
    assert [(number, rounds) for number, rounds, _ in seen] == [(1, 2), (2, 2)]
    assert tuple(record for _, _, record in seen) == run.records
    found = read_run(run.folder)
    assert (tuple(found.records), found.report) == (run.records, run.report)
    assert found.config.clients == 8
    assert (run.adapter / "adapter_config.json").is_file()
    said = [line.split()[0] for line in lines if not line.endswith("…")]
    assert said == ["data", "warning:", "warm", "control", "8"]
    assert list((tmp_path / "cache").iterdir())
    complete = flora_secure.simulate(resume="run", log=lines.append)
    assert complete.report == run.report
    assert lines[-1] == "the run in run is complete, nothing is left to do"
    audit = flora_secure.audit("run", opacus=False)
    assert audit.passed
    for shown in (run, audit, flora_secure.plan(clients=8)):
        html = shown._repr_html_()
        assert html.startswith("<table><caption>")
        assert "ε" in html
        assert "<script" not in html
    assert repr(run).startswith("<Run 'run': accuracy ")


def test_html_is_escaped() -> None:
    from flora_secure.records.report_table import html_table

    shown = html_table("<b>", [("a & b", "<script>"), ("  below", '"')])
    assert "<b>" not in shown
    assert "<script>" not in shown
    assert "a &amp; b" in shown


def test_keywords_override_a_file_and_a_config() -> None:
    config = RunConfig(data=DataConfig(clients=50))
    Path("run.toml").write_text(config.to_toml())
    for given in (config, "run.toml", Path("run.toml")):
        assert flora_secure.plan(given, participation=None).aggregation.clients == 50
        assert flora_secure.plan(given, clients=60).aggregation.clients == 60
    assert flora_secure.plan(noise_multiplier=5).privacy.noise_multiplier == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: flora_secure.simulate(epsilom=4), TypeError, "there is no option 'epsilom'; did you mean 'epsilon'?"),
        (lambda: flora_secure.plan(epsilon=4, noise_multiplier=3), TypeError, "either epsilon or noise_multiplier"),
        (lambda: flora_secure.simulate(resume="run", epsilon=4), TypeError, "leave out epsilon"),
        (lambda: flora_secure.simulate("x.toml", resume="run"), TypeError, "leave out config"),
        (lambda: flora_secure.simulate(resume="run", dataset="digits"), TypeError, "leave out dataset"),
        (lambda: flora_secure.simulate(resume="nowhere"), RunFolderError, "resume nowhere: there is no such run"),
        (lambda: flora_secure.simulate(epsilon=-1), ConfigError, "privacy.epsilon must be above 0"),
        (lambda: flora_secure.simulate(epsilon="four"), ConfigError, "privacy.epsilon must be of type float"),
        (lambda: flora_secure.simulate("none.toml"), ConfigError, "config none.toml cannot be read"),
        (lambda: flora_secure.simulate(dataset="cifar"), DataError, "did you mean 'cifar10'?"),
        (lambda: flora_secure.audit("nowhere"), RunFolderError, "nowhere"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(call, kind, says) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


def test_what_is_kept_is_said(monkeypatch) -> None:
    """A disk that is full after the first round."""
    write = RunFolder.append_round

    def once(self, record, *more) -> None:
        if record.round == 2:
            raise ConfigError("`out` is full")
        write(self, record, *more)

    monkeypatch.setattr(RunFolder, "append_round", once)
    with pytest.raises(ConfigError) as caught:
        flora_secure.simulate(dataset=own(), **SMALL, out="run", cache=False)
    assert caught.value.kept == "rounds 1 to 1 are kept in run"
    assert str(caught.value) == "out is full; rounds 1 to 1 are kept in run"


def test_an_interrupted_run_goes_on_with_the_same_data_only() -> None:
    def stop(number: int, *_: object) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(flora_secure.RunInterrupted) as caught:
        flora_secure.simulate(dataset=own(), **SMALL, out="run", cache=False, progress=stop)
    assert str(caught.value) == "interrupted in round 2; rounds 1 to 1 are kept in run"
    assert caught.value.folder == Path("run")
    assert caught.value.resumable
    again = "'own:data' was passed by the program that began the run, and is in no file: pass it again from Python"
    with pytest.raises(DataError, match=again):
        flora_secure.simulate(resume="run", cache=False)
    done = flora_here("simulate", "--resume", "run", cwd=Path.cwd())
    assert done.returncode == 2
    assert again in done.stderr
    with pytest.raises(CheckpointError, match="the data is not what the run began with"):
        flora_secure.simulate(resume="run", dataset=own(test=Drawn(6, 4)), cache=False)
    with pytest.raises(DataError, match=r"the run is of data\.dataset 'own:data', and 'own:other' was passed"):
        flora_secure.simulate(resume="run", dataset=own(name="other"), cache=False)
    run = flora_secure.simulate(resume="run", dataset=own(), cache=False)
    whole = flora_secure.simulate(dataset=own(), **SMALL, out="whole", cache=False)
    assert [r.accuracy for r in run.records] == [r.accuracy for r in whole.records]


def test_the_config_of_a_run_on_own_data_asks_for_them() -> None:
    flora_secure.simulate(dataset=own(), **SMALL, out="run", cache=False)
    config = load_config(Path("run/config.toml"))
    assert (config.data.dataset, config.clients, config.data.partition) == ("own:data", 2, "natural")
    done = flora_here("simulate", "--config", "run/config.toml", "--out", "again", cwd=Path.cwd())
    assert done.returncode == 2
    assert "data.dataset 'own:data' was passed by the program" in done.stderr
    with pytest.raises(DataError, match=r"has its own: leave out data\.templates"):
        flora_secure.simulate(config, dataset=own(), out="again", cache=False, templates="lines.txt")
    again = flora_secure.simulate(config, dataset=own(), out="again", cache=False)
    assert again.report.accuracy == flora_secure.simulate(resume="run").report.accuracy


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_pixels_are_the_same_however_they_come(kind: str) -> None:
    assert own(kind).load().data_hash == own().load().data_hash
    assert own("colour").load().data_hash != own().load().data_hash


def test_own_data_are_what_the_same_files_are(tmp_path) -> None:
    """The same images as files of a federated folder: the same clients, the same accuracy in every round."""
    sets = {"a": Drawn(9, 1, size=40), "b": Drawn(12, 2, size=31)}
    for top, parts in (("train", sets), ("test", {"": Drawn(6, 3)})):
        for client, items in parts.items():
            for place in range(len(items)):
                image, label = items[place]
                path = tmp_path / "images" / top / client / str(label) / f"{place:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    (tmp_path / "images" / "classnames.txt").write_text("\n".join(NAMES))
    passed = flora_secure.simulate(dataset=own(private=sets), **SMALL, cache=False)
    files = flora_secure.simulate(
        dataset="folder", data_root="images", partition="natural", clients=2, **SMALL, out="files", cache=False
    )
    assert [r.accuracy for r in passed.records] == [r.accuracy for r in files.records]
    assert passed.report.data.private_images == files.report.data.private_images == 21


def test_own_data_together_are_dealt() -> None:
    together = own(private=Drawn(30, 1))
    run = flora_secure.simulate(dataset=together, partition="iid", clients=3, **SMALL, out="run", cache=False)
    assert run.report.data.partition == "iid"
    assert run.report.data.client_minimum == 10
    with_public = own(public=Drawn(5, 9)).load()
    assert len(with_public.public) == 5
    assert with_public.owners is not None
    assert with_public.owners.names == ("a", "b")


def labelled(label: object, image: object = None) -> list[tuple[object, object]]:
    return [(np.zeros((4, 4), np.uint8) if image is None else image, label)]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"test": labelled(3)}, "test[0] has label 3: the 3 class names are numbered from 0"),
        ({"test": labelled(-1)}, "test[0] has label -1"),
        ({"test": labelled(0.5)}, "test[0] is no pair of an image and the place of its class, from 0"),
        ({"test": [1]}, "test[0] is no pair"),
        ({"private": {"a": Drawn(3, 1), "b": labelled(0, torch.zeros(3, 4, 4))}}, "client b[0] has an image of type"),
        ({"test": labelled(0, np.zeros((4, 4)))}, "without ToTensor or Normalize"),
        ({"test": labelled(0, np.zeros((3, 4, 4), np.uint8))}, "test[0] has an image of shape (3, 4, 4)"),
        ({"test": labelled(0, torch.zeros(4, 4, 3, dtype=torch.uint8))}, "has an image of shape (4, 4, 3)"),
        ({"test": labelled(0, np.zeros((0, 4), np.uint8))}, "test[0] has an image without pixels"),
        ({"test": labelled(0, "cat.jpg")}, "test[0] has an image of type str"),
        ({"test": []}, "data set 'data': test has no item"),
        ({"private": {"a": []}}, "client a has no item"),
        ({"private": {}}, "no usable private image"),
        ({"class_names": ("one", "two", "two")}, "class names must differ"),
        ({"templates": ("a photo",)}, "template 'a photo' needs one {}"),
        ({"name": "a/b"}, "the name of a data set is of letters"),
    ],
)
def test_what_no_data_set_can_hold_is_named(more, says) -> None:
    with pytest.raises(DataError) as caught:
        own(**more).load()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unseen_classes_of_own_data() -> None:
    data = own().load()
    config = DataConfig(dataset=data.name, clients=2, partition="natural", unseen_classes=("two",))
    federation = load_federation(config, 0, passed=data)
    assert federation.dataset.class_names == ("zero", "one")


def test_a_script_needs_no_guard_where_workers_decode(tmp_path) -> None:
    """More images than are decoded in the process itself: workers must not run the script once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\nimport flora_secure\nprint('begun')\n"
        "items = [(np.full((4, 4), i % 200, np.uint8), i % 2) for i in range(400)]\n"
        "data = flora_secure.OwnData({'a': items}, test=items[:2], class_names=['x', 'y']).load()\n"
        "print(len(data.private))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=ENVIRONMENT, timeout=100)
    assert done.stdout.split() == ["begun", "400"], done.stderr


def test_importing_the_package_is_light() -> None:
    program = (
        "import sys\nfor name in ('torch', 'numpy', 'typer', 'dp_accounting'): sys.modules[name] = None\n"
        "import flora_secure\nassert set(flora_secure.__all__) <= set(dir(flora_secure))\n"
        "print(len(flora_secure.RunConfig.__dataclass_fields__))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        flora_secure.simulat  # noqa: B018


def test_every_public_name_is_there() -> None:
    for name in flora_secure.__all__:
        assert getattr(flora_secure, name).__doc__


def test_the_examples_of_the_page_run() -> None:
    written, _, _ = PAGE.partition("<!-- below:")
    blocks = re.findall(r"```python\n(.*?)```", written, re.DOTALL)
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), space)
    assert np.linalg.norm(space["noisy"] - sum(u / max(1, np.linalg.norm(u)) for u in space["updates"])) < 400
    assert (space["result"].sum == sum(space["uploads"]) % 2 ** space["noise"].bits).all()
    assert space["planned"] == pytest.approx(4, rel=1e-6)
    assert 3.5 < space["spent"] < 4
    assert space["audit"].passed
    assert len(space["again"].records) == 2


def test_own_images_take_six_lines_and_each_part_alone_three() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (mine,) = (block for block in blocks if "own = " in block)
    assert len(mine[mine.index("own = ") :].splitlines()) <= 6
    for last in ("noisy = ", "result = ", "spent = "):
        (part,) = (block for block in blocks if last in block)
        assert len(part.strip().rpartition("\n\n")[2].splitlines()) == 3


def test_the_reference_is_that_of_the_docstrings() -> None:
    spec = importlib.util.spec_from_file_location("api_reference", ROOT / "docs/making/api_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.whole(PAGE) == PAGE, "run python docs/making/api_reference.py"


def test_what_is_no_data_set_of_ones_own_is_told(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"dataset is a dict: give a name, or OwnData"):
        flora_secure.simulate(dataset={"a": []}, out=tmp_path / "run")
    data = own()
    for change, says in (
        ({"class_names": "ab"}, "class_names is one text, 'ab': give a list"),
        ({"templates": "a {}"}, "templates is one text"),
        ({"class_names": ["a"]}, "class_names has 1 of them: at least 2"),
        ({"test": iter(())}, "whose items have no places: give a list"),
    ):
        with pytest.raises(DataError, match=re.escape(says)):
            replace(data, **change).load()
