"""Statistics on disk: one small JSON file per source, that people can read and that cannot execute anything."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import types
import typing
from pathlib import Path

import numpy as np

from ..errors import CorruptFile, WiringError
from ..files import replacing
from .types import LayerStatistics, Statistics

FORMAT = "wiring-statistics/1"
LARGEST = 256 << 20
"""Bytes of the largest file that is read."""

FOLDER = "WIRING_STATISTICS"
"""Environment variable: the folder of the user's own statistics files."""


def user_folder() -> Path:
    """Where imported and fetched sources lie: `$WIRING_STATISTICS`, or a folder of this program in the user's data."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    import platformdirs
    return Path(platformdirs.user_data_dir("wiring-plugins")) / "statistics"


def encode(statistics: Statistics) -> str:
    """The file's text, the same for equal statistics; every number is the shortest that reads back as its float32."""
    plain = {"format": FORMAT, "provenance": statistics.provenance, "areas": dict(statistics.areas),
             "layers": {name: _plain(layer) for name, layer in statistics.layers.items()}}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in plain.items() if key != "layers"]
    layers = ",\n".join(f" {json.dumps(name)}: {json.dumps(layer)}" for name, layer in plain["layers"].items())
    return "{" + ",\n".join(lines) + ',\n"layers": {\n' + layers + "\n}}\n"


def write(statistics: Statistics, path: Path) -> None:
    """Write the file whole or not at all."""
    with replacing(path) as part:
        part.write_text(encode(statistics), encoding="utf-8")


def read(path: Path) -> Statistics:
    """The statistics in a file.

    Raises:
        WiringError: there is no such file. CorruptFile: it is no statistics file, or its parts do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise WiringError(f"There is no statistics file {path}. `wiring fit CHECKPOINT -o FILE` makes one.")
    if path.stat().st_size > LARGEST:
        raise CorruptFile(f"{path} has {path.stat().st_size >> 20} MiB; statistics are small, {LARGEST >> 20} MiB at "
                          "most.")
    try:
        return decode(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise CorruptFile(f"{path} is no statistics file of the format {FORMAT} ({type(error).__name__}: {error}). "
                          "It may be truncated; make or get it again.") from error
    except CorruptFile as error:
        raise CorruptFile(f"{path} cannot be used. {error}") from error


def decode(text: str) -> Statistics:
    """Inverse of :func:`encode`."""
    plain = json.loads(text, parse_constant=_refuse_constant)
    if plain["format"] != FORMAT:
        raise ValueError(f"format {plain['format']!r}")
    layers = {name: _build(LayerStatistics, layer) for name, layer in plain["layers"].items()}
    return Statistics(layers, areas=dict(plain["areas"]), provenance=dict(plain["provenance"]))


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_constant(name: str):
    raise ValueError(f"the number {name}")


def _plain(value):
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(item) for name, item in fields.items() if item is not None}
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value] if value.ndim else _plain(value.item())
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(str(np.float32(value)))
    return int(value) if isinstance(value, np.integer) else value


def _build(kind, plain):
    """An instance of the dataclass `kind` from its JSON; every array becomes float32 and has to be finite."""
    if isinstance(kind, types.UnionType):
        kind = typing.get_args(kind)[0]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if unknown := plain.keys() - hints.keys():
            raise ValueError(f"unknown part {sorted(unknown)[0]!r}")
        return kind(**{name: _build(hints[name], item) for name, item in plain.items()})
    if kind is np.ndarray:
        array = np.asarray(plain, dtype=np.float32)
        if not np.isfinite(array).all():
            raise ValueError("a number that is not finite")
        return array
    if typing.get_origin(kind) is tuple:
        return tuple(int(item) for item in plain)
    if kind is float:
        return float(np.float32(plain))
    if not isinstance(plain, kind):
        raise TypeError(f"{plain!r} where {kind.__name__} belongs")
    return plain
