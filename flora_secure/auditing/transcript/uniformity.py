"""T-13 and T-14: what masks make of uploads. Under a mask an upload is uniform over all its bits, and the difference of
two uploads is, too; what is not masked, or masked twice alike, is not.

The likelihood-ratio form of χ², N·KL of what is seen to the uniform distribution over k cells, has a tail that holds at
any length: P[N·KL ≥ x] ≤ e^(−x)·(e·x/(k−1))^(k−1) for x > k−1 (Agrawal, IEEE Trans. Inf. Theory 2020). Of two uploads
the phases 2πy/2^b are compared: S = Σ exp(2πi(y−y')/2^b) over m values is small where they are independent, for each
cosine of a uniform phase is sub-Gaussian of variance 1/2, so that P[|S|²/m ≥ t] ≤ 16·e^(−0.96·t), 16 directions
together. Of what is under one mask the difference is short, and |S|²/m near m.

Every test is counted, and each is asked for its share of `FALSE_ALARM` (Bonferroni), half for each kind.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flora_protocols import unpack
from flora_secure.auditing.findings import Measurement
from flora_secure.auditing.transcript.notes import Notes

FALSE_ALARM = 1e-3  # of all tests of a transcript together, where masks are what they should be
_COMPARED = 512  # values of an upload, from both its ends, that are compared with those of others
_PAIRS = 1 << 21  # of uploads in one round that are compared
_KEPT = 1 << 18  # uploads that later ones of the same clients are compared with
_FEW = 64  # values below which a phase says little
_MOST = 4096
_DIRECTIONS, _PROJECTED = 16, math.cos(math.pi / 16) ** 2
Phases = NDArray[np.uint16]


@dataclass(frozen=True)
class Upload:
    """One upload: the client, and its packed vector."""

    client: int
    payload: bytes


@dataclass
class Uniformity:
    """Collects the uploads of all rounds of a run; `judge` says which are not uniform, or too close to another.

    `tests`, `pairs`: how many tests of either kind were made.
    """

    tests: int = 0
    pairs: int = 0
    left: int = 0
    worst: float = 0.0
    nearest: float = 0.0
    _suspects: list[tuple[float, str, str]] = field(default_factory=list)
    _near: list[tuple[float, str, str]] = field(default_factory=list)
    _of_client: dict[int, NDArray[np.int64]] = field(default_factory=lambda: defaultdict(_no_bytes))
    _before: deque[tuple[str, NDArray[np.int64], Phases]] = field(default_factory=deque)
    _seen: dict[bytes, tuple[str, int]] = field(default_factory=dict)

    def take(self, where: str, uploads: list[Upload], dimension: int, bits: int, notes: Notes) -> None:
        """The uploads of one round, of so many values of so many bits."""
        if not uploads:
            return
        counts = self._counted(where, uploads, dimension * bits // 8)
        self._test(counts.sum(axis=0), where, "all uploads of the round together")
        for upload in uploads:
            own = upload.payload if len(upload.payload) <= 32 else upload.payload[:32]
            if len(own) >= 16:
                before = self._seen.setdefault(own, (where, upload.client))
                if before != (where, upload.client):
                    what = f"the upload of client {upload.client} begins as that of client {before[1]} in {before[0]}"
                    notes.problem("T-14", where, what)
        phases = np.stack([_phases(upload.payload, dimension, bits) for upload in uploads])
        clients = np.array([upload.client for upload in uploads], np.int64)
        if phases.shape[1] >= _FEW:
            self._within(where, clients, phases)
            self._across(where, clients, phases)

    def judge(self, notes: Notes) -> None:
        """T-13 and T-14, once all rounds are in."""
        for where, what in self._alarms():
            notes.problem("T-13", where, what)
        for bound, where, what in sorted(self._near)[:_MOST]:
            if bound * self.pairs <= FALSE_ALARM / 2:
                notes.problem("T-14", where, what)

    def measurements(self) -> list[Measurement]:
        """The most conspicuous test of either kind, with how often it is beyond its threshold by chance."""
        found = []
        for name, value, tests, what in (
            ("least uniform upload, N·KL", self.worst, self.tests, "masks are keystreams, and so uploads uniform"),
            ("closest uploads, |S|²/m", self.nearest, self.pairs, "masks of any two uploads are independent"),
        ):
            if tests:
                assumption = f"{what}; {tests:,} tests, corrected by their number"
                found.append(
                    Measurement(
                        name=name,
                        value=value,
                        low=None,
                        high=None,
                        ceiling=None,
                        false_alarm=FALSE_ALARM / 2,
                        assumption=assumption,
                        alarm=False,
                    )
                )
        return found

    def _alarms(self) -> list[tuple[str, str]]:
        for client, counts in self._of_client.items():
            self._test(counts, "", f"all uploads of client {client} together")
        self._of_client.clear()
        return [(where, what) for bound, where, what in sorted(self._suspects)[:_MOST]
                if bound * self.tests <= FALSE_ALARM / 2]  # fmt: skip

    def _counted(self, where: str, uploads: list[Upload], size: int) -> NDArray[np.int64]:
        """How often each byte is in each upload, (uploads, 256), without the last bits that fill no byte."""
        counts = np.empty((len(uploads), 256), np.int64)
        for row, upload in enumerate(uploads):
            counts[row] = np.bincount(np.frombuffer(upload.payload, np.uint8, size), minlength=256)
            self._of_client[upload.client] = self._of_client[upload.client] + counts[row]
        table = counts.reshape(-1, 16, 16)
        halves = table.sum(axis=1) + table.sum(axis=2)  # of low and of high halves
        self.tests += len(uploads)
        for upload, seen in zip(uploads, _divergence(halves).tolist(), strict=True):
            self._suspect(seen, 16, where, f"the upload of client {upload.client}")
        return counts

    def _test(self, counts: NDArray[np.int64], where: str, what: str) -> None:
        """One test of the bytes of several uploads."""
        self.tests += 1
        self._suspect(float(_divergence(counts[None])[0]), 256, where, what)

    def _suspect(self, seen: float, cells: int, where: str, what: str) -> None:
        self.worst = max(self.worst, seen / (cells - 1))
        bound = tail(seen, cells)
        if bound <= FALSE_ALARM / 2 and len(self._suspects) < _MOST:
            self._suspects.append((bound, where, f"{what}: N·KL is {seen:.1f} over {cells} cells"))

    def _within(self, where: str, clients: NDArray[np.int64], phases: Phases) -> None:
        """Every upload of a round against those of the others, the next ones of very many."""
        waves, count = _waves()[phases], len(clients)
        reach = min(count - 1, max(1, _PAIRS // count))
        if reach < count - 1:
            self.left += 1
        block = 512
        for first in range(0, count, block):
            rows = waves[first : first + block]
            columns = waves[first : first + block + reach]
            strength = np.abs(rows.conj() @ columns.T) ** 2 / phases.shape[1]
            apart = np.arange(len(columns))[None] - np.arange(len(rows))[:, None]
            strength[(apart < 1) | (apart > reach)] = 0.0
            self.pairs += int(((apart >= 1) & (apart <= reach)).sum())
            for row, column in np.argwhere(strength > _SUSPICIOUS)[:_MOST]:
                pair = clients[first + row], clients[first + column]
                self._close(float(strength[row, column]), where, f"clients {pair[0]} and {pair[1]} upload")
            self.nearest = max(self.nearest, float(strength.max(initial=0.0)))

    def _across(self, where: str, clients: NDArray[np.int64], phases: Phases) -> None:
        """The uploads of a round against those of the same clients in earlier ones."""
        own = _waves()[phases]
        for before, theirs, old in self._before:
            _, here, there = np.intersect1d(clients, theirs, return_indices=True)
            if old.shape[1] != phases.shape[1] or not len(here):
                continue
            sums = np.einsum("um,um->u", own[here].conj(), _waves()[old[there]])
            strength = np.abs(sums) ** 2 / phases.shape[1]
            self.pairs += len(here)
            self.nearest = max(self.nearest, float(strength.max(initial=0.0)))
            for at in np.flatnonzero(strength > _SUSPICIOUS)[:_MOST].tolist():
                self._close(float(strength[at]), where, f"client {clients[here[at]]} uploads as in {before}")
        self._before.append((where, clients, phases))
        while len(self._before) > 2 and sum(len(each) for _, each, _ in self._before) > _KEPT:
            self._before.popleft()

    def _close(self, strength: float, where: str, what: str) -> None:
        if len(self._near) < _MOST:
            bound = _DIRECTIONS * math.exp(-_PROJECTED * strength)
            self._near.append((bound, where, f"{what} values whose difference is short (|S|²/m is {strength:.0f})"))


_SUSPICIOUS = (math.log(_DIRECTIONS) + math.log(2 / FALSE_ALARM)) / _PROJECTED


def tail(seen: float, cells: int) -> float:
    """A bound on how often N·KL of uniform values over so many cells is as large as `seen`."""
    degrees = cells - 1
    if seen <= degrees:
        return 1.0
    return math.exp(degrees - seen + degrees * math.log(seen / degrees))


def _divergence(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """N·KL to the uniform distribution, of each row of counts."""
    total = counts.sum(axis=1, keepdims=True)
    ratio = np.maximum(counts, 1) * counts.shape[1] / np.maximum(total, 1)
    found: NDArray[np.float64] = (counts * np.log(ratio)).sum(axis=1)
    return found


def _phases(packed: bytes, dimension: int, bits: int) -> Phases:
    """The highest 16 bits of the first and of the last values of an upload, at 2^16 steps a turn."""
    half = min(_COMPARED, dimension) // 2 & ~7  # eight values end at a byte
    first = unpack(packed[: half * bits // 8], half, bits) if half else None
    start = dimension - half & ~7
    start = start if start + half <= dimension else start - 8
    last = unpack(packed[start * bits // 8 : (start + half) * bits // 8], half, bits) if half else None
    if first is None or last is None:
        return np.empty(0, np.uint16)
    both = np.concatenate([first, last]).astype(np.uint32)
    shifted = both << np.uint32(16 - bits) if bits <= 16 else both >> np.uint32(bits - 16)
    return shifted.astype(np.uint16)


@lru_cache(maxsize=1)
def _waves() -> NDArray[np.complex64]:
    """exp(2πik/2^16) by k."""
    found: NDArray[np.complex64] = np.exp(2j * np.pi * np.arange(1 << 16) / (1 << 16)).astype(np.complex64)
    return found


def _no_bytes() -> NDArray[np.int64]:
    return np.zeros(256, np.int64)
