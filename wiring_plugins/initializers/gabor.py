"""Gabor filters drawn from a prior over their parameters."""
from __future__ import annotations

import itertools
import math

import numpy as np

from ..errors import WiringError
from ..gabors import render
from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from ..statistics.types import GABOR_FIELDS, PER_COLOUR, from_vectors, gabor_parameters, to_vectors
from .held import held, numbers_of
from .kaiming import std


def gabor(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
          zero_mean: bool = True) -> np.ndarray:
    """One Gabor function per output channel and colour, drawn from the source's prior over its parameters.

    Formula: :func:`wiring_plugins.gabors.render` (Geiger et al., ICLR 2022), in units of the layer's input pixels.
    A prior in degrees of visual angle is turned into pixels by the model's commitment; one that was fitted to kernels
    is scaled to this layer's kernel size. Every kernel has the expected norm of a Kaiming kernel, sqrt(2 · C_in /
    C_out). A prior without colour gives every input channel the same Gabor (an achromatic filter).
    zero_mean: every colour's slice has zero mean, so that the filter is blind to uniform light; without it, as in the
    reference work, blobs that compare colours stay.
    Numbers needed: those of the prior.
    """
    outputs, inputs, height, width = _conv(shape, "gabor", context)
    prior = held(context, "gabor_prior", "gabor")
    gabors = prior.sample(rng, outputs, size=max(height, width), pixels_per_degree=context.pixels_per_degree)
    return _finish(render(gabors, height, width), shape, zero_mean)


def gabor_independent(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
                      zero_mean: bool = True) -> np.ndarray:
    """Gabors whose parameters are drawn each for itself: what the mixture's correlations add is the difference.

    Formula: every entry of the vector (f, sin 2θ, cos 2θ, σx, σy, sin φ, cos φ, x, y, scale) of every colour ~ N(mean,
    std) over the source's fitted filters, clipped to the fits' range; the rest as in 'gabor'.
    Source: Geiger et al. (ICLR 2022), "gabor_dist". Numbers needed: 20 and, of the ranges, 16 per colour.
    """
    _, _, height, width = _conv(shape, "gabor-independent", context)
    fits = held(context, "gabors", "gabor-independent")
    vectors = to_vectors(fits.table)
    drawn = vectors.mean(axis=0) + vectors.std(axis=0) * rng.standard_normal((shape[0], *vectors.shape[1:]))
    table = np.clip(from_vectors(drawn), fits.table.min(axis=0), fits.table.max(axis=0))
    return _drawn(table, fits.size, shape, zero_mean)


def gabor_fitted(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
                 zero_mean: bool = True) -> np.ndarray:
    """The source's fitted Gabors themselves, in a random order; they repeat where the layer has more kernels.

    Formula: as in 'gabor'. Source: Geiger et al. (ICLR 2022), "gabor_fit". Numbers needed: 8 per filter and colour.
    """
    _conv(shape, "gabor-fitted", context)
    fits = held(context, "gabors", "gabor-fitted")
    return _drawn(fits.table[_order(rng, len(fits.table), shape[0])], fits.size, shape, zero_mean)


def gabor_shuffled(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
                   zero_mean: bool = True) -> np.ndarray:
    """The source's fitted Gabors with every parameter, all colours together, dealt anew among the filters.

    Formula: as in 'gabor'. Source: Geiger et al. (ICLR 2022), "scrumble". Numbers needed: 8 per filter and colour.
    """
    _conv(shape, "gabor-shuffled", context)
    fits = held(context, "gabors", "gabor-shuffled")
    columns = [fits.table[_order(rng, len(fits.table), shape[0])][:, :, column]
               for column in range(fits.table.shape[2])]
    return _drawn(np.stack(columns, axis=2), fits.size, shape, zero_mean)


def gabor_bank(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
               cycles: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0), orientations: int = 4,
               widths: tuple[float, ...] = (0.15, 0.3), phases: int = 2) -> np.ndarray:
    """A fixed bank of achromatic Gabors, in a random order; it repeats where the layer has more kernels.

    Formula: as in 'gabor', all combinations of `cycles` per kernel, `orientations` over 180 degrees, round envelopes of
    `widths` (standard deviation, in kernels) and `phases` over 180 degrees. Source: Geiger et al. (ICLR 2022), "fixed".
    Numbers needed: none of a source.
    """
    _, _, height, width = _conv(shape, "gabor-bank", context)
    size = max(height, width)
    if not (cycles and widths and min(widths) > 0 and orientations >= 1 and phases >= 1):
        raise WiringError(f"Init('gabor-bank') of {context.layer} has cycles={cycles}, orientations={orientations}, "
                          f"widths={widths}, phases={phases}. Each needs one or more, and widths are above 0.")
    combinations = itertools.product(cycles, np.arange(orientations) * np.pi / orientations, widths,
                                     np.arange(phases) * np.pi / phases)
    bank = np.array([(f / size, theta, sigma * size, sigma * size, phi, 0, 0, 1)
                     for f, theta, sigma, phi in combinations])
    return _drawn(bank[_order(rng, len(bank), shape[0])][:, None], size, shape, zero_mean=True)


def _order(rng, there: int, wanted: int) -> np.ndarray:
    """`wanted` of `there` things: each as often as any other, as far as that goes, in a random order."""
    return np.concatenate([rng.permutation(there) for _ in range(-(-wanted // there))])[:wanted]


def _drawn(table: np.ndarray, size: int, shape: tuple[int, ...], zero_mean: bool) -> np.ndarray:
    _, _, height, width = shape
    gabors = gabor_parameters(table, zoom=max(height, width) / size)
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


def _numbers_of_ranges(shape: tuple[int, ...], context: LayerContext, **params) -> int:
    return (2 * PER_COLOUR + 2 * len(GABOR_FIELDS)) * held(context, "gabors", "gabor-independent").table.shape[1]


@hookimpl
def wiring_initializers():
    reference = "Geiger et al., ICLR 2022"
    return [
        Initializer(name="gabor", sample=gabor, numbers=numbers_of("gabor_prior", "gabor"), reference=reference),
        Initializer(name="gabor-independent", sample=gabor_independent, numbers=_numbers_of_ranges,
                    reference=reference),
        Initializer(name="gabor-fitted", sample=gabor_fitted, numbers=numbers_of("gabors", "gabor-fitted"),
                    reference=reference),
        Initializer(name="gabor-shuffled", sample=gabor_shuffled, numbers=numbers_of("gabors", "gabor-shuffled"),
                    reference=reference),
        Initializer(name="gabor-bank", sample=gabor_bank, reference=reference),
    ]
