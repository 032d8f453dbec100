"""Clusters of a layer's kernel slices."""
from __future__ import annotations

import itertools

import numpy as np

from ..errors import WiringError
from ..statistics.types import CLUSTERS_AT_MOST, Clusters
from .threads import single_threaded

SAMPLE = 20_000
"""Slices that k-means itself sees; all slices are then assigned, and the centres moved to their means."""

MOST_CLUSTERS = 12

WORTHWHILE = 0.03
"""One more cluster is worth its numbers if it explains this much more of the slices' variance."""

STEPS = 100
"""Most steps that k-means takes for one number of clusters."""

CANDIDATES = 64
"""Slices that are tried as the place of one cluster more."""

ROUNDS = 3
"""Times that all slices are assigned and the centres moved."""

REFERENCE_K = {"V1.conv1": 8, "V1.conv2": 7, "V2.conv2": 5, "V4.conv2": 8, "IT.conv2": 4}
"""Clusters per convolution of CORnet-S in the reference work; 2 in its 1x1 layers."""


@single_threaded
def fit_clusters(weights: np.ndarray, *, k: int | None = None, seed: int = 0) -> Clusters:
    """k-means over all height x width slices of `weights` (kernels, inputs, height, width).

    k: this many, instead of the least number in 2..12 after which one more explains less than 3 % more of the variance.

    Raises:
        WiringError: fewer different slices than clusters, or more clusters than a source can hold.
    """
    if (k or 1) > CLUSTERS_AT_MOST:
        raise WiringError(f"{k} clusters are more than a source can hold. Ask for at most {CLUSTERS_AT_MOST}.")
    outputs, inputs, *size = weights.shape
    slices = np.ascontiguousarray(weights, dtype=np.float32).reshape(outputs * inputs, -1)
    rng = np.random.RandomState(seed)
    sample = slices if len(slices) <= SAMPLE else slices[np.sort(rng.choice(len(slices), SAMPLE, replace=False))]
    different = len(np.unique(sample, axis=0))
    if (k or 1) > different:
        raise WiringError(f"{k} clusters cannot be made of {different} different slices. Ask for at most {different}.")
    if k:
        centers, _ = next(itertools.islice(_grown(sample, seed), k - 1, None))
    else:
        centers = _enough(sample, min(different, MOST_CLUSTERS), seed)
    for _ in range(ROUNDS):
        labels, sums, squares = _assign(slices, centers)
        members = np.bincount(labels, minlength=len(centers))
        centers = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], centers)
    labels, sums, squares = _assign(slices, centers)
    members = np.maximum(np.bincount(labels, minlength=len(centers)), 1)
    spread = np.sqrt(squares / (members * slices.shape[1]))
    counts = np.stack([np.bincount(row, minlength=len(centers)) for row in labels.reshape(outputs, inputs)])
    order = np.argsort(-counts.sum(axis=0), kind="stable")
    return Clusters(centers=centers[order].reshape(-1, *size).astype(np.float32), inputs=inputs,
                    count_mean=counts.mean(axis=0)[order].astype(np.float32),
                    count_std=counts.std(axis=0)[order].astype(np.float32), spread=spread[order].astype(np.float32))


def _grown(sample: np.ndarray, seed: int):
    """Centres of 1, 2, 3, ... clusters and the squared distance that each leaves, without end.

    A cluster more begins at that of some random slices which would take most away, or at the farthest slice if none of
    these would take any, and Lloyd's steps follow ("fast global k-means"; Likas et al. 2003, Pattern Recognition
    36:451). Nothing depends on the order of sums by more than
    their rounding, so that machines agree.
    """
    rng = np.random.RandomState(seed)
    centers = sample.mean(axis=0, dtype=np.float64)[None]
    while True:
        for _ in range(STEPS):
            labels, sums, squares = _assign(sample, centers)
            members = np.bincount(labels, minlength=len(centers))
            moved = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], centers)
            settled = np.abs(moved - centers).max() <= 1e-6 * np.abs(moved).max()
            centers = moved
            if settled:
                break
        yield centers, squares.sum()
        nearest = ((sample - centers[labels]) ** 2).sum(axis=1)
        candidates = sample[rng.randint(0, len(sample), CANDIDATES)].astype(np.float64)
        gains = [np.maximum(0, nearest - ((sample - candidate) ** 2).sum(axis=1)).sum() for candidate in candidates]
        best = candidates[int(np.argmax(gains))] if max(gains) > 0 else sample[nearest.argmax()]
        centers = np.concatenate([centers, best[None]])


def _enough(sample: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Centres of as many clusters as are worth their numbers."""
    grown = _grown(sample, seed)
    now, unexplained = next(grown)
    total = unexplained
    for k, (centers, left) in zip(range(2, most + 1), grown):
        if k > 2 and unexplained - left < WORTHWHILE * total:
            break
        now, unexplained = centers, left
    return now


def _assign(slices: np.ndarray, centers: np.ndarray):
    """Nearest centre of every slice, and per centre the sum of its slices and their squared distance from it."""
    labels = np.empty(len(slices), dtype=np.int64)
    sums, squares = np.zeros_like(centers), np.zeros(len(centers))
    lengths, chunk = (centers ** 2).sum(axis=1), 1 << 16
    for start in range(0, len(slices), chunk):
        part = slices[start:start + chunk].astype(np.float64)
        nearest = (lengths - 2 * part @ centers.T).argmin(axis=1)
        labels[start:start + chunk] = nearest
        distance = ((part - centers[nearest]) ** 2).sum(axis=1)
        squares += np.bincount(nearest, weights=distance, minlength=len(centers))
        for dimension in range(part.shape[1]):
            sums[:, dimension] += np.bincount(nearest, weights=part[:, dimension], minlength=len(centers))
    return labels, sums, squares
