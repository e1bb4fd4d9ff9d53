"""The server's half of a secure sum: a strategy of Flower's around another, which sees sums and no client's arrays."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from flora_secure.boundary.foreign import printable
from flora_secure.engine.deployed.keys.enrolment_file import read_enrolment
from flora_secure.engine.deployed.masked_rounds import MaskedRounds, Patience
from flora_secure.engine.flower.sums.arrays import (
    Arrays,
    Summed,
    hash_of,
    keep_of,
    record_of,
    require_readable,
)
from flora_secure.engine.flower.sums.transport import SumTransport
from flora_secure.engine.flower.sums.weights import ByExamples
from flora_secure.engine.flower.sums.wire import SETTINGS, Settings
from flora_secure.engine.flower.sums.wrapped import chosen, require_fit
from flora_secure.errors import ConfigError, require
from flora_secure.server.sum_budget import Budget
from flora_secure.server.sum_log import SumRecord
from flora_secure.server.sums import SumReport, SumServer

_LOG = logging.getLogger("flwr")
_WEIGHT_KEY = "num-examples"  # what Flower's strategies weigh by unless told


@dataclass(frozen=True)
class _Ended:
    """What the round has brought: one reply that stands for all, or nothing."""

    reply: Message | None


class SecureSum(Strategy):  # type: ignore[misc, unused-ignore]  # Flower may not be installed
    """A strategy of Flower's whose training rounds are sums under masks and noise.

    Every enrolled site takes part in every round. What the wrapped strategy gets is one reply: the arrays that were
    sent, moved by the mean of the sites' clipped updates, with its noise, at weight 1. So FedAvg, FedProx, FedAvgM,
    FedAdam, FedAdagrad and FedYogi do with it what they always do. Evaluation passes through.

        strategy = SecureSum(FedAvg(), epsilon=4, rounds=20, clip_norm=1.0, enrolment="enrolment.toml", folder="run")
        strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()))
        print(strategy.report())
    """

    def __init__(
        self,
        wrapped: Strategy,
        *,
        epsilon: float,
        rounds: int,
        clip_norm: float,
        enrolment: str | Path,
        folder: str | Path,
        delta: float | None = None,
        dropout_tolerance: float = 0.2,
        corrupt: int = 1,
        keep: Sequence[str] = (),
        weights: ByExamples | None = None,
        patience: float = 60.0,
    ) -> None:
        """Wrap a strategy. Noise is planned when the model is known, at `start` or in the first round.

        Args:
            wrapped: what is done with the mean. Those that need single updates, and Flower's own noise, are refused.
            epsilon, delta: budget of one site's whole contribution, all `rounds` together, against the server; δ None
                for min(1e-5, 1/sites^1.1).
            rounds: that the budget pays for, over all starts.
            clip_norm: c, L2 norm that a site's update (all arrays together) is clipped to, at the site.
            enrolment: file of who takes part, `enrolment.toml`.
            folder: where the server counts what it has released. A server that starts again with it counts on.
            dropout_tolerance: fraction of the sites that may be missing from a round; the others' noise is sized so.
            corrupt: how many sites may collude with the server, which then knows their noise.
            keep: names or patterns of arrays that are not summed and stay the server's; arrays that are no floats must
                be among them.
            weights: how updates are weighted by examples; None for one site, one weight.
            patience: seconds for the masking's short messages. For training it is the `timeout` of `start`.

        Raises ConfigError, with one line, for what cannot be.
        """
        require_fit(wrapped)
        require(not isinstance(wrapped, SecureSum), "a SecureSum is wrapped already")
        require(patience > 0 and math.isfinite(patience), f"patience must be a number of seconds, got {patience}")
        self._wrapped, self._weights, self._keep = wrapped, weights, keep_of(keep)
        norm = clip_norm if weights is None else math.hypot(clip_norm, weights.norm)
        self._budget = Budget(
            epsilon=epsilon,
            rounds=rounds,
            clip_norm=norm,
            delta=delta,
            dropout_tolerance=dropout_tolerance,
            corrupt=corrupt,
        )
        self._enrolment, self._folder = read_enrolment(Path(enrolment)), Path(folder).resolve()
        self._budget.config(self._enrolment.clients)  # refuses what is out of range, at once
        self._patience = Patience(training=3600.0, trip=patience)
        self._server: SumServer | None = None
        self._summed: Summed | None = None
        self._masked: MaskedRounds | None = None
        self._transport = SumTransport(self._enrolment.clients, _tell)
        self._ended = _Ended(None)

    def summary(self) -> None:
        """Log what is promised, and the wrapped strategy's own summary."""
        budget = self._budget
        _LOG.info("\t├──> Secure sum: epsilon %g over %d rounds", budget.epsilon, budget.rounds)
        _LOG.info("\t│\t├── clip norm %g, %d sites enrolled", budget.clip_norm, self._enrolment.clients)
        _LOG.info("\t│\t└── counted in %s", self._folder)
        self._wrapped.summary()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int | None = None,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run rounds as `Strategy.start` does. `num_rounds`: None for all that the budget still pays for.

        `timeout`: seconds that sites have for training. Raises ConfigError for more rounds than are left. What was
        spent is logged in a line; `report` has the statement.
        """
        server = self._planned(require_readable(initial_arrays))
        rounds = server.left if num_rounds is None else num_rounds
        require(
            1 <= rounds <= server.left,
            f"{rounds} rounds are asked for, and the budget in {self._folder} still pays for {server.left}",
        )
        require(timeout > 0, f"timeout must be a number of seconds, got {timeout}")
        self._patience = Patience(training=float(timeout), trip=self._patience.trip)
        self._masked = None  # with the new patience
        result = super().start(grid, initial_arrays, rounds, timeout, train_config, evaluate_config, evaluate_fn)
        _LOG.info("secure sum: %s", str(self.report()).partition("\n")[0])
        return result

    def report(self) -> SumReport:
        """What was spent so far, and the privacy statement. Raises ConfigError before the first round is planned."""
        if self._server is None:
            raise ConfigError("nothing has been planned yet: report after start, or after the first round")
        return self._server.report()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Run the whole round over `grid`, and give no message: what it brought is for `aggregate_train`.

        Flower's own loop would wait for uploads alone, in one exchange; the masks take several, and somebody who is
        late must not hold up the others. Raises ConfigError where the wrapped strategy leaves out a site.
        """
        self._ended = _Ended(None)
        before = require_readable(arrays)
        server, summed = self._planned(before), self._summed
        assert summed is not None
        least = server.plan.survivors_minimum
        nodes = self._transport.find(grid, server.members, least=least, patience=self._patience.training)
        if len(nodes) < least:
            _tell(f"{len(nodes)} of {len(server.members)} sites are there, and the noise needs {least}: no round")
            return []
        asked = self._wrapped.configure_train(server_round, arrays, config, grid)
        messages = chosen(self._wrapped, asked, nodes, grid, _tell)
        if not messages:
            _tell("no site is there any more: no round")
            return []
        told = next(iter(messages.values()))
        name, sent = next(iter(told.content.array_records.items()))
        before = require_readable(sent)
        self._planned(before)
        self._transport.expect({client: self._beside(message, summed) for client, message in messages.items()})
        invitation = server.invite(hash_of(before))
        if self._masked is None:
            self._masked = MaskedRounds(self._enrolment, server, self._transport, self._patience, _tell)
        outcome = self._masked.run(invitation)
        record, total = server.finish(invitation, outcome, beside=self._transport.download)
        _LOG.info("%s", self._line(server, record))
        if total is not None:
            mean = self._mean(total, len(record.survivors), server)
            moved, metrics = summed.moved(before, mean), MetricRecord(self._metrics(record.survivors))
            self._ended = _Ended(Message(RecordDict({name: record_of(moved), "metrics": metrics}), reply_to=told))
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the wrapped strategy makes of the round's mean; nothing where the round had no sum. `replies` are none
        of ours: there are none."""
        reply = self._ended.reply
        self._ended = _Ended(None)
        if strangers := list(replies):
            _tell(f"{len(strangers)} replies that nobody asked for are left out")
        found: tuple[ArrayRecord | None, MetricRecord | None]
        found = self._wrapped.aggregate_train(server_round, [] if reply is None else [reply])
        return found

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """What the wrapped strategy says: evaluation has no masks, and no noise on its metrics."""
        messages: Iterable[Message] = self._wrapped.configure_evaluate(server_round, arrays, config, grid)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """What the wrapped strategy says."""
        return self._wrapped.aggregate_evaluate(server_round, replies)

    def close(self) -> None:
        """Let go of the folder, for another server to count on in it; this one can go on no more."""
        if self._server is not None:
            self._server.close()
        self._transport.close()

    def _planned(self, arrays: Arrays) -> SumServer:
        """The server, planned for a model of these arrays."""
        summed = Summed.of(arrays, self._keep)
        if self._server is None:
            size = summed.dimension + (self._weights is not None)
            terms = {"weights": str(self._weights)}
            if self._weights is not None:
                members = self._enrolment.clients - len(self._enrolment.revoked)
                self._weights.require_worth(self._budget.plan(members, size))
            self._server = SumServer(self._budget, self._enrolment, size, self._folder, terms)
            self._summed = summed
            for record in self._server.records:
                if record.lost:
                    _tell(f"round {record.round} was in flight when the server was stopped, and counts as released")
        require(
            self._summed == summed,
            "the model has other arrays than the noise was planned for; make a new SecureSum, with a folder of its own",
        )
        return self._server

    def _beside(self, message: Message, summed: Summed) -> RecordDict:
        settings = Settings(summed.kept)
        if self._weights is not None:
            settings = self._weights.settings(summed.kept)
        return RecordDict({**dict(message.content.items()), SETTINGS: settings.record()})

    def _mean(self, total: NDArray[np.float64], survivors: int, server: SumServer) -> NDArray[np.float64]:
        if self._weights is None:
            return total / survivors
        return self._weights.mean(total, survivors, server.plan, _tell)

    def _metrics(self, survivors: Sequence[int]) -> dict[str, Any]:
        """The mean of each public metric that all survivors have sent, and the weight of the one reply."""
        told = [self._transport.metrics.get(client, {}) for client in survivors]
        common = set(told[0]).intersection(*told[1:]) if told else set()
        found: dict[str, Any] = {name: sum(one[name] for one in told) / len(told) for name in sorted(common)}
        found[str(getattr(self._wrapped, "weighted_by_key", _WEIGHT_KEY))] = 1.0
        return found

    def _line(self, server: SumServer, record: SumRecord) -> str:
        ended = f"{len(record.survivors)} of {len(server.members)} sites in the sum"
        if record.aborted is not None:
            counted = "counts as released" if record.released else "released nothing"
            ended = f"no sum, and {counted}: {record.aborted}"
        plan = server.plan
        return (
            f"secure sum, round {record.round} of {plan.rounds}: {ended}; epsilon {server.epsilon:.4g} of "
            f"{plan.epsilon:g} at delta {plan.delta:g}; {record.upload:,} bytes up, {record.download:,} down"
        )


def _tell(line: str) -> None:
    _LOG.warning("secure sum: %s", printable(line))
