"""CORnet-S whose first layer is a bank of Gabors drawn from primate physiology; V1 stays as born, the rest may learn."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from ..recipe import Init
from .kaiming import KAIMING, in_seeds

GABOR_FROZEN = replace(
    KAIMING, name="wiring-gabor-frozen",
    init={**KAIMING.init, "V1.conv1": Init("gabor", source="v1-physiology")},
    trainable=("V2", "V4", "IT", "decoder"),
    doc="""V1.conv1 is a bank of Gabors whose orientation, spatial frequency and shape follow published recordings from
    macaque V1. All of V1 is frozen; everything after it is Kaiming normal at birth and may learn.""",
    reference="Geiger et al., ICLR 2022; De Valois et al. 1982a, 1982b; Ringach 2002",
)


@hookimpl
def wiring_recipes():
    return in_seeds(GABOR_FROZEN)
