import dataclasses
import math
from typing import Any

import pytest

from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.noise import plan_noise
from flora_secure.planning.selection import Selection
from flora_secure.privacy.accounting import gaussian_epsilon
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.cross_check import accountant_versions, cross_check
from flora_secure.privacy.ledger import Ledger
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.records.statement import statement


def run(survivors: tuple[int, ...] = (95, 100, 92), **changes: Any) -> tuple[NoisePlan, Ledger]:
    base = {
        "clients": 100,
        "dimension": 64,
        "rounds": 4,
        "epsilon": 4.0,
        "delta": 1e-5,
        "clip_norm": 2.0,
        "colluders": 1,
    }
    plan = calibrate(**{**base, **changes})
    ledger = Ledger(plan.epsilon, plan.delta)
    for t, count in enumerate(survivors, 1):
        ledger.authorise(plan.event(t, plan.survivors_minimum))
        ledger.record(plan.event(t, count))
    return plan, ledger


def write(plan: NoisePlan, ledger: Ledger, **changes: Any) -> str:
    found = {"closed form": 3.5, "dp-accounting PLD": 3.5001, "opacus PRV": 3.51}
    base: dict[str, Any] = {"cross_check": found, "profile": "semi-honest", "secret_noise": True, "clip_rate": 0.25}
    given = {**base, "overflow_rate": 0.0, **changes}
    return statement(plan, ledger, **{"suite": None if given["profile"] == "off" else "x25519", **given})


def test_it_says_all_that_the_shared_page_lists() -> None:
    plan, ledger = run()
    found = cross_check(ledger.events, plan.delta, opacus=False)
    text = write(plan, ledger, cross_check=found)
    for words in (
        f"epsilon = {ledger.epsilon:.4f} and delta = 1e-05",
        f"mu = {ledger.mu:.4f}",
        "within the budget of epsilon = 4",
        "one client's whole contribution",
        "zero-out",
        "The server, which sees every released sum",
        "h_min = 89",
        "92 to 100 survived",
        "All 3 released sums",
        f"dp-accounting {accountant_versions(found)['dp-accounting']}",
        f"dp-accounting PLD {found['dp-accounting PLD']:.4f}",
        f"(replace-one) the same run reads epsilon = {gaussian_epsilon(2 * ledger.mu, 1e-5):.4g}",
        f"epsilon_local = {ledger.epsilon_local:.4g}",
        "Clipped: 25.00%",
        "Not covered",
        "side channels",
        "initial weights",
    ):
        assert words in text, words
    assert text.startswith("Guarantee")
    assert "SIMULATED" not in text


def test_a_server_that_picks_cohorts_is_told_of_with_the_figure() -> None:
    """N = 1000 at q = 0.1 with one client in twenty corrupt: epsilon 4 becomes 5.2 where all of them are in the cohort,
    and nothing is left but a single upload's where they are the whole cohort."""
    config = override(
        RunConfig(),
        {
            "data.clients": 1000,
            "participation.rate": 0.1,
            "participation.sampling": "fixed",
            "aggregation.corrupt": 0.05,
            "aggregation.secagg": "malicious-server",
        },
    )
    selection = Selection.of(config)
    plan = plan_noise(config, selection, 64, 10_000)
    ledger = Ledger(plan.epsilon, plan.delta)
    for t in range(1, plan.participations + 1):
        event = plan.event(t, plan.survivors_minimum, participants=range(100))
        ledger.authorise(event)
        ledger.record(event)
    assert ledger.epsilon == pytest.approx(4.0, abs=0.01)

    def told(**changes: Any) -> list[str]:
        text = write(plan, ledger, **{"profile": "malicious-server", "corrupt": 50, **changes})
        return [one for one in text.split("\n\n") if one.startswith("Draw of cohorts.")]

    (paragraph,) = told()
    claimed = float(paragraph.partition("epsilon = ")[2].partition(" ")[0])
    honest = plan.survivors_minimum - 50
    z = [event.sigma_local * math.sqrt(honest) / event.sensitivity for event in ledger.worst_events]
    assert claimed == pytest.approx(gaussian_epsilon(math.sqrt(math.fsum(x**-2 for x in z)), plan.delta), rel=1e-3)
    assert claimed > 1.2 * ledger.epsilon
    assert "no bound but that of one upload alone" in told(corrupt=100)[0]
    assert told(profile="semi-honest") == []
    assert [one for one in write(*run(), profile="malicious-server", corrupt=5).split("\n\n") if "Draw of" in one] == []


