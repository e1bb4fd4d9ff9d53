"""The two files of a federation's terms, with a comment for every key: what all share, and what a site insists on."""

from __future__ import annotations

import json

from flora_secure.client.policy import Policy
from flora_secure.planning.config import RunConfig
from flora_secure.records.forecast import Forecast

_CONFIG = """\
# What all parties of this federation have alike: change it here, before the first round, and bring it to everybody.
# Every site compares it with the server's, and trains nothing as long as a value differs. Other settings may be added:
# `flora-secure plan --config` takes this file, and docs/options.md has every key.
seed = {seed}

[data]
dataset = {dataset}  # a name; where the images lie says data.py
{images}
[training]
rounds = {rounds}
{variate}
[privacy]
unit = {unit}  # whom the budget protects: each "example" (an image), or a whole "client" (a site)
epsilon = {epsilon}  # of all rounds together, against the server; planned, not measured
delta = {delta}  # the probability that ε fails; well below 1 divided by the number of protected units
dropout_tolerance = {tolerance}  # fraction of the sites that may fail in a round: of {clients}, {dropouts}

[aggregation]
secagg = "malicious-server"  # signed keys: the server cannot pass for sites
suite = {suite}  # what the channels between sites rest on
corrupt = {corrupt}  # fraction of the sites that may collude with the server: their noise counts for nothing
"""


_POLICY = """\
# What this site insists on. The server never sees this file, and nothing in it comes from the server: whatever it asks,
# a round that falls short of one of these terms is refused, and nothing is sent. Each value fits app/federation/
# config.toml as `flora-secure flower init` wrote it; read what each asks, and make it stricter where the answer is no.

# How far the server is trusted. "malicious-server": it may lie about who takes part; every message is signed.
# Ask: is the server run by somebody whom we need not trust? Then leave it.
profile = {profile}

# Whom the noise protects: each "example" (an image), or the whole "client" (this site).
# Ask: may it become known that this site took part, and roughly what its images are alike in? If not: "client".
unit = {unit}

# The largest ε that this site gives in its life, over all runs that its ledger counts: {rounds} rounds cost {spent:g}
# at the worst, with as few survivors as the plan allows. Another run needs more, and is refused until you say so.
# Ask: how much may somebody learn about one {what}? ε = 1 is little, 8 a loose bound.
most_epsilon = {most_epsilon}

# At which δ that ε is counted: the probability that it fails.
# Ask: is it far below 1 divided by the number of our {whats}?
delta = {delta}

# The least noise multiplier of a round's sum: {least:.4f} as planned.
# Ask: is one round alone noisy enough for us, however the server spreads the budget?
least_noise = {least_noise}

# How many rounds of one run this site uploads in, and the number of the last one.
# Ask: do we want to take part in more than the {rounds} that were agreed?
most_rounds = {most_rounds}
last_round = {last_round}

# Fraction of the sites that may collude with the server, as this site sees it, whatever the server says.
# Ask: do we trust the other sites not to tell the server their noise? If not, agree with all on {collude} or more, here
# and as `aggregation.corrupt` in config.toml, so that the noise is planned for it (fewer sites may fail then: lower
# `privacy.dropout_tolerance`); here alone it has rounds refused.
corrupt = {corrupt}

# The fewest sites of a round, shares that open a secret, and uploads in a sum that this one disappears in.
# Ask: in how small a crowd may our update be added up? Two means: the other one could subtract its own.
least_clients = {least_clients}
least_threshold = {least_threshold}
least_survivors = {least_survivors}

# The weakest channels between sites: "x25519", or "x25519-mlkem768" against quantum computers to come.
# Ask: must recordings of today stay secret in twenty years?
suite = {suite}

# Where in the model the adapter may sit.
# Ask: is this the part of the model that we agreed to train?
placements = {placements}
"""


def config_text(config: RunConfig, plan: Forecast) -> str:
    """A federation's config.toml, without the number of its clients, which its enrolment says."""
    privacy, how = config.privacy, config.aggregation
    images, variate = config.data.total_images, config.training.control_variate
    return _CONFIG.format(
        seed=config.seed,
        dataset=_toml(config.data.dataset),
        images=""
        if images is None
        else f"total_images = {images}  # of all sites together, roughly: what one image is hidden among\n",
        rounds=config.training.rounds,
        variate=""
        if variate is None
        else f"control_variate = {_toml(variate)}  # above 0, up to 1: what images that all sites have, the public "
        "ones, say of a site's classes is left out of its training\n",
        unit=_toml(privacy.unit),
        epsilon=_toml(privacy.epsilon),
        delta=_toml(privacy.delta),
        tolerance=_toml(privacy.dropout_tolerance),
        clients=config.clients,
        dropouts=plan.plan.dropouts,
        suite=_toml(how.suite),
        corrupt=_toml(how.corrupt),
    )


def policy_text(policy: Policy, plan: Forecast) -> str:
    """A policy.toml, every key of it with what a site should ask itself."""
    example = policy.unit == "example"
    return _POLICY.format(
        **{key: _toml(value) for key, value in vars(policy).items()},
        rounds=plan.privacy.rounds,
        spent=policy.most_epsilon,
        what="image" if example else "site",
        whats="images" if example else "sites",
        least=plan.privacy.noise_multiplier,
        collude=f"{1 / plan.plan.clients:.2f}",
    )


def _toml(value: object) -> str:
    """A value as TOML has it: numbers, texts and lists of texts are as in JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False, allow_nan=False)
