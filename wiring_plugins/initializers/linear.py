"""PyTorch's default weights of a linear layer."""
from __future__ import annotations

import math

import numpy as np

from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext


def uniform_fan_in(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """Independent uniform weights, as PyTorch's `nn.Linear` begins.

    Formula: w ~ U(-b, b), b = 1 / sqrt(fan in). Source: LeCun et al. (1998, Efficient BackProp). Numbers needed: none.
    """
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


@hookimpl
def wiring_initializers():
    return [Initializer(name="uniform-fan-in", sample=uniform_fan_in,
                        reference="LeCun et al., 1998, Efficient BackProp")]
