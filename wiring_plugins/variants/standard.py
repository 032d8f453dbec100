"""CORnet-S with Kaiming-normal weights of which all learn: standard training."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from .kaiming import KAIMING, in_seeds

STANDARD = replace(
    KAIMING, name="wiring-standard",
    doc="""CORnet-S with independent normal weights at birth; every synapse learns. This is standard training, which the
    other recipes are measured against.""",
)


@hookimpl
def wiring_recipes():
    return in_seeds(STANDARD)
