"""Kaiming normal: the reference work's "KN"."""
from __future__ import annotations

import math

import numpy as np

from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from ..seeding import normal


def std(shape: tuple[int, ...]) -> float:
    """sqrt(2 / (k² · C_out)) for a convolution of shape (C_out, C_in, k, k); sqrt(2 / C_out) for a linear layer."""
    return math.sqrt(2 / (math.prod(shape[2:]) * shape[0]))


def kaiming(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """Independent normal weights that keep the variance of back-propagated signals through a ReLU ("fan out").

    Formula: w ~ N(0, 2 / (k² · C_out)). Source: He et al. (ICCV 2015, arXiv 1502.01852). Numbers needed: none.
    """
    return normal(rng, shape, std=std(shape))


@hookimpl
def wiring_initializers():
    return [Initializer(name="kaiming", sample=kaiming, reference="He et al., ICCV 2015, arXiv 1502.01852")]
