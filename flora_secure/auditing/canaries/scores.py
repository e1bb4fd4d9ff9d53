"""What the released sums say of each canary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.canaries.secret import Canaries
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import RunFolderError
from flora_secure.privacy.encoding import signed
from flora_secure.privacy.rotation import Rotation
from flora_secure.records.evidence.sums import FOLDER, name_of, read, sum_of
from flora_secure.records.record import RoundRecord

_LEAST = 1e-30  # of what a round is described by


@dataclass(frozen=True, eq=False)
class Scores:
    """Canaries that were in at least one sum, by what all sums together say of them.

    If a run is as claimed, `values` are independent and Gaussian with variance 1, and a little more for what the real
    clients' updates are by chance along a canary's directions; with mean `shifts` for a canary that is in, 0 otherwise.

    Attributes:
        values: (m,), of each the sums along its directions, rounds weighted as is best for telling in from out.
        shifts: (m,), √(Σ c²/σ²) over its rounds, σ the noise that is claimed of all survivors, in units of the update.
        inside: (m,), its coin.
        spread: bound on what the real clients add to the variance, if they clip.
        rounds: how many sums there were.
        problems: (where, what) of sums that could not be read, or are not those of the log.
    """

    values: NDArray[np.float64] = field(repr=False)
    shifts: NDArray[np.float64] = field(repr=False)
    inside: NDArray[np.bool_] = field(repr=False)
    spread: float
    rounds: int
    problems: list[tuple[str, str]]

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Log-likelihood ratios of in against out, (m,), as claimed: the surer a guess, the larger its absolute."""
        return self.shifts * self.values - self.shifts**2 / 2


def scores_of(case: Case, canaries: Canaries) -> Scores:
    """The scores of a run's canaries, from all of its sums that can be read."""
    found, power = np.zeros(canaries.count), np.zeros(canaries.count)
    spread, rounds, problems = np.zeros(canaries.count), 0, list[tuple[str, str]]()
    for record in case.records:
        if not record.summed:
            continue
        try:
            update = _update(case, record, canaries)
        except RunFolderError as error:
            problems.append((f"{FOLDER}/{name_of(record.round)}", str(error)))
            continue
        summed = np.array([client - canaries.first for client in record.survivors if client >= canaries.first], int)
        variance = len(record.survivors) * (record.sigma_local**2 + 1 / 12) / record.scale**2
        along = canaries.directions(record.round).along(update)[summed]
        found[summed] += record.clip_norm / variance * along
        power[summed] += record.clip_norm**2 / variance
        real = (len(record.survivors) - len(summed)) * record.clip_norm
        spread[summed] += (record.clip_norm / variance * real) ** 2 / canaries.values
        rounds += 1
    known = power > 0
    return Scores(
        values=found[known] / np.sqrt(power[known]),
        shifts=np.sqrt(power[known]),
        inside=canaries.inside[known],
        spread=float((spread[known] / power[known]).mean()) if known.any() else 0.0,
        rounds=rounds,
        problems=problems,
    )


def _update(case: Case, record: RoundRecord, canaries: Canaries) -> NDArray[np.float64]:
    """The round's released sum in units of the update, (d,). Raises `RunFolderError`, without the file's name."""
    if record.sum_hash is None:
        raise RunFolderError("the log has no hash of it")
    numbers, last = (record.scale, record.clip_norm, record.sigma_local), canaries.first + canaries.count
    survivors = set(record.survivors)
    if not all(_LEAST < x < 1 / _LEAST for x in numbers) or not 2 <= record.bits <= 32:
        raise RunFolderError("its round has numbers that no round can have")
    if not survivors or len(survivors) < len(record.survivors) or not 0 <= min(survivors) <= max(survivors) < last:
        raise RunFolderError("its round has survivors that are no clients of the run")
    raw = read(case.path / FOLDER / name_of(record.round), record.dimension)
    if hashlib.sha256(raw).hexdigest() != record.sum_hash:
        raise RunFolderError("it is not the file whose SHA-256 the log has")
    total = sum_of(raw, record.dimension, record.bits)
    rotation = Rotation(canaries.values, case.config.seed, record.round) if record.rotated else None
    length = canaries.values if rotation is None else rotation.length
    if record.values != canaries.values or length > record.dimension:
        raise RunFolderError(f"its round has updates of {record.values} values, the canaries have {canaries.values}")
    values = signed(total, record.bits)[:length] / record.scale
    return values if rotation is None else rotation.inverse(values)
