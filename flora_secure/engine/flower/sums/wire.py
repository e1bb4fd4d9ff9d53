"""What `SecureSum` and its mod tell each other beside the protocol's opaque messages.

to a site    message type "train", with our record; b"" asks for the site's number, which it answers as
             `flower.wire.number_packed` writes it. A request for an upload has the wrapped strategy's own records
             beside it, the arrays among them, and a record with `Settings`
from a site  length of the envelope u32 · envelope · JSON of the metrics that the site names as public
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from flora_secure.boundary.foreign import json_of, text_of
from flora_secure.errors import ForeignError

KIND = "train"
"""The message type: a mod is called for types alone that the user's app has a function for, and each has this one."""
SETTINGS = "flora-secure-sum"
"""The name of the record with `Settings`."""
_LENGTH = struct.Struct("<I")
_MOST_METRICS, _LONGEST_NAME = 64, 256


@dataclass(frozen=True)
class Settings:
    """How a site makes its vector. Nothing of it matters for its protection: the whole upload is clipped all the same.

    Attributes:
        kept: names of arrays that are not summed.
        examples: the key of the number of examples in the app's metrics; "" where every site weighs the same.
        most: examples from which on a site weighs 1.
        weight_norm: by how much a weight of 1 is long in the upload.
    """

    kept: tuple[str, ...] = ()
    examples: str = ""
    most: int = 1
    weight_norm: float = 0.0

    def record(self) -> ConfigRecord:
        """The settings as a record of Flower's."""
        return ConfigRecord(
            {
                "kept": list(self.kept),
                "examples": self.examples,
                "most": self.most,
                "weight-norm": self.weight_norm,
            }
        )

    @classmethod
    def of(cls, records: RecordDict) -> Settings:
        """The inverse, from the records beside a request. Raises ForeignError for what is none."""
        record = records.get(SETTINGS)
        if not isinstance(record, ConfigRecord) or set(record) != {"kept", "examples", "most", "weight-norm"}:
            raise ForeignError(f"it has no record {SETTINGS}")
        kept, examples, most, norm = (record[name] for name in ("kept", "examples", "most", "weight-norm"))
        if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
            raise ForeignError("kept is no list of names")
        if not isinstance(examples, str) or type(most) is not int or type(norm) is not float:
            raise ForeignError("its values are of other types")
        if most < 1 or not (norm > 0 if examples else norm == 0) or not math.isfinite(norm):
            raise ForeignError("its weights are none")
        return cls(tuple(kept), examples, most, norm)


def with_metrics(envelope: bytes, metrics: Mapping[str, float]) -> bytes:
    """A site's reply."""
    told = json.dumps(dict(metrics), allow_nan=False).encode() if metrics else b""
    return _LENGTH.pack(len(envelope)) + envelope + told


def without_metrics(reply: bytes) -> tuple[bytes, dict[str, float]]:
    """The inverse: envelope and metrics. Raises ForeignError for other bytes."""
    if len(reply) < _LENGTH.size:
        raise ForeignError("it is cut short")
    end = _LENGTH.size + _LENGTH.unpack_from(reply)[0]
    if len(reply) < end:
        raise ForeignError("it is cut short")
    told: Any = json_of(text_of(reply[end:])) if reply[end:] else {}
    if not isinstance(told, dict) or len(told) > _MOST_METRICS:
        raise ForeignError("its metrics are no table")
    for name, value in told.items():
        if len(name) > _LONGEST_NAME or type(value) not in (int, float):
            raise ForeignError("its metrics are no numbers")
    return reply[_LENGTH.size : end], {name: float(value) for name, value in told.items()}
