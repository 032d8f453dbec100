"""Which units of a recording site are kept, and which part of the image has to be computed for them."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHOWN = 8
"""Noise images that show which units a window reaches."""


@dataclass(frozen=True, kw_only=True)
class ScreenWindow:
    """A square of the screen: centre and half width in degrees from the screen's middle, y downwards."""

    y: float
    x: float
    half_width: float


@dataclass(frozen=True, kw_only=True)
class View:
    """The kept units of an output.

    units: their numbers in the flattened output (channels, height, width) for a whole image.
    crop: rows and columns of the input that are computed; the whole input if None.
    places: the kept units' numbers in the flattened output for the cropped input.
    """

    units: np.ndarray
    places: np.ndarray
    crop: tuple[slice, slice] | None = None

    def without_crop(self) -> View:
        """The same units of whole images."""
        return View(units=self.units, places=self.units)


def whole(shape: tuple[int, ...]) -> View:
    """Every unit of an output of that shape."""
    units = np.arange(int(np.prod(shape)))
    return View(units=units, places=units)


def seen_through(window: ScreenWindow, record, shape: tuple[int, ...], *, image_size: int, pixels_per_degree: float,
                 batch_size: int) -> View:
    """The units that anything shown inside `window` can change, computed from as little of the image as gives their bits.

    record: inputs float32 (n, 3, height, width) -> the site's outputs (n, ...). shape: of one output for a whole image.

    Which units these are is found by showing noise images that differ in the window alone: a unit whose receptive field
    ends outside it cannot tell them apart. All channels at a changed place count as reached. A crop is used only if it
    gives the kept units' outputs bit for bit on a batch of noise; otherwise whole images are computed.
    """
    count = max(batch_size, SHOWN)
    noise = np.random.RandomState(0).standard_normal((count, 3, image_size, image_size)).astype(np.float32)
    before = record(noise)
    rows, columns = (_pixels(centre, window.half_width, pixels_per_degree, image_size) for centre in (window.y, window.x))
    changed = noise[:SHOWN].copy()
    changed[:, :, rows, columns] = -changed[:, :, rows, columns]
    reached = (record(changed) != before[:SHOWN]).any(axis=0)
    if len(shape) != 3:
        units = np.flatnonzero(reached)
        return View(units=units, places=units)
    reached = np.broadcast_to(reached.any(axis=0), shape)
    units = np.flatnonzero(reached)
    for margin in (2, 4, 8):
        view = _cropped(units, shape, image_size, margin)
        if view and np.array_equal(record(noise[:, :, *view.crop]).reshape(count, -1)[:, view.places],
                                   before.reshape(count, -1)[:, units]):
            # one place more than what sufficed for noise
            return _cropped(units, shape, image_size, margin + 1) or view
    return View(units=units, places=units)


def _pixels(centre: float, half_width: float, pixels_per_degree: float, size: int) -> slice:
    low, high = (np.clip((centre + sign * half_width) * pixels_per_degree + size / 2, 0, size) for sign in (-1, 1))
    return slice(int(np.floor(low)), int(np.ceil(high)))


def _cropped(units: np.ndarray, shape: tuple[int, ...], image_size: int, margin: int) -> View | None:
    """The view of `units` through the part of the image under them and `margin` places around; None if that is no
    smaller than the image, or places and pixels do not match."""
    channels, height, width = shape
    if not units.size or height != width or image_size % height:
        return None
    stride = image_size // height
    channel, row, column = np.unravel_index(units, shape)
    starts = [max(0, places.min() - margin) for places in (row, column)]
    stops = [min(height, places.max() + 1 + margin) for places in (row, column)]
    size = tuple(stop - start for start, stop in zip(starts, stops))
    if size == (height, width):
        return None
    places = np.ravel_multi_index((channel, row - starts[0], column - starts[1]), (channels, *size))
    crop = tuple(slice(int(start) * stride, int(stop) * stride) for start, stop in zip(starts, stops))
    return View(units=units, places=places, crop=crop)
