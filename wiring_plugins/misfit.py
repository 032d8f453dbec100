"""Whether data is of the types that its dataclasses are annotated with."""
from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal


def misfit(value: Any, kind: Any, name: str) -> str | None:
    """The first part of `value` that is not of the annotated `kind`, as a sentence that begins with its name, or None.

    >>> from wiring_plugins import BatchNorm
    >>> misfit(BatchNorm(statistics="calibratd"), BatchNorm, "batch_norm")
    "batch_norm.statistics is 'calibratd', and has to be 'unit' or 'calibrated' or 'borrowed'."
    """
    if isinstance(kind, types.UnionType):  # X | None
        if value is None:
            return None
        kind, _ = typing.get_args(kind)
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is Any:
        return None
    if origin is Literal:
        legal, fits = " or ".join(map(repr, arguments)), value in arguments
    else:
        legal, fits = f"of type {origin.__name__}", isinstance(value, (int, float) if origin is float else origin)
    if not fits:
        return f"{name} is {value!r}, and has to be {legal}."
    return next(filter(None, (misfit(*part) for part in _parts(value, origin, arguments, name))), None)


def _parts(value: Any, origin: Any, arguments: tuple, name: str) -> Iterator[tuple[Any, Any, str]]:
    """Value, kind and name of each item or field."""
    if origin is tuple:
        for place, item in enumerate(value):
            yield item, arguments[0], f"{name}[{place}]"
    elif origin is Mapping:
        for key, item in value.items():
            yield item, arguments[1], f"{name}[{key!r}]"
    elif dataclasses.is_dataclass(origin):
        for field, kind in _fields(origin).items():
            yield getattr(value, field), kind, f"{name}.{field}"


@cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
