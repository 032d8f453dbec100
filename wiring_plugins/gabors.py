"""Gabor functions on a pixel grid."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class GaborParameters:
    """Gabor functions, n filters of c colour channels each; every field is an array of shape (n, c).

    frequency: cycles per pixel. orientation: direction of the wave vector, in radians, from the x axis towards
    increasing rows; bars run across it. sigma_x, sigma_y: standard deviations of the envelope along and across the wave
    vector, in pixels. phase: radians at the envelope's centre. x, y: the centre, in pixels from the kernel's middle.
    scale: amplitude factor of the envelope (of unit volume).
    """

    frequency: np.ndarray
    orientation: np.ndarray
    sigma_x: np.ndarray
    sigma_y: np.ndarray
    phase: np.ndarray
    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray


def render(gabors: GaborParameters, height: int, width: int) -> np.ndarray:
    """Gabor functions on the pixel grid around the kernel's middle: float64 (n, c, height, width).

    g = scale / (2π σx σy) · exp(-½ (x'²/σx² + y'²/σy²)) · cos(2π f x' + φ), with (x', y') the pixel's position relative
    to the centre, rotated by the orientation. The formula of Geiger et al. (ICLR 2022), section 1a of the methods.
    """
    rows = (np.arange(height) - (height - 1) / 2)[:, None]
    columns = (np.arange(width) - (width - 1) / 2)[None, :]

    def each(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, dtype=np.float64)[:, :, None, None]

    dx, dy = columns - each(gabors.x), rows - each(gabors.y)
    cos, sin = np.cos(each(gabors.orientation)), np.sin(each(gabors.orientation))
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    sigma_x, sigma_y = each(gabors.sigma_x), each(gabors.sigma_y)
    envelope = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2)) / (2 * np.pi * sigma_x * sigma_y)
    return each(gabors.scale) * envelope * np.cos(2 * np.pi * each(gabors.frequency) * along + each(gabors.phase))
