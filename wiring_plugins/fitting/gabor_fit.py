"""Gabor functions fitted to many filter slices at once."""
from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..errors import WiringError
from ..statistics.types import GaborFits
from .threads import single_threaded

CANDIDATES = 10
"""Starts of the grid that are refined for each slice."""

STEPS = 60
"""Steps of the refinement; it stops before when no error falls any more."""

DEAD = 1e-5
"""A slice whose weights vary less than this, relative to the layer's most varied slice, is dead: without a shape."""

RIDGE = 1e-3
"""Keeps amplitude and offset from growing without end, one against the other, where an envelope is flat."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Least and greatest value of frequency (cycles per pixel), envelope widths and centre (pixels).

    For a k x k kernel: half a cycle per kernel to the Nyquist limit; half a pixel to half a kernel; within the kernel.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, size: int) -> Bounds:
        half = (size - 1) / 2
        return cls(low=np.array([0.5 / size, -np.inf, 0.5, 0.5, -half, -half]),
                   high=np.array([0.5, np.inf, size / 2, size / 2, half, half]))


@single_threaded
def fit_gabors(filters: np.ndarray) -> tuple[GaborFits, np.ndarray]:
    """Least-squares Gabors of every colour slice of `filters` (n, colours, k, k), and the fits as pictures.

    slice = a · exp(-½ (x'²/σx² + y'²/σy²)) · cos(2πf x' + φ) + offset. For given f, θ, σx, σy and centre the best a, φ
    and offset follow from a linear problem (variable projection; Golub & Pereyra 1973, SIAM J Numer Anal 10:413), so
    that amplitude and offset are found exactly, in the weights' own unit. The six others start from a grid of
    thousands, of which the ten best per slice are refined side by side (Levenberg-Marquardt), inside :class:`Bounds`.

    Returns the fits (scale = a · 2πσxσy) and the fitted slices (n, colours, k, k). A dead slice has amplitude 0, R² 0.

    Raises:
        WiringError: kernels smaller than 3x3, or not square.
    """
    n, colours, size, width = filters.shape
    if size != width or size < 3:
        raise WiringError(f"A Gabor needs a square kernel of 3x3 or more; this layer's are {size}x{width}.")
    slices = np.asarray(filters, dtype=np.float64).reshape(n * colours, size * size)
    contrast = slices.std(axis=1)
    dead = contrast <= DEAD * contrast.max()
    unit = np.where(dead, 1.0, contrast)
    targets = slices / unit[:, None]
    bounds, grid = Bounds.of(size), _Grid.of(size)
    parameters = _refine(_starts(targets, grid, bounds), targets, grid, bounds)
    coefficients, basis = _solve(parameters, targets, grid)
    fitted = np.einsum("npb,nb->np", basis, coefficients) * unit[:, None]
    error = ((slices - fitted) ** 2).sum(axis=1)
    total = np.maximum(((slices - slices.mean(axis=1, keepdims=True)) ** 2).sum(axis=1), np.finfo(np.float64).tiny)
    table = _table(parameters, coefficients * unit[:, None])
    table[dead, 7] = 0
    r2 = np.where(dead, 0, np.maximum(0, 1 - error / total))
    fitted[dead] = 0
    return GaborFits(table=table.reshape(n, colours, 8).astype(np.float32), size=size,
                     r2=r2.reshape(n, colours).astype(np.float32)), fitted.reshape(filters.shape)


@dataclass(frozen=True)
class _Grid:
    """Pixel positions (k²,) relative to the kernel's middle."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, size: int) -> _Grid:
        middle = (size - 1) / 2
        y, x = np.mgrid[:size, :size] - middle
        return cls(x.ravel(), y.ravel())


def _parts(parameters: np.ndarray, grid: _Grid):
    """What Gabor and derivatives are made of, each (n, k²); parameters (n, 6) = f, θ, σx, σy, x, y."""
    f, theta, sigma_x, sigma_y, x, y = (column[:, None] for column in parameters.T)
    dx, dy = grid.x - x, grid.y - y
    cos, sin = np.cos(theta), np.sin(theta)
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    envelope = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    return f, cos, sin, sigma_x, sigma_y, along, across, envelope


def _solve(parameters: np.ndarray, targets: np.ndarray, grid: _Grid):
    """The best (n, 3) coefficients of the even wave, the odd wave and one, and these three (n, k², 3)."""
    f, *_, along, _, envelope = _parts(parameters, grid)
    angle = 2 * np.pi * f * along
    basis = np.stack([envelope * np.cos(angle), envelope * np.sin(angle), np.ones_like(along)], axis=2)
    normal = np.einsum("npa,npb->nab", basis, basis) + RIDGE * np.diag([1.0, 1.0, 0.0])
    right = np.einsum("npa,np->na", basis, targets)
    return np.linalg.solve(normal, right[..., None])[..., 0], basis


def _starts(targets: np.ndarray, grid: _Grid, bounds: Bounds) -> np.ndarray:
    """The (slices, CANDIDATES, 6) grid points that explain most of each slice."""
    half = bounds.high[4]
    points = np.array(list(itertools.product(
        np.linspace(bounds.low[0], 0.4, 7), np.arange(12) * np.pi / 12, np.array([0.35, 0.6, 1]) * half,
        np.array([0.35, 0.6, 1]) * half, np.array([-0.5, 0, 0.5]) * half, np.array([-0.5, 0, 0.5]) * half)))
    points = np.clip(points, bounds.low, bounds.high)
    f, *_, along, _, envelope = _parts(points, grid)
    angle = 2 * np.pi * f * along
    waves = np.stack([envelope * np.cos(angle), envelope * np.sin(angle)], axis=1)
    waves -= waves.mean(axis=2, keepdims=True)  # the offset takes the mean
    normal = np.einsum("gap,gbp->gab", waves, waves) + RIDGE * np.eye(2)
    overlap = waves.reshape(-1, waves.shape[2]) @ (targets - targets.mean(axis=1, keepdims=True)).T
    overlap = overlap.reshape(len(points), 2, -1)
    explained = np.einsum("gan,gan->gn", overlap, np.linalg.solve(normal, overlap))
    best = np.argsort(-explained, axis=0, kind="stable")[:CANDIDATES]
    return points[best.T]


def _refine(starts: np.ndarray, targets: np.ndarray, grid: _Grid, bounds: Bounds) -> np.ndarray:
    """The best (slices, 6) parameters that Levenberg-Marquardt steps reach from the starts (slices, candidates, 6)."""
    slices, candidates, _ = starts.shape
    now, goal = starts.reshape(-1, 6), np.repeat(targets, candidates, axis=0)
    damping = np.full(len(now), 1e-2)
    error = _error(now, goal, grid)
    for _ in range(STEPS):
        jacobian, residual = _linearised(now, goal, grid)
        gradient = np.einsum("npi,np->ni", jacobian, residual)
        curvature = np.einsum("npi,npj->nij", jacobian, jacobian)
        diagonal = np.einsum("nii->ni", curvature)
        curvature += (damping[:, None] * diagonal + 1e-9)[:, :, None] * np.eye(6)
        proposed = np.clip(now + np.linalg.solve(curvature, gradient[..., None])[..., 0], bounds.low, bounds.high)
        found = _error(proposed, goal, grid)
        better = found < error
        gain = np.where(better, error - found, 0).max()
        now, error = np.where(better[:, None], proposed, now), np.where(better, found, error)
        damping = np.clip(np.where(better, damping / 4, damping * 5), 1e-8, 1e6)
        if gain < 1e-9 and damping.min() > 1e3:
            break
    best = error.reshape(slices, candidates).argmin(axis=1)
    return now.reshape(slices, candidates, 6)[np.arange(slices), best]


def _error(parameters: np.ndarray, goal: np.ndarray, grid: _Grid) -> np.ndarray:
    """Squared error, and the ridge that was minimised with it."""
    coefficients, basis = _solve(parameters, goal, grid)
    residual = goal - np.einsum("npb,nb->np", basis, coefficients)
    return (residual ** 2).sum(axis=1) + RIDGE * (coefficients[:, :2] ** 2).sum(axis=1)


def _linearised(parameters: np.ndarray, goal: np.ndarray, grid: _Grid):
    """Derivatives of the fit by f, θ, σx, σy, x, y, without what the coefficients would take up (Kaufman 1975), (n, k²,
    6), and the residual (n, k²)."""
    coefficients, basis = _solve(parameters, goal, grid)
    f, cos, sin, sigma_x, sigma_y, along, across, envelope = _parts(parameters, grid)
    angle = 2 * np.pi * f * along
    even, odd = coefficients[:, :1], coefficients[:, 1:2]
    wave = even * np.cos(angle) + odd * np.sin(angle)
    slope = envelope * (odd * np.cos(angle) - even * np.sin(angle)) * 2 * np.pi
    by_along = slope * f - envelope * wave * along / sigma_x ** 2
    by_across = -envelope * wave * across / sigma_y ** 2
    jacobian = np.stack([
        slope * along,
        by_along * across - by_across * along,
        envelope * wave * along ** 2 / sigma_x ** 3,
        envelope * wave * across ** 2 / sigma_y ** 3,
        -by_along * cos + by_across * sin,
        -by_along * sin - by_across * cos,
    ], axis=2)
    normal = np.einsum("npa,npb->nab", basis, basis) + RIDGE * np.diag([1.0, 1.0, 0.0])
    taken = np.linalg.solve(normal, np.einsum("npa,npi->nai", basis, jacobian))
    jacobian -= np.einsum("npa,nai->npi", basis, taken)
    return jacobian, goal - np.einsum("npb,nb->np", basis, coefficients)


def _table(parameters: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """(n, 8) in the order of GABOR_FIELDS, orientation in -π/2..π/2, phase in -π..π."""
    from ..statistics.types import canonical
    f, theta, sigma_x, sigma_y, x, y = parameters.T
    amplitude = np.hypot(coefficients[:, 0], coefficients[:, 1])
    phase = np.arctan2(-coefficients[:, 1], coefficients[:, 0])
    return canonical(np.stack([f, theta, sigma_x, sigma_y, phase, x, y, amplitude * 2 * np.pi * sigma_x * sigma_y],
                              axis=1))
