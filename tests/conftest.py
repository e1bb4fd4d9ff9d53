import json
import os
import tempfile

import pytest

# the suite trains tiny models: one thread is faster than several, and leaves the other core alone
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what commands cache stays out of the user's home, and out of the way of the next run
_CACHE = tempfile.TemporaryDirectory(prefix="flora-secure-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name


@pytest.fixture(scope="session")
def task():
    """Model and data of ``small()``, for every run whose federation and adapter are those."""
    from federations import small, task_of  # torch, which the tests of the protocol do without

    return task_of(small())


@pytest.fixture
def quick(monkeypatch) -> None:
    """Reports of one accountant: the others, which take longer than a small run, are left out."""
    from flora_secure.engine import summary

    monkeypatch.setattr(summary, "cross_check", lambda events, delta: {})


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
