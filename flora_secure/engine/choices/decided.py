"""What is left open of a run's training, decided on its public images: a configuration without gaps, and why."""

from __future__ import annotations

from functools import partial

from flora_secure.data.partitions import Natural, Scheme, parse_partition
from flora_secure.engine.choices.federation import PublicFederation
from flora_secure.engine.choices.public_folds import LEAST, PublicFolds, chosen, share
from flora_secure.engine.choices.starts import candidates, held_out, labelled
from flora_secure.engine.frames.projection import Projection
from flora_secure.engine.frames.setting import local_rate
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.noise import expected_contributions, plan_noise, refused
from flora_secure.planning.sections import PARTITION
from flora_secure.planning.selection import Selection
from flora_secure.records.report import Choice, Choices
from flora_secure.rounds.optimiser import noise_in_mean, server_optimiser

ROUNDS = 20
"""A longer run is imitated by so many rounds that cost what all of its own do."""
BY_USER, BY_PUBLIC, BY_DEFAULT = "user", "public data", "default"


def decided(frame: Projection) -> tuple[RunConfig, Choices]:
    """The frame's configuration with its warm start and its control variate, and how they came about.

    What the configuration says stays. Neither private nor test images are read, nor anything that was made of them.
    Raises an `errors.InputError` where no noise can be planned.
    """
    config = frame.setting.config
    start = _warm_start(frame)
    config = override(config, {"training.warm_start": start.value})
    if config.privacy.unit != "client":
        return config, Choices(warm_start=start, control_variate=None)
    variate = _control_variate(frame.settled(config))
    if config.training.control_variate is None:
        config = override(config, {"training.control_variate": float(variate.value)})
    return config, Choices(warm_start=start, control_variate=variate)


def _warm_start(frame: Projection) -> Choice:
    given = frame.setting.config.training.warm_start
    if given is not None:
        return _given(given)
    if not len(frame.public):
        return _default("none", "there are no public images")
    if len(frame.public) < LEAST:
        return _default("none", f"{len(frame.public)} public images are too few to tell")
    if not labelled(frame.public.labels):
        return _default("images", "the public images have no labels to judge it by")
    folds = folds_of(frame)
    kinds = candidates(folds)
    found = held_out(frame.head, frame.fresh, frame.public.features, folds, kinds)
    return Choice(
        value=chosen(found),
        by=BY_PUBLIC,
        reason=None,
        images=len(frame.public),
        held_out={kind: share(right) for kind, right in found.items()},
    )


def _control_variate(frame: Projection) -> Choice:
    config = frame.setting.config
    given = config.training.control_variate
    if given is not None:
        return _given(f"{given:g}")
    if not len(frame.public):
        return _default("0", "there are no public images")
    if not labelled(frame.public.labels):
        return _default("0", "the public images have no labels to judge it by, or are too few")
    folds = folds_of(frame)
    if not folds.everywhere:
        return _default("0", "the public images lack classes, and clients of the others would tell nothing")
    found = federation_of(frame).held_out(frame.public.features, folds, (0.0, 1.0))
    return Choice(
        value=f"{chosen(found):g}",
        by=BY_PUBLIC,
        reason=None,
        images=len(found[0.0]),
        held_out={f"{weight:g}": share(right) for weight, right in found.items()},
    )


def folds_of(frame: Projection) -> PublicFolds:
    """The frame's public images, which have labels, in folds."""
    return PublicFolds.cut(frame.public.labels, frame.public.sources, len(frame.setting.class_names))


def federation_of(frame: Projection) -> PublicFederation:
    """The federation that imitates the frame's run, whose warm start is known. Raises an `errors.InputError` where no
    noise can be planned."""
    setting = frame.setting
    config = override(setting.config, {"training.rounds": min(ROUNDS, setting.config.training.rounds)})
    dimension = frame.fresh.trained(setting.rule).upload_size
    expected = partial(expected_contributions, config, 0)  # unit client counts no images
    try:
        plan = plan_noise(config, Selection.of(config), dimension, 0)
    except ValueError as error:
        raise refused(error) from None
    return PublicFederation(
        head=frame.head,
        fresh=frame.fresh,
        start=config.training.warm_start or "none",
        rule=setting.rule,
        steps=config.training.local_steps,
        rate=local_rate(config, setting.rule),
        clip_norm=config.clip_norm,
        rounds=config.training.rounds,
        noise=noise_in_mean(config, plan, expected),
        optimiser=server_optimiser(config, plan, expected, frame.width),
        clients=config.clients,
        scheme=_scheme(config),
    )


def _scheme(config: RunConfig) -> Scheme:
    """How the run deals images; clients of the data's own, of whose classes nothing may be read, are imitated by the
    default deal."""
    scheme = parse_partition(config.partition)
    return parse_partition(PARTITION) if isinstance(scheme, Natural) else scheme


def _given(value: str) -> Choice:
    return Choice(value=value, by=BY_USER, reason=None, images=0, held_out={})


def _default(value: str, reason: str) -> Choice:
    return Choice(value=value, by=BY_DEFAULT, reason=reason, images=0, held_out={})
