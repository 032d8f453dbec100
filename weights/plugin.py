"""Trained weights of this package: those that `manifest.json` lists, by recipe.

`wiring export RUN -o weights/FILE.safetensors --manifest weights/manifest.json` writes an entry: `recipe`, `file` (beside
the manifest), `sha256`, and for people `classes`, `data`, `top1`, `ledger` and `licence`.
"""
import json
from functools import cache
from pathlib import Path

from wiring_plugins import WeightsRef, hookimpl

FOLDER = Path(__file__).parent


@cache
def manifest() -> dict[str, dict]:
    """Recipe name -> its entry."""
    return {entry["recipe"]: entry for entry in json.loads((FOLDER / "manifest.json").read_text())}


@hookimpl
def wiring_locate_weights(recipe):
    entry = manifest().get(recipe.name)
    return entry and WeightsRef(kind="delta", file=str(FOLDER / entry["file"]), sha256=entry["sha256"])
