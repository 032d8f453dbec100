"""Gabor filters drawn from a prior over their parameters."""
from __future__ import annotations

import math

import numpy as np

from ..errors import WiringError
from ..gabors import render
from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from .held import held, numbers_of
from .kaiming import std


def gabor(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
          zero_mean: bool = True) -> np.ndarray:
    """One Gabor function per output channel and colour, drawn from the source's prior over its parameters.

    Formula: :func:`wiring_plugins.gabors.render` (Geiger et al., ICLR 2022), in units of the layer's input pixels.
    A prior in degrees of visual angle is turned into pixels by the model's commitment; one that was fitted to kernels is
    scaled to this layer's kernel size. Every kernel has the expected norm of a Kaiming kernel, sqrt(2 · C_in / C_out).
    A prior without colour gives every input channel the same Gabor (an achromatic filter).
    zero_mean: every colour's slice has zero mean, so that the filter is blind to uniform light; without it, as in the
    reference work, blobs that compare colours stay.
    Numbers needed: those of the prior.
    """
    outputs, inputs, height, width = _conv(shape, "gabor", context)
    prior = held(context, "gabor_prior", "gabor")
    gabors = prior.sample(rng, outputs, size=max(height, width), pixels_per_degree=context.pixels_per_degree)
    return _finish(render(gabors, height, width), shape, zero_mean)


def _conv(shape: tuple[int, ...], kind: str, context: LayerContext) -> tuple[int, ...]:
    if len(shape) != 4:
        raise WiringError(f"Initialiser {kind!r} draws pictures, and layer {context.layer} of shape {shape} has no "
                          "height and width. Give it to a convolution.")
    return shape


def _finish(kernels: np.ndarray, shape: tuple[int, ...], zero_mean: bool) -> np.ndarray:
    """Colours repeated over the layer's inputs, mean and norm set."""
    outputs, inputs, height, width = shape
    kernels = kernels[:, np.arange(inputs) % kernels.shape[1]]
    if zero_mean and height * width > 1:
        kernels = kernels - kernels.mean(axis=(2, 3), keepdims=True)
    norm = np.sqrt((kernels ** 2).sum(axis=(1, 2, 3), keepdims=True))
    target = std(shape) * math.sqrt(math.prod(shape[1:]))
    return (kernels * (target / np.maximum(norm, np.finfo(np.float64).tiny))).astype(np.float32)


@hookimpl
def wiring_initializers():
    return [Initializer(name="gabor", sample=gabor, numbers=numbers_of("gabor_prior"), reference="Geiger et al., ICLR 2022")]
