"""Kernels as pictures."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .errors import WiringError
from .files import replacing

PIXEL = 8
"""Screen pixels of one weight's side."""

GAP = 4


def draw_grid(kernels: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Kernels (n, channels, height, width) as one picture, uint8 (rows, columns, 3), grey where a weight is zero.

    Three channels are red, green and blue; of any other number the mean is drawn. Each kernel has its own contrast.
    """
    kernels = np.asarray(kernels, dtype=np.float64)
    if kernels.shape[1] != 3:
        kernels = np.repeat(kernels.mean(axis=1, keepdims=True), 3, axis=1)
    n, _, height, width = kernels.shape
    columns = columns or math.ceil(math.sqrt(n))
    largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    shades = 127.5 + 127.5 * kernels / np.where(largest > 0, largest, 1)
    cell_height, cell_width = height * PIXEL + GAP, width * PIXEL + GAP
    rows = math.ceil(n / columns)
    picture = np.full((rows * cell_height + GAP, columns * cell_width + GAP, 3), 255, dtype=np.uint8)
    for index, shade in enumerate(shades):
        top, left = GAP + index // columns * cell_height, GAP + index % columns * cell_width
        tile = np.kron(shade.transpose(1, 2, 0), np.ones((PIXEL, PIXEL, 1)))
        picture[top:top + height * PIXEL, left:left + width * PIXEL] = np.rint(tile)
    return picture


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures in one, a gap between them, the lower one filled up with white."""
    height = max(len(left), len(right))
    padded = [np.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0)), constant_values=255)
              for picture in (left, right)]
    return np.concatenate([padded[0], np.full((height, 4 * GAP, 3), 255, dtype=np.uint8), padded[1]], axis=1)


def draw_pairs(filters: np.ndarray, fits: np.ndarray, path: Path) -> None:
    """Every filter with its fit to the right of it, as a .png."""
    pairs = np.stack([filters, fits], axis=1).reshape(-1, *filters.shape[1:])
    save(draw_grid(pairs, columns=2 * math.ceil(math.sqrt(len(filters)) / 1.5)), path)


def save(picture: np.ndarray, path: Path) -> None:
    """Write a .png whole or not at all."""
    from PIL import Image
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise WiringError(f"{path} is no .png. Pictures are written as .png files.")
    with replacing(path) as part:
        Image.fromarray(picture).save(part, format="png")
