"""Histories that the installed Opacus writes while it trains."""

import json
import warnings
from pathlib import Path

import pytest

pytest.importorskip("opacus")
import opacus
import torch
from torch.utils.data import DataLoader, TensorDataset

import flora_secure
from flora_secure.auditing.findings import Audit

DELTA = 1e-5


def trained(accountant: str, *, poisson: bool = True, epochs: int = 2) -> dict:
    """What the export of docs/foreign-log.md writes after DP-SGD on 512 examples in batches of 32."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    loader = DataLoader(TensorDataset(torch.randn(512, 4), torch.randint(0, 2, (512,))), batch_size=32, shuffle=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = opacus.PrivacyEngine(accountant=accountant)
        model, optimiser, loader = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            data_loader=loader,
            noise_multiplier=2.0,
            max_grad_norm=1.0,
            poisson_sampling=poisson,
        )
        for _ in range(epochs):
            for images, labels in loader:
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(model(images), labels).backward()
                optimiser.step()
        epsilon = engine.accountant.get_epsilon(DELTA)
    return {**engine.accountant.state_dict(), "epsilon": float(epsilon), "delta": DELTA}


def audited(table: dict, folder: Path) -> Audit:
    path = folder / "opacus.json"
    path.write_text(json.dumps(table))
    return flora_secure.audit(path, opacus=False)


def violations(found: Audit) -> set[str]:
    return {finding.check for finding in found.findings if finding.severity == "violation"}


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_what_opacus_claims_holds_for_poisson_batches(accountant, tmp_path) -> None:
    table = trained(accountant)
    found = audited({**table, "log": {"sampling": "poisson", "batch": 32, "examples": 512, "epochs": 2}}, tmp_path)
    assert violations(found) == set()
    label = found.label
    assert label is not None
    assert label.unit == "example"
    assert label.outsider.epsilon == pytest.approx(table["epsilon"], rel=0.25)
    assert label.outsider.epsilon <= table["epsilon"] + 0.02
    assert label.outsider == label.upload == label.server


def test_the_central_limit_claims_too_little(tmp_path) -> None:
    table = trained("gdp")
    table["history"], table["epsilon"] = [[0.8, 1 / 16, 32]], None
    accountant = opacus.accountants.GaussianAccountant()
    accountant.history = [tuple(table["history"][0])]
    table["epsilon"] = float(accountant.get_epsilon(DELTA))
    assert violations(audited(table, tmp_path)) == {"F-20", "F-28"}


def test_batches_of_a_shuffled_loader_are_no_poisson_sample(tmp_path) -> None:
    table = {**trained("rdp", poisson=False), "log": {"sampling": "shuffled"}}
    assert violations(audited(table, tmp_path)) == {"F-20", "F-26"}


def test_the_epsilon_of_an_epoch_counted_as_one_step(tmp_path) -> None:
    table = trained("rdp", epochs=4)
    accountant = opacus.accountants.RDPAccountant()
    for _ in range(4):
        accountant.step(noise_multiplier=2.0, sample_rate=1 / 16)
    few = {**accountant.state_dict(), "epsilon": accountant.get_epsilon(DELTA), "delta": DELTA}
    assert "F-09" in violations(audited({**few, "log": {"epochs": 4, "sampling": "poisson"}}, tmp_path))
    sold = {**table, "epsilon": few["epsilon"], "log": {"epochs": 4, "sampling": "poisson"}}
    assert violations(audited(sold, tmp_path)) >= {"F-20", "F-27"}


def test_a_delta_above_one_in_n(tmp_path) -> None:
    table = {**trained("rdp", epochs=1), "delta": 0.01, "log": {"examples": 512, "batch": 32}}
    assert "F-10" in violations(audited(table, tmp_path))


def test_a_damaged_history_is_named(tmp_path) -> None:
    found = audited({**trained("rdp", epochs=1), "history": [[1.0, 2.0, 3], "x", [1, 2]]}, tmp_path)
    assert "F-01" in violations(found)
    assert "rounds[0].sampling_rate" in found.findings[0].evidence
    assert "rounds[1]" in found.findings[0].evidence
