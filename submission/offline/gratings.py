"""Drifting-grating stimuli of Marques, Schrimpf & DiCarlo (bioRxiv 2021, "Marques2020"): their grids and their pixels."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

PIXELS_PER_DEGREE = 56
GRAY = 128
COLUMNS = ("position_y", "position_x", "contrast", "radius", "spatial_frequency", "orientation", "phase")

_RADII = np.logspace(-2.25, 3.25, 12, base=2) / 2
_FREQUENCIES = np.logspace(-1.375, 3.875, 22, base=2)
_FOUR_FREQUENCIES = _FREQUENCIES[[4, 8, 12, 16]]
_ORIENTATIONS = np.linspace(0, 165, 12)
_PHASES = np.linspace(0, 315, 8)
_CENTRE = (0.5,)


@dataclass(frozen=True)
class Grating:
    """A circular patch of a sinusoidal grating on a gray screen.

    position_y, position_x, radius: degrees of visual angle from the screen's centre (y downwards).
    spatial_frequency: cycles per degree. orientation: direction of the wave vector, degrees. phase: degrees.
    """

    position_y: float
    position_x: float
    contrast: float
    radius: float
    spatial_frequency: float
    orientation: float
    phase: float


def _grid(*axes) -> tuple[Grating, ...]:
    """All combinations, the last axis (phase) fastest: the row order that the benchmarks assert."""
    return tuple(Grating(*map(float, values)) for values in product(*axes))


def receptive_field_grid() -> tuple[Grating, ...]:
    """3,528 small gratings over 21 x 21 positions, for mapping receptive fields."""
    positions = np.linspace(-2.5, 2.5, 21)
    return _grid(positions, positions, (1,), (1 / 6,), (3,), _ORIENTATIONS[::3], _PHASES[::4])


def orientation_grid() -> tuple[Grating, ...]:
    """1,152 gratings: four spatial frequencies, each two, three and four half-cycles in radius, at 12 orientations."""
    patches = [(multiple / 2 / frequency, frequency) for multiple in (2, 3, 4) for frequency in _FOUR_FREQUENCIES]
    return tuple(grating for radius, frequency in patches
                 for grating in _grid(_CENTRE, _CENTRE, (1,), (radius,), (frequency,), _ORIENTATIONS, _PHASES))


def spatial_frequency_grid() -> tuple[Grating, ...]:
    """2,112 gratings: 22 spatial frequencies in two sizes at six orientations."""
    return _grid(_CENTRE, _CENTRE, (1,), (0.75, 2.25), _FREQUENCIES, _ORIENTATIONS[::2], _PHASES)


def size_grid() -> tuple[Grating, ...]:
    """2,304 gratings: 12 sizes at four spatial frequencies and six orientations."""
    return _grid(_CENTRE, _CENTRE, (1,), _RADII, _FOUR_FREQUENCIES, _ORIENTATIONS[::2], _PHASES)


def render(grating: Grating, size: int) -> np.ndarray:
    """The grating on a screen of `size` x `size` pixels at 56 pixels per degree: uint8 (size, size), background 128.

    Inside the patch a pixel is floor(255 · (1 + contrast · sin(2π f (x cos θ + y sin θ) + φ)) / 2). Only the patch's
    own pixels are computed.
    """
    offsets = (np.arange(size) - size / 2) / PIXELS_PER_DEGREE
    x, y = offsets - grating.position_x, offsets - grating.position_y
    columns, rows = _span(x, grating.radius), _span(y, grating.radius)
    x, y = x[None, columns], y[rows, None]
    theta = grating.orientation / 180 * np.pi
    wave = np.sin((x * np.cos(theta) + y * np.sin(theta)) * grating.spatial_frequency * 2 * np.pi
                  + grating.phase / 180 * np.pi) * grating.contrast
    image = np.full((size, size), GRAY, dtype=np.uint8)
    inside = x ** 2 + y ** 2 <= grating.radius ** 2
    image[rows, columns] = np.where(inside, np.uint8((wave + 1) / 2 * 255), GRAY)
    return image


def _span(offsets: np.ndarray, radius: float) -> slice:
    within = np.flatnonzero(np.abs(offsets) <= radius)
    return slice(within[0], within[-1] + 1) if within.size else slice(0, 0)
