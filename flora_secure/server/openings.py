"""The messages that open rounds at their members: which of them know the invitation's long form already."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import encode_opening


class Openings:
    """Openings of one run's rounds, and the bytes of the invitations in them."""

    def __init__(self, enrolment: Enrolment) -> None:
        """`enrolment`: whose members the invitations name."""
        self.invitation_bytes = 0
        self._enrolment = enrolment
        self._known: dict[int, Invitation] = {}  # client → the last one that it certainly has in long form

    def of(self, invitation: Invitation, broadcasts: Mapping[int, bytes]) -> dict[int, bytes]:
        """The message that opens the round at each member: the invitation and the member's broadcast.

        The invitation is short for members who have uploaded in a round that a long one had opened for them, and in
        every one since; others may have missed or lost it. Each is counted in `invitation_bytes`. Members who are sent
        the same get the same object.
        """
        # of each long invitation that members have: the one to send, whether it follows
        forms = dict[int | None, tuple[bytes, bool]]()
        made, openings = dict[tuple[bytes, bytes], bytes](), {}
        for member in invitation.members:
            known = self._known.get(member)
            name = None if known is None else known.round
            if name not in forms:
                follows = known is not None and invitation.follows(known)
                forms[name] = invitation.to_bytes(self._enrolment, known if follows else None), follows
            encoded, follows = forms[name]
            if known is not None and not follows:
                del self._known[member]  # it keeps the last long one, and which that is shows when it uploads
            self.invitation_bytes += len(encoded)
            key = encoded, broadcasts[member]
            if key not in made:
                made[key] = encode_opening(*key)
            openings[member] = made[key]
        return openings

    def complete(self, invitation: Invitation, broadcast: bytes, member: int) -> bytes:
        """The opening of a member that has nothing of what it was sent before: with the long form."""
        self._known.pop(member, None)
        encoded = invitation.to_bytes(self._enrolment)
        self.invitation_bytes += len(encoded)
        return encode_opening(encoded, broadcast)

    def ended(self, invitation: Invitation, uploaded: Collection[int]) -> None:
        """What the end of a round shows: who has `uploaded` has its long form."""
        for client in uploaded:
            self._known.setdefault(client, invitation)
        for client in set(invitation.members).difference(uploaded):
            self._known.pop(client, None)  # it may have lost the long one, and with it the way back
