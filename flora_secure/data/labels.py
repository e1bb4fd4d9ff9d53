"""Labels as files have them, and what a list of class names says of them.

Labels are texts. Those that are whole numbers have one spelling, 3, whether a file says 3, 03, 3.0 or "3".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal

from flora_secure.errors import DataError

# an exponent only behind a point, as NumPy writes it (3.000e+00): 12e5 may well be a name
_WHOLE = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*)(?:e([+-]?[0-9]{1,2}))?)?", re.IGNORECASE)
_NUMBER = re.compile(r"^([0-9]+)\.0+$")
_SHOWN = 3  # labels in a message


def said(value: object) -> str | None:
    """A cell or a value of JSON as text: a text, or a whole number (3.0 is one); "" for none (null, NaN); `None` for
    anything else, such as a list, bytes, 1.5 or true."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:  # NaN
        return ""
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return whole(str(value)) if number else None


def client_named(value: object) -> str | None:
    """`said` of a client, whose number may have become 7.0 in a column with gaps; 07 is another client than 7."""
    text = said(value)
    return _NUMBER.sub(r"\1", text) if text else text


def whole(text: str) -> str | None:
    """The whole number that `text` is (3, 03, 3.0, 3.000e+00) in its one spelling; `None` where it is none."""
    found = _WHOLE.fullmatch(text)
    if found is None:
        return None
    sign, digits, behind, exponent = found[1], found[2], found[3] or "", int(found[4] or 0)
    if exponent < 0:
        digits = digits.rjust(1 - exponent, "0")
        digits, behind = digits[:exponent], digits[exponent:] + behind
    else:
        behind = behind.ljust(exponent, "0")
        digits, behind = digits + behind[:exponent], behind[exponent:]
    if behind.strip("0"):
        return None
    digits = digits.lstrip("0") or "0"  # not by int(): that has a limit of digits
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Whole numbers by value, those of one value and anything else by the alphabet."""
    listed = sorted(labels)
    numbers = {label: whole(label) for label in listed}
    if None in numbers.values():
        return tuple(listed)

    def value(label: str) -> tuple[int, str]:
        digits = str(numbers[label])
        if digits.startswith("-"):  # the longer, the smaller
            return -len(digits), "".join(chr(ord("9") - int(digit)) for digit in digits[1:])
        return len(digits), digits

    return tuple(sorted(listed, key=value))


def likeness(name: str) -> str:
    """The same for names that people would take for one: case, spaces, `_`, `-`, zeros before a number
    and marks that nobody sees aside."""
    plain = "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isprintable())
    return whole(plain.strip()) or " ".join(plain.replace("_", " ").replace("-", " ").split())


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different names that people would take for one."""
    first: dict[str, str] = {}
    return [(before, name) for name in names if (before := first.setdefault(likeness(name), name)) != name]


def some(names: Iterable[str], count: int | None = None) -> str:
    """The first few for a message: "'a', 'b', 'c', …"."""
    listed = [*names]
    more = ", …" if (count or len(listed)) > _SHOWN else ""
    return ", ".join(map(repr, listed[:_SHOWN])) + more


@dataclass(frozen=True)
class Reading:
    """What the lines of a class list name: `labels` in the order of the lines, and how labels that are written
    otherwise are to be `spelled`."""

    labels: tuple[str, ...]
    spelled: dict[str, str]


