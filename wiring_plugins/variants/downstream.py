"""Downstream training: the early areas stay as they were born, and everything after them learns."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from .kaiming import KAIMING, in_seeds

DOWNSTREAM = {
    "decoder": ("decoder",),
    "it": ("IT", "decoder"),
    "v4": ("V4", "IT", "decoder"),
    "v2": ("V2", "V4", "IT", "decoder"),
}
"""Ending of the name, the first part that learns -> what learns."""


@hookimpl
def wiring_recipes():
    return [seeded for ending, trainable in DOWNSTREAM.items() for seeded in in_seeds(replace(
        KAIMING, name=f"wiring-dt-{ending}", trainable=trainable,
        doc=f"CORnet-S with independent normal weights at birth, of which {', '.join(trainable)} learn."))]
