"""Random streams that are the same on every machine and in every version of numpy."""
from __future__ import annotations

import hashlib

import numpy as np


def layer_rng(seed: int, layer: str) -> np.random.RandomState:
    """The random stream of one layer under one seed: Mersenne Twister, keyed by SHA-256 of seed and layer path.

    `RandomState` is used because numpy freezes its streams for ever (NEP 19). A stream of its own for each layer means
    that a layer's weights depend on nothing but seed, path and initialiser: not on the order of drawing, not on others.
    """
    digest = hashlib.sha256(f"{int(seed)}/{layer}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32))


def normal(rng: np.random.RandomState, shape: tuple[int, ...], *, std: float, mean: float = 0.0) -> np.ndarray:
    """Independent normal numbers as a float32 array of `shape`, drawn in blocks so that no float64 copy is ever whole."""
    weights = np.empty(shape, dtype=np.float32)
    flat = weights.reshape(-1)
    block = 1 << 20
    for start in range(0, flat.size, block):
        part = flat[start:start + block]
        part[:] = rng.standard_normal(part.size) * std + mean
    return weights
