"""What the installed Flower keeps of differential privacy, audited: accountants, strategies, the local mod."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")
from flwr.client.mod import LocalDpMod
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)
from flwr.supercore import privacy_accounting as privacy
from flwr.supercore.differential_privacy import add_gaussian_noise_inplace, compute_stdv
from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant

import flora_secure
from flora_secure.auditing.findings import Audit
from flora_secure.privacy.accounting import gaussian_epsilon

Z, K, N, T, DELTA = 6.0, 10, 100, 30, 1e-5


def state(relation: str, sampling: str, z: float = Z, delta: float = DELTA) -> dict:
    config = privacy.PrivacyConfig(delta, N, privacy.NeighboringRelation(relation), privacy.SamplingMethod(sampling))
    accountant = RdpAccountant(config)
    accountant.compose(privacy.GaussianPrivacyEvent(z, K, N), T)
    return {**accountant.state_dict(), "spent": asdict(accountant.get_privacy_spent())}


def settings(thing: object) -> dict:
    """The export of docs/foreign-log.md."""
    return {"flower": type(thing).__name__, **{k: v for k, v in vars(thing).items() if type(v) in (int, float)}}


def audited(table: dict, folder: Path) -> Audit:
    path = folder / "flower.json"
    path.write_text(json.dumps(table))
    return flora_secure.audit(path, opacus=False)


def severities(found: Audit) -> dict[str, str]:
    return {finding.check: finding.severity for finding in found.findings if finding.severity != "ok"}


def violations(found: Audit) -> set[str]:
    return {check for check, severity in severities(found).items() if severity == "violation"}


def test_an_accountant_without_amplification_holds_for_outsiders(tmp_path) -> None:
    found = audited(state("add-or-remove-one", "no-amplification"), tmp_path)
    assert violations(found) == set()
    label = found.label
    assert label is not None
    assert label.outsider.epsilon == pytest.approx(gaussian_epsilon(T**0.5 / Z, DELTA), abs=1e-9)
    assert label.server.status == label.upload.status == "unknown"  # who adds the noise is not in the file


def test_a_sampled_accountant_needs_secret_cohorts(tmp_path) -> None:
    table = state("add-or-remove-one", "poisson")
    assert severities(audited(table, tmp_path))["F-22"] == "warning"
    seen = {"secret_sampling": False, "noise_by": "server", "noise_on": "sum"}
    assert violations(audited({**table, "log": seen}, tmp_path)) == {"F-20", "F-22"}
    assert violations(audited({**table, "log": {**seen, "secret_sampling": True}}, tmp_path)) == set()


def test_replace_one_with_a_strategys_z_counts_half(tmp_path) -> None:
    found = audited(state("replace-one", "without-replacement", z=1.0), tmp_path)
    assert "F-20" in violations(found)
    assert "F-23" in severities(found)


def test_a_delta_above_one_in_n(tmp_path) -> None:
    assert "F-10" in violations(audited(state("add-or-remove-one", "no-amplification", delta=0.05), tmp_path))


def test_a_strategy_noises_for_clients_who_dropped_out(tmp_path) -> None:
    strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(), Z, 0.5, K)
    kept = {**settings(strategy), "accountant": state("add-or-remove-one", "no-amplification")}
    whole = audited(kept, tmp_path)
    assert violations(whole) == set()
    assert whole.label is not None
    assert whole.label.trust == "central"
    assert whole.label.server.status == "infinite"
    fewer = audited({**kept, "log": {"rounds": [{"count": T, "contributors": 7}], "most_rounds": T}}, tmp_path)
    assert violations(fewer) == {"F-03", "F-20", "F-24"}
    # the noise that Flower adds is what the importer says it is
    noise = [np.zeros(200_000)]
    add_gaussian_noise_inplace(noise, compute_stdv(strategy.noise_multiplier, strategy.clipping_norm, K))
    assert noise[0].std() == pytest.approx(Z * 0.5 / K, rel=0.02)  # 12 standard errors


def test_a_claim_against_the_server_that_adds_the_noise(tmp_path) -> None:
    kept = settings(DifferentialPrivacyServerSideFixedClipping(FedAvg(), Z, 0.5, K))
    claims = [{"epsilon": 4.0, "delta": DELTA, "against": "server", "scope": "total"}]
    assert violations(audited({**kept, "log": {"claims": claims}}, tmp_path)) == {"F-20", "F-29"}


def test_adaptive_clipping_costs_what_the_strategy_was_asked_for(tmp_path) -> None:
    strategy = DifferentialPrivacyServerSideAdaptiveClipping(FedAvg(), 1.0, K, clipped_count_stddev=0.8)
    assert strategy.noise_multiplier > 1.25
    found = audited({**settings(strategy), "log": {"rounds": [{"count": T}]}}, tmp_path)
    assert found.label is not None
    assert found.label.parameters["noise multiplier"] == pytest.approx(1.0, abs=1e-9)
    claim = {"delta": DELTA, "against": "outsider", "scope": "total"}
    claim["epsilon"] = gaussian_epsilon(T**0.5 / strategy.noise_multiplier, DELTA)
    log = {"rounds": [{"count": T}], "most_rounds": T, "claims": [claim]}
    assert violations(audited({**settings(strategy), "log": log}, tmp_path)) == {"F-20", "F-25"}
    notes = next(finding for finding in found.findings if finding.check == "F-13")
    assert "clip norm of the next round" in notes.evidence


def test_the_local_mod_is_for_one_round(tmp_path) -> None:
    kept = settings(LocalDpMod(1.0, 1.0, 0.5, DELTA))
    found = audited({**kept, "log": {"rounds": [{"count": T}]}}, tmp_path)
    assert violations(found) == set()
    assert found.label is not None
    assert found.label.upload.epsilon is not None
    assert found.label.upload.epsilon > 2
    sold = [{"epsilon": 0.5, "delta": DELTA, "against": "upload", "scope": "total"}]
    log = {"rounds": [{"count": T}], "claims": sold, "most_rounds": T}
    assert violations(audited({**kept, "log": log}, tmp_path)) == {"F-20"}  # the formula of one round is not tight
    wide = settings(LocalDpMod(3.0, 1.0, 0.5, DELTA))  # clipped to more than the noise is for
    assert violations(audited({**wide, "log": {"rounds": [{"count": T}]}}, tmp_path)) >= {"F-04", "F-20"}
