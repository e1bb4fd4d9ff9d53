"""A-19: as many bytes as the messages of the rounds take.

The server's side of it is walked through again with sizes in the place of messages: which invitation and which
broadcast each member needs, when a masking session begins, and the protocol's messages by `rounds.counting`. Of a
simulation the bytes follow exactly, up to where a crash made it begin anew, which no log tells; of a real federation,
whose networks lose and repeat messages, they are a bound from below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flora_protocols import Floors, Kind, ParameterError, Profile, RoundAborted, SessionParams
from flora_protocols.keys import PAIR_TAG_BYTES
from flora_protocols.setup_messages import sealed_bytes
from flora_secure.auditing.findings import Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.log_checks import at
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.records.record import RoundRecord
from flora_secure.rounds.broadcast import Form, Layout
from flora_secure.rounds.counting import in_round, in_set_up, recovered
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import OPENING_BYTES, REQUEST_BYTES


class _Bytes(NamedTuple):
    """`open_up`, `open_down`: by how much they may differ where the graph follows from keys that no log holds."""

    upload: int
    download: int
    broadcast: int
    invitations: int = 0
    open_up: int = 0
    open_down: int = 0

    def fits(self, r: RoundRecord) -> bool:
        """Whether a line counts so many."""
        return (
            abs(r.upload_bytes - self.upload) <= self.open_up
            and abs(r.download_bytes - self.download) <= self.open_down
            and r.broadcast_bytes == self.broadcast
        )


@dataclass
class _Sent:
    """What the server remembers of its clients from round to round, in sizes.

    `known`: client → the cohort's size in its last long invitation. `since`: client → the last round whose state it
    has; `first`, `oldest`: rounds of the state that all began with and of the oldest sum that is kept, `sums`: rounds
    of those. `moved`: whether any sum has moved the state. `session`, `cohort`, `waiting`: of the masks that are set
    up, and who has not been told its inbox.
    """

    known: dict[int, int] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)
    first: int = 1
    oldest: int = 1
    sums: list[int] = field(default_factory=list)
    moved: bool = False
    session: SessionParams | None = None
    cohort: list[int] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)

    def afresh(self, number: int) -> _Sent:
        """After a crash before round `number`: nothing is known of anybody."""
        return _Sent(first=number, oldest=number, moved=self.moved)

    def copy(self) -> _Sent:
        """One that can be tried."""
        return _Sent(
            {**self.known}, {**self.since}, self.first, self.oldest, [*self.sums], self.moved, self.session,
            self.cohort, {*self.waiting},
        )  # fmt: skip


def messages(case: Case) -> Finding:
    """A-19: bytes up and down, of broadcasts and of invitations are those of the messages."""
    title = ("As many bytes as the messages take", "Not as many bytes as the messages take")
    if case.report is None or case.planned.noise is None:
        return unchecked("A-19", title, case.planned.why_none)
    sent, problems, invitations, exact = _Sent(), list[Problem](), 0, case.simulated
    for r in case.records:
        if r.lost:
            sent = sent.afresh(r.round + 1)
            if r.upload_bytes or r.download_bytes or r.recovered:
                problems.append((at(r), "lost in a crash, yet bytes are counted"))
            continue
        plan = case.planned.of(r)
        if plan is None or (case.masked and case.planned.masking(len(r.participants)) is None):
            if r.upload_bytes or r.download_bytes or r.payload_bytes or r.broadcast_bytes:
                problems.append((at(r), "nobody was asked, yet bytes are counted"))
            continue
        tries = [sent.copy(), sent.afresh(r.round)]
        found = [_round(case, r, plan, one) for one in tries]
        told = (r.upload_bytes, r.download_bytes, r.broadcast_bytes)
        fits = [each.fits(r) for each in found]
        place = fits.index(True) if True in fits else 0
        sent, least = tries[place], found[place]
        invitations += least.invitations
        if not exact or r.announced:
            least = _least(case, r, plan)
            exact = False
            fits = [all(here >= there for here, there in zip(told, least[:3], strict=True))]
        if not any(fits):
            names = ("upload_bytes", "download_bytes", "broadcast_bytes")
            wrong = (
                f"{name} {here:,}, its messages take {there:,}"
                for name, here, there in zip(names, told, least[:3], strict=True)
                if here != there
            )
            problems.append((at(r), "; ".join(wrong)))
        elif exact and not least.open_up and r.recovered != (derived := _recovered(r, sent)):
            problems.append((at(r), f"{r.recovered} recovered, the dropped clients say {derived}"))
    told_messages = max(1, sum(len(r.participants) for r in case.records if r.download_bytes))
    mean = case.report.communication.invitation_bytes
    if exact and not problems and abs(mean * told_messages - invitations) > 0.5:
        problems.append(("report.json", f"invitation_bytes {mean:.6g}, derived {invitations / told_messages:.6g}"))
    how = "to the byte" if exact else "at least; what a network repeats comes on top"
    return judged("A-19", title, problems, f"{len(case.records)} rounds, {how}", "publish the bytes that were sent")


def _recovered(r: RoundRecord, sent: _Sent) -> int:
    """How many of a round's dropped clients had masks to remove."""
    if not r.summed or sent.session is None:
        return 0
    return recovered(sent.session, _stayed(r))


