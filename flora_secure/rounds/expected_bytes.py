"""How many bytes a run will send, from its config and a round's noise plan alone: means over clients and rounds.

Sizes are those of the real messages. Who drops out is not known before a run: a share of each round, the same for
everybody.
"""

from __future__ import annotations

import math
from statistics import fmean

from flora_protocols import Kind, Profile, round_bytes, setup_bytes
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import MaskingPlan
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.broadcast import Form, Layout
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import REQUEST_BYTES


def masking_bytes(config: RunConfig, plan: NoisePlan, masking: MaskingPlan) -> tuple[float, float]:
    """Bytes up and down of a client and round, for masking and what it masks; `plan`: of a round.

    The mean over a run, set-ups included. Who drops out of a round does so before its upload, as in a simulation.
    """
    profile, n, rounds = Profile(config.aggregation.secagg), plan.clients, config.training.rounds
    signed = range(2, n + 2) if profile is Profile.MALICIOUS_SERVER else ()  # 0 and 1 would have small order
    keys = tuple(i.to_bytes(32, "little") for i in signed)  # whose they are does not change a size
    params = masking.session(plan, profile, identities=keys)
    lost = math.floor(config.aggregation.dropout * n) / n
    once = setup_bytes(params)
    each = round_bytes(params, lost * n * masking.neighbours / (n - 1))  # of who stays, the neighbours that do not
    sessions = math.ceil(rounds / params.slots) / rounds
    # the inbox goes with each round of a session until its client has uploaded
    inbox = once[Kind.INBOX] * math.fsum(lost ** (number % params.slots) for number in range(rounds)) / rounds
    sent = (Kind.ADVERTISEMENT, Kind.CIPHERTEXTS, Kind.SHARES)
    told = math.fsum(once.get(kind, 0.0) for kind in (Kind.ROSTER, Kind.DELIVERY))
    up = (1 - lost) * math.fsum(each.get(kind, 0.0) for kind in (Kind.UPLOAD, Kind.ENDORSEMENT, Kind.REVEAL))
    down = (1 - lost) * math.fsum(each.get(kind, 0.0) for kind in (Kind.SURVIVORS, Kind.AGREEMENT))
    return (
        up + sessions * math.fsum(once.get(kind, 0.0) for kind in sent),
        down + sessions * told + inbox + each[Kind.START] + REQUEST_BYTES,
    )


def invitation_bytes(config: RunConfig, plan: NoisePlan) -> float:
    """Bytes of an invitation, the mean over a run's rounds: a long one first and after a drop-out, short ones where
    nothing but their members differs."""
    masked, rounds, how = config.aggregation.secagg != "off", config.training.rounds, config.participation
    long, short = Invitation.sizes(config.clients, config.model.placement, config.model.trained_rule, masked=masked)
    if how.sampling == "poisson":
        return long
    stay = 1 - math.floor(config.aggregation.dropout * plan.clients) / plan.clients
    known = stay * math.fsum(1 - (1 - how.rate) ** number for number in range(rounds)) / rounds
    return long + known * (short - long)


def broadcast_bytes(config: RunConfig, plan: NoisePlan, trained: int) -> float:
    """Bytes of a broadcast of so many `trained` values, the mean over a run's rounds and members, where whoever takes
    part drops out as often as all others."""
    how, layout = config.participation, Layout(trained, plan.length, plan.bits)
    whole = layout.size(Form.MOVING if config.training.server_momentum else Form.STEADY)
    alone = layout.alone(everybody=how.sampling is None)
    if alone:
        whole = min(whole, layout.size(Form.ADAPTER))
    stay = how.rate * (1 - math.floor(config.aggregation.dropout * plan.clients) / plan.clients)
    sizes, shown = [float(layout.size(Form.HALF))], [stay]  # by round; a client shows there which state it has
    for number in range(2, config.training.rounds + 1):
        mean, left = 0.0, 1.0
        for missed in range(how.min_separation, number):
            size = layout.size(Form.SUMS, missed)
            if size > whole:
                break
            chance = left * shown[number - 1 - missed]
            mean, left = mean + chance * size, left - chance
        never = math.prod(1 - chance for chance in shown)
        begin = whole if alone else min(whole, layout.size(Form.HALF, number - 1))
        sizes.append(mean + never * begin + (left - never) * whole)
        shown.append(stay * (1 - left if alone else 1.0))
    return fmean(sizes)
