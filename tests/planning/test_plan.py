"""Figures of a run before it starts: those that the run itself then has."""

import itertools
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import PROGRAM, flora, flora_here
from following import server_of
from invitations import enrolment_of, floors_of, invitation_of, secrets_of

from flora_bench import mechanisms
from flora_bench.mechanisms import compare_mechanisms
from flora_secure.engine.exchange import CountedExchange, MaskedExchange, PlainExchange, RoundExchange, Traffic
from flora_secure.errors import ConfigError, PlotError
from flora_secure.planning import architectures, selection
from flora_secure.planning.architectures import architecture
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.masking import SUITES, masking_of
from flora_secure.planning.noise import plan_noise
from flora_secure.planning.protection import ParticipationConfig
from flora_secure.planning.sections import DataConfig, TrainingConfig
from flora_secure.privacy.accounting import epsilon_outsider, noise_multiplier_for
from flora_secure.records.curves import curves, plot_budget
from flora_secure.records.forecast import budget_of, forecast
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import OPENING_BYTES
from flora_secure.rounds.sum import Outcome, RoundSum

WITHOUT_TORCH = """
import sys
class Block:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "open_clip", "peft", "opacus"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
"""


def plan(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In a fresh process that has no torch."""
    return flora("plan", *arguments, cwd=cwd, program=WITHOUT_TORCH + PROGRAM[-1])


def config(**changes) -> RunConfig:
    """Of 100 clients and ten classes, where no others are asked for."""
    base = {"data.dataset": "clothes"}
    return override(RunConfig(), base | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("secagg", "neighbours", "suite"),
    [
        ("off", None, None),
        *itertools.product(("semi-honest", "malicious-server"), (None, 8), SUITES),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.17])
@pytest.mark.parametrize(("rule", "slots"), [("prompt-basis", None), ("alternate", 2)])
def test_the_bytes_are_those_of_real_rounds(secagg, dropout, neighbours, suite, rule, slots) -> None:
    """Of a whole run of three rounds, in one session or in two, of which the second is shorter; its drop-outs in every
    constellation, so that their mean is what is expected."""
    n, rounds, masked = 12, 3, secagg != "off"
    settings = config(
        data__clients=n,
        training__rounds=rounds,
        privacy__dropout_tolerance=0.2,
        aggregation__secagg=secagg,
        aggregation__dropout=dropout,
        aggregation__corrupt=0.0,
        aggregation__neighbours=neighbours,
        aggregation__slots=slots if masked else None,
        aggregation__suite=suite,
        model__rank=1,
        model__rule=rule,
    )
    found = forecast(settings)
    secrets = secrets_of(n) if secagg == "malicious-server" else {}
    enrolment, traffic, runs = enrolment_of(n, secrets), Traffic(), 0
    masking = masking_of(settings, found.plan)
    for first, second in itertools.product(range(n), repeat=2) if dropout else [(0, 0)]:
        # counted where there are many: test_counted has that it is the same, message for message
        exchange: RoundExchange = CountedExchange() if dropout else MaskedExchange(secrets, enrolment)
        if not masked:
            exchange = PlainExchange()
        for number, shift in enumerate((first, second, first + second)):
            slot = 0 if masking is None else number % masking.slots
            invitation = invitation_of(
                found.plan, enrolment, number=1 + number, slot=slot, masking=masking, masked=masked
            )
            gone = {(shift + place) % n for place in range(int(dropout * n))}
            uploads = {i: np.zeros(found.plan.length, np.uint32) for i in range(n) if i not in gone}
            exchange.round(invitation, floors_of(invitation), uploads, traffic)
        runs += 1
    each = n * rounds * runs
    broadcasts = found.communication.broadcast_bytes
    opened = broadcasts + found.communication.invitation_bytes + OPENING_BYTES
    close = 1e-3 if dropout else 1e-9  # who are neighbours of whom is not shifted
    assert found.communication.upload_bytes == pytest.approx(traffic.upload / each, rel=close)
    assert found.communication.download_bytes == pytest.approx(traffic.download / each + opened, rel=1e-9)
    assert found.communication.payload_bytes == pytest.approx(traffic.payload / each + broadcasts)
    assert found.communication.masking_bytes == pytest.approx(traffic.masking / each + OPENING_BYTES, rel=close)


@pytest.mark.parametrize("sampling", [None, "fixed"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_invitations_are_those_of_a_server(sampling, dropout) -> None:
    """Long ones to who may not know one, short ones to all others, whatever sessions begin meanwhile."""
    rounds, sent, opened = 40, 0, 0
    rate = 1.0 if sampling is None else 0.5
    changes = {
        "training__rounds": rounds,
        "privacy__dropout_tolerance": 0.4,
        "aggregation__dropout": dropout,
        "aggregation__corrupt": 0.0,
        "participation__rate": rate,
        "participation__sampling": sampling,
        **({} if sampling else {"aggregation__slots": 3}),
    }
    rng = np.random.default_rng(0)
    for _ in range(3):
        us = server_of(**changes)
        for _ in range(rounds):
            invitation = us.invite()
            opened += len(us.openings(invitation))
            gone = rng.choice(invitation.members, int(dropout * len(invitation.members)), replace=False)
            uploaded = tuple(sorted(set(invitation.members).difference(gone.tolist())))
            zeros = np.zeros(invitation.plan.length, np.uint32)
            us.finish(invitation, Outcome(sum=RoundSum(zeros, uploaded, 0), aborted=None, uploaded=uploaded))
        sent += us.invitation_bytes
    planned = forecast(us.config).communication.invitation_bytes
    assert planned == pytest.approx(sent / opened, rel=1e-9 if sampling is None else 0.03)
    long, short = Invitation.sizes(10, "text-projection", "prompt-basis", masked=True)
    assert short < planned < long


@pytest.mark.parametrize("secagg", ["semi-honest", "malicious-server"])
def test_both_suites_are_said_side_by_side(secagg) -> None:
    """Whichever of them runs, the other's figure stands beside it, and is that of a plan that takes it."""
    plans = {name: forecast(config(aggregation__secagg=secagg, aggregation__suite=name)) for name in SUITES}
    expected = {name: found.communication.reduction for name, found in plans.items()}
    assert expected["x25519"] > expected["x25519-mlkem768"]
    for name, found in plans.items():
        assert found.aggregation.suite == name
        assert found.aggregation.slots == 22
        assert found.aggregation.reductions == pytest.approx(expected)
        said = dict(found.rows())["  channels"]
        assert said.startswith(f"{name}, set up for 22 rounds at once; ")
        assert all(f"{reduction:,.0f} × less by {other}" in said for other, reduction in expected.items())
    assert forecast(config()).aggregation.suite == "x25519-mlkem768"
    cohorts = forecast(config(participation__rate=0.5, participation__sampling="fixed"))
    assert (cohorts.aggregation.suite, cohorts.aggregation.slots) == ("x25519", 1)
    assert ", set up for 1 round at once; " in dict(cohorts.rows())["  channels"]
    off = forecast(config(aggregation__secagg="off"))
    assert (off.aggregation.suite, off.aggregation.slots, off.aggregation.reductions) == (None, None, {})
    assert "  channels" not in dict(off.rows())


def test_neighbours_and_threshold_of_the_published_table_and_a_plot(tmp_path) -> None:
    flags = ["--clients", 1000, "--corrupt", 0.05, "--dropout", 0.1, "--json", "--plot", "budget.png"]
    done = plan(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "budget.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(done.stdout)
    assert found["schema"] == "flora-secure/plan/1"
    assert found["aggregation"]["neighbours"] == 40
    assert found["aggregation"]["threshold"] == 19


def test_clip_of_the_paper_sends_twenty_thousand_times_less() -> None:
    """FLoRA (2404.15182) reports 4766 × in parameters; this is bytes on the wire, both directions, masking included."""
    found = forecast(config(model__model="ViT-B-32", model__rank=10, data__clients=1000))
    assert found.communication.reduction >= 20_000
    assert forecast(config()).communication.reduction >= 800


def test_both_directions_agree() -> None:
    z = 4.835103
    epsilon = budget_of(config(), z)
    assert epsilon == pytest.approx(4.0, abs=1e-5)
    found = forecast(config(privacy__epsilon=epsilon))
    assert found.privacy.noise_multiplier == pytest.approx(z, rel=1e-6)
    assert found.privacy.epsilon <= epsilon


def test_without_masking_the_headline_is_that_of_one_upload() -> None:
    off, on = forecast(config(aggregation__secagg="off")).privacy, forecast(config()).privacy
    assert off.epsilon == off.epsilon_local == on.epsilon_local > 10 * on.epsilon
    assert off.epsilon_outsider == on.epsilon


def test_no_noise_is_said_and_null() -> None:
    found = forecast(config(privacy__epsilon=math.inf))
    assert found.privacy.epsilon is None
    assert found.privacy.cross_check == {}
    assert "NONE" in found.rows()[0][1]
    json.dumps(found.to_dict(), allow_nan=False)


MODELS = ("ViT-B-32", "ViT-B-16", "ViT-L-14")


@pytest.mark.parametrize(
    ("placement", "rule", "ratios"),
    [
        ("text-projection", "ab", (147_732, 146_114, 278_396)),
        ("text-projection", "frozen-a", (295_464, 292_228, 556_792)),
        ("text-attention", "ab", (6_155, 6_088, 11_600)),
        ("text-attention-full", "ab", (3_078, 3_044, 5_800)),
        ("both-projections", "ab", (65_659, 64_940, 128_491)),
    ],
)
def test_parameter_ratios_of_rank_one(placement, rule, ratios) -> None:
    wanted = config(model__placement=placement, model__rule=rule, model__rank=1).model
    sizes = [architecture(name) for name in MODELS]
    assert tuple(round(size.parameters / size.trained(wanted)) for size in sizes) == ratios


def test_placements_that_a_model_lacks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tiny's image tower has no matrix for model\.placement visual-attention"):
        forecast(config(model__placement="visual-attention", model__rule="ab"))
    with pytest.raises(ConfigError, match=r"rule prompt-basis is for model\.placement text-projection, not text-mlp"):
        config(model__placement="text-mlp", model__rule="prompt-basis")
    with pytest.raises(ConfigError, match=r"ViT-B-32: model\.last_layers 13 is more than the tower's 12 blocks"):
        forecast(config(model__model="ViT-B-32", model__placement="text-mlp", model__last_layers=13))
    with pytest.raises(ConfigError, match=r"last_layers 1 is for a model\.placement in a tower's blocks"):
        config(model__last_layers=1)
    with pytest.raises(ConfigError, match="rank 513 exceeds 512, the rank of ViT-B-32's text attention"):
        forecast(config(model__model="ViT-B-32", model__placement="text-attention", model__rule="ab", model__rank=513))


def test_the_default_rank_is_the_classes_of_the_data_set() -> None:
    def d(**changes) -> int:
        return forecast(config(**changes)).communication.upload_values

    assert d(model__model="ViT-B-32", data__dataset="cifar100") == 10 * d(model__model="ViT-B-32")
    assert d(data__dataset="icons") == 2 * d()
    assert d(data__unseen_classes=("bag", "shirt")) == d(model__rank=8)


def test_sizes_are_measured_not_typed() -> None:
    """The table against the model itself: one that ships, and one of open_clip's."""
    from flora_secure.model.loading import load_clip

    for name, weights in (("tiny", None), ("ViT-B-32", "none")):
        clip = load_clip(name, weights)
        size = architecture(name)
        assert (size.parameters, size.shapes.width, size.shapes.embed) == (
            clip.parameter_count,
            *clip.text_projection.shape,
        )


def test_every_architecture_is_known_or_named_with_where_its_size_is() -> None:
    import open_clip

    table = json.loads(
        (Path(architectures.__file__).parents[1] / "assets/architectures.json").read_text(encoding="utf-8")
    )
    if table["open_clip"] != open_clip.__version__:
        pytest.skip(f"measured with open_clip {table['open_clip']}")
    shipped = {path.stem for path in (Path(open_clip.__file__).parent / "model_configs").glob("*.json")}
    assert {*table["architectures"], *table["unmeasured"]} == {*shipped, "tiny"}
    assert len(table["unmeasured"]) < 11
    for name, hub in table["unmeasured"].items():
        with pytest.raises(
            ConfigError, match=f"size of model.model '{name}' is not known before it is loaded: .*{hub}"
        ):
            architecture(name)


def test_other_mechanisms_cost_more_at_the_same_budget(monkeypatch) -> None:
    """2102.06387 and 2110.04995 need 14 bits and more where 8 do, and 7 % more noise."""
    monkeypatch.setattr(mechanisms, "BITS", (8, 10, 14, 20))
    found = forecast(config())
    default, *others = compare_mechanisms(found.plan)
    assert default.bits == 8
    assert default.error_ratio <= 1.01
    assert {cost.mechanism for cost in others} == {"discrete Gaussian", "Skellam"}
    assert len(others) == 2 * 4
    assert all(cost.error_ratio is None for cost in others if cost.bits <= 10)
    assert all(cost.error_ratio > 1.06 for cost in others if cost.bits >= 14)


def test_curves_end_at_the_plan() -> None:
    found = forecast(config())
    drawn = curves(found.plan)
    assert drawn.rounds == tuple(range(1, 21))
    assert drawn.epsilons[-1] == pytest.approx(4.0, abs=1e-6)
    assert all(a < b for a, b in zip(drawn.epsilons, drawn.epsilons[1:], strict=False))
    assert drawn.multipliers[drawn.budgets.index(4.0)] == pytest.approx(found.privacy.noise_multiplier, rel=1e-6)


def test_a_plot_of_no_known_kind_is_refused(tmp_path) -> None:
    with pytest.raises(PlotError, match="cannot be written"):
        plot_budget(curves(forecast(config()).plan), 4.0, tmp_path / "budget.nothing")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--epsilon", "0"], "epsilon must be above 0"),
        (["--epsilon", "4", "--noise-multiplier", "3"], "either --epsilon or --noise-multiplier"),
        (["--noise-multiplier", "0"], "--noise-multiplier must be a finite number > 0"),
        (["--noise-multiplier", "1e308"], "--noise-multiplier 1e+308 costs less than epsilon 1e-06"),
        (["--noise-multiplier", "0.1"], "--noise-multiplier 0.1 costs more than epsilon 100"),
        (["--noise-multiplier", "1e-308"], "--noise-multiplier 1e-308 costs more than epsilon 100"),
        (
            ["--noise-multiplier", "1e-308", "--unit", "example"],
            "--noise-multiplier 1e-308 costs more than epsilon 100",
        ),
        (["--epsilon", "1e9"], "epsilon 1e+09 is more than the 100 that can be accounted for"),
        (["--delta", "1e-15"], "delta 1e-15 is less than the 1e-12 that can be accounted for"),
        (["--clients", "99999999999"], "clients must be at most 1,000,000"),
        (["--rounds", "99999999999"], "rounds must be at most 100,000"),
        (["--unit", "example", "--images", "99999999999"], "images must be at most 1,000,000,000"),
        (["--delta", "1"], "delta must lie between 0 and 1"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--model", "ViT-X"], "the size of --model 'ViT-X' is not known"),
        (["--clip-norm", "nan"], "--clip-norm must be a positive number"),
        (["--dropout-tolerance", "1"], "--dropout-tolerance must be at least 0 and below 1"),
        (["--threshold", "2"], "--threshold 2: "),
        (["--corrupt", "0.95"], "tolerate fewer (--corrupt, --dropout-tolerance)"),
        (["--model", "ViT-B-33"], "; did you mean 'ViT-B-32'?"),
        (
            ["--secagg", "malicious-server", "--corrupt", "0.85"],
            "plan for fewer corrupt clients (--corrupt), for fewer dropouts (--dropout-tolerance)",
        ),
        (["--epsilon", "100", "--bits", "8"], "allow more --bits, or take a smaller --epsilon, fewer --clients"),
        (["--plot", "no/such/folder.png"], "--plot no/such/folder.png cannot be written"),
        (["--epsilon", "inf", "--mechanisms"], "with noise"),
        (["--epsilon", "inf", "--plot", "x.png"], "give a finite --epsilon"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(flags, says, tmp_path) -> None:
    done = flora_here("plan", *flags, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--epsilon", "100"],
        ["--delta", "1e-12"],
        ["--clip-norm", "1e6"],
        ["--clip-norm", "1e-6"],
        ["--clients", "1000000", "--secagg", "off"],
        ["--unit", "example", "--delta", "1e-10"],
    ],
    ids=" ".join,
)
def test_the_limits_themselves_are_planned(flags, tmp_path) -> None:
    done = flora_here("plan", *flags, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)["privacy"]
    assert found["cross_check"]["dp-accounting RDP"] >= found["cross_check"].get("dp-accounting PLD", 0)


def test_bad_input_of_a_fresh_process_is_one_line_too(tmp_path) -> None:
    done = plan("--rank", "200", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("flora-secure: --rank 200 exceeds 102")
    assert done.stderr.count("\n") == 1


def test_a_large_delta_warns_with_the_reason(tmp_path) -> None:
    done = flora_here("plan", "--delta", "0.02", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: delta 0.02 is not below 1/clients" in done.stderr


def test_cohorts_and_examples_are_planned_as_they_are_run(coarse) -> None:
    """The plan of a simulation and that of `plan` come from one place; what it says of cohorts must be theirs."""
    fixed = forecast(config(data__clients=500, participation__rate=0.2, participation__sampling="fixed"))
    assert fixed.aggregation.clients == 100
    assert fixed.privacy.participations == 7  # the 95 % quantile of Binomial(20, 0.2)
    assert fixed.privacy.noise_multiplier == pytest.approx(noise_multiplier_for(4.0, 1e-5, 7), rel=1e-6)
    assert fixed.privacy.epsilon <= 4.0
    poisson = forecast(config(data__clients=500, participation__rate=0.2, participation__sampling="poisson"))
    assert poisson.aggregation.clients == 100
    assert poisson.plan.smallest_cohort < 100 < poisson.plan.clients
    example = forecast(config(privacy__unit="example"))
    assert example.privacy.sampling_rate == 0.1
    assert example.privacy.mu is None
    assert example.privacy.noise_multiplier < 1.2
    assert 3.9 < example.privacy.epsilon <= 4.0
    assert budget_of(config(privacy__unit="example"), example.privacy.noise_multiplier) == pytest.approx(4.0, abs=0.02)


def test_the_most_clients_that_the_help_allows_are_planned_for_or_told_what_would_do() -> None:
    with pytest.raises(ConfigError, match=r"1,000,000 of data\.clients may be in one round, .* at most 65,536"):
        forecast(RunConfig(data=DataConfig(clients=1_000_000), training=TrainingConfig(rounds=1)))
    sampled = ParticipationConfig(rate=0.05, sampling="fixed")
    found = forecast(
        RunConfig(data=DataConfig(clients=1_000_000), training=TrainingConfig(rounds=1), participation=sampled)
    )
    assert found.aggregation.clients == 50_000


def test_colluders_of_a_large_federation_are_no_fewer_than_the_finder_says(monkeypatch) -> None:
    exact = selection._colluders(1000, 100, 0.05), selection._colluders(5000, 900, 0.1)
    monkeypatch.setattr(selection, "MAX_CLIENTS", 999)
    bound = selection._colluders(1000, 100, 0.05), selection._colluders(5000, 900, 0.1)
    assert all(one <= other <= 1.2 * one for one, other in zip(exact, bound, strict=True))


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_outsiders_are_planned_for_at_their_worst(coarse, epsilon) -> None:
    """More survivors bring more noise and leave less doubt who is among them: which costs outsiders more depends."""
    chosen = config(
        data__clients=200, training__rounds=2, participation__rate=0.3, participation__sampling="fixed",
        privacy__epsilon=epsilon, privacy__dropout_tolerance=0.4, aggregation__corrupt=0.0,
    )  # fmt: skip
    planned = selection.Selection.of(chosen)
    assert planned.uniform
    plan = plan_noise(chosen, planned, 1920, 20_000).for_cohort(60)
    each = [
        epsilon_outsider([plan.event(t, k, population=200) for t in (1, 2)], plan.delta)
        for k in (plan.survivors_minimum, 48, 60)
    ]
    found = forecast(chosen).privacy
    assert max(each) > 1.05 * each[0]
    assert found.epsilon_outsider == pytest.approx(min(found.epsilon, max(each)), rel=1e-3)


def test_amplification_is_planned_only_where_nobody_can_run_out() -> None:
    """Twenty rounds at one in ten pay for fewer than twenty of a client."""
    planned = selection.Selection.of(config(participation__rate=0.1, participation__sampling="fixed"))
    assert planned.participations < planned.rounds
    assert not planned.uniform
