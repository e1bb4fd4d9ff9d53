"""What members of rounds are sent takes the bytes that a plan counts on."""

import numpy as np
import pytest
from invitations import enrolment_of, invitation_of

from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.selection import Selection
from flora_secure.records.forecast import forecast
from flora_secure.rounds.broadcast import FullState, Layout
from flora_secure.rounds.optimiser import MomentumAverage, ServerState
from flora_secure.rounds.step import ReleasedSum
from flora_secure.server.broadcasts import Broadcasts


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-9),
        ({"model__rule": "alternate"}, 1e-9),
        ({"training__server_momentum": 0.0}, 1e-9),
        ({"privacy__bits": 20}, 1e-9),
        ({"aggregation__dropout": 0.2}, 0.02),
        ({"aggregation__dropout": 0.5, "privacy__dropout_tolerance": 0.5, "model__rule": "alternate"}, 0.05),
        ({"participation__rate": 0.4, "participation__sampling": "fixed"}, 0.02),
        ({"participation__rate": 0.4, "participation__sampling": "poisson", "aggregation__dropout": 0.2}, 0.03),
        ({"participation__rate": 0.2, "participation__sampling": "fixed", "participation__min_separation": 2}, 0.02),
    ],
)
def test_broadcasts_take_the_bytes_that_are_counted_on(changes, tolerance) -> None:
    """Cohorts and drop-outs are drawn at a seed, so that a test passes always or never; a tolerance is three standard
    deviations of the mean over other seeds."""
    n, rounds = 200, 20
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    settings = override(RunConfig(), {"data.clients": n, "aggregation.corrupt": 0.0, **changed})
    found = forecast(settings)
    plan, dimension = found.plan, found.communication.parameters
    layout = Layout(dimension, plan.length, plan.bits)
    optimiser = MomentumAverage(0.1, settings.training.server_momentum)
    state = FullState(ServerState.initial(np.ones(dimension, np.float32)), optimiser)
    selection, last, rng = Selection.of(settings), dict[int, int](), np.random.default_rng(5)
    us = Broadcasts(layout, state, everybody=selection.scheme is None)
    sizes, enrolment = list[int](), enrolment_of(n)
    for number in range(1, rounds + 1):
        members = selection.draw(3, number, selection.candidates(number, last))
        last |= dict.fromkeys(members, number)
        invitation = invitation_of(plan, enrolment, members=members, number=number, masked=False)
        sizes += map(len, us.of(invitation, state).values())
        stayed = [one for one in members if rng.random() >= settings.aggregation.dropout]
        released = ReleasedSum(round=number, clip_norm=1, scale=1, contributions=1, packed=bytes(layout.packed))
        us.ended(invitation, stayed, released)
        moved = np.full(dimension, number / 3)
        state = FullState(ServerState(moved, moved if optimiser.momentum else 0 * moved), optimiser)
    assert found.communication.broadcast_bytes == pytest.approx(np.mean(sizes), rel=tolerance)