def read_by_list(
    found: Collection[str], lines: tuple[str, ...], base: int | None, warn: Callable[[str], None], what: str
) -> Reading:
    """How the list of class names `lines` reads the labels that were `found`, whole numbers in their one spelling.

    `base`: the label that line 1 names, where lines name whole numbers. `what`: the list, for people. What was guessed,
    and which labels have no line, is said by `warn`. Raises DataError where two readings are possible; docs/data.md has
    the cases.
    """
    words = ordered(label for label in found if whole(label) is None)
    if base is not None:
        if words:
            raise DataError(
                f"`data.label_base` {base} is for labels that are whole numbers, and {words[0]!r} is none: leave it out"
            )
        return _by_number(found, lines, base, warn, what)
    exact = {whole(line) or line: line for line in lines}
    near: dict[str, list[str]] = {}
    for line in lines:
        near.setdefault(likeness(line), []).append(line)
    close = {label: ([exact[label]] if label in exact else near.get(likeness(label), [])) for label in found}
    spelled = {label: of[0] for label, of in close.items() if len(of) == 1}
    if spelled and (words or len(spelled) == len(found) or exact.keys() <= {*found}):
        if other := [label for label in ordered(spelled) if label not in exact]:
            pairs = ", ".join(f"{label!r} as {spelled[label]!r}" for label in other[:_SHOWN])
            warn(f"labels were found in {what} by likeness: {pairs}{', …' * (len(other) > _SHOWN)}")
        _say_left_out([label for label in ordered(found) if label not in spelled], len(found), warn, what)
        return Reading(lines, spelled)
    if spelled:
        listed = ordered(label for label in found if label in exact)
        raise DataError(
            f"{what} can be read in two ways: its lines are the labels, of which it lists {some(listed)} "
            f"and not {some(label for label in ordered(found) if label not in spelled)}; or line 1 names the first "
            "number. List every label, or give the number that line 1 names by `data.label_base`, 0 or 1"
        )
    return (
        _by_order(found, lines, warn, what)
        if words
        else _by_number(found, lines, _base(found, lines, what), warn, what)
    )


def _base(found: Collection[str], lines: tuple[str, ...], what: str) -> int:
    """0 where label 0 occurs and no label equals the number of lines. Every other case has two readings."""
    numbers = [str(number) for number in range(len(lines) + 1)]
    if not {*found} & {*numbers}:
        raise _unfit(found, lines)
    first, last = numbers[0], numbers[-1]
    if first in found and last not in found:
        return 0

    def then(out: str) -> str:
        return f"label {out} has no name" if out in found else f"label {out} does not occur"

    labels = ordered(found)
    raise DataError(
        f"{what} can be read in two ways: it has {len(lines)} lines, and the labels are whole numbers from "
        f"{labels[0]} to {labels[-1]}. Line 1, {lines[0]!r}, names label 0 ({then(last)}): `data.label_base` 0; or it "
        f"names label 1 ({then(first)}): `data.label_base` 1"
    )


def _by_number(
    found: Collection[str], lines: tuple[str, ...], base: int, warn: Callable[[str], None], what: str
) -> Reading:
    labels = tuple(str(base + place) for place in range(len(lines)))
    unlisted = [label for label in ordered(found) if label not in {*labels}]
    if len(unlisted) == len(found):
        raise _unfit(found, lines)
    _say_left_out(unlisted, len(found), warn, what)
    return Reading(labels, {})


def _by_order(found: Collection[str], lines: tuple[str, ...], warn: Callable[[str], None], what: str) -> Reading:
    """As many names as labels, in their order, which has to be the same to a person, a program and a file manager."""
    if len(found) != len(lines):
        raise _unfit(found, lines)
    labels = ordered(found)
    for others, by in ((sorted(labels, key=str.casefold), "case aside"), (sorted(labels, key=_natural), "by number")):
        if clash := next(((one, other) for one, other in zip(labels, others, strict=True) if one != other), None):
            raise DataError(
                f"{what} cannot name the labels in their order, which is not clear: {clash[0]!r} comes "
                f"before {clash[1]!r} letter by letter, and after it {by}. List the labels themselves"
            )
    pairs = ", ".join(f"{label!r} is {line!r}" for label, line in [*zip(labels, lines, strict=True)][:_SHOWN])
    warn(
        f"{what} lists no label, so its lines name the labels in alphabetical order: {pairs}"
        f"{', …' * (len(lines) > _SHOWN)}; if that is wrong, put the lines in that order"
    )
    return Reading(labels, {})


def _natural(label: str) -> list[tuple[int, str]]:
    """For an order in which class_2 comes before class_10."""
    return [
        (len(digits := part.lstrip("0")), digits) if part.isdigit() else (0, part)
        for part in re.split(r"([0-9]+)", label)
    ]


def _unfit(found: Collection[str], lines: tuple[str, ...]) -> DataError:
    return DataError(
        f"none of the {len(found)} labels, such as {ordered(found)[0]!r}, is among the {len(lines)} class names, such "
        f"as {lines[0]!r}: list the labels, or a name for each in their order"
    )


def _say_left_out(unlisted: list[str], count: int, warn: Callable[[str], None], what: str) -> None:
    if unlisted:
        warn(f"{len(unlisted)} of {count} labels, {some(unlisted)}, have no line in {what}: their images are left out")
