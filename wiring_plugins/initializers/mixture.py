"""Slices or whole kernels drawn from a mixture of normal distributions."""
from __future__ import annotations

import math

import numpy as np

from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from ..resample import resize
from .held import held, numbers_of


def slice_mixture(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """Every slice (one input channel of one kernel) is an independent draw from a mixture of normal distributions.

    Formula: slice ~ Σ_j p_j N(μ_j, L_j L_jᵀ) in k² dimensions. Another kernel size than the source's is resampled.
    Source: Geiger et al. (ICLR 2022), "weight mixture" over channels. Numbers needed: those of the mixture.
    """
    mixture = held(context, "slices", "slice-mixture")
    outputs, inputs = shape[:2]
    weights = np.empty((outputs, inputs, math.prod(shape[2:])), dtype=np.float32)
    size = context.statistics.shape[2:] or (1, 1)
    rows = max(1, (1 << 16) // inputs)
    for start in range(0, outputs, rows):
        block = weights[start:start + rows]
        slices = mixture.sample(rng, block.shape[0] * inputs).reshape(-1, *size)
        block[:] = resize(slices, *(shape[2:] or (1, 1))).reshape(block.shape)
    return weights.reshape(shape)


def kernel_mixture(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """Every kernel, all its channels together, is an independent draw from a mixture of normal distributions.

    Formula: kernel ~ Σ_j p_j N(μ_j, diag σ_j²) in C_in · k² dimensions. Where the layer has other inputs than the
    source, the source's channels repeat; another kernel size is resampled.
    Source: Geiger et al. (ICLR 2022), "weight mixture" over kernels, there with full covariances of C_in · k²
    dimensions, which no layer has kernels enough to fit. Numbers needed: those of the mixture.
    """
    mixture = held(context, "whole_kernels", "kernel-mixture")
    outputs, inputs = shape[:2]
    source_inputs, *size = context.statistics.shape[1:]
    kernels = mixture.sample(rng, outputs).reshape(outputs, source_inputs, *(size or (1, 1)))
    kernels = resize(kernels, *(shape[2:] or (1, 1)))[:, np.arange(inputs) % source_inputs]
    return np.ascontiguousarray(kernels, dtype=np.float32).reshape(shape)


@hookimpl
def wiring_initializers():
    reference = "Geiger et al., ICLR 2022"
    return [Initializer(name="slice-mixture", sample=slice_mixture, numbers=numbers_of("slices", "slice-mixture"),
                        reference=reference),
            Initializer(name="kernel-mixture", sample=kernel_mixture,
                        numbers=numbers_of("whole_kernels", "kernel-mixture"), reference=reference)]
