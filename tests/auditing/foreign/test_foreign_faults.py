"""Faults seeded in logs of systems that are not ours: each is found, by its own check, and a log without one passes."""

import copy
import math

import pytest

from flora_secure.auditing.findings import OK, VIOLATION, WARNING, Audit
from flora_secure.auditing.foreign.block import audit_of
from flora_secure.auditing.foreign.case import ForeignCase
from flora_secure.auditing.foreign.claim_checks import claim_findings
from flora_secure.auditing.foreign.log import log_of
from flora_secure.auditing.foreign.mechanism_checks import mechanism_findings
from flora_secure.privacy.accounting import gaussian_epsilon
from flora_secure.privacy.amplification import poisson_epsilon
from flora_secure.privacy.cross_check import _rdp

T, N, K, Z, DELTA = 30, 100, 10, 6.0, 1e-5
TOTAL = gaussian_epsilon(math.sqrt(T) / Z, DELTA)
SOUND = {
    "system": "a federation",
    "unit": "client",
    "adjacency": "zero-out",
    "population": N,
    "mechanism": "gaussian",
    "noise_by": "clients",
    "aggregation": "secure",
    "sampling": "fixed",
    "secret_sampling": True,
    "clip": 1.0,
    "noise_before_clip": False,
    "adaptive_clip": False,
    "secure_random": True,
    "most_rounds": T,
    "unprotected": [],
    "chosen": "on public data",
    "rounds": [
        {"count": T, "cohort": K, "contributors": K, "noise": Z / math.sqrt(K), "noise_multiplier": Z, "clip": 1.0}
    ],
    "claims": [{"epsilon": TOTAL, "delta": DELTA, "against": "server", "scope": "total"}],
}
STEPS = {
    "system": "DP-SGD at a client",
    "unit": "example",
    "adjacency": "add-remove",
    "mechanism": "gaussian",
    "noise_by": "clients",
    "sampling": "poisson",
    "batch": 32,
    "examples": 512,
    "epochs": 4,
    "rounds": [{"count": 64, "noise_multiplier": 2.0, "sampling_rate": 1 / 16}],
    "claims": [{"epsilon": 0.0, "delta": DELTA, "against": "outsider", "scope": "total"}],
}


def audited(table: dict) -> Audit:
    log, problems = log_of(table)
    return audit_of(ForeignCase("log.json", log, tuple(problems), ()), opacus=False)


def changed(base: dict = SOUND, *, round: dict | None = None, claim: dict | None = None, **keys: object) -> dict:
    table = copy.deepcopy(base) | keys
    table["rounds"][0] |= round or {}
    table["claims"][0] |= claim or {}
    return table


def severities(found: Audit) -> dict[str, str]:
    return {finding.check: finding.severity for finding in found.findings}


def violations(table: dict) -> set[str]:
    log, problems = log_of(table)  # without the second accountants, which take seconds
    case = ForeignCase("log.json", log, tuple(problems), ())
    findings = [*mechanism_findings(case), *claim_findings(case)]
    return {finding.check for finding in findings if finding.severity == VIOLATION}


def stepping(epsilon: float, **keys: object) -> dict:
    return changed(STEPS, claim={"epsilon": epsilon}, **keys)


def test_a_sound_log_passes_and_its_three_views_are_what_theory_says() -> None:
    found = audited(SOUND)
    assert found.passed
    assert set(severities(found).values()) == {OK}
    label = found.label
    assert label is not None
    assert label.server.epsilon == pytest.approx(TOTAL, abs=1e-9)
    assert label.upload.epsilon == pytest.approx(gaussian_epsilon(math.sqrt(T * K) / Z, DELTA), abs=1e-9)
    assert label.outsider.epsilon is not None
    assert label.outsider.epsilon < 0.5 * TOTAL
    assert label.trust == "distributed"


def test_the_epsilon_of_a_round_as_the_total() -> None:
    one = gaussian_epsilon(1 / Z, DELTA)
    assert violations(changed(claim={"epsilon": one})) == {"F-20", "F-21"}
    assert violations(changed(claim={"epsilon": one, "scope": "round"})) == set()