def test_it_changes_with_everything_it_depends_on() -> None:
    plan, ledger = run()
    texts = {"as is": write(plan, ledger)}
    for name, changes in {
        "survivors": {"survivors": (95, 100, 93)},
        "rounds": {"survivors": (95, 100)},
        "epsilon": {"epsilon": 3.0},
        "delta": {"delta": 1e-6},
        "clip": {"clip_norm": 1.0},
        "colluders": {"colluders": 2},
        "tolerance": {"dropout_tolerance": 0.2},
        "bits": {"bits": 12},
        "planned rounds": {"rounds": 5},
        "peak": {"peak_fraction": 0.5},
        "rotation": {"rotation": True, "bits": 12},
        "count": {"count_noise": 10.0},
        "upload norm": {"upload_norm": 7.0},
    }.items():
        texts[name] = write(*run(**changes))
    for name, changes in {
        "cross-check": {"cross_check": {"closed form": 3.5}},
        "malicious": {"profile": "malicious-server"},
        "off": {"profile": "off"},
        "noise": {"secret_noise": False},
        "aborted": {"aborted_rounds": 2},
        "clip rate": {"clip_rate": None},
        "overflow": {"overflow_rate": 0.01},
        "unit": {"unit": "example"},
        "population": {"population": 1000},
    }.items():
        texts[name] = write(plan, ledger, **changes)
    assert len(set(texts.values())) == len(texts)


def cohorts(
    rosters: tuple[tuple[int, ...], ...], population: int | None = None, **changes: Any
) -> tuple[NoisePlan, Ledger]:
    """A run of 40 clients of whom some take part in a round."""
    base = {"clients": 30, "smallest_cohort": 20, "dimension": 64, "rounds": 4, "participations": 3, "clip_norm": 2.0}
    plan = calibrate(**{"epsilon": 4.0, "delta": 1e-5, "population": 40, **base, **changes})
    ledger = Ledger(plan.epsilon, plan.delta)
    for t, roster in enumerate(rosters, 1):
        of_round = plan.for_cohort(len(roster))
        event = of_round.event(t, len(roster), participants=roster, population=population)
        ledger.authorise(event)
        ledger.record(event)
    return plan, ledger


def test_participation_is_told_and_the_worst_client_is_the_headline(coarse) -> None:
    rosters = (tuple(range(20)), tuple(range(25)), tuple(range(10, 40)))
    plan, ledger = cohorts(rosters)
    text = write(plan, ledger, cross_check=cross_check(ledger.worst_events, 1e-5, opacus=False))
    assert "40 clients took part, in 1 to 3 rounds each, at most 3 planned for" in text
    assert f"epsilon = {ledger.epsilon_of_client(15):.4f}" in text.split("\n\n")[0]
    assert "no smaller epsilon is claimed" in text
    uniform = cohorts(rosters, population=40, epsilon=1.0)  # a small budget: its losses are few, and soon counted
    hidden = write(*uniform)
    assert "no smaller epsilon" not in hidden
    assert f"epsilon = {uniform[1].epsilon_outsider:.4f} for them" in hidden
    texts = {
        text,
        hidden,
        write(*cohorts((*rosters[:2], tuple(range(9, 39))))),
        write(*cohorts(rosters, participations=4)),
        write(*run()),
    }
    assert len(texts) == 5
    assert "Every client took part in every round" in write(*run())
    shares = {e.sigma_local for e in ledger.events}
    assert f"standard deviation {min(shares):.6g} to {max(shares):.6g}" in text


def test_examples_are_not_clients(coarse) -> None:
    plan, ledger = run(sampling_rate=0.05, upload_norm=50.0, clients=10, survivors=(10, 9), colluders=0, epsilon=1.0)
    found = cross_check(ledger.worst_events, 1e-5, opacus=False)
    text = write(plan, ledger, cross_check=found, unit="example", population=5000)
    for words in (
        "ONE EXAMPLE of one client, in all rounds together, and not a client",
        "with probability 0.05, by coins that nobody else sees",
        "had that example contributed nothing",
        "a whole upload to 50",
        f"dp-accounting PLD gives epsilon = {ledger.epsilon:.4f}",
        "No client is assumed to tell",
    ):
        assert words in text, words
    assert "closed form" not in text
    assert "replace-one" not in text
    changed = dataclasses.replace(plan, sampling_rate=0.04)
    assert write(changed, ledger, cross_check=found, unit="example", population=5000) != text
    with pytest.raises(ValueError, match="unit is then 'example'"):
        write(plan, ledger)


def test_a_clip_norm_that_moves_is_told() -> None:
    plan, ledger = run(count_noise=10.0, survivors=())
    for t, norm in enumerate((1.0, 1.5, 2.5), 1):
        event = plan.with_clip(norm).event(t, 95)
        ledger.authorise(event)
        ledger.record(event)
    text = write(plan, ledger)
    assert "clipped to L2 norm 1 to 2.5" in text
    assert "private count" in text
    assert "private count" not in write(*run())


def test_a_delta_that_gives_a_client_away_is_said_first() -> None:
    with pytest.warns(UserWarning, match="1/clients"):
        weak = run(delta=0.02)
    text = write(*weak)
    assert text.startswith("WEAK DELTA. delta = 0.02 is not below 1/100")
    assert "one client away" in text
    assert write(*run(), population=10**5).startswith("WEAK DELTA")
    assert "WEAK" not in write(*run())


def test_rotation_and_corrupt_clients_are_told() -> None:
    assert "public Hadamard matrix" in write(*run(rotation=True, bits=12))
    assert "Hadamard" not in write(*run(rotation=False, bits=12))
    assert "2 clients may be corrupt" in write(*run(colluders=2))


