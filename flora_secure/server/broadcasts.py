"""Which state of the server's each client certainly has, and what each member of a round is therefore sent."""

from __future__ import annotations

from collections.abc import Collection

from flora_secure.rounds.broadcast import Broadcast, Form, FullState, Layout
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.step import ReleasedSum


class Broadcasts:
    """Broadcasts of one run's rounds.

    Who uploaded in a round had the state in which it began, or could not have trained. Whoever was not heard of since
    may have a later one, or have lost what it had: it is sent the sums from the last certain one on, skips those that
    it knows, or refuses and is sent `complete`.
    """

    def __init__(self, layout: Layout, start: FullState, *, everybody: bool) -> None:
        """`start`: the state before round 1. `everybody`: whether all clients are in every round."""
        self._layout, self._alone = layout, layout.alone(everybody=everybody)
        self.restart(start, 1)

    def restart(self, start: FullState, number: int) -> None:
        """Go on with round `number`, in the state `start`, knowing of nobody what it has."""
        self._since: dict[int, int] = {}  # client → the last round of which it certainly has the beginning's state
        self._start, self._first = start, number
        self._oldest, self._sums = number, list[ReleasedSum]()  # all sums since that round
        self._told: set[int] = set()  # members of the open round that were sent what a state follows from

    def of(self, invitation: Invitation, state: FullState) -> dict[int, bytes]:
        """The broadcast of each member, the shortest from which it can follow; `state`: that in which the round begins.

        Members in the same situation get the same object.
        """
        made, found = dict[int | None, Broadcast](), {}
        encoded = dict[int | None, bytes]()
        for member in invitation.members:
            since = self._since.get(member)
            if since is not None and since < self._oldest:
                since = None
            if since not in made:
                made[since] = self._shortest(invitation.round, since, state)
                encoded[since] = made[since].to_bytes()
            found[member] = encoded[since]
            if made[since].adapter is None:
                self._told.add(member)
        return found

    def complete(self, invitation: Invitation, state: FullState, member: int) -> bytes:
        """A broadcast for a member that has nothing, whatever was thought of it."""
        self._since.pop(member, None)
        found = self._shortest(invitation.round, None, state)
        (self._told.discard if found.adapter is not None else self._told.add)(member)
        return found.to_bytes()

    def ended(self, invitation: Invitation, uploaded: Collection[int], released: ReleasedSum | None) -> None:
        """What the end of a round shows: who has `uploaded` has the state in which it began. `released`: its sum."""
        self._since.update(dict.fromkeys(self._told.intersection(uploaded), invitation.round))
        self._told = set()
        if released is not None:
            self._sums.append(released)
        most = self._layout.size(Form.ADAPTER if self._alone else Form.MOVING)
        while self._layout.size(Form.SUMS, len(self._sums)) > most:  # a full state or an adapter is shorter
            self._oldest = self._sums.pop(0).round + 1

    def _shortest(self, number: int, since: int | None, state: FullState) -> Broadcast:
        """What to send to a member that has the state of round `since`, or none."""
        options = [Broadcast(since=number, start=state)]
        if since is not None:
            options.insert(0, Broadcast(since=since, sums=self._after(since)))
        elif self._oldest == self._first:
            options.append(Broadcast(since=self._first, start=self._start, sums=self._after(self._first)))
        if self._alone and state.form is not Form.HALF:  # a state in float16 is an adapter and a few bytes
            options.append(Broadcast(since=number, adapter=state.half))
        return min(options, key=lambda one: self._layout.size(one.form, len(one.sums)))

    def _after(self, since: int) -> tuple[ReleasedSum, ...]:
        return tuple(one for one in self._sums if one.round >= since)
