"""CORnet-S wired from few numbers ("WC"): Gabors in the first layer, clusters of kernel slices in all others."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from ..recipe import Init
from .kaiming import KAIMING, in_seeds

SOURCE = "googlenet"

CONVOLUTIONS = tuple(path for path in KAIMING.init if path != "decoder.linear")

GABOR = Init("gabor", source=SOURCE, params={"zero_mean": False})
"""V1.conv1 of this family's recipes but the one without Gabors; colours keep their means, as in the reference work."""

WC = replace(
    KAIMING, name="wiring-wc", trainable=("decoder",),
    init={**KAIMING.init, **{path: Init("cluster", source=SOURCE) for path in CONVOLUTIONS}, "V1.conv1": GABOR},
    doc="""Weight compression, at birth: V1.conv1 drawn from a Gabor prior, the other 16 convolutions from clusters of
    kernel slices, both fitted to a trained GoogLeNet. BatchNorm is calibrated without labels. The decoder may
    learn.""",
    reference='Geiger et al., ICLR 2022 ("WC")',
)


@hookimpl
def wiring_recipes():
    return in_seeds(WC)
