"""Invitations to rounds of a plan, as tests of the exchange and of clients need them."""

import os
from collections.abc import Sequence

from flora_protocols import Floors, Profile, Suite, identity_public
from flora_secure.planning.masking import MaskingPlan, plan_masking
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation


def secrets_of(clients: int) -> dict[int, bytes]:
    """An identity key for every client."""
    return {client: os.urandom(32) for client in range(clients)}


def enrolment_of(clients: int, secrets: dict[int, bytes] | None = None) -> Enrolment:
    return Enrolment(clients=clients, identities=tuple(map(identity_public, (secrets or {}).values())))


def invitation_of(
    plan: NoisePlan,
    enrolment: Enrolment,
    *,
    members: Sequence[int] | None = None,
    number: int = 1,
    masking: MaskingPlan | None = None,
    masked: bool = True,
    neighbours: int | None = None,
    model_hash: bytes = bytes(32),
    slot: int = 0,
    slots: int = 1,
    suite: Suite = Suite.X25519,
    **changes,
) -> Invitation:
    """A round of `plan` among `members`, by default everybody who is enrolled, in a slot of a masking session."""
    chosen = tuple(range(enrolment.clients) if members is None else members)
    profile = Profile.MALICIOUS_SERVER if enrolment.identities else Profile.SEMI_HONEST
    masking = masking or (plan_masking(plan, profile, neighbours, slots=slots, suite=suite) if masked else None)
    params = masking and masking.session(
        plan, profile, number=number - slot, identities=enrolment.identities_of(chosen)
    )
    given = {
        "session": b"session of tests",
        "unit": "client",
        "placement": "text-projection",
        "rule": "prompt-basis",
        "rotation_seed": 0,
        **changes,
    }
    return Invitation(round=number, members=chosen, plan=plan, model_hash=model_hash, params=params, **given)


def floors_of(invitation: Invitation) -> Floors | None:
    """The floors of clients that insist on what the plan needs."""
    if invitation.params is None:
        return None
    least = max(2, invitation.plan.survivors_minimum)
    return Floors(clients=least, threshold=invitation.params.threshold, survivors=least, suite=Suite.X25519)
