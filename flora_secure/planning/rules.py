"""Rules: which LoRA factors train, in which round and local step, and what averaging them means. Needs no torch.

The adapter is `ΔW = A B`. Averaging A and B separately is not averaging A B (Sun et al. 2024, arXiv 2403.12313,
section 3), so each rule says what the server averages and whether that is the average of the clients' ΔW.
Every rule starts from B = 0, where the gradient with respect to A vanishes: whatever alternates begins with B.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from flora_secure.errors import AdapterError


@dataclass(frozen=True)
class Rule:
    """What trains. `local_rate` is the tuned local learning rate, `averaging` one line for people.

    `prompt_basis`: A starts as the basis of the class prompts, else random. `alternates`: `"rounds"`, where B
    trains in odd rounds and A in even ones; `"steps"`, where they take turns in the local steps, B first.
    `exact`: the average of the uploads gives the average of the clients' ΔW.
    """

    name: str
    averaging: str
    exact: bool
    trains_a: bool = False
    trains_b: bool = True
    prompt_basis: bool = False
    alternates: str | None = None
    local_rate: float = 0.4

    def of_round(self, number: int) -> Rule:
        """The rule of round `number`, from 1 on: with factors alternating in rounds it trains one of them."""
        if self.alternates != "rounds":
            return self
        return dataclasses.replace(self, trains_a=number % 2 == 0, trains_b=number % 2 == 1, alternates=None)

    def trains_b_in(self, step: int) -> bool:
        """Whether B moves in local step `step`, from 0 on."""
        return self.trains_b and (self.alternates != "steps" or step % 2 == 0)

    def trains_a_in(self, step: int) -> bool:
        """Whether A moves in local step `step`, from 0 on."""
        return self.trains_a and (self.alternates != "steps" or step % 2 == 1)

    def size(self, a: int, b: int) -> int:
        """Number of trained values of an A of `a` values and a B of `b`."""
        return b * self.trains_b + a * self.trains_a

    def upload_size(self, a: int, b: int) -> int:
        """Length d of an upload. One factor a round: the longer of the two; the shorter is filled up with zeros, so
        that noise, ring and graph are the same in every round."""
        return max(a, b) if self.alternates == "rounds" else self.size(a, b)


@dataclass(frozen=True)
class TrainedValues:
    """How many values the factors of an adapter have, `a` and `b`, and the `rule` that says which of them train.

    All that server and wire need to know of an adapter: they see vectors, never matrices.
    """

    rule: Rule
    a: int
    b: int

    @property
    def dimension(self) -> int:
        """Number of trained values: those that the server keeps and broadcasts, B first."""
        return self.rule.size(self.a, self.b)

    @property
    def upload_size(self) -> int:
        """Length d of an upload."""
        return self.rule.upload_size(self.a, self.b)

    def span(self, number: int) -> slice:
        """Where the values that round `number` trains lie among all trained ones."""
        size, now = self.b * self.rule.trains_b, self.rule.of_round(number)
        return slice(0 if now.trains_b else size, self.dimension if now.trains_a else size)


PROMPT_BASIS = Rule(
    name="prompt-basis",
    averaging="B alone is averaged, A stays the class prompts' basis: the average of A B is exact",
    exact=True,
    prompt_basis=True,
)
BOTH_FACTORS = Rule(
    name="ab",
    averaging="A and B are averaged separately: not the average of A B, and noise multiplies noise",
    exact=False,
    trains_a=True,
)
FROZEN_A = Rule(
    name="frozen-a",
    averaging="B alone is averaged, A stays random: the average of A B is exact",
    exact=True,
)
ALTERNATE = Rule(
    name="alternate",
    averaging="B is averaged in odd rounds, A in even ones, the other held fixed: each round's average of A B is exact",
    exact=True,
    trains_a=True,
    alternates="rounds",
)
LOCAL_ALTERNATE = Rule(
    name="local-alternate",
    averaging="A and B take turns in the local steps and are averaged separately: not the average of A B",
    exact=False,
    trains_a=True,
    alternates="steps",
)
ARRAYS = Rule(
    name="arrays",
    averaging="no factors: every value of a model of the user's own is averaged",
    exact=True,
)
"""A model that is not CLIP, whose values the masking carries (`engine.flower`); no run of ours can choose it."""
RULES = (PROMPT_BASIS, BOTH_FACTORS, FROZEN_A, ALTERNATE, LOCAL_ALTERNATE)


def rule_named(name: str) -> Rule:
    """The rule of that name; `AdapterError` for any other."""
    for rule in RULES:
        if rule.name == name:
            return rule
    raise AdapterError(f"unknown `model.rule` {name!r}; known: {', '.join(rule.name for rule in RULES)}")
