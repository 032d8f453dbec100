"""Weight compression without the Gabor prior: clusters everywhere."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from ..recipe import Init
from .kaiming import in_seeds
from .weight_compression import SOURCE, WC

NO_GABOR = replace(
    WC, name="wiring-no-gabor", init={**WC.init, "V1.conv1": Init("cluster", source=SOURCE)},
    doc="""All 17 convolutions, the first too, from clusters of kernel slices of a trained GoogLeNet: what the Gabor
    prior adds is the difference from wiring-wc.""",
    reference="Geiger et al., ICLR 2022 (all-cluster control)",
)


@hookimpl
def wiring_recipes():
    return in_seeds(NO_GABOR)
