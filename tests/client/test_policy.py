"""A client's terms: read from its own file, strictly."""

from pathlib import Path

import pytest

from flora_secure.client.policy import Policy
from flora_secure.errors import ConfigError

TEXT = """\
profile = "malicious-server"
least_noise = 0.5
most_epsilon = 8.0
delta = 1e-5
most_rounds = 20
last_round = 60
corrupt = 0.1
least_clients = 10
least_threshold = 4
least_survivors = 8
suite = "x25519-mlkem768"
unit = "client"
placements = ["text-projection"]
"""


def test_a_policy_is_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(TEXT)
    assert Policy.read(path) == Policy(
        least_noise=0.5,
        most_epsilon=8.0,
        delta=1e-5,
        most_rounds=20,
        last_round=60,
        corrupt=0.1,
        least_clients=10,
        least_threshold=4,
        least_survivors=8,
        suite="x25519-mlkem768",
        placements=("text-projection",),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("least_noise = 0.5\n", "", "least_noise"),
        ('placements = ["text-projection"]\n', "", "placements"),
        ("most_rounds = 20", "most_rounds = 0", "most_rounds must be at least 1"),
        ("last_round = 60", "last_round = 0", "last_round must be at least 1"),
        ("most_rounds = 20", "most_rounds = 2.5", "most_rounds must be of type int"),
        ("least_noise = 0.5", "least_noise = -1.0", "least_noise must be"),
        ('"text-projection"', '"text"', "not known"),
        ('"malicious-server"', '"off"', "profile must be"),
        ('suite = "x25519-mlkem768"\n', "", "key 'suite' is missing"),
        ('"x25519-mlkem768"', '"mlkem768"', "suite must be x25519 or x25519-mlkem768, got 'mlkem768'"),
        ('unit = "client"', 'unit = "hospital"', "unit must be"),
        ("delta = 1e-5", "delta = 1.0", "delta must lie"),
        ("corrupt = 0.1", "corrupt = 1.0", "corrupt must be"),
        ("least_survivors = 8", "least_survivors = 1", "least_survivors must lie"),
        ("most_epsilon = 8.0", "most_epsilon = 8.0\nextra = 1", "unknown key 'extra'"),
        ("most_epsilon = 8.0", "most_epsilon =", "Invalid value"),
    ],
)
def test_a_policy_that_is_none_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        Policy.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_policy_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Policy.read(tmp_path / "absent.toml")
