"""A client's own durable count of what it has given, whatever servers say.

Of each round that it uploaded in it keeps the worst that the round may have released. For unit `client` the ε of all of
them together is the closed form of a Gaussian mechanism with μ² = Σ 1/z² (Dong, Roth and Su, arXiv 1905.02383,
corollary 3.3; Balle and Wang, arXiv 1805.06530, theorem 8), computed here with the standard library alone, so that a
phone needs no scipy. Where examples were sampled there is no closed form, and dp-accounting counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flora_secure.boundary.foreign import json_of, read_bytes, text_of
from flora_secure.errors import ForeignError, PlainError, Refusal, RefusalError, RunFolderError
from flora_secure.plain import from_plain
from flora_secure.privacy.events import RoundEvent
from flora_secure.records.durable import PRIVATE, append, replace_file

SCHEMA = "flora-secure/client-ledger/1"
_MOST = 1 << 28  # bytes; a line has some hundred
_MARGIN = 1e-9  # by which an ε is rounded up


@dataclass(frozen=True, kw_only=True)
class Given:
    """One round that the client uploaded in, as it counts: a line of the ledger's file.

    `session` is hexadecimal; `event` is what the round released at the worst, with the fewest survivors.
    """

    session: str
    event: RoundEvent


class ClientLedger:
    """What one client has given, in a file of its own, or in memory where there is no path.

    A round is entered before its upload leaves, and entered once: the same round of the same session costs nothing more
    when its upload is asked for again. Not for use by two processes at a time; `store.FileStore` holds the lock.

    Raises RunFolderError for a file that is not what a ledger wrote: what cannot be counted must not be passed over. A
    last line that was cut off in a crash goes, because its upload had not left.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file at `path`, where there is one; None keeps the ledger in memory."""
        self._path = path
        self._given: list[Given] = [] if path is None else _read(path)

    def __repr__(self) -> str:
        return f"ClientLedger(rounds={len(self._given)})"

    @property
    def given(self) -> tuple[Given, ...]:
        """Every round that was entered, in order."""
        return tuple(self._given)

    def epsilon(self, delta: float) -> float:
        """ε of everything given so far, at `delta`, against those who see every sum; 0 before the first round."""
        return spent([given.event for given in self._given], delta)

    def rounds_of(self, session: bytes) -> list[int]:
        """Numbers of the rounds of a session that were entered."""
        return [given.event.round for given in self._given if given.session == session.hex()]

    def require(self, event: RoundEvent, most_epsilon: float, delta: float) -> None:
        """Raises RefusalError where `event` would raise ε beyond `most_epsilon`; enters nothing."""
        events = [*(given.event for given in self._given), event]
        if not within(events, most_epsilon, delta):
            raise RefusalError(
                Refusal.BUDGET,
                f"round {event.round} would raise this client's own epsilon from {self.epsilon(delta):.6g} to "
                f"{spent(events, delta):.6g}, above its budget of {most_epsilon:g} at delta {delta:g}",
            )

    def enter(self, session: bytes, event: RoundEvent, most_epsilon: float, delta: float) -> None:
        """Count a round; it is on disk when this returns. Raises as `require`, and OSError where it cannot be written.

        A round of the session that was entered before is not entered again.
        """
        if event.round in self.rounds_of(session):
            return
        self.require(event, most_epsilon, delta)
        # who else took part is none of this client's business
        given = Given(session=session.hex(), event=dataclasses.replace(event, participants=None, population=None))
        if self._path is not None:
            line = {"schema": SCHEMA, **dataclasses.asdict(given)}
            size = self._path.stat().st_size if self._path.exists() else 0
            try:
                append(self._path, json.dumps(line, allow_nan=False).encode() + b"\n", mode=PRIVATE)
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self._path, size)  # half a line would spoil the next one
                raise
        self._given.append(given)


def within(events: Sequence[RoundEvent], epsilon: float, delta: float) -> bool:
    """Whether these rounds together cost at most `epsilon` at `delta`: `spent` without searching for the figure."""
    if epsilon == math.inf:
        return True
    if any(event.sampling_rate < 1 or event.noise_multiplier == 0 for event in events):
        return spent(events, delta) <= epsilon
    mu, slack = _loss(events)
    left = epsilon - 2 * slack - _MARGIN
    return mu == 0 or (left >= 0 and _delta(mu, left) <= delta * math.exp(-slack))


def spent(events: Sequence[RoundEvent], delta: float) -> float:
    """ε at `delta` of these rounds for one who was in all of them, against a server that sees every sum.

    The closed form errs by less than 1e-9, upwards; dp-accounting is imported where examples were sampled.
    """
    if any(event.sampling_rate < 1 for event in events):
        from flora_secure.privacy.accounting import epsilon_of

        return epsilon_of(events, delta)
    if any(event.noise_multiplier == 0 for event in events):
        return math.inf
    mu, slack = _loss(events)
    if mu == 0 or slack == math.inf:
        return 0.0 if mu == 0 else math.inf
    return gaussian_epsilon(mu, delta * math.exp(-slack)) + 2 * slack


def _loss(events: Sequence[RoundEvent]) -> tuple[float, float]:
    """μ and the aliasing slack of rounds with noise, none of them sampled."""
    slack = math.fsum(event.aliasing_slack for event in events)
    return math.sqrt(math.fsum(event.noise_multiplier**-2 for event in events)), slack


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least ε for which a Gaussian mechanism with sensitivity ÷ σ = `mu` is (ε, `delta`)-DP, rounded up by 1e-9.

    δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) falls in ε (Balle and Wang, theorem 8), so the root is bisected.
    """

    return 0.0 if _delta(mu, 0.0) <= delta else _root(lambda epsilon: _delta(mu, epsilon) - delta)


def _delta(mu: float, epsilon: float) -> float:
    """δ(ε) of a μ-GDP Gaussian mechanism."""
    upper = _log_phi(mu / 2 - epsilon / mu)
    lower = epsilon + _log_phi(-mu / 2 - epsilon / mu)
    return math.exp(upper) * -math.expm1(min(lower - upper, 0.0))


def _root(falling: Callable[[float], float]) -> float:
    """Where a falling function that starts above 0 reaches it, from above."""
    low, high = 0.0, 1.0
    while falling(high) > 0:
        low, high = high, 2 * high
    while high - low > 1e-12 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high + _MARGIN


def _log_phi(x: float) -> float:
    """Logarithm of the normal distribution's function, by its continued fraction where erfc underflows."""
    if x > -30:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    fraction = 0.0
    for term in range(60, 0, -1):  # Mills' ratio 1/(t + 1/(t + 2/(t + …))), t = -x
        fraction = term / (-x + fraction)
    return -x * x / 2 - math.log(math.sqrt(2 * math.pi)) - math.log(-x + fraction)


def _read(path: Path) -> list[Given]:
    if not os.path.lexists(path):
        return []
    try:
        raw = read_bytes(path, _MOST)
    except ForeignError as error:
        raise RunFolderError(f"ledger {path} cannot be read: {error}") from None
    *lines, rest = raw.split(b"\n")
    if rest:
        replace_file(path, b"".join(line + b"\n" for line in lines), mode=PRIVATE)
    found = []
    for number, line in enumerate(lines, 1):
        try:
            table = json_of(text_of(line))
            if table.pop("schema") != SCHEMA:
                raise PlainError(f"schema is not {SCHEMA}")
            given = from_plain(Given, table)
            bytes.fromhex(given.session)
        except (ForeignError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunFolderError(f"ledger {path}, line {number}, is not what a client wrote: {error}") from None
        found.append(given)
    return found
