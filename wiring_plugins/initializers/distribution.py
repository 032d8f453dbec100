"""Weights from a distribution of `scipy.stats`."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import UnknownName, WiringError
from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from .held import held
from .kaiming import std


def best_distribution(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
                      per: str = "kernel") -> np.ndarray:
    """The scipy distribution that fits the source's layer best, by likelihood.

    Formula: w = location + scale · F⁻¹(u; shape), u uniform; location and scale of each output kernel (per="kernel";
    drawn from the source's pairs where their number differs) or of the layer (per="layer"); the family's shape is the
    layer's. Source: Geiger et al. (ICLR 2022), "best dist", there by squared error on a histogram.
    Numbers needed: 1, the family's shape parameters, and 2 per kernel or 2.
    """
    fitted = held(context, "distribution", "best-distribution")
    if per not in ("kernel", "layer"):
        raise WiringError(f"Init('best-distribution') of {context.layer} has per={per!r}. Legal: 'kernel', 'layer'.")
    pairs = fitted.kernels if per == "kernel" else fitted.layer[None]
    chosen = np.arange(shape[0]) if shape[0] == len(pairs) else rng.randint(0, len(pairs), shape[0])
    location, scale = pairs[chosen].T.reshape(2, -1, *(1,) * (len(shape) - 1))
    return (location + scale * _standard(rng, fitted.family, tuple(fitted.shape), shape)).astype(np.float32)


def _numbers(shape: tuple[int, ...], context: LayerContext, per: str = "kernel") -> int:
    fitted = held(context, "distribution", "best-distribution")
    return fitted.numbers() if per == "kernel" else 1 + fitted.shape.size + fitted.layer.size


def distribution(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *, family: str = "laplace",
                 arguments: tuple[float, ...] = ()) -> np.ndarray:
    """Independent weights of a named scipy distribution, with the mean 0 and the variance of Kaiming weights.

    Formula: w = std · (F⁻¹(u) - mean) / deviation of `scipy.stats.FAMILY` with the shape parameters `arguments`, u
    uniform, std = sqrt(2 / (k² · C_out)); a family without mean or variance is scaled by its middle half instead.
    Source: Geiger et al. (ICLR 2022), "beta", "uniform" and others. "poisson" is left out: weights are no counts.
    Numbers needed: none of a source.
    """
    values = _standard(rng, family, tuple(arguments), shape)
    middle, deviation = _moments(family, tuple(arguments))
    return ((values - middle) * (std(shape) / deviation)).astype(np.float32)


def _standard(rng, family: str, arguments: tuple[float, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Draws by the inverse distribution function, which scipy's own random methods are not needed for; float64."""
    frozen = _frozen(family, arguments)
    values = np.empty(math.prod(shape))
    block = 1 << 18
    for start in range(0, values.size, block):
        part = values[start:start + block]
        part[:] = frozen.ppf((rng.randint(0, 1 << 24, part.size) + 0.5) / (1 << 24))
    return values.reshape(shape)


def _moments(family: str, arguments: tuple[float, ...]) -> tuple[float, float]:
    frozen = _frozen(family, arguments)
    mean, deviation = float(frozen.mean()), float(frozen.std())
    if math.isfinite(mean) and math.isfinite(deviation) and deviation > 0:
        return mean, deviation
    low, middle, high = frozen.ppf([0.25, 0.5, 0.75])
    return float(middle), float(high - low) / 1.349  # the middle half of a normal distribution is 1.349 deviations wide


def _frozen(family: str, arguments: tuple[float, ...]) -> Any:
    from scipy import stats
    known = {name for name, value in vars(stats).items() if isinstance(value, stats.rv_continuous)}
    if family not in known:
        raise UnknownName("continuous distribution", family, known, owner="scipy.stats")
    try:
        frozen = getattr(stats, family)(*map(float, arguments))
        middle = float(frozen.ppf(0.5))
    except TypeError as error:
        raise WiringError(f"scipy.stats.{family} cannot take the arguments {arguments}: {error}.") from None
    if not math.isfinite(middle):
        raise WiringError(f"scipy.stats.{family} is not defined for the arguments {arguments}.")
    return frozen


@hookimpl
def wiring_initializers():
    reference = "Geiger et al., ICLR 2022"
    return [Initializer(name="best-distribution", sample=best_distribution, numbers=_numbers, reference=reference),
            Initializer(name="distribution", sample=distribution, reference=reference)]
