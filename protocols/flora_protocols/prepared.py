"""What the server has of a session that is set up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flora_protocols.codec import TAG, Bitmap
from flora_protocols.deposits import Deposits
from flora_protocols.errors import Code, MisuseError, PeerError
from flora_protocols.params import SessionParams
from flora_protocols.position import Position, fresh
from flora_protocols.round_params import RoundParams
from flora_protocols.server_round import ServerMask


class ServerPrepared(Position):
    """A session that is set up: it begins rounds until its slots are used. It is no trip, and never spent.

    Slots are used in ascending order, whatever becomes of their rounds. Not the server but its clients see to it that
    none is used twice.
    """

    def __init__(self, deposits: Deposits) -> None:
        super().__init__(f"of {deposits.params.clients} clients, session {deposits.params.number}")
        self._params, self._session, self._deposits = deposits.params, deposits.session, deposits
        self._next = 0
        self._scopes: list[bytes] = []
        self.refused: Mapping[int, PeerError] = {}

    @property
    def params(self) -> SessionParams:
        """The parameters of the session."""
        return self._params

    @property
    def session(self) -> bytes:
        """The session id, 32 bytes."""
        return self._session

    @property
    def next_slot(self) -> int:
        """The first slot that is left; as many as there are slots if none is."""
        return self._next

    @property
    def dealers(self) -> tuple[int, ...]:
        """Who has shared its secrets, ascending."""
        return self._deposits.dealers

    @property
    def complaints(self) -> Mapping[int, frozenset[int]]:
        """Who has said of whom that it holds no shares, by the holder."""
        return self._deposits.complaints

    @property
    def accused(self) -> dict[int, PeerError]:
        """Whose boxes did not open at more holders than may be corrupt, so that it is their own fault."""
        return self._deposits.accused

    @property
    def clients(self) -> tuple[int, ...]:
        """Who may be invited, ascending: those that have shared, were not refused afterwards, are not accused, and of
        pairs that have complained of each other one at most."""
        out = self.accused.keys() | self.refused.keys() | self._deposits.apart
        return tuple(client for client in self.dealers if client not in out)

    def next_round(self, round: int, model_hash: bytes, invited: Iterable[int] | None = None) -> RoundParams:
        """The parameters of a round in the first slot that is left, to which `clients` are invited, or those given.

        Raises MisuseError where no slot is left: set up another session.
        """
        if self._next == self._params.slots:
            raise MisuseError(f"all {self._next} slots are used; set up another session", Code.SPENT)
        bitmap = Bitmap.of(self._params.clients, self.clients if invited is None else invited)
        return RoundParams(slot=self._next, round=round, model_hash=model_hash, invited=bitmap)

    @fresh
    def begin(self, round: RoundParams) -> ServerMask:
        """The position of a round, whose slot is used from now on, and with it those before.

        Raises MisuseError for a slot that is not left, for who has not shared and for who is accused; ParameterError
        for what the session does not have.
        """
        if not isinstance(round, RoundParams):
            raise MisuseError(f"round must be RoundParams, not {type(round).__name__}")
        round.id(self._params, self._session)
        if round.slot < self._next:
            left = f"the first that is left is {self._next} of {self._params.slots}"
            raise MisuseError(f"slot {round.slot} was used or passed over; {left}", Code.SPENT)
        strangers = [client for client in round.invited if client not in self._deposits]
        if strangers:
            raise MisuseError(f"invites {strangers[:8]}, who have not shared; see ServerPrepared.clients")
        accused = sorted(self.accused.keys() & set(round.invited))
        if accused:
            raise MisuseError(f"invites {accused[:8]}, whose shares do not open; see ServerPrepared.clients")
        position = ServerMask(self._deposits, round)
        self._next = round.slot + 1
        self._scopes.append(round.id(self._params, self._session))
        return position

    @property
    def stale(self) -> frozenset[bytes]:
        """The tags of messages that come late: of the set-up, and of all rounds but the one begun last."""
        ids = self._params.setup_id, self._session, *self._scopes[:-1]
        return frozenset(scope[:TAG] for scope in ids)

    @property
    def undelivered(self) -> Mapping[int, bytes]:
        """The inboxes of those that have not uploaded yet, which may not have got them: they go with each round."""
        return self._deposits.undelivered

    def deliver(self, inboxes: Mapping[int, bytes], refused: Mapping[int, PeerError]) -> None:
        """Keep what goes with the first round. `refused`: whose messages were, while the session was set up."""
        self._deposits.undelivered, self.refused = dict(inboxes), refused
