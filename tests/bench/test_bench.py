"""The benchmark runs at tiny sizes and yields its rows. Nothing here judges a time."""

import ast
import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flora_bench import masking, noise, our_server, our_session, training
from flora_bench.federation import rows as federation
from flora_bench.measure import Row, Scale, Stopwatch, installed, medians
from flora_cli.main import app
from flora_protocols import Profile, SessionParams, Suite, Trip, identity_public

ROOT = Path(__file__).parents[2]


def test_ratio_and_verdict_follow_the_direction_of_the_target() -> None:
    faster = Row(figure="f", setting="s", ours=2.0, other=30.0, at_least=10.0)
    assert faster.ratio == 15.0
    assert faster.met is True
    assert Row(figure="f", setting="s", ours=4.0, other=30.0, at_least=10.0).met is False
    limit = Row(figure="f", setting="s", ours=3.0, other=2.0, at_most=1.5)
    assert limit.ratio == 1.5
    assert limit.met is True
    assert Row(figure="f", setting="s", ours=3.1, other=2.0, at_most=1.5).met is False


def test_a_missing_side_gives_neither_ratio_nor_verdict() -> None:
    row = Row(figure="f", setting="s", ours=2.0, other=None, at_least=10.0)
    assert (row.ratio, row.met) == (None, None)
    untold = Row(figure="f", setting="s", ours=3.0, other=2.0)
    assert (untold.ratio, untold.met) == (1.5, None)


def test_trials_take_turns_and_their_preparation_is_not_timed() -> None:
    order = []

    def trial(name: str, preparing: int, acting: int):
        def prepare():
            sum(range(preparing))
            return lambda: (order.append(name), sum(range(acting)))

        return prepare

    cheap, dear = medians(3, trial("a", 3_000_000, 10), trial("b", 10, 3_000_000))
    assert order == ["a", "b"] * 4  # one turn unseen, three measured
    assert cheap < dear / 10


def test_another_clock_may_be_read() -> None:
    ticks = iter(range(100))
    assert medians(2, lambda: lambda: next(ticks), clock=lambda: float(next(ticks))) == [2.0]


def test_a_stopwatch_adds_up() -> None:
    watch = Stopwatch()
    with watch:
        sum(range(200_000))
    once = watch.seconds
    with watch:
        sum(range(200_000))
    assert watch.seconds > once > 0


@pytest.fixture(
    scope="module", params=["masking", "noise", "federation", pytest.param("training", marks=pytest.mark.slow)]
)
def measured(request: pytest.FixtureRequest) -> list[Row]:
    subjects = {"masking": masking, "noise": noise, "federation": federation, "training": training}
    return list(subjects[request.param].rows(Scale.QUICK))


def test_every_row_has_our_figure_and_only_missing_peers_lack_theirs(measured: list[Row]) -> None:
    assert measured
    for row in measured:
        assert row.figure
        assert row.setting
        if row.ours is None:  # an engine of others
            assert row.note == "left out: not installed (flora-secure[flower])"
            continue
        assert 0 < row.ours < math.inf
        if row.other is None:
            assert row.note == masking.MISSING or (row.at_least, row.at_most) == (None, None)
        json.dumps(row.to_dict())


def test_peers_are_measured_exactly_where_they_are_installed() -> None:
    for package, module, against in (("flwr", masking, "Flower"), ("opendp", noise, "OpenDP")):
        rows = [
            row for row in module.rows(Scale.QUICK) if row.against.startswith(against) or row.note == module.MISSING
        ]
        assert rows
        assert all((row.other is None) == (installed(package) is None) for row in rows)


def test_a_batch_of_clients_stands_beside_a_loop_through_peft() -> None:
    (row,) = training.clients(Scale.QUICK, "cpu")
    assert row.ours is not None
    assert row.other is not None
    assert row.ratio == row.other / row.ours
    assert row.met is not None


SUITES = [suite for suite in Suite if suite.available]


@pytest.mark.parametrize("suite", SUITES)
def test_stand_ins_pass_the_servers_checks_and_the_dropped_are_recovered(suite) -> None:
    params = SessionParams(clients=20, neighbours=6, threshold=3, bits=16, dimension=40, slots=3, suite=suite)
    stand_ins = our_server.StandIns(params, 3)
    prepared, setup = our_server.prepare(params, stand_ins)
    result, seconds = our_server.serve(prepared, stand_ins)
    assert result.survivors == stand_ins.survivors
    assert set(result.recovered) == stand_ins.dropped
    assert len(stand_ins.dropped) == 3
    assert set(setup) == {Trip.ADVERTISE, Trip.SHARE, *([Trip.ENCAPSULATE] if suite.hybrid else [])}
    assert set(seconds) == {Trip.MASK, Trip.UNMASK}
    assert min(*setup.values(), *seconds.values()) > 0
    near = [member for gone in stand_ins.dropped for member in params.graph.members(gone)]
    assert stand_ins.masks == 17 + sum(member not in stand_ins.dropped for member in near)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("signed", [False, True])
def test_trips_are_counted_from_a_session_that_is_run(suite, signed) -> None:
    secrets = tuple(bytes([1 + index]) * 32 for index in range(5 * signed))
    params = SessionParams(
        clients=5,
        neighbours=4,
        threshold=4,
        bits=8,
        dimension=3,
        slots=2,
        suite=suite,
        profile=Profile.MALICIOUS_SERVER if signed else Profile.SEMI_HONEST,
        identities=tuple(map(identity_public, secrets)),
    )
    found = our_session.run(params, secrets)
    assert found.set_up == (Trip.ADVERTISE, *([Trip.ENCAPSULATE] if suite.hybrid else []), Trip.SHARE)
    assert found.trips == (Trip.MASK, *([Trip.AGREE] if signed else []), Trip.UNMASK)
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["noise", "--quick", "--device", "cuda"], "--device cuda: bench noise runs on the processor"),
        (["training", "--quick", "--device", "mps"], "--device mps: bench training runs on cpu or cuda"),
        (["training", "--quick", "--device", "cuda:99"], "device 'cuda:99' is no device of this machine"),
    ],
)
def test_a_device_that_cannot_be_measured_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_json_is_one_document_with_raw_medians_and_the_machine() -> None:
    done = CliRunner().invoke(app, ["bench", "noise", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["scale"] == "quick"
    assert {"processor", "cores", "numpy", "cryptography", "flwr", "opendp"} <= set(document["machine"])
    assert {"figure", "ours", "other", "ratio", "met", "at_least", "at_most"} <= set(document["rows"][0])


def test_the_table_says_which_targets_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row(figure="an example", setting="n=1", ours=9.0, other=1.0, against="a limit", at_most=2.0)
    monkeypatch.setattr(noise, "rows", lambda scale: iter([row]))
    done = CliRunner().invoke(app, ["bench", "noise"])
    assert done.exit_code == 0
    line = next(line for line in done.stdout.splitlines() if line.startswith("an example"))
    assert line.split()[-1] == "MISSED"


@pytest.mark.parametrize("arguments", [["bench", "noise", "--quick", "--full"], ["bench", "sleep"], ["bench"]])
def test_bad_input_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_nothing_but_the_command_imports_the_benchmark() -> None:
    for folder in ("flora_secure", "protocols", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent == ROOT / "flora_secure/bench" or path == ROOT / "cli/flora_cli/bench.py":
                continue
            named = {
                name
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [f"{node.module}.{alias.name}" for alias in node.names]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
            }
            assert not any(name.startswith("flora_secure.bench") for name in named), path
