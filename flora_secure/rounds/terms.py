"""What the parties of a federation must have in common before its first round, to be compared value by value.

    "fT" · version u8 · JSON: {"key": "value", …}, keys in order

Nothing in it is secret: it is the configuration, the class names, and hashes of what is public. A site that lacks what
the server has would train something else, and its noise and masks would hide that.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from flora_protocols import Code, PeerError
from flora_secure.boundary.foreign import json_of, printable, text_of
from flora_secure.errors import ForeignError
from flora_secure.planning.config import RunConfig
from flora_secure.rounds import broadcast, invitation

_MAGIC, _VERSION = b"fT", 1
MOST_BYTES = 1 << 20
_SHOWN = 120  # characters of a value in a line
_OWN = frozenset({"training.device", "training.warm_start"})  # what each party has, or the server does, for itself
_SKETCH, _SUMS, _ROUNDING = "frozen factors", 8, 1e-2
_SECTIONS = ("model", "training", "privacy", "participation", "aggregation")


class Difference(NamedTuple):
    """A key on which two parties differ, and what each has; "" where it has nothing."""

    key: str
    ours: str
    theirs: str

    def line(self, ours: str, theirs: str) -> str:
        """The difference for people, with the names of both sides."""
        has = [f"{who} has {printable(value[:_SHOWN]) or 'nothing'}" for who, value in
               ((ours, self.ours), (theirs, self.theirs))]  # fmt: skip
        return f"{printable(self.key[:_SHOWN])}: {', '.join(has)}"


@dataclass(frozen=True)
class Terms:
    """What one party has, as texts by key."""

    values: Mapping[str, str]

    @classmethod
    def of(
        cls,
        config: RunConfig,
        *,
        class_names: Sequence[str],
        templates: Sequence[str],
        model_hash: str,
        frozen: NDArray[np.float32],
        public_hash: str,
        enrolment: bytes,
    ) -> Terms:
        """The terms of a party.

        `model_hash` of the frozen model, `frozen` the factors that do not train, float32 (n,), `public_hash` of the
        public images, `enrolment` its digest.
        """
        found = {
            "wire": f"invitation {invitation.VERSION}, broadcast {broadcast.VERSION}",
            "seed": str(config.seed),
            "data.clients": str(config.clients),
            "data.total_images": str(config.data.total_images),
            "class names": ", ".join(class_names),
            "templates": " | ".join(templates),
            "frozen model": model_hash,
            _SKETCH: _sketch(frozen),
            "public images": public_hash,
            "enrolment": enrolment.hex(),
        }
        for name in _SECTIONS:
            for key, value in dataclasses.asdict(getattr(config, name)).items():
                found[f"{name}.{key}"] = str(value)
        return cls({key: found[key] for key in sorted(found.keys() - _OWN)})

    def to_bytes(self) -> bytes:
        """The terms on the wire."""
        return _MAGIC + bytes([_VERSION]) + json.dumps(dict(sorted(self.values.items()))).encode()

    @classmethod
    def from_bytes(cls, data: bytes, peer: int | Literal["server"]) -> Terms:
        """The inverse of `to_bytes`. Raises PeerError naming the `peer` for other bytes."""

        def refuse(reason: str, code: Code) -> NoReturn:
            raise PeerError(peer, reason, code)

        if not is_terms(data):
            refuse("these bytes are no terms", Code.NOT_A_MESSAGE)
        if data[2:3] != bytes([_VERSION]):
            refuse(f"terms of version {data[2:3].hex()}; this side reads {_VERSION}", Code.OTHER_VERSION)
        if len(data) > MOST_BYTES:
            refuse(f"terms of {len(data)} bytes", Code.BAD_BODY)
        try:
            table = json_of(text_of(data[3:]))
        except ForeignError:
            refuse("the terms are damaged", Code.BAD_BODY)
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            refuse("the terms are no table of texts", Code.BAD_BODY)
        return cls(table)

    def differences(self, other: Terms) -> list[Difference]:
        """Every key on which the `other` party differs, in order."""
        keys = sorted(self.values.keys() | other.values.keys())
        pairs = [Difference(key, self.values.get(key, ""), other.values.get(key, "")) for key in keys]
        return [pair for pair in pairs if not _alike(pair)]


def _sketch(values: NDArray[np.float32]) -> str:
    """A few numbers by which arrays are told apart that differ by more than rounding, as two machines' may.

    They are sums of the values under random signs, ÷ their norm: of order 1, and independent for another array.
    """
    norm = float(np.linalg.norm(values.astype(np.float64)))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_SUMS, values.size))
    sums = signs @ values.astype(np.float64) / (norm or 1.0)
    return " ".join([f"{values.size} values of norm {norm:.5g}:", *(f"{one:.5f}" for one in sums)])


def _alike(pair: Difference) -> bool:
    if pair.key != _SKETCH or pair.ours == pair.theirs:
        return pair.ours == pair.theirs
    ours, theirs = pair.ours.split(), pair.theirs.split()
    try:
        numbers = [(float(one), float(other)) for one, other in zip(ours[5:], theirs[5:], strict=True)]
    except ValueError:
        return False
    return ours[0] == theirs[0] and all(abs(one - other) < _ROUNDING for one, other in numbers)


def is_terms(message: bytes) -> bool:
    """Whether a message says a party's terms."""
    return message[:2] == _MAGIC
