import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flora_protocols.params import MAX_SLOTS
from flora_secure.errors import ConfigError
from flora_secure.planning import protection
from flora_secure.planning.config import RunConfig, from_toml, load_config, override
from flora_secure.planning.protection import AggregationConfig, PrivacyConfig
from flora_secure.planning.sections import DataConfig


def test_defaults_survive_a_round_trip() -> None:
    assert from_toml(RunConfig().to_toml()) == RunConfig()


@given(
    epsilon=st.floats(min_value=1e-3, max_value=1e2) | st.just(math.inf),
    clients=st.integers(2, 10_000),
    bits=st.none() | st.integers(8, 32),
    root=st.none() | st.text(min_size=1),
    dropout=st.floats(0, 0.99),
    noise=st.booleans(),
    unseen=st.none() | st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True).map(tuple),
)
def test_any_config_survives_a_round_trip(epsilon, clients, bits, root, dropout, noise, unseen) -> None:
    config = RunConfig(
        data=DataConfig(dataset="folder", clients=clients, data_root=root, unseen_classes=unseen),
        privacy=PrivacyConfig(epsilon=epsilon, bits=bits, simulation_noise=noise),
        aggregation=AggregationConfig(dropout=dropout),
    )
    again = from_toml(config.to_toml())
    assert again == config
    assert again.digest == config.digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epsilon = 4", "unknown key 'epsilon'"),
        ("[privacy]\nepsilom = 4", "unknown key 'privacy.epsilom'"),
        ("[privacy]\nepsilon = 'four'", "privacy.epsilon must be of type float, got 'four'"),
        ("[privacy]\nepsilon = -1", "epsilon must be above 0"),
        ("[privacy]\nepsilon = nan", "epsilon must be above 0"),
        ("[privacy]\nepsilon = true", "privacy.epsilon must be of type float, got True"),
        ("[privacy]\ndelta = 1.0", "delta must lie between 0 and 1"),
        ("[privacy]\nclip_norm = inf", "clip_norm must be a positive number, got inf"),
        ("[privacy]\nbits = 7", "bits must lie in 8…32, got 7"),
        ("[privacy]\nunit = 'image'", "privacy.unit must be one of client, example; got 'image'"),
        ("[data]\nclients = 1", "clients must be at least 2"),
        ("[data]\nclients = 3.5", "data.clients must be of type int, got 3.5"),
        ("[data]\nunseen_classes = []", "unseen_classes must name at least one class, and each once; got nothing"),
        ("[data]\nunseen_classes = ['a', 'b', 'a']", "and each once; got 'a', 'b', 'a'"),
        (
            "[data]\nunseen_classes = ['a', '']",
            "unseen_classes must name at least one class, and each once; got 'a', ''",
        ),
        ("[data]\nunseen_classes = 'a'", "data.unseen_classes must be a list of strings, got 'a'"),
        ("[data]\nunseen_classes = ['a', 1]", "data.unseen_classes must be a list of strings, got ['a', 1]"),
        ("[aggregation]\ndropout = 1.0", "dropout must be at least 0 and below 1"),
        ("[aggregation]\nthreshold = 158", "threshold must lie in 2…157"),
        ("[data]\npartition = 'iid'\n[aggregation]\nthreshold = 101", "threshold must lie in 2…100"),
        ("[participation]\nrate = 0.0", "participation.rate must be above 0 and at most 1 (everybody), got 0"),
        ("[participation]\nrate = 1.5", "participation.rate must be above 0 and at most 1 (everybody), got 1.5"),
        (
            "[participation]\nrate = 0.1",
            "participation.rate 0.1 needs a kind of sampling: participation.sampling poisson",
        ),
        ("[participation]\nsampling = 'fixed'", "sampling fixed is for a participation.rate below 1"),
        ("[participation]\nmin_separation = 2", "min_separation 2 is for a participation.rate below 1"),
        ("[participation]\nrate = 0.1\nsampling = 'even'", "participation.sampling must be one of poisson, fixed"),
        (
            "[data]\nclients = 100\n[participation]\nrate = 0.1\nsampling = 'fixed'\nmin_separation = 0",
            "min_separation must be at least 1, got 0",
        ),
        (
            "[participation]\nrate = 0.008\nsampling = 'fixed'",
            "a cohort of 1; a sum needs at least 2",
        ),
        (
            "[data]\nclients = 100\n[participation]\nrate = 0.1\nsampling = 'fixed'\nmin_separation = 11",
            "cohorts of 10 with participation.min_separation 11 need 110 clients, there are 100",
        ),
        ("[privacy]\nexample_rate = 0.1", "example_rate 0.1 is for privacy.unit example"),
        ("[privacy]\nunit = 'example'\nexample_rate = 0.0", "example_rate must be above 0 and at most 1, got 0.0"),
        ("[privacy]\nunit = 'example'\nadaptive_clip = 0.5", "adaptive_clip 0.5 is for privacy.unit client"),
        ("[privacy]\nadaptive_clip = 1.0", "adaptive_clip is a quantile between 0 and 1, such as 0.5; got 1.0"),
        ("[privacy]\nepsilon = 1e3", "epsilon 1000 is more than the 100 that can be accounted for"),
        (f"[privacy]\nepsilon = 1{'0' * 400}", "privacy.epsilon is too large for a number: 401 digits"),
        (
            "[privacy]\ndelta = 1e-13",
            "delta 1e-13 is less than the 1e-12 that can be accounted for with privacy.unit client",
        ),
        ("[privacy]\nunit = 'example'\nexample_rate = 1e-5", "example_rate must be at least 0.0001, less cannot be"),
        (
            "[training]\nserver_optimiser = 'adam'",
            "unknown key 'training.server_optimiser'; did you mean 'training.server_",
        ),
        ("[training]\nserver_step = inf", "server_step must be a positive number, got inf"),
        ("[training]\nrounds = 0", "rounds must be at least 1, got 0"),
        ("[training]\nrounds = 100001", "rounds must be at most 100,000, got 100001"),
        ("[training]\nlocal_rate = 1e308", "local_rate must lie in 1e-06…1e+06, got 1e+308"),
        ("[training]\nlogit_scale = 1e7", "logit_scale must lie in 1e-06…1e+06, got 10000000.0"),
        ("[data]\nclients = 1000001", "clients must be at most 1,000,000, got 1000001"),
        (
            "[model]\nrule = 'both'",
            "model.rule must be one of prompt-basis, ab, frozen-a, alternate, local-alternate; got 'both'",
        ),
        ("[aggregation]\nslots = 0", "aggregation.slots must lie in 1…1024, got 0"),
        ("[aggregation]\nslots = 1025", "aggregation.slots must lie in 1…1024, got 1025"),
        (
            "[aggregation]\nsuite = 'mlkem768'",
            "aggregation.suite must be one of x25519, x25519-mlkem768; got 'mlkem768'",
        ),
        ("data = 3", "data must be a table, got 3"),
        ("seed = -1", "seed must be a non-negative integer, got -1"),
        ("seed = 18446744073709551616", "seed must be at most 2^63 - 1 = 9223372036854775807, got 1844674"),
        (f"seed = {'1' * 5000}", "a number in it has too many digits"),
        ("[privacy", "not TOML: "),
    ],
)
def test_bad_values_are_named_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_toml(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be read: No such file"):
        load_config(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"seed = 1 # \xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.toml")
    (tmp_path / "bad.toml").write_text("sed = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml: unknown key 'sed'"):
        load_config(tmp_path / "bad.toml")


def test_override_replaces_what_is_given_and_keeps_the_rest() -> None:
    base = from_toml("seed = 7\n[privacy]\nepsilon = 2.0")
    changed = override(base, {"privacy.epsilon": 8.0, "data.clients": None})
    assert changed == dataclasses.replace(base, privacy=dataclasses.replace(base.privacy, epsilon=8.0))
    with pytest.raises(ConfigError, match="epsilon must be above 0"):
        override(base, {"privacy.epsilon": -1.0})
    with pytest.raises(KeyError):
        override(base, {"privacy.epsilom": 1.0})


def test_digest_tells_configs_apart() -> None:
    assert RunConfig(seed=1).digest != RunConfig(seed=2).digest


def test_dropout_tolerance_follows_the_dropout_unless_given() -> None:
    assert RunConfig().dropout_tolerance == 0.1
    assert RunConfig(aggregation=AggregationConfig(dropout=0.3)).dropout_tolerance == 0.3
    given_one = RunConfig(aggregation=AggregationConfig(dropout=0.3), privacy=PrivacyConfig(dropout_tolerance=0.05))
    assert given_one.dropout_tolerance == 0.05


def test_a_session_has_as_many_slots_as_the_protocol_allows() -> None:
    assert protection.MAX_SLOTS == MAX_SLOTS
