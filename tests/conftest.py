import json
import os
import tempfile

import pytest
from hypothesis import configuration, settings

# the suite trains tiny models: one thread is faster than several, and leaves the other cores to other tests
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what is printed is folded to this width, whatever the terminal
os.environ["COLUMNS"] = "110"
# what commands cache stays out of the user's home, and out of the way of the next run; workers share it
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="flora-secure-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name

# The same examples in every run, and nothing of them written into the tree. `-m slow` takes others in every run; what
# it prints of a failure says how to repeat it.
configuration.set_hypothesis_home_dir(os.path.join(os.environ["XDG_CACHE_HOME"], "hypothesis"))
settings.register_profile("repeated", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("search", deadline=None, database=None, print_blob=True)
settings.load_profile("repeated")


def _searches(config: pytest.Config) -> bool:
    return "slow" in config.option.markexpr and "not slow" not in config.option.markexpr


def pytest_configure(config: pytest.Config) -> None:
    if _searches(config):
        settings.load_profile("search")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`-m slow` searches too: it runs every property test at random."""
    if _searches(config):
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False) or item.get_closest_marker("searches"):
                item.add_marker("slow")


@pytest.fixture(scope="session")
def task():
    """Model and data of `small()`, for every run whose federation and adapter are those."""
    from federations import small, task_of  # torch, which the tests of the protocol do without

    return task_of(small())


@pytest.fixture
def quick(monkeypatch) -> None:
    """Reports of one accountant: the others, which take longer than a small run, are left out."""
    from flora_secure.engine import summary

    monkeypatch.setattr(summary, "cross_check", lambda events, delta: {})


@pytest.fixture
def coarse(monkeypatch) -> None:
    """Privacy losses of sampled rounds in cells ten times as wide, as calibration takes them, and noise calibrated to a
    thousandth: no figure is below what the report's cells would give, and it takes a tenth of the time. For tests of
    runs; those of accounting do without.
    """
    from flora_secure.privacy import accounting, amplification

    cell = amplification.CALIBRATION_CELL
    monkeypatch.setattr(amplification, "_TOLERANCE", 1e-3)
    monkeypatch.setattr(accounting.epsilon_of, "__kwdefaults__", {"cell": cell})
    for counted in (amplification.poisson_epsilon, amplification.cohort_epsilon):
        monkeypatch.setattr(counted, "__defaults__", (cell,))


@pytest.fixture(scope="session")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an architecture of open_clip's that is small enough to train here."""
    import open_clip
    from small_clip import CONFIG

    text = {**CONFIG["text_cfg"], "vocab_size": 49_408, "context_length": 12}
    path = tmp_path_factory.mktemp("models") / "small-transformer.json"
    path.write_text(json.dumps({**CONFIG, "text_cfg": text}))
    open_clip.add_model_config(path)
    return path.stem
