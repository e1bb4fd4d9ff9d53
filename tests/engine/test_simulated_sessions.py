"""Masking sessions of simulated runs: set up once by default, settled in the run's folder, counted as they are sent."""

import pytest
from command import flora_here
from crashing import complete, resumed
from federations import finish, small

import flora_secure
from flora_protocols import suites
from flora_secure.engine.exchange import MaskedExchange
from flora_secure.engine.recorded import begin
from flora_secure.engine.simulation import Simulation, without_noise
from flora_secure.engine.summary import summarise
from flora_secure.planning.config import load_config
from flora_secure.planning.masking import settled
from flora_secure.records.forecast import forecast
from flora_secure.records.reading import read_run
from flora_secure.records.report_table import rows

DIGITS = ["--dataset", "digits", "--clients", "10", "--rounds", "2", "--simulation-noise", "--partition", "iid"]


def sessions_of(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Number, slot and slots of each round, as it is carried."""
    seen, truth = [], MaskedExchange.round

    def watched(self, invitation, *rest):
        seen.append((invitation.params.number, invitation.slot, invitation.params.slots))
        return truth(self, invitation, *rest)

    monkeypatch.setattr(MaskedExchange, "round", watched)
    list(simulation.rounds())
    return seen


def test_everybody_is_set_up_once_and_cohorts_in_each_round(task, monkeypatch) -> None:
    assert sessions_of(Simulation(small(), task), monkeypatch) == [(1, 0, 4), (1, 1, 4), (1, 2, 4)]
    assert sessions_of(Simulation(small(aggregation__slots=2), task), monkeypatch) == [(1, 0, 2), (1, 1, 2), (3, 0, 2)]
    cohorts = small(participation__rate=0.6, participation__sampling="fixed", privacy__epsilon=100.0)
    assert sessions_of(Simulation(cohorts, task), monkeypatch) == [(1, 0, 1), (2, 0, 1), (3, 0, 1)]


def test_the_set_up_is_paid_for_in_the_first_round(task) -> None:
    uploads = [record.upload_bytes for record in finish(small(), task).records]
    assert uploads[1] == uploads[2] < uploads[0] / 2


@pytest.mark.parametrize("secagg", ["semi-honest", "malicious-server", "off"])
@pytest.mark.parametrize("suite", ["x25519", "x25519-mlkem768"])
def test_the_bytes_of_the_report_are_those_of_the_plan(task, secagg, suite) -> None:
    """Broadcasts, invitations and masks, down to the byte, where nobody drops out."""
    if secagg == "off" and suite != "x25519":
        pytest.skip("there are no channels")
    config = small(aggregation__secagg=secagg, aggregation__suite=None if secagg == "off" else suite)
    run, plan = summarise(finish(config, task), total_seconds=1.0).communication, forecast(config).communication
    for figure in vars(plan):
        assert getattr(run, figure) == pytest.approx(getattr(plan, figure), rel=1e-9), figure
    assert run.download_bytes > run.invitation_bytes + run.broadcast_bytes
    assert run.upload_bytes + run.download_bytes == pytest.approx(
        run.payload_bytes + run.invitation_bytes + run.masking_bytes
    )


def test_slots_and_suite_stand_in_the_folder_and_in_the_report(tmp_path, quick) -> None:
    run = flora_secure.simulate(
        dataset="digits", clients=10, rounds=2, simulation_noise=True, partition="iid", out=tmp_path / "run"
    )
    how = load_config(tmp_path / "run/config.toml").aggregation
    assert (how.slots, how.suite) == (3, "x25519-mlkem768")
    assert (run.report.aggregation.slots, run.report.aggregation.suite) == (3, "x25519-mlkem768")
    assert "x25519-mlkem768, 3 rounds a set-up" in str(rows(run.report))
    assert not any("X25519" in line for line in run.report.warnings)


def test_a_run_that_goes_on_sets_up_another_session(task, tmp_path, quick, monkeypatch) -> None:
    config = small(aggregation__slots=4, aggregation__suite="x25519")
    whole = finish(config, task)
    first = begin(Simulation(config, task), tmp_path / "run")
    next(first.rounds())
    again = resumed(tmp_path / "run", config, task)
    complete(again)
    _, records, report = read_run(tmp_path / "run")
    assert [record.accuracy for record in records] == [record.accuracy for record in whole.records]
    assert report.aggregation.slots == 4
    uploads = [record.upload_bytes for record in records]
    assert uploads[0] == uploads[1] > 1.3 * uploads[2]  # four slots at ten clients


def test_the_run_without_noise_beside_it_has_no_masks_to_settle(task) -> None:
    """Slots and suite of the run are settled by then, and the comparison has neither."""
    config = settled(small(training__rounds=1, aggregation__slots=2))
    assert config.aggregation.suite is not None
    assert 0 < without_noise(config, task) < 1


def test_without_ml_kem_a_run_takes_x25519_and_its_report_warns(tmp_path, monkeypatch, quick) -> None:
    monkeypatch.setattr(suites, "_mlkem", None)
    done = flora_here("simulate", *DIGITS, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (said,) = (line for line in done.stderr.splitlines() if "X25519 alone" in line)
    assert said.startswith("warning: the channels of the masking rest on X25519 alone")
    config, _, report = read_run(tmp_path / "run")
    assert (config.aggregation.suite, report.aggregation.suite) == ("x25519", "x25519")
    assert any("X25519 alone" in line for line in report.warnings)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--suite", "x25519-mlkem768"], "--suite x25519-mlkem768 needs ML-KEM-768, which this installation's"),
        (["--suite", "kyber"], "--suite must be one of x25519, x25519-mlkem768; got 'kyber'"),
        (["--slots", "0"], "--slots must lie in 1…1024, got 0"),
        (["--slots", "5", "--secagg", "off"], "--slots 5 is of masks, and with --secagg off"),
        (["--suite", "x25519", "--secagg", "off"], "--suite x25519 is of masks, and with --secagg off"),
        (["--slots", "5", "--participation", "0.5", "--sampling", "fixed"], "--slots 5 prepares rounds of one cohort"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("command", ["simulate", "plan"])
def test_what_cannot_be_is_one_line(command, flags, says, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(suites, "_mlkem", None)
    more = ["--dataset", "digits", "--clients", "10"] if command == "simulate" else []
    done = flora_here(command, *more, *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    line = done.stderr.splitlines()[-1]
    assert says in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
