"""How a round ended, as the server is told it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.uint32]


@dataclass(frozen=True)
class RoundSum:
    """The sum of a round.

    Attributes:
        total: uint32 (d,), the survivors' vectors added up modulo 2^bits.
        survivors: the clients whose vectors are in it, ascending.
        recovered: how many dropped clients' pairwise masks had to be removed.
    """

    total: Vector
    survivors: tuple[int, ...]
    recovered: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a round that was invited to.

    Attributes:
        sum: the released sum; None where there is none.
        aborted: why there is none, in one line; None where there is a sum.
        uploaded: the clients whose uploads were sent, whether or not there was a sum.
        announced: where there is no sum, who had been told that their uploads are in it: others may have that sum, so
            that it counts as released. Empty where nobody had.
        session_lost: whether the masking session cannot go on, so that the next round begins another.
        uniform: whether all who dropped out did so whatever they had computed: then the survivors are a uniform subset
            of the cohort. False where that is not known.
        contributions: updates or gradients in the uploads; clipped: how many of them were clipped; overflowed: how many
            coordinates of the sum have wrapped; noise_ratio: of the noise that is in it over the noise that is claimed
            (`flora_secure.records.record.RoundRecord`). Known in a simulation only, otherwise 0, 0, None and None.
        upload, download, payload, broadcast: bytes of all messages, see `engine.exchange.Traffic`.
        transcript_hash: SHA-256, hex, of the transcript of the round's messages; None where none is kept.
        seconds: by part of the round, as far as they are known.
    """

    sum: RoundSum | None
    aborted: str | None
    uploaded: Collection[int]
    announced: Collection[int] = ()
    session_lost: bool = False
    uniform: bool = False
    contributions: int = 0
    clipped: int = 0
    overflowed: int | None = None
    noise_ratio: float | None = None
    upload: int = 0
    download: int = 0
    payload: int = 0
    broadcast: int = 0
    transcript_hash: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def check(self, members: Collection[int]) -> None:
        """Raises ValueError unless this can be the outcome of a round of `members`."""
        uploaded = set(self.uploaded)
        if not uploaded <= set(members):
            raise ValueError(f"clients {sorted(uploaded.difference(members))} uploaded, and were not invited")
        if (self.sum is None) != (self.aborted is not None):
            raise ValueError("an outcome has either a sum or the reason why there is none")
        if self.sum is not None and self.announced:
            raise ValueError("an outcome with a sum has its survivors there")
        if not set(self.announced) <= uploaded:
            raise ValueError(f"clients {sorted(set(self.announced) - uploaded)} were announced, and did not upload")
        if self.sum is not None and not set(self.sum.survivors) <= uploaded:
            raise ValueError(f"the sum has clients {sorted(set(self.sum.survivors) - uploaded)}, who did not upload")
