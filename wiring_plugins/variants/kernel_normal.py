"""Weight compression with one normal distribution per kernel in place of clusters."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from ..recipe import Init
from .kaiming import in_seeds
from .weight_compression import CONVOLUTIONS, GABOR, SOURCE, WC

KERNEL_NORMAL = replace(
    WC, name="wiring-kernel-normal",
    init={**WC.init, **{path: Init("kernel-normal", source=SOURCE) for path in CONVOLUTIONS}, "V1.conv1": GABOR},
    doc="""V1.conv1 drawn from a Gabor prior; in the other convolutions every kernel is normal, with a mean and standard
    deviation that a trained GoogLeNet's kernels have.""",
    reference='Geiger et al., ICLR 2022 ("Kernel normal")',
)


@hookimpl
def wiring_recipes():
    return in_seeds(KERNEL_NORMAL)
