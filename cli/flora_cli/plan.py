"""`flora-secure plan`: noise, budget, graph and bytes of a run, without training."""

from __future__ import annotations

from flora_cli.options import Given, options, told
from flora_cli.output import emit, emit_json, fail, log, table, working

EXAMPLES = """\
Examples:

flora-secure plan --epsilon 4 --clients 1000 --rounds 50

flora-secure plan --noise-multiplier 5 --plot budget.png"""


@options("plan")
def plan(given: Given) -> None:
    """Noise, budget, neighbours, bits and bytes of a run before it starts; needs neither torch nor data."""
    import flora_secure
    from flora_secure.errors import InputError

    switches = given.switches
    if switches.noise_multiplier is not None and "epsilon" in given.settings:
        fail("give either --epsilon or --noise-multiplier, each follows from the other")
    try:
        with working("planning noise, graph and bytes"):
            found = flora_secure.plan(
                switches.config,
                images=switches.images,
                noise_multiplier=switches.noise_multiplier,
                **given.settings,
            )
        document, rows = found.to_dict(), found.rows()
        if switches.mechanisms:
            from flora_bench.mechanisms import compare_mechanisms, cost_rows, to_dicts

            costs = compare_mechanisms(found.plan)
            document["mechanisms"] = to_dicts(costs)
            rows += [("mechanisms", "error ÷ that of central Gaussian noise"), *cost_rows(costs)]
        if switches.plot is not None:
            from flora_secure.records.curves import curves, plot_budget

            plot_budget(curves(found.plan), found.plan.epsilon, switches.plot)
            log(f"wrote {switches.plot}")
    except InputError as error:
        fail(told(error, given.flags, switches.config))
    if switches.json:
        from json import dumps

        emit_json(dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        emit(*table(rows, "flora-secure plan"))
