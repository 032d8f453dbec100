"""Crops and flips on the device: a crop that is resized and perhaps flipped is two small matrix products.

An image is held as a square, whatever its shape was; boxes are in fractions of that square and know the original shape.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10
CENTRE = 224 / 256


def random_boxes(rng: np.random.RandomState, aspects: np.ndarray) -> np.ndarray:
    """A random crop of each image: (n, 5) of left, top, width, height in fractions of the image, and flip (0 or 1).

    The rule of torchvision's RandomResizedCrop: area uniform in 8 to 100 % of the image, aspect ratio log-uniform in
    3/4 to 4/3, anywhere inside; the central crop if ten such draws do not fit. Half of the images are flipped.
    aspects: (n,), width divided by height.
    """
    count = len(aspects)
    draws = rng.uniform(size=(5, count, ATTEMPTS))
    area = AREA[0] + (AREA[1] - AREA[0]) * draws[0]
    ratio = np.exp(math.log(ASPECT[0]) + math.log(ASPECT[1] / ASPECT[0]) * draws[1])
    width = np.sqrt(area * ratio / aspects[:, None])
    height = np.sqrt(area / ratio * aspects[:, None])
    fits = (width <= 1) & (height <= 1)
    rows, first = np.arange(count), fits.argmax(axis=1)
    width, height = width[rows, first], height[rows, first]
    left, top = draws[2, rows, first] * (1 - width), draws[3, rows, first] * (1 - height)
    whole = np.clip(aspects, *ASPECT)  # the central crop, with the nearest legal aspect ratio
    central = np.stack([np.minimum(1, whole / aspects), np.minimum(1, aspects / whole)], axis=1)
    boxes = np.stack([left, top, width, height, draws[4, :, 0] < 0.5], axis=1)
    none = ~fits.any(axis=1)
    boxes[none, :4] = np.concatenate([(1 - central[none]) / 2, central[none]], axis=1)
    return boxes.astype(np.float32)


def centre_boxes(aspects: np.ndarray) -> np.ndarray:
    """The central square of 224/256 of each image's short side, unflipped; layout as of :func:`random_boxes`."""
    width, height = CENTRE * np.minimum(1, 1 / aspects), CENTRE * np.minimum(1, aspects)
    return np.stack([(1 - width) / 2, (1 - height) / 2, width, height, 0 * width], axis=1).astype(np.float32)


def crop(images: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Cut `boxes` (n, 5) out of `images` (n, 3, side, side; uint8) and resize them to (n, 3, size, size), 0..255.

    Bilinear with antialiasing, as Pillow and torchvision resize. float16 on CUDA, float32 elsewhere.
    """
    import torch

    side = images.shape[-1]
    kind = torch.float16 if images.is_cuda else torch.float32
    left, top, width, height = (boxes[:, :4] * side).unbind(1)
    flip = boxes[:, 4]
    columns = _resize_matrix(left, width, side, size)
    columns = torch.where(flip[:, None, None] > 0, columns.flip(1), columns).to(kind)
    rows = _resize_matrix(top, height, side, size).to(kind)
    count = len(images)
    narrow = torch.bmm(images.to(kind).reshape(count, 3 * side, side), columns.transpose(1, 2))
    return torch.matmul(rows[:, None], narrow.view(count, 3, side, size))


def _resize_matrix(start: torch.Tensor, length: torch.Tensor, side: int, size: int) -> torch.Tensor:
    """(n, size, side) weights: how much each of `side` pixels adds to each of `size` pixels of the resized interval."""
    import torch

    start, length = start[:, None, None], length[:, None, None]
    pixel = torch.arange(side, device=start.device, dtype=torch.float32) + 0.5
    step = length / size
    centre = start + (torch.arange(size, device=start.device, dtype=torch.float32)[:, None] + 0.5) * step
    weights = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel > start) & (pixel < start + length))
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-6)