def test_shares_divided_by_n_instead_of_its_root() -> None:
    found = violations(changed(round={"noise": Z / K}))
    assert found == {"F-02", "F-20", "F-24"}


def test_noise_for_clients_who_dropped_out() -> None:
    assert violations(changed(round={"contributors": 7})) == {"F-03", "F-20", "F-24"}
    central = {"noise_by": "server", "noise_on": "mean", "aggregation": "open", "secret_sampling": False}
    claim = {"against": "outsider"}
    assert violations(changed(round={"noise": Z / K}, claim=claim, **central)) == set()
    assert violations(changed(round={"noise": Z / K, "contributors": 7}, claim=claim, **central)) == {
        "F-03", "F-20", "F-24",
    }  # fmt: skip


@pytest.mark.parametrize("sampling", ["fixed", "poisson"])
def test_amplification_against_the_server(sampling) -> None:
    for accountant in (poisson_epsilon, _rdp):
        claimed = accountant({(Z, K / N): T}, DELTA)
        assert violations(changed(claim={"epsilon": claimed}, sampling=sampling)) == {"F-20", "F-22"}


def test_cohorts_that_are_known_amplify_nothing_for_outsiders_either() -> None:
    claimed = audited(SOUND).label.outsider.epsilon
    claim = {"epsilon": claimed, "against": "outsider"}
    assert violations(changed(claim=claim)) == set()
    assert violations(changed(claim=claim, secret_sampling=False)) == {"F-20", "F-22"}
    unknown = audited(changed(claim=claim, secret_sampling=None))
    assert unknown.passed
    assert severities(unknown)["F-22"] == WARNING


def test_replace_one_counted_as_zero_out_and_the_other_way_round() -> None:
    assert violations(changed(adjacency="replace-one")) == {"F-20", "F-23"}
    doubled = gaussian_epsilon(2 * math.sqrt(T) / Z, DELTA)
    assert violations(changed(adjacency="replace-one", claim={"epsilon": doubled})) == set()
    over = audited(changed(claim={"epsilon": doubled}))
    assert over.passed
    assert severities(over)["F-23"] == WARNING


@pytest.mark.parametrize("delta", [0.01, 0.5])
def test_a_delta_that_is_no_smaller_than_one_in_n(delta) -> None:
    assert violations(changed(claim={"delta": delta})) == {"F-10"}


def test_a_delta_of_zero_is_not_what_gaussian_noise_gives() -> None:
    assert "F-10" in violations(changed(claim={"delta": 0}))


def test_a_clip_norm_above_the_one_that_is_claimed() -> None:
    assert violations(changed(round={"clip": 1.5})) == {"F-02", "F-04", "F-20", "F-24"}
    bare = changed(round={"clip": 1.5, "noise": None})
    assert violations(bare) == {"F-04", "F-20", "F-24"}


def test_filters_without_noise_that_protects() -> None:
    values = 7_033_282  # DenseNet-121 of one channel and two classes, running statistics included
    sparse = {"fraction": 0.1, "epsilon": 0.1, "noise_var": 0.1, "gamma": 1e-5, "parameters": values}
    claim = {"epsilon": 0.1, "delta": 0, "against": "upload", "scope": "round"}
    table = {"mechanism": "sparse-vector", "noise_by": "clients", "adjacency": "replace-one", "sparse": sparse,
             "unit": "client", "rounds": [{}], "claims": [claim]}  # fmt: skip
    found = audited(table)
    assert violations(table) == {"F-06", "F-20"}
    (filters,) = (finding for finding in found.findings if finding.check == "F-06")
    assert "ε = 70,333 in one round" in filters.evidence
    honest = {**table, "claims": [{**claim, "epsilon": 70_333.0}]}
    assert violations(honest) == {"F-06"}
    small = {**sparse, "epsilon_release": 0.4}
    assert violations({**table, "sparse": small, "claims": [{**claim, "epsilon": 0.5}]}) == {"F-06"}
    bare = audited({"mechanism": "none", "rounds": [{}], "claims": [claim]})
    assert not bare.passed
    assert bare.label.upload.status == "infinite"


