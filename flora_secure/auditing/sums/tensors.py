"""The trained values in an adapter's file, without the model that they belong to.

peft's file names modules, not the matrices of a placement (`flora_secure.model.peft_format`); whether a projection is
stored as (inputs, outputs) or the other way round it does not say, so that there are as many readings as that leaves.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flora_secure.boundary.foreign import json_of, read_bytes
from flora_secure.errors import ForeignError, RunFolderError
from flora_secure.planning.rules import Rule
from flora_secure.records.adapter_card import MOST_WEIGHTS, AdapterCard

Array = NDArray[np.float32]
Pair = tuple[Array, Array]  # A (inputs, r), B (r, outputs)
_MOST_HEADER = 1 << 20
_ROUNDED = 1e-6  # of float32 products


def read_tensors(path: Path) -> dict[str, Array]:
    """The float32 tensors of a safetensors file by name. Raises `RunFolderError`, which names it, for anything else.

    Eight bytes, little-endian, say how long the header is; it is a JSON object of types, shapes and places (the
    format's own README).
    """
    try:
        raw = read_bytes(path, MOST_WEIGHTS)
        size = int.from_bytes(raw[:8], "little")
        if len(raw) < 8 or size > min(len(raw) - 8, _MOST_HEADER):
            raise ForeignError("its header is not all there")
        table = json_of(raw[8 : 8 + size].decode())
        body = memoryview(raw)[8 + size :]
        return {name: _tensor(facts, body) for name, facts in _members(table) if name != "__metadata__"}
    except (ForeignError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunFolderError(f"{path} is no adapter that can be read: {error}") from None


def _members(table: object) -> Iterator[tuple[str, object]]:
    if not isinstance(table, dict):
        raise ForeignError("its header is no object")
    yield from table.items()


def _tensor(facts: object, body: memoryview) -> Array:
    match facts:
        case {"dtype": "F32", "shape": [*shape], "data_offsets": [int(first), int(last)]}:
            sides = all(type(side) is int and side >= 0 for side in shape)
            if sides and 0 <= first <= last <= len(body) and 4 * math.prod(shape) == last - first:
                values: Array = np.frombuffer(body[first:last], "<f4").reshape(shape)
                return values
    raise ForeignError("it holds something else than float32 tensors, or more than its bytes")


@dataclass(frozen=True)
class Reading:
    """One way to read an adapter's file: the factors of each matrix of its placement, in order."""

    pairs: list[Pair]

    @property
    def of_b(self) -> int:
        """How many values all B have together."""
        return sum(b.size for _, b in self.pairs)

    def differing(self, values: Array, rule: Rule) -> int | None:
        """How many of the trained `values`, float32 (d,) in the order of the wire, are not those of the file; None
        where it has another number of them.

        B is saved as it is trained. A is saved in the model's units, which are the trained ones times one positive
        factor for each matrix, so that it is the same where one factor makes it so, up to float32's rounding.
        """
        b = np.concatenate([b for _, b in self.pairs], axis=1).ravel()
        found, wrong, place = [b] if rule.trains_b else [], 0, b.size if rule.trains_b else 0
        if len(values) != place + (sum(a.size for a, _ in self.pairs) if rule.trains_a else 0):
            return None
        if rule.trains_b:
            wrong += int(np.count_nonzero(found[0] != values[: b.size]))
        for a, _ in self.pairs if rule.trains_a else ():
            own = values[place : place + a.size].reshape(a.shape).astype(np.float64)
            place += a.size
            peak = np.unravel_index(np.abs(own).argmax(), own.shape)
            factor = float(a[peak] / own[peak]) if own[peak] else 0.0
            wrong += int(np.count_nonzero(~np.isclose(a, factor * own, rtol=_ROUNDED, atol=0)))
            wrong += a.size if factor < 0 else 0
        return wrong


def readings(tensors: Mapping[str, Array], card: AdapterCard) -> list[Reading]:
    """All that the file allows, of which one is right. Raises `RunFolderError` for tensors that are not those of the
    card's placement."""
    modules: dict[str, Pair] = {}
    try:
        for name in tensors:
            if name.endswith(".lora_A.weight"):
                module = name.removesuffix(".lora_A.weight")
                modules[module] = tensors[name], tensors[f"{module}.lora_B.weight"]
        if 2 * len(modules) != len(tensors) or any(part.ndim != 2 for pair in modules.values() for part in pair):
            raise ValueError
        ordered = [modules[name] for name in sorted(modules, key=_place)]
        if card.placement.endswith(("attention", "attention-full")):
            found = [_attention(ordered, card)]
        elif card.placement.endswith("mlp"):
            found = [[(a.T, b.T) for a, b in ordered]]  # of nn.Linear
        else:
            both = (((a.T, b.T), (b, a)) for a, b in ordered[:2])  # of an nn.Linear, and stored as it multiplies
            found = [[*chosen] for chosen in itertools.product(*both) if len(ordered) <= 2]  # a projection a tower
        fitting = [pairs for pairs in found if all(a.shape[1] == b.shape[0] == card.rank for a, b in pairs)]
        if not fitting:
            raise ValueError
        return [Reading(pairs) for pairs in fitting]
    except (KeyError, ValueError, IndexError):
        raise RunFolderError(f"its tensors are not those of {card.placement} at rank {card.rank}") from None


def _place(module: str) -> tuple[object, ...]:
    """Modules in the order of the placement's matrices: text before image, blocks by number, first part first."""
    number = re.search(r"resblocks\.(\d+)\.", module)
    return ".visual" in module, int(number[1]) if number else -1, "c_proj" in module, "out_proj" in module


def _attention(modules: list[Pair], card: AdapterCard) -> list[Pair]:
    """Query, (key,) and value stacked in one module, the output matrix in one of its own."""
    found: list[Pair] = []
    rank, full = card.rank, card.placement == "text-attention-full"
    parts = range(3) if full else (0, 2)
    for (a, b), output in zip(modules[::2], modules[1::2], strict=True):  # peft adapts the output matrix in any case
        width = a.shape[1]
        for place, part in enumerate(parts):
            columns = slice(place * rank, (place + 1) * rank)
            found.append((a[columns].T, b[part * width : (part + 1) * width, columns].T))
        if full:
            a, b = output
            found.append((a[:rank].T, b[:, :rank].T * np.float32(card.output_added)))
    return found
