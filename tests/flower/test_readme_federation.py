"""README's federation, command by command: three sites on loopback, from an empty folder to the audit."""

import re

import pytest

pytest.importorskip("flwr")

from readme_commands import Person

from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy


def test_readme_s_commands_end_in_accuracy_budget_and_bytes(tmp_path) -> None:
    with Person(tmp_path) as person:
        person.do("prepare", 120)
        config = tmp_path / "clinic/flwr/config.toml"  # init wrote README's port
        config.write_text(config.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{person.server}"))
        person.start("superlink")
        person.until("superlink", "running on https", 1, 120)
        person.do("register", 120)
        person.start("sites")
        person.until("sites", "SuperNode ID:", 3, 120)
        said = person.do("run", 900)
        sites = person.log("sites")
    run = tmp_path / "clinic/server/run"
    accuracy = float(re.search(r"accuracy +([\d.]+)% on 2,516 test images", said)[1])
    before = float(re.search(r"zero-shot ([\d.]+)%", said)[1])
    assert accuracy > before
    assert re.search(r"privacy +ε = [\d.]+ of 8 allowed .* per example, server view", said)
    assert re.search(r"communication +[\d,]+ × less than sending the model", said)
    assert [f"round {number}/3: accuracy" in said for number in (1, 2, 3)] == [True] * 3
    assert "3 of 3 clients" in said
    weights = (run / "adapter/adapter_model.safetensors").read_bytes()
    for number in range(3):
        site = tmp_path / f"clinic/sites/site{number}"
        assert (site / "adapter/adapter_model.safetensors").read_bytes() == weights
        policy, ledger = Policy.read(site / "policy.toml"), ClientLedger(site / "state/ledger.jsonl")
        spent = ledger.epsilon(policy.delta)
        assert [given.event.round for given in ledger.given] == [1, 2, 3]
        assert spent <= policy.most_epsilon
        assert f"site{number}: uploaded in round 3; this site's own ledger counts ε = {spent:.4g} of 8 allowed" in sites
        assert not {"images", "public", "identity.key"} - {path.name for path in site.iterdir()}
    assert "PASSED: 0 violations" in said
    assert "Traceback" not in said + sites
