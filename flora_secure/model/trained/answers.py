"""What a classifier answers: names with scores, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, overload

from flora_secure.data.notes import Skipped

SCHEMA = "flora-secure/predict/1"
SCORE = "softmax over all names of logit scale x cosine; it is not calibrated"
_SHOWN = 50  # rows of a table in a notebook


@dataclass(frozen=True)
class Guess:
    """A class name or a caption. `score`: the softmax, over all names there are to choose from, of the run's logit
    scale times the cosine of the image's and the name's embeddings. It orders names; it is no calibrated
    probability."""

    name: str
    score: float


@dataclass(frozen=True)
class Answer:
    """The best names for one image, the best first. `image`: its path as given, `None` for what has none."""

    image: str | None
    guesses: tuple[Guess, ...]

    @property
    def name(self) -> str:
        """The name that fits the image best."""
        return self.guesses[0].name

    @property
    def score(self) -> float:
        """The score of the best name."""
        return self.guesses[0].score


@dataclass(frozen=True)
class Unreadable:
    """An image that was given and cannot be read: its name and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Predictions(Sequence[Answer]):
    """The answers, in the order of the images that could be read; `unreadable` lists the others, and `left_out`
    what lies in the given folders and is no image by its name."""

    answers: tuple[Answer, ...]
    unreadable: tuple[Unreadable, ...] = ()
    left_out: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.answers)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Answer, ...]: ...
    def __getitem__(self, index: int | slice) -> Answer | tuple[Answer, ...]:
        return self.answers[index]

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `schema` first."""
        return {
            "schema": SCHEMA,
            "score": SCORE,
            "answers": [
                {"image": one.image, "guesses": [{"name": g.name, "score": g.score} for g in one.guesses]}
                for one in self.answers
            ],
            "unreadable": [{"image": one.image, "reason": one.reason} for one in self.unreadable],
            "left_out": [{"reason": s.reason, "count": s.count, "names": list(s.names)} for s in self.left_out],
        }

    def _repr_html_(self) -> str:
        rows = []
        for number, answer in enumerate(self.answers[:_SHOWN]):
            found = ", ".join(f"{escape(guess.name)} ({guess.score:.1%})" for guess in answer.guesses)
            rows.append(f"<tr><td>{escape(answer.image or f'image {number}')}</td><td>{found}</td></tr>")
        rest = len(self.answers) - len(rows)
        more = f"<p>and {rest:,} more</p>" if rest else ""
        bad = f"<p>{len(self.unreadable):,} images could not be read</p>" if self.unreadable else ""
        head = "<tr><th>image</th><th>names and scores</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>{more}{bad}"
