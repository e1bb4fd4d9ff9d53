"""The server's rounds of a real federation, over any transport: what the simulation does in one process, between many.

A round: invite · what `masked_rounds` carries · finish. Before them the terms are compared, after them the adapter is
sent to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from flora_protocols import PeerError
from flora_secure.engine.deployed.masked_rounds import MaskedRounds, Patience, name_of
from flora_secure.engine.deployed.transport import Transport
from flora_secure.errors import first_line
from flora_secure.records.record import RoundRecord
from flora_secure.records.transcript.writing import Transcript
from flora_secure.rounds.farewell import encode_farewell, encode_receipt
from flora_secure.rounds.reply import Refused, decode_reply
from flora_secure.rounds.terms import Terms
from flora_secure.server.server import Announce, Server, Skipped

_SHOWN = 20  # differences that are told of one site


@dataclass(eq=False)
class Coordinator:
    """One run between the server and its sites.

    Attributes:
        server: whose rounds are run.
        terms: its own, which every site compares with its own before it trains.
        transport: the way to the sites.
        patience: how long it waits for them.
        log: told, in lines for the server's people, what happens; no line holds a secret.
    """

    server: Server
    terms: Terms
    transport: Transport = field(repr=False)
    patience: Patience
    log: Callable[[str], None] = field(repr=False)
    _masked: MaskedRounds = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = self.server.enrolment, self.server, self.transport, self.patience, self.log
        self._masked = MaskedRounds(*parts, fitting=lambda clients, patience: self._compare(clients, patience)[0])

    repeats = False  # the sites draw noise and coins themselves: a round that is run again releases another sum

    def check(self) -> tuple[int, ...]:
        """Ask every site whether it has what the server has, and say what differs. Returns the clients that do.

        The others may be asked again: they train nothing before their terms fit.
        """
        enrolment = self.server.enrolment
        everybody = [client for client in range(enrolment.clients) if client not in enrolment.revoked]
        fitting, heard = self._compare(everybody, self.patience.training), set[int]()
        heard.update(fitting[1])
        if silent := [name_of(client) for client in everybody if client not in heard]:
            self.log(f"no answer yet from {', '.join(silent)}")
        return tuple(sorted(fitting[0]))

    def _compare(self, clients: list[int], patience: float) -> tuple[set[int], set[int]]:
        """Who of `clients` has the server's terms, and who has answered at all within so many seconds."""
        fitting, heard = set[int](), set[int]()
        message = self.terms.to_bytes()
        for client, reply in self.transport.exchange(dict.fromkeys(clients, message), patience):
            heard.add(client)
            found = decode_reply(reply)
            if isinstance(found, Refused):
                self.log(f"{name_of(client)} cannot take part ({found.code}); its own log says why")
                continue
            try:
                theirs = Terms.from_bytes(found, client)
            except PeerError as error:
                self.log(f"{name_of(client)} sent no terms: {first_line(error)}")
                continue
            differences = self.terms.differences(theirs)
            for difference in differences[:_SHOWN]:
                self.log(f"{name_of(client)} does not fit: {difference.line('the server', name_of(client))}")
            if len(differences) > _SHOWN:
                self.log(f"{name_of(client)} does not fit in {len(differences) - _SHOWN:,} more")
            if not differences:
                fitting.add(client)
        return fitting, heard

    def rounds(self, announce: Announce | None = None, transcript: Transcript | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends. `announce`: see `Server.invite`; `transcript`: where
        their messages are kept, if they are."""
        while not self.server.done:
            yield self._round(announce, transcript)

    def farewell(self) -> tuple[int, ...]:
        """Send the trained adapter to every site, once; returns the clients that have kept it."""
        enrolment = self.server.enrolment
        message = encode_farewell(self.server.broadcast)
        outbox = {client: message for client in range(enrolment.clients) if client not in enrolment.revoked}
        replies = self.transport.exchange(outbox, self.patience.training)
        return tuple(sorted(client for client, reply in replies if not isinstance(decode_reply(reply), Refused)))

    def hand_out(self, receipts: Mapping[int, str]) -> tuple[int, ...]:
        """Send each client of `receipts` its own, once; returns the clients that have found it right."""
        outbox = {client: encode_receipt(receipt) for client, receipt in receipts.items()}
        right = []
        for client, reply in self.transport.exchange(outbox, self.patience.trip):
            if isinstance(found := decode_reply(reply), Refused):
                self.log(f"{name_of(client)} does not take its receipt ({found.code}); its own log says why")
            else:
                right.append(client)
        return tuple(sorted(right))

    def _round(self, announce: Announce | None, transcript: Transcript | None) -> RoundRecord:
        try:
            invitation = self.server.invite(announce)
        except Skipped as skipped:
            return skipped.record
        return self.server.finish(invitation, self._masked.run(invitation, transcript))
