"""Kernels put together from a few typical slices."""
from __future__ import annotations

import numpy as np

from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from ..resample import resize
from ..seeding import quick_normal
from .held import held, numbers_of

BLOCK = 1 << 19
"""Weights that are drawn at a time: little enough to stay in the processor's cache."""


def cluster(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
            faithful: bool = False) -> np.ndarray:
    """Every input channel's slice is the centre of one of K clusters plus noise; how many of a kernel's channels are of
    which cluster varies from kernel to kernel.

    Formula: n_j ~ N(mean_j, std_j) · C_in / C_in of the source, negative counts 0, scaled to add up to C_in and rounded
    up or down at random, so that shares are right for a single channel too; the channels in random order; w = centre_j
    + N(0, spread_j). Centres are resampled to the layer's kernel size.
    faithful: as the reference code does, |n_j| is rounded, clusters fill the channels in order until these run out, the
    last one takes what remains, and the slices of a 1x1 layer are the bare centres.
    Source: Geiger et al. (ICLR 2022). Numbers needed: K · k² of the centres and 3 K.
    """
    clusters = held(context, "clusters", "cluster")
    outputs, inputs = shape[:2]
    size = shape[2:] or (1, 1)
    centers = resize(clusters.centers, *size).reshape(len(clusters.centers), -1)
    spread = np.zeros_like(clusters.spread) if faithful and clusters.centers.shape[1:] == (1, 1) else clusters.spread
    count = _published_counts if faithful else _scaled_counts
    ends = count(rng, clusters, outputs, inputs)

    weights = np.empty((outputs, inputs, centers.shape[1]), dtype=np.float32)
    rows = max(1, BLOCK // weights[0].size)
    for start in range(0, outputs, rows):
        block = weights[start:start + rows]
        labels = _shuffled(rng, _labels(ends[start:start + rows], inputs))
        if spread.any():
            quick_normal(rng, block)
            block *= spread[labels][..., None]
            block += centers[labels]
        else:
            np.take(centers, labels, axis=0, out=block)
    return weights.reshape(shape)


def _scaled_counts(rng, clusters, outputs: int, inputs: int) -> np.ndarray:
    """(outputs, K): where each cluster's run of channels ends; the last always at `inputs`."""
    counts = clusters.count_mean + clusters.count_std * rng.standard_normal((outputs, len(clusters.count_mean)))
    counts = np.maximum(counts, 0)
    counts[counts.sum(axis=1) == 0] = clusters.count_mean
    ends = np.cumsum(counts, axis=1)
    ends = np.floor(ends / ends[:, -1:] * inputs + rng.random_sample((outputs, 1)))  # 2.3 is 2 or, 3 times of 10, 3
    return np.minimum(ends, inputs).astype(np.int64)


def _published_counts(rng, clusters, outputs: int, inputs: int) -> np.ndarray:
    counts = clusters.count_mean + clusters.count_std * rng.standard_normal((outputs, len(clusters.count_mean)))
    ends = np.cumsum(np.abs(np.rint(counts * (inputs / clusters.inputs))), axis=1)
    ends[:, -1] = inputs
    return np.minimum(ends, inputs).astype(np.int64)


def _labels(ends: np.ndarray, inputs: int) -> np.ndarray:
    """(outputs, inputs) cluster numbers in ascending order, one run per cluster."""
    clusters = np.tile(np.arange(ends.shape[1], dtype=np.uint32), len(ends))
    return np.repeat(clusters, np.diff(ends, axis=1, prepend=0).ravel()).reshape(len(ends), inputs)


def _shuffled(rng, labels: np.ndarray) -> np.ndarray:
    """Each row in a random order: sorted by 24 random bits that stand before the label's 8 bits in one number."""
    keys = rng.randint(0, 1 << 24, labels.shape, dtype=np.uint32)
    keys <<= 8
    keys |= labels
    keys.sort(axis=1)
    keys &= 255
    return keys


@hookimpl
def wiring_initializers():
    return [Initializer(name="cluster", sample=cluster, numbers=numbers_of("clusters", "cluster"),
                        reference="Geiger et al., ICLR 2022")]
