"""``flora-secure plan``: noise, budget, graph and bytes of a run, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flora_cli.adapter_options import Alpha, LastLayers, Placement, Rank, Rule
from flora_cli.masking_options import Corrupt, Neighbours, SecAgg, Threshold
from flora_cli.output import emit, fail, log, table
from flora_cli.privacy_options import Bits, ClipNorm, Delta, DropoutTolerance, Epsilon, ExampleRate, Unit
from flora_cli.round_options import Clients, Dropout, MinSeparation, Participation, Rounds, Sampling
from flora_cli.values import number, whole

Setting = typer.Option


def plan(
    epsilon: Epsilon = None,
    noise_multiplier: Annotated[
        float | None,
        Setting(parser=number, metavar="NUMBER", help="Noise multiplier z, instead of ε: what ε does it cost?"),
    ] = None,
    delta: Delta = None,
    clients: Clients = None,
    rounds: Rounds = None,
    unit: Unit = None,
    images: Annotated[
        int, Setting(parser=whole, metavar="COUNT", help="Images of all clients together, for unit example.")
    ] = 20_000,
    example_rate: ExampleRate = None,
    participation: Participation = None,
    sampling: Sampling = None,
    min_separation: MinSeparation = None,
    dropout: Dropout = None,
    dropout_tolerance: DropoutTolerance = None,
    corrupt: Corrupt = None,
    model: Annotated[
        str | None, Setting(help="tiny or an open_clip architecture.  [default: tiny]", metavar="NAME")
    ] = None,
    placement: Placement = None,
    rule: Rule = None,
    rank: Rank = None,
    alpha: Alpha = None,
    last_layers: LastLayers = None,
    clip_norm: ClipNorm = None,
    bits: Bits = None,
    secagg: SecAgg = None,
    neighbours: Neighbours = None,
    threshold: Threshold = None,
    mechanisms: Annotated[
        bool, Setting("--mechanisms", help="Also what discrete Gaussian and Skellam noise would cost (some seconds).")
    ] = False,
    plot: Annotated[
        Path | None, Setting(help="Draw ε over rounds and z over ε to this file (.png, .svg, .pdf).")
    ] = None,
    config: Annotated[Path | None, Setting(help="TOML file; flags override it.")] = None,
    json: Annotated[bool, Setting("--json", help="Print one JSON document on stdout, and nothing else there.")] = False,
) -> None:
    """Noise, budget, neighbours, bits and bytes of a run before it starts; needs neither torch nor data."""
    from flora_secure.errors import InputError
    from flora_secure.planning.config import RunConfig, load_config, override
    from flora_secure.records.forecast import budget_of, forecast

    changes: dict[str, Any] = {
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.clip_norm": clip_norm,
        "privacy.bits": bits,
        "privacy.dropout_tolerance": dropout_tolerance,
        "privacy.unit": unit,
        "privacy.example_rate": example_rate,
        "participation.rate": participation,
        "participation.sampling": sampling,
        "participation.min_separation": min_separation,
        "data.clients": clients,
        "training.rounds": rounds,
        "aggregation.dropout": dropout,
        "aggregation.corrupt": corrupt,
        "aggregation.secagg": secagg,
        "aggregation.neighbours": neighbours,
        "aggregation.threshold": threshold,
        "model.model": model,
        "model.placement": placement,
        "model.rule": rule,
        "model.rank": rank,
        "model.alpha": alpha,
        "model.last_layers": last_layers,
    }
    try:
        settings = override(RunConfig() if config is None else load_config(config), changes)
        if noise_multiplier is not None:
            if epsilon is not None:
                fail("give either --epsilon or --noise-multiplier, each follows from the other")
            settings = override(settings, {"privacy.epsilon": budget_of(settings, noise_multiplier, images)})
        found = forecast(settings, images)
        document, rows = found.to_dict(), found.rows()
        if mechanisms:
            from flora_bench.mechanisms import compare_mechanisms, cost_rows, to_dicts

            costs = compare_mechanisms(found.plan)
            document["mechanisms"] = to_dicts(costs)
            rows += [("mechanisms", "error ÷ that of central Gaussian noise"), *cost_rows(costs)]
        if plot is not None:
            from flora_secure.records.curves import curves, plot_budget

            plot_budget(curves(found.plan), settings.privacy.epsilon, plot)
            log(f"wrote {plot}")
    except InputError as error:
        fail(str(error))
    if json:
        from json import dumps

        emit(dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        emit(table(rows, "flora-secure plan"))