def test_no_noise_is_said_first_and_loudly() -> None:
    text = write(*run(epsilon=math.inf))
    assert text.startswith("NO DIFFERENTIAL PRIVACY.")
    assert "Guarantee" not in text


def test_reproducible_noise_is_said_first() -> None:
    text = write(*run(), secret_noise=False)
    assert text.startswith("SIMULATED NOISE.")
    assert "not secret" in text.split("\n\n")[0]
    assert "operating system" not in text


def test_without_secure_aggregation_the_server_is_not_covered() -> None:
    text = write(*run(), profile="off")
    assert "SWITCHED OFF" in text
    assert "does NOT hold" in text
    assert "Against whom. The server" not in text


def test_a_budget_that_was_passed_is_not_glossed_over() -> None:
    plan, ledger = run(survivors=())
    event = plan.event(1, 100)
    ledger.authorise(event)
    ledger.record(dataclasses.replace(event, sigma_local=event.sigma_local / 10))
    assert "ABOVE the budget of epsilon = 4" in write(plan, ledger)


def test_nothing_released() -> None:
    text = write(*run(survivors=()), aborted_rounds=3)
    assert "No sum was released" in text
    assert "3 further rounds were aborted" in text


def test_uploads_without_a_sum_are_told() -> None:
    plan, ledger = run(survivors=())
    ledger.authorise(plan.event(1, 100))
    ledger.expose()
    masked, plain = (write(plan, ledger, aborted_rounds=1, profile=profile) for profile in ("semi-honest", "off"))
    told = f"epsilon_local = {ledger.epsilon_local:.4g}"
    assert told in masked
    assert told in plain
    assert "SWITCHED OFF" in plain
    assert "does NOT hold" in plain
    assert "SWITCHED OFF" not in masked


def test_bad_input_is_refused() -> None:
    plan, ledger = run()
    with pytest.raises(ValueError, match="profile must be one of semi-honest, malicious-server, off, got 'none'"):
        write(plan, ledger, profile="none")
    with pytest.raises(ValueError, match="unit must be one of client, example, got 'image'"):
        write(plan, ledger, unit="image")
    with pytest.raises(ValueError, match="the plan's budget is epsilon 4"):
        write(plan, Ledger(3.0, 1e-5))


def test_the_worst_client_of_a_server_that_picks_is_not_the_worst_of_one_that_draws() -> None:
    """One client in three rounds of thirty, one in two of eight: the second loses more where seven are corrupt."""
    plan, _ = run((40,), clients=40, rounds=5, colluders=2, epsilon=8.0)
    ledger = Ledger(plan.epsilon, plan.delta)
    rosters = [range(30)] * 3 + [range(50, 58)] * 2
    base = plan.event(1, 40)
    for t, roster in enumerate(rosters, 1):
        event = dataclasses.replace(
            base, round=t, survivors=len(roster), participants=frozenset(roster),
            sigma_local=base.sigma_local * math.sqrt(40 / len(roster)),
        )  # fmt: skip
        ledger.authorise(event)
        ledger.record(event)

    def placed(client: int, corrupt: int) -> float:
        events = [dataclasses.replace(e, colluders=corrupt) for e in ledger.events_of(client)]
        return gaussian_epsilon(math.sqrt(math.fsum(e.noise_multiplier**-2 for e in events)), plan.delta)

    text = write(plan, ledger, profile="malicious-server", corrupt=7)
    assert placed(50, 7) > placed(0, 7)
    assert f"epsilon = {placed(50, 7):.4g} at the same delta" in text
    assert "no bound but that of one upload alone" in write(plan, ledger, profile="malicious-server", corrupt=8)


@pytest.mark.parametrize("profile", ["semi-honest", "malicious-server"])
def test_it_says_what_a_recording_gives_to_a_later_quantum_computer(profile) -> None:
    plan, ledger = run()
    said = {}
    for suite in ("x25519", "x25519-mlkem768"):
        text = write(plan, ledger, profile=profile, suite=suite)
        (said[suite],) = (paragraph for paragraph in text.split("\n\n") if paragraph.startswith("Channels."))
        assert "quantum computer later" in said[suite]
        assert said[suite].endswith("against that only epsilon_local below holds.")
        assert text.index("Trust.") < text.index("Channels.") < text.index("One upload alone.")
    assert "X25519 alone" in said["x25519"]
    assert "ML-KEM" not in said["x25519"]
    assert "must break ML-KEM-768 as well; only who breaks both" in said["x25519-mlkem768"]


def test_channels_are_told_of_where_there_are_some() -> None:
    assert "Channels." not in write(*run(), profile="off")
    silent = write(*run(epsilon=math.inf))
    assert "sees every upload singly." in silent
    assert "epsilon_local" not in silent
    for profile, suite in (("off", "x25519"), ("semi-honest", None)):
        with pytest.raises(ValueError, match=f"profile {profile} and suite {suite}"):
            write(*run(), profile=profile, suite=suite)


def test_clients_receive_the_released_sums_and_that_is_said() -> None:
    text = write(*run())
    assert "What clients are sent. The adapter, or the released sums" in text
    assert "It is the same information" in text
