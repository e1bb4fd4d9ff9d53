"""T-03 and T-15: what clients were told of a round, and how many bytes it took, beside configuration and log."""

from __future__ import annotations

from collections.abc import Iterator

from flora_protocols import ParameterError, Trip
from flora_secure.auditing.transcript.notes import Notes
from flora_secure.auditing.transcript.rounds import Round
from flora_secure.errors import InputError
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import MaskingPlan, masking_of, name_of, slots_of
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.records.record import RoundRecord
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import OPENING_BYTES, REQUEST_BYTES
from flora_secure.rounds.reply import REPLY_BYTES

_CODE = 64  # bytes of a refusal's code, at most
_TIMES = 2  # a client is asked twice in a trip, at most


class Claims:
    """Compares the rounds of a run with its configuration and its log, one after another."""

    def __init__(self, config: RunConfig, notes: Notes) -> None:
        self._config, self._notes = config, notes
        self._first: tuple[bytes, bytes, str] | None = None  # session of the run, enrolment's digest, rule
        self._plans: dict[tuple[int, int, int], MaskingPlan | None] = {}
        self.bytes = 0

    def take(self, round: Round) -> None:
        """Compare what clients were told of one round."""
        for name, told, claimed in self._pairs(round):
            if told != claimed:
                what = f"clients were told {name} {told}, and configuration and log say {claimed}"
                self._notes.problem("T-03", round.where, what)
        self._graph(round)
        digest = round.recorded.enrolment.digest
        own = round.invitation.session, digest, round.invitation.rule
        self._first = self._first or own
        if own != self._first:
            what = "the run's session, its enrolment or its rule is not that of the rounds before"
            self._notes.problem("T-03", round.where, what)

    @property
    def enrolment(self) -> str:
        """SHA-256, hex, of the enrolment that the transcript speaks of; "" where no round was read."""
        return "" if self._first is None else self._first[1].hex()

    @property
    def session(self) -> str:
        """The run's session, hex, that clients were invited to; "" where no round was read."""
        return "" if self._first is None else self._first[0].hex()

    def _pairs(self, round: Round) -> Iterator[tuple[str, object, object]]:
        """What clients were told and what is claimed, by name."""
        config, record, told, params = self._config, round.record, round.invitation, round.params
        plan = told.plan
        yield "round", told.round, record.round
        yield "unit", told.unit, config.privacy.unit
        yield "placement", told.placement, config.model.placement
        yield "rotation seed", told.rotation_seed, config.seed
        yield "model hash", told.model_hash.hex(), record.model_hash
        yield "federation of", round.recorded.enrolment.clients, record.clients
        for name in ("sigma_local", "scale", "clip_norm", "colluders", "bits", "sampling_rate", "count_scale", "delta",
                     "honest_minimum"):  # fmt: skip
            yield name, getattr(plan, name), getattr(record, name)
        yield "dimension", plan.length, record.dimension
        yield "neighbours", params.neighbours, record.neighbours
        yield "threshold", params.threshold, record.threshold
        yield "profile", params.profile.value, config.aggregation.secagg
        yield "suite", name_of(params.suite), config.aggregation.suite or name_of(params.suite)
        yield "slots", params.slots, slots_of(config)

    def _graph(self, round: Round) -> None:
        """Holders that t must resist, and graph and threshold, as the configuration's promises size them."""
        plan, params = round.invitation.plan, round.params
        key = plan.clients, plan.colluders, plan.dropouts
        if key not in self._plans:
            self._plans[key] = _planned(self._config, plan)
        planned = self._plans[key]
        if planned is None:
            self._notes.cannot("T-03", "this installation cannot plan the configuration's masks, to compare them")
            return
        for name in ("neighbours", "threshold", "corrupt"):
            told, own = getattr(params, name), getattr(planned, name)
            if told != own:
                what = f"the session's {name} is {told}, and what the configuration promises takes {own}"
                self._notes.problem("T-03", round.where, what)

    def take_start(self, round: Round, model_hash: bytes) -> None:
        """Compare the digest in a START with the invitation."""
        digest = round.invitation.start(round.recorded.enrolment, ()).model_hash
        if model_hash != digest:
            self._notes.problem("T-03", round.where, "START binds another invitation than the one of the transcript")

    def count(self, round: Round) -> None:
        """T-15: the bytes of the round's messages against the log's."""
        record, around = round.record, round.recorded.around
        up = [len(message) for exchanged in round.exchanges for _, message in exchanged.replies]
        down = sum(len(message) for exchanged in round.exchanges for message in exchanged.told.values())
        asked = sum(len(exchanged.told) for exchanged in round.exchanges if exchanged.trip is Trip.MASK)
        self.bytes += sum(up) + down
        for what in _miscounted(record, around, up, record.upload_bytes - sum(up), round):
            self._notes.problem("T-15", round.where, what)
        rest = record.download_bytes - record.broadcast_bytes - down - REQUEST_BYTES * asked
        first = len(round.exchanges[0].told) if round.exchanges else 0
        if not _opens(record, round.invitation, rest, first, exactly=not around):
            what = (
                f"{record.download_bytes:,} bytes were sent down by the log; {down:,} of messages, {asked} requests "
                f"and {record.broadcast_bytes:,} of broadcasts leave {rest:,}, and invitations have other lengths"
            )
            self._notes.problem("T-15", round.where, what)


def _miscounted(record: RoundRecord, around: int, up: list[int], rest: int, round: Round) -> Iterator[str]:
    """What is wrong with the bytes that were sent up, of which `rest` are in no message of the protocol."""
    if around not in (0, REPLY_BYTES):
        yield f"{around} bytes frame a reply, which nothing here sends"
        return
    told = f"{record.upload_bytes:,} bytes were sent up by the log, {sum(up):,} are in {len(up)} messages"
    if not around and rest:
        yield told
    asked = sum(len(exchanged.told) for exchanged in round.exchanges)
    if around and not around * len(up) <= rest <= around * len(up) + _TIMES * asked * (REPLY_BYTES + _CODE):
        yield f"{told}, which the frames around them and refusals do not explain"


def _opens(record: RoundRecord, invitation: Invitation, rest: int, first: int, *, exactly: bool) -> bool:
    """Whether so many bytes are the openings of a round, without their broadcasts: a long or a short invitation for
    each member; in a real federation openings may have been sent again."""
    long, short = Invitation.sizes(record.clients, invitation.placement, invitation.rule, masked=True)
    members = len(record.participants)
    if not exactly:
        return rest >= first * (OPENING_BYTES + short)
    left = rest - members * (OPENING_BYTES + short)
    return left % (long - short) == 0 and 0 <= left // (long - short) <= members


def _planned(config: RunConfig, plan: NoisePlan) -> MaskingPlan | None:
    try:
        return masking_of(config, plan)
    except (InputError, ParameterError):
        return None
