"""The figures of a page in words: the label on top, the data, who is trusted, how to run it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flora_secure.records.html.shown import Shown, Table, epsilon_text, size_text
from flora_secure.records.report import TOP_1
from flora_secure.records.report_table import IMAGES_ALONE, measured

TRUST = {
    "semi-honest": "the server follows the protocol; it sees sums, and no upload singly",
    "malicious-server": "the server may deviate; clients check each other's keys, and it sees sums alone",
    "off": "the server: it sees every upload singly",
}


class Fact(NamedTuple):
    """A figure, what it is of, and what to know about it."""

    what: str
    figure: str
    note: str


def label(run: Shown) -> list[Fact]:
    """What stands on top: accuracy, budget, bytes, trust."""
    return [*_accuracy(run), *_budget(run), *_bytes(run), _trust(run)]


def _accuracy(run: Shown) -> list[Fact]:
    acc = run.report.accuracy
    what = "accuracy" if acc.measures == TOP_1 else acc.measures
    low, high = acc.interval
    return [
        Fact(what, f"{acc.final:.2%}", f"{low:.1%} to {high:.1%} at 95 % confidence; zero-shot {acc.zero_shot:.2%}")
    ]


def _budget(run: Shown) -> list[Fact]:
    priv = run.report.privacy
    if not run.noisy:
        return [Fact("ε, server", "no bound", "no noise was added: there is no differential privacy")]
    target = "" if priv.target_epsilon is None else f"of {priv.target_epsilon:g} allowed, "
    who = "the server, which sees the sums" if run.masked else "the server, which sees every upload"
    return [
        Fact("ε, server", epsilon_text(priv.epsilon), f"{target}per {priv.unit}, against {who}"),
        Fact("ε, one upload alone", epsilon_text(priv.epsilon_local), "if the server and all other clients collude"),
        Fact("ε, outsiders", epsilon_text(priv.epsilon_outsider), "who see the released models alone"),
        Fact("δ", f"{priv.delta:.3g}", "a probability, beside what ε allows"),
    ]


def _bytes(run: Shown) -> list[Fact]:
    comm = run.report.communication
    less = "nothing sent" if comm.reduction is None else f"{comm.reduction:,.0f} ×"
    return [
        Fact("up", size_text(comm.upload_bytes), "a client and round, complete messages"),
        Fact("down", size_text(comm.download_bytes), f"{size_text(comm.invitation_bytes)} of it invitation"),
        Fact("reduction", less, f"less than the model of {size_text(comm.full_model_bytes)}, both ways"),
    ]


def _trust(run: Shown) -> Fact:
    profile = run.report.aggregation.profile
    colluders = max(record.colluders for record in run.records)
    beside = f"; of a cohort, {colluders:,} may collude with it" if run.noisy and run.masked else ""
    if run.counted:
        beside += "; masking was counted and not run"
    return Fact("trust", profile + (", counted" if run.counted else ""), TRUST.get(profile, "") + beside)


def title(run: Shown) -> str:
    """What the page of one run is called."""
    report = run.report
    budget = f"at ε = {epsilon_text(report.privacy.epsilon)}" if run.noisy else "without privacy"
    counted = ", masking counted and not run" if run.counted else ""
    clients = f"{report.aggregation.clients:,} clients"
    return f"{report.data.dataset}: {report.accuracy.final:.1%} {budget}, {clients}{counted}"


def summary(run: Shown) -> str:
    """The run in a sentence."""
    report = run.report
    acc, priv, agg = report.accuracy, report.privacy, report.aggregation
    images = report.data.private_images
    held = "images of their own" if images is None else f"{images:,} images of {report.data.dataset!r}"
    what = (
        f"{agg.clients:,} clients trained on {held} for "
        f"{priv.rounds:,} rounds: {acc.zero_shot:.1%} became {acc.final:.1%}."
    )
    if not run.noisy:
        return f"{what} Nothing bounds what it tells about a client."
    return (
        f"{what} What all that was released tells about one {priv.unit} is bounded by ε = "
        f"{epsilon_text(priv.epsilon)} at δ = {priv.delta:.3g}."
    )


def skew(run: Shown) -> list[Fact]:
    """How the clients' data differ, as far as the report says."""
    data = run.report.data
    if data.private_images is None:
        return [Fact("images a client", "not known", "they stay at the clients, and nobody has counted them")]
    spread = f"{data.client_minimum:,} / {data.client_median:,.0f} / {data.client_maximum:,}"
    found = [
        Fact("images a client", spread, f"least / median / most, of {data.private_images:,} dealt {data.partition}"),
    ]
    if data.mean_classes is not None:
        found.append(
            Fact("classes a client", f"{data.mean_classes:.1f}", f"mean, of {len(run.report.accuracy.classes):,}")
        )
    if data.mean_label_distance is not None:
        far = "mean total variation distance between a client's labels and everybody's; 0: alike, 1: nothing in common"
        found.append(Fact("label distance", f"{data.mean_label_distance:.2f}", far))
    acc = run.report.accuracy
    if acc.client_mean is not None and acc.client_worst_decile is not None:
        mixed = f"on test images mixed like each client's own; mean {acc.client_mean:.1%}"
        found.append(Fact("worst tenth of clients", f"{acc.client_worst_decile:.1%}", mixed))
    if (alone := run.report.competitors.local) is not None:
        found += [
            Fact(
                "one client alone" + (f", the {alone.largest} largest" if some else ""),
                f"{share:.1%}",
                f"{IMAGES_ALONE.get(alone.images, alone.images)}, where the federated adapter has {shared:.1%}, "
                f"and fitted on at home {on:.1%}",
            )
            for some, share, shared, on in (
                (False, alone.mean, alone.federated, alone.fitted_on),
                (True, alone.mean_of_largest, alone.federated_of_largest, alone.fitted_on_of_largest),
            )
        ]
        if alone.best is not None:
            found.append(Fact("one client alone, the best", f"{alone.best:.1%}", f"of {alone.clients:,} clients"))
    found += [Fact("noted" if one.used else "left out", f"{one.count:,}", one.reason) for one in data.skipped]
    return found


