"""A control for critical training: each area's first, widening 1x1 convolution learns instead of its last."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from .kaiming import KAIMING, in_seeds

CONV1 = {
    "conv1": ("V2.conv1", "V4.conv1", "IT.conv1", "decoder"),
    "conv1-v4": ("V2.conv1", "V4.conv1", "IT", "decoder"),
    "conv1-v2": ("V2.conv1", "V4", "IT", "decoder"),
}
"""Ending of the name -> what learns. `-v4` and `-v2` name the last area of which only conv1 learns."""


@hookimpl
def wiring_recipes():
    return [seeded for ending, trainable in CONV1.items() for seeded in in_seeds(replace(
        KAIMING, name=f"wiring-{ending}", trainable=trainable,
        doc=f"CORnet-S with independent normal weights at birth, of which {', '.join(trainable)} learn: a control with "
            "as many synapses as critical training, in each area's widening convolution."))]
