"""Receptive fields of macaque V1 simple cells, from published recordings alone: nothing here was trained."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..gabors import GaborParameters
from ..hookspecs import hookimpl
from ..recipe import StatisticsSource

REFERENCE = ("De Valois, Yund & Hepler 1982 (Vision Research 22:531); De Valois, Albrecht & Thorell 1982 "
             "(Vision Research 22:545); Ringach 2002 (J Neurophysiology 88:455)")


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of cells in bins. `sample` draws a bin by its count and a value uniformly inside it.

    edges: one more than counts along each of the counts' axes (both axes of a joint histogram share them).
    logarithmic: whether a value is uniform inside its bin in its logarithm.
    """

    counts: tuple
    edges: tuple[float, ...]
    logarithmic: bool

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """(n, d) values, d being the number of the counts' axes."""
        counts = np.asarray(self.counts, dtype=np.float64)
        cumulative = np.cumsum(counts) / counts.sum()
        cells = np.searchsorted(cumulative, rng.random_sample(n), side="right")
        bins = np.stack(np.unravel_index(cells, counts.shape), axis=1)
        edges = np.log(self.edges) if self.logarithmic else np.asarray(self.edges)
        low, high = edges[bins], edges[bins + 1]
        values = low + (high - low) * rng.random_sample(bins.shape)
        return np.exp(values) if self.logarithmic else values


ORIENTATION = Histogram(counts=(66, 49, 77, 54), edges=(-22.5, 22.5, 67.5, 112.5, 157.5), logarithmic=False)
"""Preferred orientation of V1 cells in degrees (De Valois, Yund & Hepler 1982)."""

SPATIAL_FREQUENCY = Histogram(counts=(4, 4, 8, 25, 32, 26, 28, 12),
                              edges=(0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0), logarithmic=True)
"""Peak spatial frequency of foveal simple cells in cycles per degree (De Valois, Albrecht & Thorell 1982)."""

SHAPE = Histogram(counts=((2, 0, 1, 0, 0), (8, 9, 4, 1, 0), (1, 2, 19, 17, 3), (0, 0, 1, 7, 4), (0, 0, 0, 0, 0)),
                  edges=tuple(np.logspace(-1, 0.2, 6).tolist()), logarithmic=True)
"""Receptive-field shape of simple cells: rows n_x = σx·f, columns n_y = σy·f, in cycles (Ringach 2002)."""


@dataclass(frozen=True)
class PhysiologyPrior:
    """Gabor parameters of V1 simple cells. The three histograms are drawn independently; phase is uniform."""

    orientation: Histogram = ORIENTATION
    spatial_frequency: Histogram = SPATIAL_FREQUENCY
    shape: Histogram = SHAPE

    def sample(self, rng: np.random.RandomState, n: int, *, size: int, pixels_per_degree: float) -> GaborParameters:
        """n achromatic Gabors, centred on the kernel, of amplitude 1, whatever its size; arrays (n, 1), in pixels."""
        orientation = np.deg2rad(self.orientation.sample(rng, n))
        frequency = self.spatial_frequency.sample(rng, n) / pixels_per_degree
        sigmas = self.shape.sample(rng, n) / frequency
        phase = rng.uniform(0, 2 * np.pi, (n, 1))
        nought = np.zeros((n, 1))
        return GaborParameters(frequency=frequency, orientation=orientation, sigma_x=sigmas[:, :1],
                               sigma_y=sigmas[:, 1:], phase=phase, x=nought, y=nought, scale=nought + 1)

    def numbers(self) -> int:
        """How many published counts the prior is made of."""
        return sum(np.size(histogram.counts) for histogram in (self.orientation, self.spatial_frequency, self.shape))


@dataclass(frozen=True)
class V1Physiology:
    """The same prior for any layer that asks: it is about V1, not about a layer of a network."""

    gabor_prior: PhysiologyPrior = PhysiologyPrior()

    def layer(self, path: str) -> V1Physiology:
        return self


@hookimpl
def wiring_statistics():
    return [StatisticsSource(name="v1-physiology", load=V1Physiology, trained=False,
                             doc="Preferred orientation, peak spatial frequency and receptive-field shape of macaque V1 "
                                 "simple cells; phase uniform. Published recordings, no trained network.",
                             reference=REFERENCE)]
