"""The Gabor prior alone: everything after the first layer is Kaiming normal."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from .kaiming import KAIMING, in_seeds
from .weight_compression import GABOR

GABOR_ONLY = replace(
    KAIMING, name="wiring-gabor-only", trainable=("decoder",), init={**KAIMING.init, "V1.conv1": GABOR},
    doc="""V1.conv1 drawn from a Gabor prior that was fitted to a trained GoogLeNet, the rest Kaiming normal: what the
    clusters add is the difference from wiring-wc.""",
    reference="Geiger et al., ICLR 2022 (Gabor-only control)",
)


@hookimpl
def wiring_recipes():
    return in_seeds(GABOR_ONLY)
