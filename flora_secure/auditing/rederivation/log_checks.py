"""A-01 to A-07: the log is whole, it keeps to the configuration, and everybody is counted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from flora_secure.auditing.findings import Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.planning.protection import LEAST_DELTA, LEAST_EXAMPLE_RATE
from flora_secure.planning.sections import MOST_CLIENTS, MOST_ROUNDS
from flora_secure.privacy.accounting import default_delta
from flora_secure.records.record import MECHANISM, RoundRecord
from flora_secure.records.report import Report

_SMALL, _LARGE = 1e-9, 1e15  # of norms, noise and scales; settings lie in 1e-6…1e6, uploads below 2^32
_LEAST_Z, _MOST_Z = 1e-2, 1e12  # a hundredth costs ε = 5,000 in one round, of 100 that are allowed
_MOST_VALUES, _MOST_COUNT = 1 << 34, 1 << 63
_HEAD, _STEP = 8, 16  # bytes of a broadcast beside its values: always, and before a state


def at(record: RoundRecord) -> str:
    """Where findings say that something is, for a line of the log: "round 7" of `rounds.jsonl`."""
    return f"round {record.round}"


def chain(case: Case) -> Finding:
    """A-01: the log is as it was written, by the chain of hashes from the configuration to the report."""
    title = ("The log is as it was written", "The log is not as it was written")
    problems = [(found.where, found.what) for found in case.breaks]
    if case.report is None and not problems:
        return unchecked(
            "A-01", title, "without report.json, lines cut off the end are not noticed; the rest is chained"
        )
    return judged(
        "A-01", title, problems, f"{len(case.records)} lines chained from config.toml to report.json",
        "ask for the folder as the run wrote it",
    )  # fmt: skip


def every_round(case: Case) -> Finding:
    """A-02: every round is there, once, and as many as the report counts."""
    problems: list[Problem] = []
    for expected, record in enumerate(case.records, 1):
        if record.round != expected:
            problems.append((f"line {expected}", f"is round {record.round}, not {expected}"))
    logged, planned = len(case.records), case.config.training.rounds
    if logged > planned:
        problems.append(("rounds.jsonl", f"{logged} rounds, config.toml allows {planned}"))
    if case.report is not None:
        told = case.report.privacy.rounds
        if told != logged:
            problems.append(("report.json", f"counts {told} rounds, rounds.jsonl has {logged}"))
        if logged < planned:
            problems.append(("rounds.jsonl", f"{logged} rounds of {planned} configured, yet there is a report"))
    return judged(
        "A-02", ("Every round is there, once", "Rounds are missing, or too many"), problems, f"rounds 1 to {logged}",
        "a round that is left out is not paid for: find its line",
    )  # fmt: skip


def configured(case: Case) -> Finding:
    """A-03: log and report keep to the settings of the configuration."""
    config, problems = case.config, list[Problem]()
    privacy = config.privacy
    target = None if privacy.epsilon == math.inf else privacy.epsilon
    wanted: dict[str, object] = {
        "mechanism": MECHANISM,
        "unit": privacy.unit,
        "clients": config.clients,
        "target_epsilon": target,
    }
    if privacy.delta is not None:
        wanted["delta"] = privacy.delta
    elif privacy.unit == "client":
        wanted["delta"] = default_delta(config.clients)
    if privacy.bits is not None:
        wanted["bits"] = privacy.bits
    for record in case.records:
        for name, value in wanted.items():
            if getattr(record, name) != value:
                problems.append((at(record), f"{name} {getattr(record, name)}, config.toml says {value}"))
        for name in ("delta", "bits", "dimension"):
            if getattr(record, name) != getattr(case.records[0], name):
                problems.append(
                    (at(record), f"{name} {getattr(record, name)}, {getattr(case.records[0], name)} before")
                )
    if case.report is not None:
        told = case.report
        for name, claimed, value in (
            ("unit", told.privacy.unit, privacy.unit),
            ("target_epsilon", told.privacy.target_epsilon, target),
            ("delta", told.privacy.delta, case.delta),
            ("adjacency", told.privacy.adjacency, "zero-out"),
            ("profile", told.aggregation.profile, config.aggregation.secagg),
            ("masking", told.masking, config.aggregation.masks),
            ("clients", told.aggregation.clients, config.clients),
            ("seed", told.provenance.seed, config.seed),
            ("bits", told.communication.bits, case.records[0].bits),
        ):
            if claimed != value:
                problems.append(("report.json", f"{name} {claimed}, expected {value}"))
    return judged(
        "A-03",
        ("Log and report keep to the configuration", "Log or report do not keep to the configuration"),
        problems,
        f"{len(wanted)} settings in every line",
        "publish the configuration that was run",
    )


def sets(case: Case) -> Finding:
    """A-04: participants, survivors and dropped clients add up in every round."""
    problems: list[Problem] = []
    for r in case.records:
        here, cohort, survivors = at(r), set(r.participants), set(r.survivors)
        for name in ("participants", "survivors", "dropped", "exhausted"):
            clients = getattr(r, name)
            if len(set(clients)) != len(clients) or not all(0 <= client < r.clients for client in clients):
                problems.append((here, f"{name} are not distinct clients of 0 to {r.clients - 1}"))
        if survivors & set(r.dropped):
            problems.append((here, f"clients {sorted(survivors & set(r.dropped))} both survived and dropped out"))
        if r.lost and (r.aborted is not None or r.dropped):
            problems.append((here, "lost in a crash, yet it says how it ended"))
        if r.aborted is None and not r.lost and set(r.dropped) != cohort - survivors:
            problems.append((here, f"{len(cohort)} participants, {len(survivors)} survived, {len(r.dropped)} dropped"))
        if r.announced and not survivors <= cohort - set(r.dropped):
            problems.append((here, f"aborted, yet {len(survivors)} survivors are in a sum, and dropped out"))
        if r.recovered > len(r.dropped):
            problems.append((here, f"{r.recovered} recovered of {len(r.dropped)} dropped"))
        if set(r.exhausted) & cohort:
            problems.append((here, f"clients {sorted(set(r.exhausted) & cohort)} take part with their budget used up"))
        if r.released and r.threshold is not None and len(survivors) < r.threshold:
            problems.append((here, f"{len(survivors)} survivors cannot reveal a sum with threshold {r.threshold}"))
    return judged(
        "A-04",
        ("Participants, survivors and dropped add up", "Participants, survivors and dropped do not add up"),
        problems,
        "in every round",
        "every participant is either a survivor or dropped",
    )


def uploads(case: Case) -> Finding:
    """A-05: there are as many survivors as uploads on the wire."""
    title = ("As many survivors as uploads on the wire", "Not as many survivors as uploads on the wire")
    if case.report is None:
        return unchecked("A-05", title, "the adapter's size stands in report.json, which cannot be read")
    trained, problems = case.report.communication.parameters, list[Problem]()
    for r in (record for record in case.records if not record.lost):
        packed = max(1, -(-r.dimension * r.bits // 8))
        rest = r.payload_bytes - r.broadcast_bytes
        sent, what = len(r.survivors), "survivors"
        if r.aborted is not None:  # no sum, but whoever did not drop out sent an upload
            sent, what = r.uploaded, "uploads"
            if not sent and not r.payload_bytes:
                continue  # refused before anybody was asked
        # at first float16; later from no sum at all to the whole state, adapter and momentum in float64
        told, (least, most) = len(r.participants), (_HEAD, _HEAD + _STEP + 16 * trained)
        if r.round == 1:
            least = most = _HEAD + _STEP + 2 * trained
        if not least * told <= r.broadcast_bytes <= most * told:
            problems.append((at(r), f"broadcasts of {r.broadcast_bytes} bytes to {told} participants, which take "
                                    f"{least} to {most} bytes each"))  # fmt: skip
        if r.upload_bytes < sent * packed:
            problems.append((at(r), f"{sent} {what} of {packed} bytes in {r.upload_bytes} bytes that were sent up"))
        if rest != sent * packed:
            problems.append(
                (at(r), f"{sent} {what} of {len(r.participants)} participants, but its payload of "
                        f"{r.payload_bytes} bytes holds {rest / packed:g} uploads of {packed} bytes")
            )  # fmt: skip
        elif r.unit == "client" and r.contributions != sent:
            problems.append((at(r), f"{sent} {what}, but {r.contributions} updates in the sum"))
    return judged(
        "A-05", title, problems, "payload bytes = bytes of broadcasts to all participants + uploads of all survivors",
        "clients that dropped out brought no noise: they do not count as survivors",
    )  # fmt: skip


def charged(case: Case) -> Finding:
    """A-06: every client is charged for all its rounds."""
    problems: list[Problem] = []
    for r in case.records:
        if free := set(r.survivors) - set(r.participants):
            problems.append((at(r), f"clients {sorted(free)} are in the sum and not charged for it"))
        missing = r.clients - len(set(r.participants))
        if case.everybody and missing:
            problems.append(
                (at(r), f"{missing} of {r.clients} clients are not charged, yet all take part in every round")
            )
    return judged(
        "A-06", ("Every client is charged for all its rounds", "A client is not charged for all its rounds"), problems,
        f"{len(case.histories)} different histories of {case.config.clients} clients",
        "name everybody who was asked for an upload as a participant",
    )  # fmt: skip


def possible(case: Case) -> Finding:
    """A-07: what no round and no report can have; where it is violated, nothing can be derived.

    The ranges are wide, and hold for whatever a configuration allows. Beyond them floating point ends, or counting
    takes hours.
    """
    problems = [
        (at(r), f"{name} is {_brief(getattr(r, name))}")
        for r in case.records
        for name, holds in _ranges(r).items()
        if not holds
    ]
    if not problems:
        problems += [(at(r), text) for r in case.records for text in _noise(r)]
    if case.report is not None:
        problems += [("report.json", f"{name} is {_brief(value)}") for name, value in _beyond(case.report)]
    return judged(
        "A-07",
        ("The numbers are possible", "Numbers that no run has"),
        problems,
        "in every round",
        "publish the log that the run wrote",
    )


def _ranges(r: RoundRecord) -> dict[str, bool]:
    """Field → whether its value is one that a round can have."""
    n, least_delta = r.clients, min(LEAST_DELTA.values()) / 2
    found = {
        "clients": 1 <= n <= MOST_CLIENTS,
        "round": 1 <= r.round <= MOST_ROUNDS,
        "sigma_local": r.sigma_local == 0 or _SMALL <= r.sigma_local <= _LARGE,
        "scale": _SMALL <= r.scale <= _LARGE,
        "clip_norm": _SMALL <= r.clip_norm <= _LARGE,
        "count_scale": r.count_scale == 0 or _SMALL <= r.count_scale <= _LARGE,
        "dimension": 1 <= r.dimension <= _MOST_VALUES,
        "values": 1 <= r.values <= r.dimension,
        "server_step": _SMALL <= r.server_step <= _LARGE,
        "divisor": r.divisor is None or _SMALL <= r.divisor <= _LARGE,
        "released_count": r.released_count is None or abs(r.released_count) <= _LARGE,
        "noise_ratio": r.noise_ratio is None or 0 <= r.noise_ratio <= _LARGE,
        "bits": 1 <= r.bits <= 32,
        "sampling_rate": LEAST_EXAMPLE_RATE / 2 <= r.sampling_rate <= 1,
        "delta": least_delta <= r.delta < 1,
        "payload_bytes": 0 <= r.payload_bytes <= r.upload_bytes + r.download_bytes,
        "broadcast_bytes": 0 <= r.broadcast_bytes <= min(r.payload_bytes, r.download_bytes),
        "clipped": 0 <= r.clipped <= r.contributions <= _MOST_COUNT,
        "overflowed": r.overflowed is None or 0 <= r.overflowed <= r.dimension,
        "accuracy": 0 <= r.accuracy <= 1,
        "epsilon": r.epsilon is None or 0 <= r.epsilon < math.inf,
        "seconds": all(0 <= value < math.inf for value in r.seconds.values()),
    }
    found |= {name: 0 <= getattr(r, name) <= _MOST_COUNT for name in ("upload_bytes", "download_bytes")}
    found |= {name: 0 <= getattr(r, name) <= n for name in ("colluders", "recovered")}
    found |= {name: getattr(r, name) in (None, *_span(n, getattr(r, name))) for name in _OF_CLIENTS}
    found |= {name: len(getattr(r, name)) <= n for name in ("participants", "survivors", "dropped", "exhausted")}
    return found | {"honest_minimum": -n <= r.honest_minimum <= n}


_OF_CLIENTS = ("neighbours", "threshold", "population")


def _span(n: int, value: int | None) -> tuple[int | None]:
    return (value,) if value is not None and 0 <= value <= n else (None,)


def _noise(r: RoundRecord) -> list[str]:
    """What is wrong with the noise of a sum beside what it hides; no plan is anywhere near these bounds."""
    if r.sigma_local == 0:
        return []
    moved = math.hypot(r.scale * r.clip_norm, r.count_scale / 2)
    z = r.sigma_local * math.sqrt(max(1, len(r.survivors) - r.colluders)) / moved
    return [] if _LEAST_Z <= z <= _MOST_Z else [f"the noise is {z:.3g} times what one client moves the sum by"]


def _beyond(report: Report) -> Iterator[tuple[str, object]]:
    """Numbers of a report that are beyond all that is counted, and those that others are divided by."""
    for part in dataclasses.fields(report):
        yield from _large(part.name, getattr(report, part.name))
    communication, accuracy = report.communication, report.accuracy
    for name, value in (
        ("communication.parameters", communication.parameters),
        ("communication.upload_values", communication.upload_values),
    ):
        if not 1 <= value <= _MOST_VALUES:
            yield name, value
    if accuracy.test_examples < 1:
        yield "accuracy.test_examples", accuracy.test_examples


def _large(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, int | float) and not abs(value) <= _MOST_COUNT and name != "provenance.seed":
        yield name, value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _large(f"{name}.{field.name}", getattr(value, field.name))
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _large(name, item)


def _brief(value: object) -> str:
    if isinstance(value, list):
        return f"a list of {len(value):,} clients"
    return f"{value!s:.60}"
