"""The label of a system that is not ours: whose view costs what, whom the figures trust, what they do not cover."""

from __future__ import annotations

import math

from flora_secure.auditing.findings import Label, View
from flora_secure.auditing.foreign.case import ForeignCase
from flora_secure.auditing.foreign.log import (
    CLIENTS,
    EXAMPLE,
    FIXED,
    FULL,
    NO_MECHANISM,
    OUTSIDER,
    POISSON,
    SECURE,
    SERVER,
    SHUFFLED,
    SPARSE,
    UPLOAD,
)
from flora_secure.auditing.foreign.views import amplifies, multiplier

_SAMPLING = {
    FULL: "everybody in every round",
    FIXED: "cohorts or batches of a fixed size, uniformly drawn",
    POISSON: "Poisson, a coin for each unit",
    SHUFFLED: "shuffled batches, each example once an epoch",
}
_MECHANISMS = {SPARSE: "sparse vector with Laplace noise", NO_MECHANISM: "none"}


def label_of(case: ForeignCase) -> Label:
    """The label that follows from a foreign log; what is claimed stands in the figures."""
    log = case.log
    zs = [z for z in (multiplier(log, run) for run in log.rounds) if z is not None]
    clips = [clip for clip in (run.clip or log.clip for run in log.rounds) if clip is not None]
    presents = [float(run.present) for run in log.rounds if run.present is not None]
    parameters = {
        "rounds": float(log.times),
        **({"noise multiplier": min(zs)} if zs else {}),
        **({"clip norm": max(clips)} if clips else {}),
        **({"contributors": min(presents)} if presents else {}),
        **({"population": float(case.units)} if case.units else {}),
    }
    return Label(
        system=log.system or "not named",
        date=log.date,
        unit=log.unit,
        adjacency=log.adjacency,
        delta=case.delta,
        server=view_of(case, SERVER),
        outsider=view_of(case, OUTSIDER),
        upload=view_of(case, UPLOAD),
        trust=_trust(case),
        trusted=_trusted(case),
        uncovered=uncovered(case),
        mechanism=_MECHANISMS.get(log.mechanism or "", log.mechanism),
        parameters=parameters,
        sampling=_SAMPLING.get(log.sampling or ""),
        accountant="closed form, or dp-accounting PLD where something is sampled" if log.mechanism != SPARSE else "sum",
        composition="adaptive, of all rounds that one unit can have been in",
        chosen=log.chosen,
        implementation=None if log.secure_random is None else _generator(log.secure_random),
        exposed=[f"{one[:1].upper()}{one[1:].rstrip('.')}." for one in log.unprotected or ()],
    )


def view_of(case: ForeignCase, view: str) -> View:
    """One of the three views: ε, or why there is none."""
    value = case.views[view]
    if math.isnan(value):
        return View(epsilon=None, status="unknown", said=_unknown(case, view))
    if value == math.inf:
        return View(epsilon=None, status="infinite", said=_infinite(case, view))
    said = _bounded(case, view)
    return View(epsilon=value, status="conditional" if ", if " in said else "bounded", said=said)


def _unknown(case: ForeignCase, view: str) -> str:
    log = case.log
    if not log.rounds:
        return "The log names no round."
    if not case.countable:
        return "A round of the log has numbers that are not possible."
    if log.mechanism == SPARSE:
        return "How many values an upload holds is not known: `sparse.parameters`."
    if log.noise_by is None and view != OUTSIDER:
        return "Who adds the noise is not known: `noise_by`."
    if log.aggregation is None and view == SERVER:
        return "Whether the server sees single uploads is not known: `aggregation`."
    return "Noise, clip norm or the number of contributors is not known."


def _infinite(case: ForeignCase, view: str) -> str:
    log = case.log
    if log.mechanism == NO_MECHANISM:
        return "No noise is added."
    if log.noise_before_clip:
        return "Noise is added before clipping, so nothing bounds what one unit moves."
    if log.noise_by == SERVER and view != OUTSIDER:
        return "The server adds the noise, to what it has seen without."
    return "A round has no noise."


def _bounded(case: ForeignCase, view: str) -> str:
    log = case.log
    if log.mechanism == SPARSE:
        return "Every upload is protected by itself alone."
    if log.unit == EXAMPLE:
        return {
            POISSON: "The model that was trained, to whoever has it: Poisson sampling with secret coins.",
            SHUFFLED: "The model that was trained, to whoever has it: each example once an epoch, not amplified.",
            FIXED: "The model that was trained, to whoever has it: secret batches of a fixed size.",
            FULL: "The model that was trained, to whoever has it: every example in every step.",
        }.get(log.sampling or "", "The model that was trained, if batches were drawn by Poisson sampling.")
    if view != UPLOAD and multiplier(log, log.rounds[0]) is None:
        return "Not more than single uploads give."
    if view == OUTSIDER:
        if amplifies(log, OUTSIDER):
            return "Released models alone, cohorts secret and uniformly drawn."
        return "Released models alone; not amplified, as cohorts are not known to be secret and uniform."
    if view == UPLOAD:
        return "One client's uploads, with its own noise alone."
    hidden = "sums alone, by secure aggregation" if log.aggregation == SECURE else "single uploads"
    return f"It sees {hidden}, and who takes part: not amplified."


def _trust(case: ForeignCase) -> str:
    if case.log.mechanism == NO_MECHANISM:
        return "central"
    if case.log.noise_by is None:
        return "unknown"
    if case.log.noise_by == SERVER:
        return "central"
    return "distributed" if case.log.aggregation == SECURE else "local"


def _trusted(case: ForeignCase) -> list[str]:
    log = case.log
    if log.mechanism == NO_MECHANISM:
        return ["The server and whoever sees an upload, with everything."]
    said = {
        "central": ["The server, with every upload as it is, and to add the noise."],
        "distributed": [
            "The secure aggregation, to show nobody a single upload.",
            "All other contributors, to add their shares of noise and to tell nobody.",
        ],
        "local": ["Each client's own software, to clip and to add noise."],
        "unknown": ["Whoever adds the noise, which the log does not say."],
    }[_trust(case)]
    if amplifies(log, OUTSIDER):
        said.append("Whoever draws cohorts, and everybody in them, to tell no outsider.")
    if log.unit == EXAMPLE and log.sampling in (POISSON, FIXED, None):
        said.append("Whoever trains, to draw batches as accounted and to keep them secret.")
    return said


def uncovered(case: ForeignCase) -> list[str]:
    """What neither log nor figures say anything about, a sentence each."""
    log = case.log
    said = ["Whether the log is true: it is not signed, and nobody has seen the noise."]
    if log.unit == EXAMPLE:
        said.append("Clients and people as a whole: the unit is one example.")
    elif log.unit is None:
        said.append("What the protected unit is.")
    said += [f"{one[:1].upper()}{one[1:].rstrip('.')}: without noise." for one in log.unprotected or ()]
    if log.unprotected is None:
        said.append("Metrics, counts and buffers that leave a client beside its update.")
    if log.chosen is None:
        said.append("Hyper-parameters that were chosen on private data.")
    if log.noise_by == CLIENTS and log.aggregation == SECURE:
        said.append("Contributors who tell the server their noise: each takes its share away.")
    return said


def _generator(secure: bool) -> str:
    return "cryptographic generator" if secure else "floating-point noise from a generator that can be predicted"
