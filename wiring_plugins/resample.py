"""Kernels of one size made into kernels of another."""
from __future__ import annotations

import numpy as np


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (..., h, w) resampled linearly to (..., height, width), as float32.

    Making smaller averages over the pixels that fall together, so that nothing aliases.
    """
    images = np.asarray(images, dtype=np.float32)
    if images.shape[-2:] == (height, width):
        return images
    rows, columns = _weights(images.shape[-2], height), _weights(images.shape[-1], width)
    return np.einsum("hr,...rc,wc->...hw", rows, images, columns).astype(np.float32)


def _weights(old: int, new: int) -> np.ndarray:
    """(new, old) weights of a linear ("tent") filter as wide as the larger of the two pixel sizes; rows sum to one."""
    scale = old / new
    middles = (np.arange(new) + 0.5) * scale - 0.5
    tent = np.maximum(0, 1 - np.abs(middles[:, None] - np.arange(old)) / max(scale, 1))
    return tent / tent.sum(axis=1, keepdims=True)
