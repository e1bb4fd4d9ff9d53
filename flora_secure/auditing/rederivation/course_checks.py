"""A-08, A-09 and A-18: how rounds went: who was drawn for them, which released no sum, which the log does not know."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os

from flora_secure.auditing.findings import OK, Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case, Released, epsilon
from flora_secure.auditing.rederivation.log_checks import at, possible
from flora_secure.errors import ConfigError, RunFolderError
from flora_secure.planning.participation import FixedCohort, vanishing_of
from flora_secure.planning.selection import Selection
from flora_secure.records import reading
from flora_secure.records.record import RoundRecord

_MISS = 1e-6  # how often secret coins may fall as the seed's, and a genuine run be called false
_TITLE = (
    "Cohorts, and who vanished, are those that were drawn",
    "Cohorts, or who vanished, are not those that were drawn",
)


def drawn(case: Case) -> Finding:
    """A-18: participants and dropped clients follow from configuration and rounds before, and where nothing about them
    is secret, from the seed."""
    try:
        selection = Selection.of(case.config)
    except ConfigError as error:
        return judged("A-18", _TITLE, [("config.toml", f"no cohort can be drawn: {error}")], "", "publish what was run")
    problems, last_round = list[Problem](), dict[int, int]()
    seed = case.config.seed if case.repeats else None
    for place, r in enumerate(case.records):
        allowed = {*selection.candidates(r.round, last_round)} - {*r.exhausted}
        if strangers := {*r.participants} - allowed:
            problems.append((at(r), f"clients {sorted(strangers)[:5]} take part too soon, or had to sit out"))
        for name in ("participants", "exhausted", "survivors", "dropped"):
            if getattr(r, name) != sorted(getattr(r, name)):
                problems.append((at(r), f"{name} are not in order"))
        problems += [(at(r), text) for text in _of_the_seed(case, selection, r, seed, allowed)]
        if r.exhausted:
            problems += [(at(r), text) for text in _sitting_out(case, selection, place)]
        if r.aborted is None or r.download_bytes or r.upload_bytes or r.released:
            last_round.update(dict.fromkeys(r.participants, r.round))
    if case.simulated and not case.repeats and (chance := _chance(case, selection)) < _MISS:
        what = f"cohorts and who vanished are those of seed {case.config.seed}, by chance once in {1 / chance:.0e} runs"
        problems.append(("rounds.jsonl", f"{what}: then the noise follows from it, and is not secret"))
    if problems or case.everybody or case.repeats:
        fine = f"{len(case.records)} rounds drawn again"
        return judged("A-18", _TITLE, problems, fine, "publish the cohorts as drawn")
    why = "who was drawn is secret where the noise is; sizes and distances between a client's rounds are as configured"
    return unchecked("A-18", _TITLE, why, "nobody can draw again what no seed gives")


def _of_the_seed(case: Case, selection: Selection, r: RoundRecord, seed: int | None, allowed: set[int]) -> list[str]:
    """How a round differs from what is drawn; where the coins are secret, in how many are drawn."""
    found, gone, dropout = list[str](), {*r.dropped}, case.config.aggregation.dropout
    asked = r.aborted is None or bool(r.download_bytes) or r.released
    if seed is not None and list(selection.draw(seed, r.round, allowed)) != r.participants:
        found.append("participants are not those that the seed draws")
    elif isinstance(selection.scheme, FixedCohort) and len(r.participants) not in (0, selection.largest):
        found.append(f"{len(r.participants)} participants, cohorts are of {selection.largest}")
    elif selection.scheme is None and case.simulated and {*r.participants} != allowed:
        found.append("not everybody takes part who may")
    if not asked or r.lost or not case.simulated:
        return found
    if seed is not None:
        missing = vanishing_of(seed, r.round, r.participants, dropout) - gone
        if missing:
            found.append(f"clients {sorted(missing)[:5]} uploaded, and the seed lets them vanish")
    count = math.floor(dropout * len(r.participants))
    if len(gone) < count:
        found.append(f"{len(gone)} clients vanished, of which `aggregation.dropout` {dropout:g} makes {count}")
    return found


def _chance(case: Case, selection: Selection) -> float:
    """How likely secret coins fall as the seed's do in every round; 1 where they do not."""
    log_chance, last_round, config = 0.0, dict[int, int](), case.config
    for r in case.records:
        candidates = {*selection.candidates(r.round, last_round)} - {*r.exhausted}
        n, asked = len(r.participants), bool(r.download_bytes)
        count = math.floor(config.aggregation.dropout * n)
        if [*selection.draw(config.seed, r.round, candidates)] != r.participants or (
            asked and vanishing_of(config.seed, r.round, r.participants, config.aggregation.dropout) != {*r.dropped}
        ):
            return 1.0
        if selection.scheme is not None:  # as if its size was known
            log_chance -= math.log(math.comb(len(candidates), n))
        log_chance -= math.log(math.comb(n, count)) if asked else 0.0
        last_round.update(dict.fromkeys(r.participants if asked else (), r.round))
    return math.exp(max(log_chance, -700.0))


def _sitting_out(case: Case, selection: Selection, place: int) -> list[str]:
    """Clients that sit out with room left in their budget."""
    r, found, target = case.records[place], list[str](), case.config.privacy.epsilon
    plan = case.planned.noise
    if plan is None:
        return found
    before = [one for one in case.released if one.record.round < r.round]
    for client in r.exhausted:
        own = [one for one in before if client in one.record.participants]
        # the worst that this round may become: as few survivors as the smallest cohort's noise is sized for
        worst = Released(r, r.honest_minimum, plan.noise_multiplier, 0.0, 0.0)
        if len(own) < selection.participations and epsilon([*own, worst], case.delta) <= target * (1 - 1e-6):
            found.append(f"client {client} sits out after {len(own)} rounds, with room in its budget for another")
    return found


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
