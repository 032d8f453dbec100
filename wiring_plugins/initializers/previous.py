"""Weights that follow from those of the layer before, as if neurons wired by what their inputs respond to."""
from __future__ import annotations

import math

import numpy as np

from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from .kaiming import std

CLOSE = 0.999
"""Correlations are held below this, so that no mutual information is infinite."""


def previous_std(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """What comes from one input channel is distributed like the weights that make this channel.

    Formula: w[:, i] ~ N(mean, std) of the previous layer's kernel i. Kernels repeat where the layer has more inputs.
    Source: Geiger et al. (ICLR 2022), "prev_std_init". Numbers needed: none of a source.
    """
    kernels = context.previous.reshape(len(context.previous), -1)
    source = np.arange(shape[1]) % len(kernels)
    extra = (1, shape[1]) + (1,) * (len(shape) - 2)
    mean, deviation = (moment(axis=1)[source].reshape(extra) for moment in (kernels.mean, kernels.std))
    return (mean + deviation * rng.standard_normal(shape)).astype(np.float32)


def mutual_information(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """An output listens to the inputs whose kernels say much about that of its own preferred input.

    Formula: w[o, i] = MI(kernel p(o), kernel i) of the previous layer, MI = -½ ln(1 - ρ²) for the correlation ρ of two
    normal variables, ρ² at most .998; mean subtracted, scaled to the deviation of Kaiming weights, the same at each
    pixel. p(o) is a random assignment. Source: Geiger et al. (ICLR 2022), "mi", there by nearest neighbours, for square
    layers only. Numbers needed: none of a source.
    """
    kernels = _unit(context.previous, centred=True)
    mine, inputs = _partners(rng, len(kernels), shape)
    rho = np.clip(kernels[mine] @ kernels[inputs].T, -CLOSE, CLOSE)
    information = -0.5 * np.log1p(-rho ** 2)
    everywhere = np.broadcast_to(information.reshape(rho.shape + (1,) * (len(shape) - 2)), shape)
    return _scaled(everywhere, shape, centred=True)


def correlation(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """An output's slice is the correlation map between an input's kernel and that of its own preferred input.

    Formula: w[o, i, d] = Σ_x K_p(o)(x) · K_i(x + d) over the previous layer's kernels and all shifts d of the slice;
    divided by 4 of the largest, so that |w| ≤ ¼. p(o) is a random assignment.
    Source: Geiger et al. (ICLR 2022), "correlation init". Numbers needed: none of a source.
    """
    maps = _maps(rng, shape, context.previous, flip=False)
    return (maps * (0.25 / max(np.abs(maps).max(), np.finfo(np.float32).tiny))).astype(np.float32)


def kernel_convolution(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """As 'correlation', with one of the two kernels mirrored and both of mean 0 and norm 1.

    Formula: w[o, i, d] = Σ_x K_p(o)(x) · K_i(d - x), so Pearson's correlation at d = 0 of kernels that are symmetric;
    scaled to the deviation of Kaiming weights. Source: Geiger et al. (ICLR 2022), "kernel convolution".
    Numbers needed: none of a source.
    """
    previous = context.previous
    unit = _unit(previous, centred=True).reshape(previous.shape)
    return _scaled(_maps(rng, shape, unit, flip=True), shape, centred=False)


def _unit(kernels: np.ndarray, *, centred: bool) -> np.ndarray:
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    if centred and flat.shape[1] > 1:
        flat = flat - flat.mean(axis=1, keepdims=True)
    norm = np.sqrt((flat ** 2).sum(axis=1, keepdims=True))
    return flat / np.where(norm > 0, norm, 1)


def _partners(rng, kernels: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Previous kernel that each output prefers, at random, and that each input comes from."""
    return rng.randint(0, kernels, shape[0]), np.arange(shape[1]) % kernels


def _maps(rng, shape: tuple[int, ...], kernels: np.ndarray, *, flip: bool) -> np.ndarray:
    """(outputs, inputs, height, width) sums of products of shifted kernels, one matrix product per shift."""
    kernels = kernels.reshape(*kernels.shape[:2], *(kernels.shape[2:] or (1, 1)))
    mine, inputs = _partners(rng, len(kernels), shape)
    first, second = kernels[mine], kernels[inputs]
    turn = -1 if flip else 1
    second = second[:, :, ::turn, ::turn]
    height, width = shape[2:] or (1, 1)
    tall, wide = kernels.shape[2:]
    maps = np.zeros((shape[0], shape[1], height, width))
    for y, x in np.ndindex(height, width):
        dy, dx = turn * (y - height // 2), turn * (x - width // 2)
        if abs(dy) >= tall or abs(dx) >= wide:
            continue  # the kernels do not overlap
        top, left = max(0, -dy), max(0, -dx)
        a = first[:, :, top:tall - max(0, dy), left:wide - max(0, dx)]
        b = second[:, :, top + dy:top + dy + a.shape[2], left + dx:left + dx + a.shape[3]]
        maps[:, :, y, x] = a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
    return maps.reshape(shape)


def _scaled(weights: np.ndarray, shape: tuple[int, ...], *, centred: bool) -> np.ndarray:
    """Scaled to the root mean square of Kaiming weights."""
    weights = weights - weights.mean() if centred else weights
    size = math.sqrt((weights ** 2).mean())
    return (weights * (std(shape) / size if size > 0 else 0)).astype(np.float32)


@hookimpl
def wiring_initializers():
    reference = "Geiger et al., ICLR 2022"
    return [Initializer(name=name, sample=sample, needs=("previous",), reference=reference) for name, sample in (
        ("previous-std", previous_std), ("mutual-information", mutual_information), ("correlation", correlation),
        ("kernel-convolution", kernel_convolution))]