def before(run: Shown) -> list[Fact]:
    """What public images taught before any client was heard, and who chose that; empty where the run has neither."""
    chosen = run.report.choices
    named = ("warm start", chosen.warm_start), ("control variate", chosen.control_variate)
    return [
        Fact(name, choice.value, choice.line.removeprefix(f"{choice.value}, "))
        for name, choice in named
        if choice is not None
    ]


def checks(run: Shown) -> Table:
    """The server's ε, and that of outsiders, by each accountant that was asked."""
    priv = run.report.privacy
    rows = [(priv.accountant.get("name", "accountant"), "server", epsilon_text(priv.epsilon))]
    rows += [(name, "server", epsilon_text(value)) for name, value in priv.cross_check.items()]
    rows += [(name, "outsiders", epsilon_text(value)) for name, value in priv.cross_check_outsiders.items()]
    return Table("ε by each accountant", ("accountant", "view", "ε"), rows)


def hashes(run: Shown) -> Table:
    """What the run was made of, byte for byte."""
    made = run.report.provenance
    rows = [
        ("config.toml", made.config_hash),
        ("model", made.model_hash),
        ("last line of rounds.jsonl", made.rounds_hash or "none"),
        ("adapter", made.adapter_hash or "none"),
    ]
    return Table("SHA-256", ("of", "value"), rows)


def versions(run: Shown) -> Table:
    """Software that the run was made with."""
    return Table("Software", ("package", "version"), list(run.report.provenance.versions.items()))


def again(run: Shown) -> str:
    """What to expect of the same run once more."""
    made = run.report.provenance
    if run.noisy and made.secret_noise:
        return (
            f"Its noise came from the operating system: with seed {made.seed} all else is the same, and accuracy a "
            "little different."
        )
    return f"All of it follows from seed {made.seed}."


def comparison(runs: Sequence[Shown]) -> Table:
    """The labels side by side, a column a run."""
    names: list[str] = []
    figures = []
    for run in runs:
        own = {fact.what: fact.figure for fact in label(run)}
        own |= {"clients": f"{run.report.aggregation.clients:,}", "rounds": f"{run.report.privacy.rounds:,}"}
        own |= {what: f"{share:.2%}" for what, share in measured(run.report.competitors)}
        if (alone := run.report.competitors.local) is not None:
            own["one client alone"] = f"{alone.mean:.2%}, federated {alone.federated:.2%}"
        own |= {"protected unit": run.report.privacy.unit, "data": run.report.data.dataset}
        names += [name for name in own if name not in names]
        figures.append(own)
    rows = [(name, *(own.get(name, "–") for own in figures)) for name in names]
    return Table("Side by side", ("", *(run.name for run in runs)), rows)


def differences(runs: Sequence[Shown]) -> list[str]:
    """Why figures that stand side by side may not be compared."""
    kinds = {
        "data": {run.report.data.dataset for run in runs},
        "the measure of accuracy": {run.report.accuracy.measures for run in runs},
        "the protected unit": {run.report.privacy.unit for run in runs if run.noisy},
        "δ": {f"{run.report.privacy.delta:.3g}" for run in runs if run.noisy},
        "the model": {run.report.provenance.model_hash[:12] for run in runs},
        "the masking": {run.report.masking for run in runs},
        "the test images": {f"{run.report.accuracy.test_examples:,}" for run in runs},
    }
    return [
        f"{what} differ{'' if what in ('data', 'the test images') else 's'}: {', '.join(sorted(values))}"
        for what, values in kinds.items()
        if len(values) > 1
    ]