def _stayed(r: RoundRecord) -> list[int]:
    gone = {*r.dropped}
    return [place for place, client in enumerate(r.participants) if client not in gone]


def _round(case: Case, r: RoundRecord, plan: NoisePlan, sent: _Sent) -> _Bytes:
    """The bytes of a round of a simulation; `sent` is changed to what the server knows after it."""
    n, stayed = len(r.participants), {*r.participants} - {*r.dropped}
    long, short = _invitations(case)
    follow = {client for client in r.participants if sent.known.get(client) == n}
    invitations = len(follow) * short + (n - len(follow)) * long
    for client in {*r.participants} - follow:
        sent.known.pop(client, None)
    broadcast, told = _broadcasts(case, r, plan, sent)
    more = _Bytes(len(stayed) * Layout(1, plan.length, plan.bits).packed, 0, 0)
    if case.planned.profile is not None:
        more = _masked(case, r, plan, sent)
    down = broadcast + n * OPENING_BYTES + invitations + more.download
    for client in stayed:
        sent.known.setdefault(client, n)
    for client in r.dropped:
        sent.known.pop(client, None)
    sent.since.update(dict.fromkeys(told & stayed, r.round))
    if r.summed:
        sent.sums.append(r.round)
        sent.moved = True
    layout, alone = _layout(case, plan)
    while layout.size(Form.SUMS, len(sent.sums)) > layout.size(Form.ADAPTER if alone else Form.MOVING):
        sent.oldest = sent.sums.pop(0) + 1
    return more._replace(download=down, broadcast=broadcast, invitations=invitations)


def _invitations(case: Case) -> tuple[int, int]:
    config = case.config
    return Invitation.sizes(config.clients, config.model.placement, case.planned.rule.name, masked=case.masked)


def _layout(case: Case, plan: NoisePlan) -> tuple[Layout, bool]:
    """The layout of broadcasts, and whether members are sent the adapter alone."""
    assert case.report is not None
    layout = Layout(case.report.communication.parameters, plan.length, plan.bits)
    return layout, layout.alone(everybody=case.everybody)


def _broadcasts(case: Case, r: RoundRecord, plan: NoisePlan, sent: _Sent) -> tuple[int, set[int]]:
    """Bytes of the round's broadcasts, and who can follow the server's state after them."""
    layout, alone = _layout(case, plan)
    form = Form.HALF
    if sent.moved:
        form = Form.MOVING if case.config.training.server_momentum else Form.STEADY
    begun = form if sent.first > 1 else Form.HALF
    total, told = 0, set[int]()
    groups = Counter[int | None]()
    of = dict[int, int | None]()
    for client in r.participants:
        since = sent.since.get(client)
        of[client] = since if since is not None and since >= sent.oldest else None
        groups[of[client]] += 1
    follows = dict[int | None, bool]()
    for since, count in groups.items():
        options = [(layout.size(form), True)]
        if since is not None:
            options.insert(0, (layout.size(Form.SUMS, _after(sent.sums, since)), True))
        elif sent.oldest == sent.first:
            options.append((layout.size(begun, _after(sent.sums, sent.first)), True))
        if alone and form is not Form.HALF:
            options.append((layout.size(Form.ADAPTER), False))
        size, follows[since] = min(options, key=lambda option: option[0])
        total += count * size
    told = {client for client, since in of.items() if follows[since]}
    return total, told


