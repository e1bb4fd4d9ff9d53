"""The label of a run of ours, from its log: the guarantee as it was derived, whatever the report claims."""

from __future__ import annotations

import math

from flora_secure.auditing.findings import Label, View
from flora_secure.auditing.rederivation import view_checks
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import RunFolderError
from flora_secure.records.disclosure import NAMED
from flora_secure.records.receipts.receipt import read_receipt

_UNITS = {
    "client": "one client: everything that it gives over the whole run",
    "example": "one example: one image of one client, over the whole run",
}
_CLOSED_FORM = "closed form of Gaussian mechanisms, each client's rounds"
_ADJACENCY = "zero-out: the unit's contribution is there, or zeros are in its place"
_TRUST = {
    "semi-honest": "The server, to follow the protocol; it may study all that it receives.",
    "malicious-server": "Nobody to follow the protocol but the clients that are counted as honest; the enrolment, to "
    "name clients and no forgeries.",
    "off": "The server, which receives every upload by itself, to add them up and forget them.",
}  # fmt: skip


def label_of(case: Case, *, derivable: bool) -> Label:
    """The label of the run; views are unknown where its log holds numbers that no run can have (not `derivable`)."""
    first = case.records[0]
    clips = sorted({record.clip_norm for record in case.records})
    zs = [released.z for released in case.released] if derivable else []
    parameters = {
        "rounds": float(len(case.records)),
        "clients": float(first.clients),
        "clip norm": clips[-1],
        "honest minimum": float(first.honest_minimum),
        "colluders assumed": float(first.colluders),
        **({"least noise multiplier of a sum": min(zs)} if zs and case.noisy else {}),
    }
    server, outsider, upload = _views(case) if derivable else (_unknown(),) * 3
    return Label(
        system="flora-secure",
        date=_date(case),
        unit=_UNITS.get(first.unit, first.unit),
        adjacency=_ADJACENCY,
        delta=case.delta if case.noisy else None,
        server=server,
        outsider=outsider,
        upload=upload,
        trust="local" if not case.masked else "distributed" if case.noisy else "none",
        trusted=_trusted(case),
        uncovered=_uncovered(case),
        mechanism=f"distributed {first.mechanism}" if case.noisy else "none: no noise was added",
        parameters=parameters,
        sampling=_sampling(case),
        accountant=_CLOSED_FORM if first.sampling_rate == 1 else "dp-accounting PLD",
        composition="adaptive, all rounds that one unit was in" if case.noisy else None,
        chosen="defaults on public data alone (docs/tried.md); what config.toml sets otherwise, its author chose",
        implementation=_implementation(case),
        exposed=[f"{words[0].upper()}{words[1:]}." for words in NAMED],
    )  # fmt: skip


def _date(case: Case) -> str | None:
    """When the run ended, as the key says that signed it; None where none has."""
    try:
        receipt = read_receipt(case.path)
    except RunFolderError:
        return None
    return receipt.head.time if receipt.head.signed_by(receipt.signature) else None


def _views(case: Case) -> tuple[View, View, View]:
    if not case.noisy:
        nothing = View(epsilon=None, status="infinite", said="No noise was added.")
        return nothing, nothing, nothing
    local = _view(case.local, "The server and all other clients together: the client's own share of the noise alone.")
    server = _view(case.headline, "It sees every sum and who took part; sampling of clients amplifies nothing.")
    if not case.masked:
        server = _view(case.local, "It received every upload by itself.")
    said = "They see released models alone; no less is claimed, as cohorts are not drawn, or not uniformly."
    derived = None if case.everybody else view_checks.outsider(case)
    if derived is None:
        derived = case.headline
    elif derived < case.headline:
        said = "They see released models alone, and not who took part: cohorts are drawn uniformly and in secret."
    return server, _view(derived, said), local


def _view(epsilon: float, said: str) -> View:
    if epsilon == math.inf:
        return View(epsilon=None, status="infinite", said=said)
    return View(epsilon=epsilon, status="bounded", said=said)


def _unknown() -> View:
    return View(epsilon=None, status="unknown", said="The log holds numbers that no run can have.")


def _trusted(case: Case) -> list[str]:
    profile, found = case.config.aggregation.secagg, list[str]()
    if case.config.aggregation.masks == "counted":
        found.append("Whoever ran the simulation: masking was counted and not run.")
    found.append(_TRUST[profile])
    if case.masked and case.noisy:
        least = min(record.honest_minimum for record in case.records)
        found.append(f"At least {least} clients of every round, to add their shares of the noise and to tell nobody.")
    if case.config.privacy.simulation_noise:
        found.append("Whoever knows the seed: the noise follows from it.")
    return found


def _uncovered(case: Case) -> list[str]:
    found = [
        "Side channels such as timing, and access to a client's device.",
        "The initial weights, and whatever they were trained on.",
        "Hyper-parameters that were chosen by looking at the clients' data.",
        "Anything that the same clients release elsewhere, and other runs on the same data.",
    ]
    if case.config.aggregation.secagg != "malicious-server":
        found.insert(0, "A server that forges clients, or tells them different things.")
    if case.records[0].unit == "example":
        found.insert(0, "What all examples of one client have in common.")
    return found


def _sampling(case: Case) -> str:
    how, first = case.config.participation, case.records[0]
    clients = "everybody in every round"
    if how.sampling is not None:
        clients = f"{how.sampling} cohorts at rate {how.rate:g}"
    return (
        f"{clients}; examples by a secret coin each, rate {first.sampling_rate:g}"
        if first.sampling_rate < 1
        else clients
    )


def _implementation(case: Case) -> str:
    how = case.config.aggregation
    noise = (
        "from the seed, and not secret" if case.config.privacy.simulation_noise else "keys from the operating system"
    )
    masks = f"masks {how.masks}" + ("" if how.secagg == "off" else f", profile {how.secagg}, channels {how.suite}")
    versions = ""
    if case.report is not None:
        versions = "; ".join(f"{name} {version}" for name, version in sorted(case.report.provenance.versions.items()))
    drawn = f"exact rounded Gaussian noise, {noise}; " if case.noisy else ""
    return f"{drawn}{masks}" + (f"; {versions}" if versions else "")
