"""Gabor filters drawn from a prior over their parameters."""
from __future__ import annotations

import math

import numpy as np

from ..errors import WiringError
from ..gabors import render
from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from .kaiming import std


def gabor(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """One Gabor function per output channel, drawn from the source's prior over its parameters.

    Formula: :func:`wiring_plugins.gabors.render` (Geiger et al., ICLR 2022), in units of the layer's input pixels;
    a prior in degrees of visual angle is turned into pixels by the model's commitment. Every colour's slice has zero
    mean, so that the filter is blind to uniform light, and every kernel has the expected norm of a Kaiming kernel,
    sqrt(2 · C_in / C_out). A prior without colour gives every input channel the same Gabor (an achromatic filter).
    Numbers needed: those of the prior.
    """
    prior = getattr(context.statistics, "gabor_prior", None)
    if prior is None:
        raise WiringError(f"Initialiser 'gabor' of layer {context.layer} needs a source with a Gabor prior. "
                          "Name one in the recipe, such as Init('gabor', source='v1-physiology').")
    outputs, inputs, height, width = shape
    kernels = render(prior.sample(rng, outputs, context.pixels_per_degree), height, width)
    kernels = kernels[:, np.arange(inputs) % kernels.shape[1]]
    if height * width > 1:
        kernels = kernels - kernels.mean(axis=(2, 3), keepdims=True)
    norm = np.sqrt((kernels ** 2).sum(axis=(1, 2, 3), keepdims=True))
    target = std(shape) * math.sqrt(math.prod(shape[1:]))
    return (kernels * (target / np.maximum(norm, np.finfo(np.float64).tiny))).astype(np.float32)


@hookimpl
def wiring_initializers():
    return [Initializer(name="gabor", sample=gabor, reference="Geiger et al., ICLR 2022")]
