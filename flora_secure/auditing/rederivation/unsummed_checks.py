"""A-08 and A-09: rounds that are said to have released no sum, and one that the log does not know."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os

from flora_secure.auditing.findings import OK, Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.log_checks import at, possible
from flora_secure.errors import RunFolderError
from flora_secure.records import reading
from flora_secure.records.record import RoundRecord


def aborted(case: Case) -> Finding:
    """A-08: rounds that are said to have ended without a sum released none."""
    problems: list[Problem] = []
    for r, following in itertools.pairwise(case.records):
        if (r.aborted is not None or r.lost) and following.model_hash != r.model_hash:
            what = "was lost" if r.lost else "was aborted"
            problems.append((at(following), f"broadcasts another model than round {r.round}, which {what}: its sum "
                                            "was taken"))  # fmt: skip
    for r in case.records:
        if not r.released and _could_be_summed(case, r):
            who = f"{r.uploaded} of {len(r.participants)} clients uploaded, which is enough for a sum"
            problems.append((at(r), f"aborted ({r.aborted:.60}), but {who}"))
    ended = sum(r.aborted is not None or r.lost for r in case.records)
    return judged(
        "A-08",
        ("Rounds without a sum had none", "A round without a sum may have had one"),
        problems,
        f"{ended} rounds were aborted or lost",
        "a sum that was released is paid for, whatever the log calls its round",
    )


def _could_be_summed(case: Case, r: RoundRecord) -> bool:
    """Could the round have been summed? As aggregation.py and the protocol end one: too few uploads for the noise or
    for the threshold, or a client too few of whose holders are left."""
    n, sent = len(r.participants), r.uploaded
    least = n - math.floor(case.config.dropout_tolerance * n + 1e-9)
    if not sent or sent < least:
        return False
    if r.neighbours is None or r.threshold is None:
        return not case.masked
    # in a sparse graph all who dropped out, and the client itself, may be holders of the same one
    holders = sent if r.neighbours >= n - 1 else r.neighbours - 1 - (n - sent)
    return sent >= 2 and holders >= r.threshold


def in_flight(case: Case) -> Finding:
    """A-09: no round was in flight beyond the log when the run was killed."""
    title, path = (
        ("No round was in flight beyond the log", "A round was in flight beyond the log"),
        case.path / "state" / "announcement.json",
    )
    try:
        begun = reading.in_flight(case.path)
    except RunFolderError as error:
        if not os.access(path, os.R_OK):
            return unchecked("A-09", title, str(error))
        return judged("A-09", title, [("rounds.jsonl", str(error))], "", "ask for the folder as the run wrote it")
    if begun is None:
        return judged("A-09", title, [], f"nothing is announced after round {case.records[-1].round}", "")
    then = dataclasses.replace(case, records=[*case.records, begun], report=None)
    what = f"round {begun.round} was announced and has no line: its sum may have been released"
    if possible(then).severity != OK:
        what += "; it holds impossible numbers"
    elif case.noisy:
        what += f", and ε would be {then.headline:.6g}, not {case.headline:.6g}"
    return judged(
        "A-09", title, [(str(path), what)], "", "go on with --resume, which counts the round",
        "warning",
    )  # fmt: skip