def test_noise_before_clipping_bounds_nothing() -> None:
    assert violations(changed(noise_before_clip=True)) == {"F-05", "F-20"}


def test_noise_of_the_server_sold_as_local() -> None:
    table = changed(
        noise_by="server", noise_on="sum", aggregation="open", round={"noise": Z}, claim={"against": "upload"}
    )
    assert violations(table) >= {"F-20", "F-29"}
    assert audited(table).label.upload.status == "infinite"
    assert audited(table).label.trust == "central"


def test_a_server_that_sees_single_uploads_has_no_sum_to_hide_in() -> None:
    assert "F-20" in violations(changed(aggregation="open"))


def test_the_count_of_adaptive_clipping() -> None:
    free = changed(adaptive_clip=True, round={"count_noise": 0.5})
    assert violations(free) == {"F-20", "F-25"}
    assert "F-07" in violations(changed(adaptive_clip=True, round={"count_noise": 0}))
    assert severities(audited(changed(adaptive_clip=True)))["F-07"] == WARNING


def test_steps_epochs_rates_and_batches_of_examples() -> None:
    right = poisson_epsilon({(2.0, 1 / 16): 64}, DELTA)
    assert violations(stepping(right)) == set()
    assert violations(stepping(poisson_epsilon({(2.0, 1 / 16): 4}, DELTA))) >= {"F-20", "F-27"}
    assert violations(stepping(right, sampling="shuffled")) == {"F-20", "F-26"}
    few = stepping(right)
    few["rounds"][0]["count"] = 4
    assert violations(few) == {"F-09"}
    slow = stepping(right, population=N)
    slow["rounds"][0] |= {"sampling_rate": 0.01, "cohort": 1}
    (finding,) = (f for f in audited(slow).findings if f.check == "F-08")
    assert finding.severity == VIOLATION
    assert "that of clients" in finding.evidence


def test_predictable_noise_is_a_warning() -> None:
    found = audited(changed(secure_random=False, unprotected=["metrics"]))
    assert found.passed
    assert {check for check, one in severities(found).items() if one == WARNING} == {"F-11", "F-12"}


def test_who_was_in_which_round_decides_where_it_is_known() -> None:
    run = {key: value for key, value in SOUND["rounds"][0].items() if key != "count"}
    rounds = [{**run, "participants": [(start + place) % N for place in range(K)]} for start in range(0, T * K, K)]
    busiest = gaussian_epsilon(math.sqrt(3) / Z, DELTA)  # 300 places for 100 clients
    table = changed(most_rounds=None, claim={"epsilon": busiest})
    assert violations({**table, "rounds": rounds}) == set()
    assert severities(audited(table))["F-20"] == WARNING  # possible, and not shown
    assert "F-20" in violations(changed(most_rounds=None, claim={"epsilon": 0.9 * busiest}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"contributors": 50}, "50 contributors, and a cohort of 10"),
        ({"cohort": 1000}, "a cohort of 1,000, and a population of 100"),
        ({"participants": [1, 2]}, "10 contributors, and 2 participants are named"),
    ],
)
def test_counts_that_cannot_be_together_are_named(changes: dict, says: str) -> None:
    table = copy.deepcopy(SOUND)
    table["rounds"][0] |= changes
    (finding,) = (f for f in audited(table).findings if f.check == "F-01")
    assert finding.severity == VIOLATION
    assert says in finding.evidence


def test_many_different_sampled_rounds_are_counted_once_and_that_is_said() -> None:
    table = copy.deepcopy(SOUND)
    table |= {"sampling": "poisson", "claims": [{"epsilon": 1.0, "delta": DELTA, "against": "outsider"}]}
    one = {**table["rounds"][0], "count": 1, "noise_multiplier": None}
    table["rounds"] = [{**one, "noise": one["noise"] + place * 1e-4} for place in range(400)]
    (finding,) = (f for f in audited(table).findings if f.check == "F-19")
    assert "different sampled steps" in finding.evidence or finding.severity == OK
