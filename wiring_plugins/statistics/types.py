"""The small distributions that a layer's weights are sampled from, as plain arrays.

All arrays are float32: that is the precision at which the numbers of a source are kept, shipped and counted.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np

from ..errors import CorruptFile, UnknownName
from ..gabors import GaborParameters

GABOR_FIELDS = ("frequency", "orientation", "sigma_x", "sigma_y", "phase", "x", "y", "scale")
"""The order of the last axis of :attr:`GaborFits.table`."""

PER_COLOUR = 10
"""Numbers of one colour in a prior's vector: f, sin 2θ, cos 2θ, σx, σy, sin φ, cos φ, x, y, scale."""

CLUSTERS_AT_MOST = 256
"""Clusters of a layer; their numbers are shuffled as single bytes."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise CorruptFile(f"The statistics do not fit together: {what}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Normal:
    """One normal distribution for a whole layer."""

    mean: float
    std: float

    def __post_init__(self):
        _require(self.std >= 0, f"a standard deviation of {self.std}")

    def numbers(self) -> int:
        return 2


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelNormals:
    """One normal distribution per output kernel; `mean` and `std` are (kernels,)."""

    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self):
        _require(self.mean.ndim == 1 and self.mean.shape == self.std.shape and self.mean.size > 0,
                 f"means of shape {self.mean.shape} beside standard deviations of shape {self.std.shape}")
        _require((self.std >= 0).all(), "a negative standard deviation of a kernel")

    def numbers(self) -> int:
        return self.mean.size + self.std.size


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """K typical slices (one input channel of one output kernel), and how many channels of a kernel are near each.

    centers: (K, height, width), the mean slice of each cluster.
    count_mean, count_std: (K,), over output kernels, the number of their `inputs` channels that belong to the cluster.
    spread: (K,), root mean square difference between a member's weights and its centre.
    """

    centers: np.ndarray
    count_mean: np.ndarray
    count_std: np.ndarray
    spread: np.ndarray
    inputs: int

    def __post_init__(self):
        k = len(self.centers)
        _require(self.centers.ndim == 3 and 0 < k <= CLUSTERS_AT_MOST and self.inputs > 0,
                 f"centres of shape {self.centers.shape}")
        for name in ("count_mean", "count_std", "spread"):
            values = getattr(self, name)
            _require(values.shape == (k,) and (values >= 0).all(), f"{name} {values.tolist()} for {k} clusters")
        _require(self.count_mean.sum() > 0, "clusters without members")

    def numbers(self) -> int:
        return self.centers.size + self.count_mean.size + self.count_std.size + self.spread.size


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """K multivariate normal distributions in D dimensions.

    weights: (K,), summing to one. means: (K, D).
    cholesky: (K, D, D), lower triangles L with covariance L Lᵀ; or (K, D), standard deviations of diagonal covariances.
    """

    weights: np.ndarray
    means: np.ndarray
    cholesky: np.ndarray

    def __post_init__(self):
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        _require(k > 0 and self.weights.shape == (k,) and self.cholesky.shape in ((k, d, d), (k, d)),
                 f"a mixture of weights {self.weights.shape}, means {self.means.shape}, factors {self.cholesky.shape}")
        _require((self.weights >= 0).all() and abs(self.weights.sum() - 1) < 1e-4, "mixture weights that are no shares")

    def numbers(self) -> int:
        k, d = self.means.shape
        return k - 1 + k * d + k * (d if self.cholesky.ndim == 2 else d * (d + 1) // 2)

    def sample(self, rng: np.random.RandomState, n: int) -> np.ndarray:
        """n draws: float64 (n, D). Sums run in a fixed order, without BLAS or LAPACK, so that the bits are stable."""
        cumulative = np.cumsum(self.weights, dtype=np.float64)
        component = np.searchsorted(cumulative / cumulative[-1], rng.random_sample(n), side="right")
        noise = rng.standard_normal((n, self.means.shape[1]))
        draws = self.means[component].astype(np.float64)
        if self.cholesky.ndim == 2:
            return draws + self.cholesky[component] * noise
        for column in range(noise.shape[1]):
            draws += self.cholesky[component, :, column] * noise[:, column:column + 1]
        return draws


@dataclass(frozen=True, kw_only=True, eq=False)
class GaborFits:
    """Gabors fitted to a layer's filters, one per filter and colour.

    table: (filters, colours, 8) in the order of :data:`GABOR_FIELDS`; lengths in pixels, angles in radians.
    size: height and width of the kernels that were fitted.
    r2: (filters, colours), the share of the slice's variance that the Gabor explains, 0 for a dead slice; None if it
        was not published.
    """

    table: np.ndarray
    size: int
    r2: np.ndarray | None = None

    def __post_init__(self):
        _require(self.table.ndim == 3 and self.table.shape[2] == len(GABOR_FIELDS)
                 and (self.r2 is None or self.r2.shape == self.table.shape[:2]),
                 f"Gabor fits of shape {self.table.shape}")
        _require(self.table.shape[0] > 0 and self.size > 0 and (self.table[:, :, 2:4] > 0).all(),
                 "a Gabor whose envelope has no width")

    def numbers(self) -> int:
        return self.table.size


@dataclass(frozen=True, kw_only=True, eq=False)
class GaborMixture:
    """A mixture of normal distributions over whole colour filters: all colours' Gabors in one vector, so that how
    colours go together is kept.

    mixture: in D = 10 · colours dimensions (:data:`PER_COLOUR`).
    low, high: (colours, 8), the least and greatest fitted value of each Gabor parameter; draws are clipped to them.
    size: height and width of the kernels that were fitted.
    """

    mixture: Mixture
    low: np.ndarray
    high: np.ndarray
    size: int

    def __post_init__(self):
        colours = len(self.low)
        _require(self.mixture.means.shape[1] == PER_COLOUR * colours
                 and self.low.shape == self.high.shape == (colours, len(GABOR_FIELDS))
                 and (self.low <= self.high).all(), "a Gabor prior whose bounds do not fit its mixture")
        _require(self.size > 0 and (self.low[:, 2:4] > 0).all(), "a Gabor prior of envelopes without width")

    def numbers(self) -> int:
        return self.mixture.numbers() + self.low.size + self.high.size

    def sample(self, rng: np.random.RandomState, n: int, *, size: int, pixels_per_degree: float) -> GaborParameters:
        """n colour filters for kernels of `size` pixels; lengths grow with the kernel and not with the degree."""
        vectors = self.mixture.sample(rng, n).reshape(n, -1, PER_COLOUR)
        table = np.clip(from_vectors(vectors), self.low, self.high)
        return gabor_parameters(table, zoom=size / self.size)


def to_vectors(table: np.ndarray) -> np.ndarray:
    """Gabor parameters (..., 8) as vectors (..., 10) without jumps: an angle becomes its sine and cosine."""
    f, theta, sigma_x, sigma_y, phi, x, y, scale = np.moveaxis(np.asarray(table, dtype=np.float64), -1, 0)
    return np.stack([f, np.sin(2 * theta), np.cos(2 * theta), sigma_x, sigma_y, np.sin(phi), np.cos(phi), x, y, scale],
                    axis=-1)


def from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_vectors` for orientations in -π/2..π/2 and phases in -π..π."""
    f, sin2, cos2, sigma_x, sigma_y, sin, cos, x, y, scale = np.moveaxis(vectors, -1, 0)
    return np.stack([f, np.arctan2(sin2, cos2) / 2, sigma_x, sigma_y, np.arctan2(sin, cos), x, y, scale], axis=-1)