def _after(sums: Sequence[int], since: int) -> int:
    return sum(number >= since for number in sums)


def _session(case: Case, r: RoundRecord, plan: NoisePlan) -> SessionParams:
    """The parameters of a masking session that begins with this round; whose keys they are changes no size."""
    masks, profile = case.planned.masking(len(r.participants)), case.planned.profile
    assert masks is not None
    assert profile is not None
    signed = range(2, plan.clients + 2) if profile is Profile.MALICIOUS_SERVER else ()  # 0 and 1 have small order
    keys = tuple(i.to_bytes(32, "little") for i in signed)
    return masks.session(plan, profile, number=r.round, identities=keys)


def _masked(case: Case, r: RoundRecord, plan: NoisePlan, sent: _Sent) -> _Bytes:
    """Bytes of the masking protocol alone."""
    up = down = 0
    params = sent.session
    goes_on = params is not None and sent.cohort == r.participants and r.round - params.number < params.slots
    if params is None or not goes_on:
        params = _session(case, r, plan)
        sent.session, sent.cohort, sent.waiting = params, r.participants, {*range(params.clients)}
        for one in in_set_up(params):
            up, down = (up + sum(one.sizes), down) if one.up else (up, down + sum(one.sizes))
    stayed, without = _stayed(r), frozenset(sent.waiting)
    sent.waiting -= {*stayed}
    floors = Floors(clients=2, threshold=2, survivors=max(2, plan.survivors_minimum), suite=params.suite)
    try:
        for one in in_round(params, floors, stayed, without):
            if r.aborted is not None and one.kind not in (Kind.START, Kind.UPLOAD):
                break
            size = sum(one.sizes) + (REQUEST_BYTES * len(one.positions) if one.kind is Kind.START else 0)
            up, down = (up + size, down) if one.up else (up, down + size)
    except RoundAborted:
        pass  # too few for a sum, as the line says or A-12 finds
    if not params.malicious or params.graph.complete:
        return _Bytes(up, down, 0)
    gone = params.clients - len(stayed)  # who of them are neighbours is not known, nor how much whose inbox holds
    boxes = 0 if len(without) in (0, params.clients) else len(without) * params.neighbours * sealed_bytes(params)
    return _Bytes(up, down, 0, 0, PAIR_TAG_BYTES * gone * (gone - 1), boxes)


def _least(case: Case, r: RoundRecord, plan: NoisePlan) -> _Bytes:
    """What a round takes at least: the shortest of every message to and from those whose uploads are in a sum."""
    n, least = len(r.participants), _Bytes(0, 0, 0)
    if not r.survivors:
        return least
    here, (_, short) = len(r.survivors), _invitations(case)
    layout, _ = _layout(case, plan)
    broadcast = here * min(layout.size(Form.SUMS), layout.size(Form.HALF), layout.size(Form.ADAPTER))
    if case.planned.profile is None:
        return _Bytes(here * layout.packed, broadcast + here * (OPENING_BYTES + short), broadcast)
    try:
        params = _session(case, r, plan)
        floors = Floors(clients=2, threshold=2, survivors=2, suite=params.suite)
        up, down = 0, broadcast + here * (OPENING_BYTES + short)
        for one in in_round(params, floors, list(range(n)), ()):  # all stay: nobody's masks are taken off
            if r.announced and one.kind not in (Kind.START, Kind.UPLOAD, Kind.SURVIVORS):
                break
            size = sum(list(one.sizes)[:here]) + (REQUEST_BYTES * here if one.kind is Kind.START else 0)
            up, down = (up + size, down) if one.up else (up, down + size)
    except (ParameterError, RoundAborted):
        return least
    return _Bytes(up, down, broadcast)
