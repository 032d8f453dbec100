"""Critical training: only each area's down-sampling 1x1 convolution (conv3) and the decoder learn."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from ..recipe import Recipe
from .kaiming import KAIMING, in_seeds

CRITICAL = {
    "ct": ("V2.conv3", "V4.conv3", "IT.conv3", "decoder"),
    "ct-v4": ("V2.conv3", "V4.conv3", "IT", "decoder"),
    "ct-v2": ("V2.conv3", "V4", "IT", "decoder"),
}
"""Ending of the name -> what learns. `-v4` and `-v2` name the last area of which only the critical layer learns."""


def critically_trained(birth: Recipe, *endings: str) -> list[Recipe]:
    """Recipes wired as `birth` and trained critically, one for each of `endings`; for all of them if none is given."""
    return [replace(birth, name=f"{birth.name}-{ending}", trainable=CRITICAL[ending], doc=f"""{birth.doc}
    Critical training: of the areas up to {_last(ending)} only conv3 learns, the 1x1 convolution that reduces their
    channels fourfold; {", ".join(path for path in CRITICAL[ending] if "." not in path)} learn as a whole.""")
            for ending in endings or CRITICAL]


def _last(ending: str) -> str:
    return {"ct": "IT", "ct-v4": "V4", "ct-v2": "V2"}[ending]


@hookimpl
def wiring_recipes():
    born = replace(KAIMING, name="wiring", doc="CORnet-S with independent normal weights at birth.")
    return [seeded for recipe in critically_trained(born) for seeded in in_seeds(recipe)]
