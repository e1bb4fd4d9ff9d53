"""``flora-secure plan``: noise, budget, graph and bytes of a run, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flora_cli.adapter_options import Alpha, LastLayers, Placement, Rank, Rule
from flora_cli.output import emit, fail, log, table
from flora_cli.values import number, whole

Setting = typer.Option


def plan(
    epsilon: Annotated[
        float | None,
        Setting(parser=number, metavar="NUMBER", help="Privacy budget ε of the whole run.  [default: 4]"),
    ] = None,
    noise_multiplier: Annotated[
        float | None,
        Setting(parser=number, metavar="NUMBER", help="Noise multiplier z, instead of ε: what ε does it cost?"),
    ] = None,
    delta: Annotated[
        float | None,
        Setting(parser=number, metavar="NUMBER", help="δ of the budget.  [default: min(1e-5, 1/clients^1.1)]"),
    ] = None,
    clients: Annotated[
        int | None, Setting(parser=whole, metavar="COUNT", help="Number of clients.  [default: 100]")
    ] = None,
    rounds: Annotated[
        int | None, Setting(parser=whole, metavar="COUNT", help="Training rounds.  [default: 20]")
    ] = None,
    unit: Annotated[
        str | None, Setting(help="Whom the budget protects: client or example.  [default: client]", metavar="UNIT")
    ] = None,
    images: Annotated[
        int, Setting(parser=whole, metavar="COUNT", help="Images of all clients together, for unit example.")
    ] = 20_000,
    example_rate: Annotated[
        float | None,
        Setting(parser=number, metavar="NUMBER", help="Unit example: sampling rate of images.  [default: 0.1]"),
    ] = None,
    participation: Annotated[
        float | None,
        Setting(parser=number, metavar="NUMBER", help="Fraction of the clients in a round.  [default: 1]"),
    ] = None,
    sampling: Annotated[
        str | None,
        Setting(help="How cohorts are drawn when participation is below 1: poisson or fixed.", metavar="KIND"),
    ] = None,
    min_separation: Annotated[
        int | None,
        Setting(parser=whole, metavar="COUNT", help="Rounds between two participations of a client.  [default: 1]"),
    ] = None,
    dropout: Annotated[
        float | None,
        Setting(parser=number, metavar="NUMBER", help="Fraction of clients that drop out each round.  [default: 0]"),
    ] = None,
    dropout_tolerance: Annotated[
        float | None,
        Setting(
            parser=number,
            metavar="NUMBER",
            help="Fraction of dropped clients that is allowed for.  [default: the larger of 0.1 and dropout]",
        ),
    ] = None,
    corrupt: Annotated[
        float | None,
        Setting(
            parser=number,
            metavar="NUMBER",
            help="Fraction of clients that may collude with the server.  [default: 0.05]",
        ),
    ] = None,
    model: Annotated[
        str | None, Setting(help="tiny or an open_clip architecture.  [default: tiny]", metavar="NAME")
    ] = None,
    placement: Placement = None,
    rule: Rule = None,
    rank: Rank = None,
    alpha: Alpha = None,
    last_layers: LastLayers = None,
    clip_norm: Annotated[
        float | None,
        Setting(
            parser=number,
            metavar="NUMBER",
            help="L2 norm of clipped updates or gradients.  [default: tuned]",
        ),
    ] = None,
    bits: Annotated[
        int | None,
        Setting(parser=whole, metavar="COUNT", help="Bits a value, 8…32.  [default: solved for]"),
    ] = None,
    secagg: Annotated[
        str | None,
        Setting(help="off, semi-honest or malicious-server.  [default: semi-honest]", metavar="PROFILE"),
    ] = None,
    neighbours: Annotated[
        int | None,
        Setting(parser=whole, metavar="COUNT", help="Clients that each shares masks with.  [default: derived]"),
    ] = None,
    threshold: Annotated[
        int | None, Setting(parser=whole, metavar="COUNT", help="Shares needed to reveal a secret.  [default: derived]")
    ] = None,
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
    from flora_secure.config import RunConfig, load_config, override
    from flora_secure.errors import InputError
    from flora_secure.forecast import budget_of, forecast

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
            from flora_secure.mechanisms import compare_mechanisms, cost_rows, to_dicts

            costs = compare_mechanisms(found.plan)
            document["mechanisms"] = to_dicts(costs)
            rows += [("mechanisms", "error ÷ that of central Gaussian noise"), *cost_rows(costs)]
        if plot is not None:
            from flora_secure.curves import curves
            from flora_secure.plots import plot_budget

            plot_budget(curves(found.plan), settings.privacy.epsilon, plot)
            log(f"wrote {plot}")
    except InputError as error:
        fail(str(error))
    if json:
        from json import dumps

        emit(dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        emit(table(rows, "flora-secure plan"))
