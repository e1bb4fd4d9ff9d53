"""What would change a run's ε: more who collude, fewer survivors, another δ, more rounds; counted from its log."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

from flora_secure.privacy.accounting import epsilon_of
from flora_secure.privacy.events import RoundEvent
from flora_secure.privacy.ledger import worst_rounds
from flora_secure.records.html.shown import Shown, Table, epsilon_text

_COLLUDING = (0.0, 0.05, 0.1, 0.2, 0.5, 0.8)
_MISSING = (0.0, 0.05, 0.1, 0.2, 0.3)
_DELTAS = (100.0, 10.0, 1.0, 0.1, 0.01)
_LEAST_DELTA = 1e-10  # that privacy losses in cells can tell
_ROUNDS = (0.5, 1, 2, 4, 10)
_CELL = 1e-2  # of privacy losses, where examples were sampled: a dozen figures shall not take a dozen seconds


def what_would_change(run: Shown) -> list[Table]:
    """A table for each assumption, the run as it was among its rows; none without noise, or without a released sum.

    Raises `ValueError` for rounds of impossible numbers.
    """
    released = [record.event() for record in run.records if record.released]
    events = worst_events(released, run.report.privacy.delta)
    if not run.noisy or not events:
        return []
    return [_collusion(run, events), _dropouts(run, events), _deltas(run, events), _rounds(run, events)]


def worst_events(events: Sequence[RoundEvent], delta: float) -> list[RoundEvent]:
    """The rounds of the client that lost most; those that name no participants are everybody's."""
    rounds: dict[int, list[int]] = defaultdict(list)
    for place, event in enumerate(events):
        for client in event.participants or ():
            rounds[client].append(place)
    everybody = {place for place, event in enumerate(events) if event.participants is None}
    histories = {tuple(sorted(everybody.union(own))) for own in rounds.values()} or {tuple(sorted(everybody))}
    return list(worst_rounds(([events[place] for place in own] for own in sorted(histories)), delta, cell=_CELL))


def _epsilon(events: Sequence[RoundEvent], delta: float) -> float:
    return epsilon_of(events, delta, cell=_CELL)


def _row(run: Shown, what: str, more: str, epsilon: float) -> tuple[str, str, str, str]:
    target = run.report.privacy.target_epsilon
    allowed = "" if target is None else "within" if epsilon <= target + _CELL / 2 else "above"
    return what, more, epsilon_text(epsilon, 2), allowed


def _heads(run: Shown, what: str, more: str) -> tuple[str, ...]:
    target = run.report.privacy.target_epsilon
    return what, more, "ε", "budget" if target is None else f"budget {target:g}"


def _collusion(run: Shown, events: Sequence[RoundEvent]) -> Table:
    delta, fewest = run.report.privacy.delta, min(event.survivors for event in events)
    assumed = max(event.colluders for event in events)
    counts = sorted({assumed, *(round(share * fewest) for share in _COLLUDING)} - {fewest})
    rows = [
        _row(
            run,
            f"{count:,}" + (" (assumed)" if count == assumed else ""),
            f"{fewest - count:,}",
            _epsilon([dataclasses.replace(event, colluders=count) for event in events], delta),
        )
        for count in counts
        if count < fewest
    ]
    alone = run.report.privacy.epsilon_local  # of the client whose uploads gave away most
    rows.append(_row(run, "all others", "its own alone", math.inf if alone is None else alone))
    return Table(
        "If more clients tell the server their noise",
        _heads(run, "colluding in every sum", "shares of noise left"),
        rows,
    )


def _dropouts(run: Shown, events: Sequence[RoundEvent]) -> Table:
    delta = run.report.privacy.delta
    floor = min(record.honest_minimum + record.colluders for record in run.records)
    fewest = min(event.survivors for event in events)
    counts = {max(floor, fewest - math.floor(share * fewest)) for share in _MISSING}
    rows = [
        _row(
            run,
            f"{count:,}" + (" (as it was)" if count == fewest else ""),
            f"{fewest - count:,}",
            _epsilon([dataclasses.replace(event, survivors=min(event.survivors, count)) for event in events], delta),
        )
        for count in sorted({*counts, min(floor, fewest)}, reverse=True)
    ]
    return Table(
        "If fewer clients had survived each round",
        _heads(run, "survivors at the least", "fewer than here"),
        rows,
        f"A round of this size with fewer than {floor:,} survivors would have been aborted.",
    )


def _deltas(run: Shown, events: Sequence[RoundEvent]) -> Table:
    own = run.report.privacy.delta
    deltas = [own * factor for factor in _DELTAS if _LEAST_DELTA <= own * factor < 1 or factor == 1]
    return Table(
        "If another δ is asked for",
        _heads(run, "δ", "one in"),
        [
            _row(
                run,
                f"{delta:.3g}" + (" (as it was)" if delta == own else ""),
                f"{1 / delta:,.0f}",
                _epsilon(events, delta),
            )
            for delta in deltas
        ],
    )


def _rounds(run: Shown, events: Sequence[RoundEvent]) -> Table:
    delta, own = run.report.privacy.delta, len(events)
    counts = sorted({max(1, round(factor * own)) for factor in _ROUNDS})
    return Table(
        "If a client takes part in more rounds, or fewer",
        _heads(run, "rounds of one client", "times those here"),
        [
            _row(
                run,
                f"{count:,}" + (" (as it was)" if count == own else ""),
                f"{count / own:.3g}",
                _epsilon([events[place % own] for place in range(count)], delta),
            )
            for count in counts
        ],
        "With the same noise in each. A second run on the same clients' data counts as so many more rounds.",
    )
