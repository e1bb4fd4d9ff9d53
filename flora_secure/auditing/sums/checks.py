"""S-01 to S-06: the released sums are those of the log, and lead to the adapter; nothing but them is needed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.findings import OK, Block, Finding, Measurement, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.log_checks import at
from flora_secure.auditing.rederivation.noise_checks import near
from flora_secure.auditing.sums.noise import FALSE_ALARMS, least_noise
from flora_secure.auditing.sums.replay import Replayed, plan_of, replay, trained_values
from flora_secure.auditing.sums.tensors import Reading, read_tensors, readings
from flora_secure.errors import DivergedError, InputError, RunFolderError, first_line
from flora_secure.planning.rules import rule_named
from flora_secure.privacy.encoding import decode_count
from flora_secure.records.adapter_card import WEIGHTS, read_card
from flora_secure.records.evidence import sums
from flora_secure.rounds.float16 import from_wire

NAME = "released sums"
_UNCOVERED = ("What went into the sums: they are what the server saw, and say nothing of single clients.",)
_ACCURACIES = "The accuracies of the log, which are measured again where model and test images are at hand."
_KEPT = ("The sums are those of the log", "The sums are not those of the log")
_STEPS = ("The server's steps lead from the sums to every round's model", "The server's steps lead to another model")
_ADAPTER = ("The sums lead to the adapter, bit for bit", "The sums do not lead to the adapter")
_COUNTS = ("Adaptive clipping's counts are in the sums", "Adaptive clipping's counts are not in the sums")
_PATH = ("The replayed adapters have the accuracies of the log", "The replayed adapters have other accuracies")
_TAKEN = "publish the sums that the steps were taken with"
_NEAR = 0.002  # of accuracies: an image in five hundred may fall on the other side on another processor
_NOISE = ("There is as much in the sums as the noise alone", "There is less in the sums than the noise alone would be")


Measure = Callable[[NDArray[np.float32]], float]


def block(case: Case, measure: Measure | None = None) -> Block:
    """The audit of `sums/` in a run's folder, left out where nothing was kept.

    `measure`: the accuracy of trained values, float32 (d,), on the run's test images, from who has model and images.
    """
    folder, summed = case.path / sums.FOLDER, [record for record in case.records if record.summed]
    if not folder.is_dir() and not any(record.sum_hash for record in case.records):
        length = max(record.dimension for record in case.records)
        wanted = case.config.evidence.keeps_sums(case.config.training.rounds, length) and summed
        unseen = ["Whether the adapter is what the rounds' sums make of it."]
        if not wanted:
            return Block.skipped(NAME, "none were kept", unseen)
        problems = [(at(r), "has no hash of its sum, and the configuration keeps sums") for r in summed]
        found = judged("S-01", _KEPT, problems, "", "ask for the files of the run")
        why = "the log knows of none, though `evidence.keep_sums` asks for them"
        return replace(Block.skipped(NAME, why, unseen), findings=[found])
    if not folder.is_dir():
        why = "sums/ is not in the folder, and the log has their hashes"
        return Block.skipped(
            NAME, why, ["Whether the adapter is what the rounds' sums make of it."], [unchecked("S-01", _KEPT, why)]
        )
    return _Sums(case, measure).block()


class _Sums:
    """What could be read of them."""

    def __init__(self, case: Case, measure: Measure | None) -> None:
        self.case, self.folder, self.measure = case, case.path / sums.FOLDER, measure
        self.problems: list[Problem] = []
        self.found: dict[int, NDArray[np.uint32]] = {}
        self.initial = self._initial()
        for record in case.records:
            if not record.summed:
                if record.sum_hash is not None:
                    self.problems.append((at(record), "has no sum, and the hash of one"))
                continue
            if record.sum_hash is None:
                self.problems.append((at(record), "has no hash of its sum"))
                continue
            try:
                self.found[record.round] = sums.read_sum(
                    self.folder, record.round, record.sum_hash, record.dimension, record.bits
                )
            except (RunFolderError, ValueError) as error:
                self.problems.append((f"sums/{sums.name_of(record.round)}", first_line(error)))
        known = {sums.INITIAL, *(sums.name_of(record.round) for record in case.records if record.summed)}
        if case.report is None:  # a run that is killed may leave a sum whose line was not written any more
            known.add(sums.name_of(len(case.records) + 1))
        try:
            others = [] if case.cut else sorted({*os.listdir(self.folder)} - known)
        except OSError as error:
            others = []
            self.problems.append((sums.FOLDER, f"cannot be listed: {error.strerror}"))
        for name in others[:3]:
            self.problems.append((f"sums/{name}", "is of no round of the log that had a sum"))

    @property
    def whole(self) -> bool:
        """Whether the steps can be taken."""
        return self.initial is not None and all(r.round in self.found for r in self.case.records if r.summed)

    def block(self) -> Block:
        kept = judged(
            "S-01", _KEPT, self.problems, f"SHA-256 of {len(self.found)} sums", "ask for the files of the run"
        )
        steps, adapter, accuracy = self._replayed()
        noise, measured = self._noise()
        return Block(
            name=NAME,
            left_out=None,
            findings=[kept, steps, adapter, self._counts(), noise, *([accuracy] if self.measure else [])],
            measurements=measured,
            checked=[
                "The released sums are those whose hashes the log has.",
                "The server's steps with these sums lead to the model of every round and to the adapter, bit for bit.",
                "The sums vary at least as much as the noise that is claimed.",
            ],
            assumed=["The log's hashes are those of the sums that were released."],
            uncovered=[*_UNCOVERED, *([] if self.measure else [_ACCURACIES])],
        )

    def _initial(self) -> NDArray[np.float32] | None:
        report = self.case.report
        length = None if report is None else report.communication.parameters
        try:
            values = sums.adapter_of(sums.read(self.folder / sums.INITIAL, length))
            if length is not None and len(values) != length:
                raise RunFolderError(f"it holds {len(values):,} values, and {length:,} train")
            return values
        except RunFolderError as error:
            self.problems.append((f"sums/{sums.INITIAL}", first_line(error)))
            return None

    def _replayed(self) -> tuple[Finding, Finding, Finding]:
        """The steps, the adapter after them and the accuracies on the way."""
        if not self.whole or self.initial is None:
            return self._none("S-01 says which of the sums cannot be used")
        case, found, why = self.case, list[Reading](), "the adapter is not in the folder"
        if case.config_unread:
            return self._none("config.toml could not be read, and with it how the server steps")
        if (case.path / "adapter").exists():
            try:
                card = read_card(case.path / "adapter")
                found = readings(read_tensors(case.path / "adapter" / WEIGHTS), card)
            except RunFolderError as error:
                why = first_line(error)
        unmade = self._none(why)
        for of_b in dict.fromkeys(reading.of_b for reading in found) or (None,):
            try:
                trained = trained_values(case, len(self.initial), of_b)
                *path, last = replay(case, self.initial, trained, self.found)
            except DivergedError as error:  # no server goes on from there
                unmade = self._unstepped(judged("S-02", _STEPS, [("sums", first_line(error))], "", _TAKEN))
                continue
            except (ValueError, InputError) as error:
                unmade = self._none(first_line(error))
                continue
            if (steps := self._steps(path)).severity == OK:
                return steps, self._adapter(last, found, why), self._path([*path[1:], last])
            unmade = self._unstepped(steps)
        return unmade

    def _none(self, why: str) -> tuple[Finding, Finding, Finding]:
        return unchecked("S-02", _STEPS, why), unchecked("S-03", _ADAPTER, why), unchecked("S-06", _PATH, why)

    def _unstepped(self, steps: Finding) -> tuple[Finding, Finding, Finding]:
        because = "S-02 says why the steps do not lead there"
        return steps, unchecked("S-03", _ADAPTER, because, ""), unchecked("S-06", _PATH, because, "")

    def _path(self, after: list[Replayed]) -> Finding:
        if self.measure is None:  # and nobody is told of this finding
            return unchecked("S-06", _PATH, "not asked for")
        problems = []
        for record, step in zip(self.case.records, after, strict=True):
            found = self.measure(from_wire(step.broadcast, len(step.broadcast) // 2))
            if abs(found - record.accuracy) > _NEAR:
                problems.append((at(record), f"claims an accuracy of {record.accuracy:.2%}, measured {found:.2%}"))
        fine = f"{len(after)} measured, within {_NEAR:.1%}"
        return judged("S-06", _PATH, problems, fine, "publish the accuracies of the adapters")

    def _steps(self, path: list[Replayed]) -> Finding:
        report = self.case.report
        if report is None:
            return unchecked("S-02", _STEPS, "the frozen model's hash stands in report.json, which is missing")
        frozen, problems = report.provenance.model_hash, list[Problem]()
        if re.fullmatch("[0-9a-f]{64}", frozen) is None:
            problems.append(("report.json", f"model_hash {frozen:.70} is no SHA-256"))
            return judged("S-02", _STEPS, problems, "", "publish the hash of the model that was trained")
        for step in path:
            if step.record is not None and step.model_hash(frozen) != step.record.model_hash:
                first = step.record.round == 1
                what = "another adapter than initial.npy" if first else "another model than the sums before it lead to"
                problems.append((at(step.record), f"begins with {what}"))
        fine = f"{len(path)} rounds begin with the model that the log names"
        return judged("S-02", _STEPS, problems, fine, _TAKEN)

    def _adapter(self, last: Replayed, found: list[Reading], why: str) -> Finding:
        if not found:
            return unchecked("S-03", _ADAPTER, why)
        values, rule = (
            from_wire(last.broadcast, len(last.broadcast) // 2),
            rule_named(self.case.config.model.trained_rule),
        )
        differing = [reading.differing(values, rule) for reading in found]
        known = [count for count in differing if count is not None]
        problems: list[Problem] = []
        if 0 not in known:
            what = f"{min(known):,} of {len(values):,} values differ" if known else "it has another number of values"
            problems.append((f"adapter/{WEIGHTS}", f"is not what the sums lead to: {what}"))
        fine = f"{len(values):,} trained values are those after the last round"
        if rule.trains_a:
            fine += "; A up to a factor for each matrix"
        return judged("S-03", _ADAPTER, problems, fine, "publish the adapter that the run trained")

    def _counts(self) -> Finding:
        problems, counted = list[Problem](), 0
        for record in self.case.records:
            if record.round not in self.found:
                continue
            if not record.count_scale:
                if record.released_count is not None:
                    problems.append((at(record), "has a count, and adaptive clipping is off"))
                continue
            counted += 1
            try:
                count = decode_count(self.found[record.round], plan_of(record), len(record.survivors))
            except ValueError as error:
                problems.append((at(record), first_line(error)))
                continue
            if record.released_count is None or not near(record.released_count, count):
                problems.append((at(record), f"claims the count {record.released_count}, its sum has {count:.7g}"))
        fine = f"{counted} counts recomputed" if counted else "adaptive clipping is off"
        return judged("S-04", _COUNTS, problems, fine, "publish the counts of the sums")

    def _noise(self) -> tuple[Finding, list[Measurement]]:
        if not self.case.noisy:
            return judged("S-05", _NOISE, [], "no noise is claimed", ""), []
        found = least_noise(
            [(record, self.found[record.round]) for record in self.case.records if record.round in self.found]
        )
        if found is None:
            return unchecked("S-05", _NOISE, "no sum can be used, or none claims noise"), []
        problems: list[Problem] = []
        if found.alarm:
            problems = [("sums", f"{found.coordinates:,} coordinates have {found.ratio:.4g} of the noise's standard "
                                 f"deviation, {found.least:.4g} is the least that chance explains")]  # fmt: skip
        measured = Measurement(
            name="standard deviation of the sums ÷ that of the noise which is claimed",
            value=found.ratio if math.isfinite(found.ratio) else None,
            low=None,
            high=None,
            ceiling=None,
            false_alarm=FALSE_ALARMS,
            assumption="signal and noise are independent, so that a sum with a signal varies more than its noise",
            alarm=found.alarm,
        )
        fine = f"{found.ratio:.4g} of the noise's standard deviation over {found.coordinates:,} coordinates"
        return judged("S-05", _NOISE, problems, fine, "the noise that was claimed was not added"), [measured]