def canonical(table: np.ndarray) -> np.ndarray:
    """The same Gabors (..., 8) with orientations in -π/2..π/2, envelope widths positive and phases in -π..π.

    Turning a Gabor by π mirrors its wave, which a change of the phase's sign undoes.
    """
    table = np.array(table, dtype=np.float64)
    turns = np.floor(table[..., 1] / np.pi + 0.5)
    table[..., 1] -= np.pi * turns
    phase = np.where(turns % 2 == 0, table[..., 4], -table[..., 4])
    table[..., 4] = np.pi - (np.pi - phase) % (2 * np.pi)
    return table


def gabor_parameters(table: np.ndarray, *, zoom: float = 1.0) -> GaborParameters:
    """A table (n, colours, 8) as :class:`GaborParameters`, its lengths multiplied by `zoom`, its amplitudes kept."""
    f, theta, sigma_x, sigma_y, phi, x, y, scale = np.moveaxis(np.asarray(table, dtype=np.float64), -1, 0)
    return GaborParameters(frequency=f / zoom, orientation=theta, sigma_x=sigma_x * zoom, sigma_y=sigma_y * zoom,
                           phase=phi, x=x * zoom, y=y * zoom, scale=scale * zoom ** 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Distribution:
    """The scipy distribution that fits a layer best, and its location and scale in every kernel.

    family: name in `scipy.stats`. shape: its shape parameters, (0,) to (2,), shared by the layer's kernels.
    layer: (2,) location and scale over all weights. kernels: (kernels, 2), the same for each output kernel.
    """

    family: str
    shape: np.ndarray
    layer: np.ndarray
    kernels: np.ndarray

    def __post_init__(self):
        _require(self.layer.shape == (2,) and self.kernels.ndim == 2 and self.kernels.shape[1] == 2
                 and len(self.kernels) > 0, f"locations and scales of shape {self.kernels.shape}")
        _require(self.layer[1] >= 0 and (self.kernels[:, 1] >= 0).all(), "a negative scale")

    def numbers(self) -> int:
        return 1 + self.shape.size + self.kernels.size


@dataclass(frozen=True, kw_only=True, eq=False)
class NormStatistics:
    """A batch normalisation of a trained network.

    gamma, beta: normal distributions of its affine part over channels. running_mean, running_var: (channels,).
    """

    gamma: Normal
    beta: Normal
    running_mean: np.ndarray
    running_var: np.ndarray

    def __post_init__(self):
        _require(self.running_mean.ndim == 1 and self.running_mean.shape == self.running_var.shape
                 and self.running_mean.size > 0, f"running means of shape {self.running_mean.shape}")
        _require((self.running_var >= 0).all(), "a negative running variance")

    def numbers(self) -> int:
        return self.gamma.numbers() + self.beta.numbers() + self.running_mean.size + self.running_var.size


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerStatistics:
    """All that a source holds for one layer; what was not fitted is None. shape: of the layer that was fitted."""

    shape: tuple[int, ...]
    normal: Normal | None = None
    kernels: KernelNormals | None = None
    clusters: Clusters | None = None
    slices: Mixture | None = None
    whole_kernels: Mixture | None = None
    distribution: Distribution | None = None
    eigenvalue: Normal | None = None
    gabors: GaborFits | None = None
    gabor_prior: GaborMixture | None = None
    norm: NormStatistics | None = None

    def __post_init__(self):
        for name, axes in (("slices", self.shape[2:]), ("whole_kernels", self.shape[1:])):
            mixture = getattr(self, name)
            _require(mixture is None or mixture.means.shape[1] == math.prod(axes),
                     f"a mixture of {name} in another number of dimensions than the layer's shape {self.shape} has")

    def parts(self) -> dict[str, object]:
        """What the source holds for this layer, by field name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Statistics:
    """A source's content. `layer(path)` finds a layer by the network's own name or by the name that `areas` gives it.

    layers: statistics by the fitted network's own layer names. areas: name of a layer to be wired -> fitted layer.
    provenance: what was fitted, how and with what; plain JSON.
    """

    layers: Mapping[str, LayerStatistics]
    _: KW_ONLY
    areas: Mapping[str, str] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.provenance.get("name", "unnamed"))

    def layer(self, path: str) -> LayerStatistics:
        """Raises UnknownName if the source was not fitted to such a layer."""
        found = self.layers.get(self.areas.get(path, path))
        if found is None:
            raise UnknownName("layer", path, [*self.layers, *self.areas], owner=f"statistics source {self.name!r}")
        return found
