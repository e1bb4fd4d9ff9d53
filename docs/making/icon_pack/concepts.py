"""Which of twenty things an icon shows, by its name: one of a concept's words, and nothing that makes it another thing.

A name is its tokens less those of style and size. The word of a concept must lead ("calendar-event"), or all that
stands beside it must be marks, which are drawn on anything ("circle-user", "add-to-folder"). A name with words of two
concepts ("calendar-clock") shows either and is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True)
class Concept:
    """`name`: as prompts use it. `words`: that mean it. `strict`: those of the words beside which only marks may stand,
    since what follows them often says what else is drawn. `not_with`: words that make it something else."""

    name: str
    words: frozenset[str]
    strict: frozenset[str] = frozenset()
    not_with: frozenset[str] = frozenset()


_NUMERALS = "one two three four five six seven eight nine ten"
CONCEPTS = (
    Concept("calendar", _words("calendar calendars"), not_with=_words("apps script view")),
    Concept(
        "house",
        _words("house home"),
        not_with=_words(
            "work repair improvement speaker iot health storage logo office max mini tv cinema console cooking desk "
            "lunchbox heater battery lightbulb thermometer temperature chimney siding assistant automation city"
        ),
    ),
    Concept(
        "heart",
        _words("heart hearts"),
        not_with=_words(
            "hand hands handshake organ cardiogram balloon ballon watch monitor clipboard face faces eyes cat zone"
        ),
    ),
    Concept(
        "star",
        _words("star stars"),
        not_with=_words(
            "of crescent wars fish trek topper altar medal life ring rings eyes struck eyed rate rating schema badge "
            "award"
        ),
    ),
    Concept(
        "padlock",
        _words("lock padlock unlock locked unlocked"),
        not_with=_words("screen door contention plant picking pattern comment ui window computer laptop goal rotation"),
    ),
    Concept("key", _words("key keys"), strict=_words("key keys"), not_with=_words(_NUMERALS)),
    Concept("bell", _words("bell"), not_with=_words("pepper concierge hop bellhop boy school electric")),
    Concept(
        "camera",
        _words("camera"),
        not_with=_words(
            "video movie cctv indoor outdoor dome control lens security roll film web surveillance display reels "
            "switch metering enhance night rotate front rear record burst " + _NUMERALS
        ),
    ),
    Concept("cloud", _words("cloud"), not_with=_words("words meatball front watch trail formation flare")),
    Concept(
        "gear",
        _words("gear gears cog cogs setting settings"),
        strict=_words("setting settings"),
        not_with=_words("hammer wheel computer laptop screwdriver wrench horizontal vertical"),
    ),
    Concept("flag", _words("flag"), strict=_words("flag")),
    Concept("book", _words("book"), not_with=_words("mark marks marked bookmark shelf toolbox lightbulb dead theta")),
    Concept("person", _words("person user"), not_with=_words("group family id card identifier bed hands interface")),
    Concept(
        "document",
        _words("document file"),
        not_with=_words("cabinet map scanner signal sliders cup system manager tray"),
    ),
    Concept("folder", _words("folder")),
    Concept(
        "envelope",
        _words("envelope mail email"),
        not_with=_words("fish box hook template chat think reply forward red"),
    ),
    Concept(
        "telephone",
        _words("phone telephone"),
        not_with=_words(
            "mobile smartphone android iphone laptop desktop tablet watch watchface qr landscape portrait vibrate "
            "rotate screen status bar header footer page pagination bluetooth speaker hotspot flip eraser span update "
            "booth pen vertical link shake setup pc smart cell device"
        ),
    ),
    Concept(
        "magnifying glass",
        _words("search magnify magnifier magnifying"),
        not_with=_words("visual hands history activity insights docked fullscreen engine tint bar replace"),
    ),
    Concept("shield", _words("shield")),
    Concept("clock", _words("clock"), not_with=_words("loader tower bill digital hands in out")),
)
CLASSES = tuple(concept.name for concept in CONCEPTS)

STYLE = _words(
    "outline outlined outlines filled fill solid line linear lined light bold thin thick regular duotone twotone two "
    "tone sharp rounded round duo broken bulk stroke o alt alternate variant simple color colour flat icon icons "
    "new baseline bx bxs ios md sm lg xl xs small large big medium mini tiny wght grad rtl ltr minimalistic remix "
    "freehand poly glyph curved sketch glass expressive px f s fine print angle"
)
MARKS = _words(
    "add plus minus remove delete check checked checkmark tick done x xmark cross off on slash slashed alert warning "
    "error info information question exclamation mark up down left right arrow download upload sync refresh edit pen "
    "pencil open opened close closed empty full half circle circled square squared box dot badge badged alerted "
    "sparkles sparkle spark zap bolt lightning block blocked ban banned prohibited cancel dismiss more multiple double "
    "pause play stop no not yes with and to into front side modern "
    "default all red black white blue green yellow orange purple brown pink grey growing sparkling beating "
    "skeleton old old-fashioned checkered chequered triangular crossed waving banner pennant active disabled enabled "
    "chain ring ringing diamond hexagon octagon border vertical horizontal verified alarm wall"
).union(_words(_NUMERALS))
_THINGS = _words("edit pen pencil box warning alert error info information question dot badge lightning")
_STRICT_CATEGORIES = frozenset(("Emoji",))  # their names are sentences, and flags are those of countries

# Words of Google's Material that its own drawings give the meaning, and sets whose "phone" is a smartphone.
_GOOGLE = {"notifications": "bell", "favorite": "heart", "schedule": "clock", "call": "telephone"}
_OWN_WORDS: dict[str, dict[str, str]] = {
    "material-symbols": _GOOGLE,
    "material-symbols-light": _GOOGLE,
    "ic": _GOOGLE,
    "fluent": {"call": "telephone"},
    "fluent-color": {"call": "telephone"},
    "mdi": {"account": "person"},
}
_NOT_HERE = {prefix: _words("phone") for prefix in ("fluent", "fluent-color", "bi", "picon", "streamline-pixel")}


def concept_of(prefix: str, category: str | None, name: str) -> tuple[int, str] | None:
    """The place in `CLASSES` of what icon `name` of the set `prefix` shows, and the name less style: equal for the
    styles and sizes of one drawing. `None` where the name is of none, of two, or of something else."""
    tokens = [token for token in (_bare(token) for token in re.split(r"[-_]", name)) if token]
    own = _OWN_WORDS.get(prefix, {})
    gone = _NOT_HERE.get(prefix, frozenset())
    found = {place for token in tokens for place, one in enumerate(CONCEPTS) if _means(token, one, own, gone)}
    if len(found) != 1:
        return None
    place = found.pop()
    concept = CONCEPTS[place]
    word = [_means(token, concept, own, gone) for token in tokens]
    rest = [token for token, means in zip(tokens, word, strict=True) if not means and not token.isdigit()]
    if concept.not_with.intersection(rest):
        return None
    strict = category in _STRICT_CATEGORIES or concept.strict.intersection(tokens) or not word[0]
    if (strict or set(tokens) & set(own)) and not MARKS.issuperset(rest):
        return None
    if tokens[0] in _THINGS and not word[0]:
        return None  # "edit-lock" is a pen with a small padlock
    return place, "-".join(tokens)


def _means(token: str, concept: Concept, own: dict[str, str], gone: frozenset[str]) -> bool:
    return own.get(token) == concept.name or (token in concept.words and token not in gone)


def _bare(token: str) -> str:
    """`token` without a number at its end, or "" for one of style or size; a small number by itself tells drawings
    apart."""
    if token.isdigit():
        return "" if int(token) >= 10 else token
    word = re.sub(r"\d+(px)?$", "", token)
    return "" if word in STYLE or re.fullmatch(r"\d+(px|x\d+)", token) else word
