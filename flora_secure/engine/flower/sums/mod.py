"""The client's half of a secure sum: a mod around the user's ClientApp, behind which its arrays do not leave."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from numpy.typing import NDArray

from flora_protocols import Code, PeerError, identity_public
from flora_secure.boundary.foreign import printable
from flora_secure.client.client import Client
from flora_secure.client.contribution import Contributions
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.engine.deployed.envelope import enveloped
from flora_secure.engine.deployed.keys import enrolment_file, identity
from flora_secure.engine.deployed.own_store import store_in
from flora_secure.engine.flower.sums.arrays import Arrays, Summed, hash_of, numpy_of
from flora_secure.engine.flower.sums.wire import KIND, SETTINGS, Settings, with_metrics
from flora_secure.engine.flower.wire import FAILED, beside, is_ours, number_packed, packed, unpacked
from flora_secure.errors import (
    ConfigError,
    ForeignError,
    Refusal,
    RefusalError,
    first_line,
    require,
)
from flora_secure.planning.rules import ARRAYS, TrainedValues
from flora_secure.rounds.invitation import Invitation

POLICY = "policy.toml"
_PRECONDITION = 6  # of Flower's error codes: a mod does not let the message pass
_LOG = logging.getLogger("flwr")  # Flower's own, so that the lines stand among its lines at the site


def secure_sum_mod(*, pilot: str | Path | None = None, allow_metrics: Sequence[str] = ()) -> Mod:
    """A mod for `ClientApp(mods=[...])` that lets a site take part in the sums of `SecureSum`.

    A training message that is none of `SecureSum`'s is refused, so that no server has the arrays by asking otherwise.
    What leaves for one of its own is the masked upload alone: no arrays, and of the metrics of training those alone
    that are named. Messages of evaluation and queries pass as they are.

    Args:
        pilot: None where the site's folder is named by the node's own configuration, `--node-config 'site="/path"'`.
            For a pilot on one machine, the folder that `flora-secure flower certs DIR --clients N` made: partition i of
            Flower's simulation is then site i of it, and enrolment and policy are those in the folder itself.
        allow_metrics: names of metrics of training that are public and go to the server as they are, without noise
            and outside of every budget.

    The site's folder holds `identity.key`, `enrolment.toml` and `policy.toml`, and `state/`, which the mod makes.
    """
    public = tuple(allow_metrics)
    if isinstance(allow_metrics, str):
        raise ConfigError(f"allow_metrics must be a tuple of names, got {allow_metrics!r}; write ({allow_metrics!r},)")

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if not is_ours(message):
            if not message.metadata.message_type.startswith(KIND):
                return call_next(message, context)
            reason = "this site's updates leave in secure sums alone: wrap the strategy in SecureSum"
            return Message(Error(_PRECONDITION, reason), reply_to=message)
        try:
            places = Places.of(context, None if pilot is None else Path(pilot))
            content = _answered(places, message, lambda inner: call_next(inner, context), public)
        except Exception as error:  # its text must not leave
            _tell(f"no answer to the server: {first_line(error)}")
            content = packed(FAILED)
        return Message(content, reply_to=message)

    return mod


@dataclass(frozen=True)
class Places:
    """Where a site's own files lie. `folder` is the site's; `common` holds enrolment and policy."""

    folder: Path
    common: Path

    @classmethod
    def of(cls, context: Context, pilot: Path | None) -> Places:
        """The places of the node that `context` is of. Raises ConfigError where nothing names them."""
        given = context.node_config.get("site")
        if given is not None:
            folder = Path(str(given))
            require(folder.is_absolute(), f"site {str(given)!r} is no absolute path, and Flower starts apps anywhere")
            return cls(folder, folder)
        require(
            pilot is not None,
            "nothing says where this site's files are: start the SuperNode with --node-config 'site=\"/path\"', or for "
            "a pilot on one machine give secure_sum_mod(pilot=FOLDER)",
        )
        assert pilot is not None
        number = context.node_config.get("partition-id")
        require(type(number) is int, "a pilot's nodes are those of Flower's simulation, and this one has no number")
        return cls(pilot / "sites" / f"site{number}", pilot)

    def policy(self) -> Policy:
        """The site's policy. Raises ConfigError where it is not there, or is none."""
        path = self.common / POLICY
        require(
            path.exists(),
            f"policy {path} is missing, and nothing leaves without one; flora_secure.flower.write_policy writes it for "
            "the epsilon, rounds and clients that you have agreed on",
        )
        return Policy.read(path)

    def client(self, trainer: _Trainer) -> tuple[int, Callable[[bytes], bytes]]:
        """The site's number, and its client's answer to one message."""
        enrolment = enrolment_file.read_enrolment(self.common / enrolment_file.NAME)
        key = identity.read_identity(self.folder / identity.NAME)
        number = enrolment.number_of(identity_public(key))

        def answer(message: bytes) -> bytes:
            policy, store = self.policy(), store_in(self.folder / "state")
            try:
                client = Client(
                    enrolment=enrolment,
                    number=number,
                    policy=policy,
                    trainer=trainer,
                    ledger=ClientLedger(self.folder / "state" / "ledger.jsonl"),
                    store=store,
                    model_hash=b"",
                    identity=key,
                    arrive=_nothing_follows,
                )
                return client.answer(message)
            finally:
                store.close()

        return number, answer


