"""Weight compression with mixtures of normal distributions over 3x3 slices."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from ..recipe import Init
from .kaiming import in_seeds
from .kernel_normal import KERNEL_NORMAL
from .weight_compression import SOURCE

THREE_BY_THREE = ("V1.conv2", "V2.conv2", "V4.conv2", "IT.conv2")

MIXTURE = replace(
    KERNEL_NORMAL, name="wiring-mixture",
    init={**KERNEL_NORMAL.init, **{path: Init("slice-mixture", source=SOURCE) for path in THREE_BY_THREE}},
    doc="""V1.conv1 drawn from a Gabor prior, the 3x3 slices from mixtures of normal distributions, and the kernels of
    the 1x1 convolutions from one normal distribution each; all fitted to a trained GoogLeNet.""",
    reference='Geiger et al., ICLR 2022 ("Mixture gaussian")',
)


@hookimpl
def wiring_recipes():
    return in_seeds(MIXTURE)
