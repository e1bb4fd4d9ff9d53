"""Frozen dataclasses and plain JSON data: read strictly (every key known, none missing, every value of its type), and
the JSON Schema that says the same."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from flora_secure.errors import PlainError

T = TypeVar("T")


def from_plain(kind: type[T], table: Any, where: str = "") -> T:
    """The inverse of `dataclasses.asdict` after a trip through JSON.

    Args:
        kind: a dataclass whose fields are str, bool, int, float, lists, dictionaries (with str keys), dataclasses, or
            one of these or `None`.
        table: what `json.loads` returned.
        where: prefix of the keys that an error names.

    Raises `PlainError` for unknown and missing keys, and for values of another type: nothing is converted but
    int to float.
    """
    if not isinstance(table, dict):
        raise PlainError(f"{where.rstrip('.') or 'the document'} must be an object, got {table!r:.60}")
    hints = typing.get_type_hints(kind)
    if unknown := table.keys() - hints.keys():
        raise PlainError(f"unknown key {where + min(unknown)!r}")
    if missing := hints.keys() - table.keys():
        raise PlainError(f"key {where + min(missing)!r} is missing")
    return kind(**{key: _value(hint, table[key], where + key) for key, hint in hints.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(kind for kind in arguments if kind is not type(None))
        return _value(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where + ".")
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:  # a bool is no int here
        raise PlainError(f"{where} must be of type {getattr(origin or hint, '__name__', hint)}, got {value!r:.60}")
    return value


def document_schema(kind: type, name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a dataclass's plain data with its schema's `name` under "schema", first."""
    schema = schema_of(kind)
    schema["properties"] = {"schema": {"const": name}, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **schema}


def schema_of(hint: Any) -> dict[str, Any]:
    """The JSON Schema of a dataclass's plain data, or of a type that its fields may have."""
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return {
            "type": "object",
            "description": " ".join((hint.__doc__ or "").split()),
            "properties": {name: schema_of(kind) for name, kind in hints.items()},
            "required": list(hints),
            "additionalProperties": False,
        }
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = next(kind for kind in arguments if kind is not type(None))
        return {"anyOf": [schema_of(inner), {"type": "null"}]}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return {"type": names[hint]}


def finite_or_none(value: float) -> float | None:
    """`None` for infinity, which JSON cannot say; NaN is a bug and raises."""
    if math.isnan(value):
        raise ValueError("a figure of the report is NaN")
    return None if math.isinf(value) else value