def _answered(
    places: Places, message: Message, train: Callable[[Message], Message], public: Sequence[str]
) -> RecordDict:
    request = unpacked(message, alone=False)
    trainer = _Trainer(message, train, public)
    number, answer = places.client(trainer)
    if not request:
        places.policy()  # a site that cannot take part says so before it is counted on
        return packed(number_packed(number))
    envelope = enveloped(answer, request, _tell)
    return packed(with_metrics(envelope, trainer.metrics))


def _nothing_follows(broadcast: bytes, invitation: Invitation, _: bytes) -> tuple[bytes, bytes]:
    """The `Arrive` of arrays, which travel beside the messages. Raises PeerError for a broadcast, and RefusalError for
    a round of something else than arrays."""
    if broadcast:
        raise PeerError("server", "sends a broadcast in a round whose arrays travel beside", Code.BAD_BODY)
    if invitation.rule != ARRAYS.name:
        raise RefusalError(Refusal.MODEL, f"the round's rule is {invitation.rule!r:.40}, and this site sums arrays")
    return b"", b""


@dataclass(eq=False)
class _Trainer:
    """The user's app as the client's trainer: the arrays are those beside the message.

    `metrics`: the public ones of what was trained.
    """

    message: Message = field(repr=False)
    train: Callable[[Message], Message] = field(repr=False)
    public: Sequence[str]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> TrainedValues:
        """All values of the arrays beside the message."""
        return TrainedValues(ARRAYS, a=0, b=sum(array.size for array in self._received()[1].values()))

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """The change of the arrays by the user's training, a row, with its weight in the last place where the settings
        ask for one.

        Raises RefusalError where the arrays are not those of the invitation, or the app does not answer.
        """
        records, before = self._received()
        settings, summed = self._settings(records, before, invitation)
        replied = self.train(_inner(self.message, records))
        if replied.has_error() or not replied.has_content():
            raise RefusalError(Refusal.UPDATE, "the app's training ended in an error of its own")
        after = replied.content.array_records
        if len(after) != 1:
            raise RefusalError(Refusal.UPDATE, f"the app replied with {len(after)} ArrayRecords; reply with one")
        update = summed.difference(numpy_of(after[next(iter(after))]), before)
        told = _metrics(replied)
        vector = update
        if settings.examples:
            vector = _weighted(update, settings, told, invitation.plan.clip_norm)
        self.metrics = {name: told[name] for name in self.public if name in told}
        long = int(np.linalg.norm(vector) > invitation.plan.clip_norm)
        return Contributions(vector[None], np.ones(1, np.int64), np.array([long], np.int64))

    def _received(self) -> tuple[RecordDict, Arrays]:
        records = beside(self.message)
        if len(records.array_records) != 1:
            found = len(records.array_records)
            raise RefusalError(Refusal.MODEL, f"{found} ArrayRecords came with the request, and one is trained")
        try:
            return records, numpy_of(next(iter(records.array_records.values())))
        except ForeignError as error:
            raise RefusalError(Refusal.MODEL, f"the arrays are not read: {error}") from None

    @staticmethod
    def _settings(records: RecordDict, before: Arrays, invitation: Invitation) -> tuple[Settings, Summed]:
        if hash_of(before) != invitation.model_hash:
            raise RefusalError(Refusal.MODEL, "the arrays that came are not those that the invitation binds")
        try:
            settings = Settings.of(records)
            summed = Summed.of(before, tuple(map(_literal, settings.kept)))
        except (ForeignError, ConfigError) as error:
            raise RefusalError(Refusal.MODEL, f"the server's settings do not fit its arrays: {error}") from None
        size = summed.dimension + bool(settings.examples)
        if size != invitation.plan.dimension:
            raise RefusalError(
                Refusal.MODEL, f"the arrays have {size} values to sum, the plan {invitation.plan.dimension}"
            )
        if settings.weight_norm >= invitation.plan.clip_norm:
            raise RefusalError(Refusal.PLAN, "the weight alone is as long as the whole upload may be")
        return settings, summed


def _inner(message: Message, records: RecordDict) -> Message:
    """The message as the user's app would have had it without us."""
    own = RecordDict({name: record for name, record in records.items() if name != SETTINGS})
    return Message(metadata=message.metadata, content=own)


def _weighted(
    update: NDArray[np.float64], settings: Settings, told: Mapping[str, float], norm: float
) -> NDArray[np.float64]:
    """(w x, w c_w), with x clipped to what c_w leaves of the whole norm: of length at most `norm` in all."""
    if settings.examples not in told:
        raise RefusalError(
            Refusal.UPDATE, f"the app's metrics lack {settings.examples!r:.80}, by which its update is to be weighted"
        )
    examples = told[settings.examples]
    if not examples > 0:
        raise RefusalError(Refusal.UPDATE, f"{settings.examples!r:.80} is {examples}, and a weight is above 0")
    weight = min(examples, settings.most) / settings.most
    own = (norm**2 - settings.weight_norm**2) ** 0.5
    length = float(np.linalg.norm(update))
    shrunk = update * (own / length) if length > own else update  # what is not finite stays so, and is refused later
    return np.append(weight * shrunk, weight * settings.weight_norm)


def _metrics(reply: Message) -> dict[str, float]:
    """The app's metrics that are single finite numbers."""
    found = {}
    for record in reply.content.metric_records.values():
        for name, value in record.items():
            if isinstance(value, int | float) and np.isfinite(value):
                found[name] = float(value)
    return found


def _literal(name: str) -> str:
    """A pattern that `fnmatch` takes for this name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _tell(line: str) -> None:
    try:
        _LOG.warning("secure sum: %s", printable(line))
    except Exception:  # a log that cannot be written must not tell the server either
        return
