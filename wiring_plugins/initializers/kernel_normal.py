"""One normal distribution per kernel, or one per layer."""
from __future__ import annotations

import numpy as np

from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from ..seeding import quick_normal
from .held import held, numbers_of


def kernel_normal(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """Every output kernel has a mean and a standard deviation of its own.

    Formula: w[o] ~ N(mean_o, std_o) with the source's pairs (mean_o, std_o); where the layer has another number of
    kernels than the source, pairs are drawn at random from the source's. "KN" in the reference code, where the figures
    call Kaiming normal that. Source: Geiger et al. (ICLR 2022), "kernel normal". Numbers needed: 2 per kernel.
    """
    kernels = held(context, "kernels", "kernel-normal")
    outputs = shape[0]
    chosen = np.arange(outputs) if outputs == len(kernels.mean) else rng.randint(0, len(kernels.mean), outputs)
    return _normal(rng, shape, kernels.mean[chosen], kernels.std[chosen])


def layer_normal(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """One normal distribution for all weights of the layer.

    Formula: w ~ N(mean, std), both of the source's layer. Source: Geiger et al. (ICLR 2022), "layer normal".
    Numbers needed: 2.
    """
    normal = held(context, "normal", "layer-normal")
    return _normal(rng, shape, np.full(shape[0], normal.mean, np.float32), np.full(shape[0], normal.std, np.float32))


def _normal(rng, shape: tuple[int, ...], mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    weights = np.empty(shape, dtype=np.float32)
    rows = weights.reshape(shape[0], -1)
    step = max(1, (1 << 19) // rows.shape[1])
    for start in range(0, len(rows), step):
        block = rows[start:start + step]
        quick_normal(rng, block)
        block *= std[start:start + step, None]
        block += mean[start:start + step, None]
    return weights


@hookimpl
def wiring_initializers():
    reference = "Geiger et al., ICLR 2022"
    return [
        Initializer(name="kernel-normal", sample=kernel_normal, numbers=numbers_of("kernels", "kernel-normal"),
                    reference=reference),
        Initializer(name="layer-normal", sample=layer_normal, numbers=numbers_of("normal", "layer-normal"),
                    reference=reference),
    ]
