"""Trainers: a client alone gives what it gives in a batch, and knows nobody else's images."""

from dataclasses import replace

import numpy as np
import pytest
from federations import FEW, few_images, prepare, small, task_of
from invitations import enrolment_of, invitation_of

from flora_secure.client.trainer import ExampleTrainer, UpdateTrainer
from flora_secure.data.federation import load_federation
from flora_secure.data.notes import Notes
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.rounds.float16 import to_wire
from flora_secure.rounds.invitation import Invitation


def invited(simulation: Simulation) -> Invitation:
    plan = simulation.server.plan
    return invitation_of(plan, enrolment_of(plan.clients), unit=simulation.config.privacy.unit)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__rule": "ab"},
        {"model__placement": "both-projections", "model__rule": "ab"},
        {"privacy__unit": "example", "privacy__epsilon": 2.0},
    ],
)
def test_a_row_of_a_batch_is_a_batch_of_one(changes) -> None:
    config = small(**{**({} if "privacy__unit" in changes else FEW), **changes})
    simulation = Simulation(config, few_images(**changes) if "model__placement" in changes else task_of(config))
    invitation, broadcast = invited(simulation), simulation.server.broadcast
    whole = simulation.trainer.contributions(invitation, broadcast, invitation.members)
    for client in (0, 3, 9):
        alone = simulation.trainer.contributions(invitation, broadcast, [client])
        np.testing.assert_allclose(alone.vectors[0], whole.vectors[client], rtol=1e-5, atol=1e-5)
        assert alone.counts[0] == whole.counts[client]


def test_a_trainer_that_has_only_its_own_images_gives_the_same() -> None:
    """As in a deployment: the frame is everybody's, the images are one client's."""
    config = small(**FEW)
    task = task_of(config)
    simulation = Simulation(config, task)
    invitation, broadcast = invited(simulation), simulation.server.broadcast
    whole = simulation.trainer.contributions(invitation, broadcast, invitation.members)
    data, me = task.federation.dataset, 4
    own = data.private.at(task.federation.clients[me])
    learner = task.frame.learner(own, [np.arange(len(own))], Notes())
    alone = replace(task.trainer(config), learner=learner).contributions(invitation, broadcast, [0])
    np.testing.assert_allclose(alone.vectors[0], whole.vectors[me], rtol=1e-5, atol=1e-5)


def test_the_evaluator_reads_no_private_image_and_the_trainer_no_test_image() -> None:
    config = small(**FEW)
    federation = load_federation(config.data, config.seed)
    task = prepare(config, federation)
    data = federation.dataset
    blank = replace(data.private, images=np.zeros_like(data.private.images))
    evaluator = task.frame.evaluator(data.test, None, Notes())
    assert evaluator.accuracy(task.initial) == task.evaluator.accuracy(task.initial)
    other = prepare(config, replace(federation, dataset=replace(data, private=blank)))
    assert other.evaluator.accuracy(other.initial) == task.evaluator.accuracy(task.initial)
    dark = replace(data.test, images=np.zeros_like(data.test.images))
    blind = Simulation(config, prepare(config, replace(federation, dataset=replace(data, test=dark))))
    seeing = Simulation(config, task)
    invitation, broadcast = invited(seeing), seeing.server.broadcast
    np.testing.assert_array_equal(
        blind.trainer.contributions(invitation, broadcast, [1, 2]).vectors,
        seeing.trainer.contributions(invitation, broadcast, [1, 2]).vectors,
    )


def test_a_broadcast_of_another_length_is_refused(task: Task) -> None:
    simulation = Simulation(small(), task)
    with pytest.raises(ValueError, match="takes"):
        simulation.trainer.contributions(invited(simulation), to_wire(np.zeros(3)), [0])
    assert isinstance(simulation.trainer, UpdateTrainer)
    assert not isinstance(simulation.trainer, ExampleTrainer)
