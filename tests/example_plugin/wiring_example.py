"""CORnet-S whose first layer holds random signs instead of random numbers."""
from dataclasses import replace

import numpy as np
from wiring_plugins import Init, Initializer, hookimpl
from wiring_plugins.variants.kaiming import KAIMING


def signs(rng, shape, context, *, scale=0.1):
    """Weights of one size and random sign. Formula: w = ± scale, each with probability 1/2. Numbers needed: one."""
    return (scale * (2 * rng.randint(0, 2, shape) - 1)).astype(np.float32)


@hookimpl
def wiring_initializers():
    return [Initializer(name="example-signs", sample=signs)]


@hookimpl
def wiring_recipes():
    return [replace(KAIMING, name="example-signs", doc=__doc__,
                    init={**KAIMING.init, "V1.conv1": Init("example-signs", params={"scale": 0.05})})]
