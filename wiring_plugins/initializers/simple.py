"""Weights from a rule of one line: uniform, constant, of one sign or another, multiples of the identity."""
from __future__ import annotations

import math

import numpy as np

from ..errors import WiringError
from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext
from .held import held
from .kaiming import std


def uniform(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
            bound: float | None = None) -> np.ndarray:
    """Independent uniform weights.

    Formula: w ~ U(-bound, bound); bound = sqrt(6 / (k² · C_out)), which has the variance of Kaiming weights, if None.
    Source: Geiger et al. (ICLR 2022), "uniform". Numbers needed: none of a source.
    """
    bound = math.sqrt(3) * std(shape) if bound is None else bound
    if not 0 <= bound < math.inf:
        raise WiringError(f"Init('uniform') of {context.layer} has bound={bound!r}. It is a number of 0 or more.")
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def constant(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
             value: float = 0.1) -> np.ndarray:
    """All weights alike, whatever the seed.

    Formula: w = value. Source: Geiger et al. (ICLR 2022), "fixed value", there 1 and 0.1.
    Numbers needed: none of a source.
    """
    return np.full(shape, value, dtype=np.float32)


def sign(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *, negative: float = 0.25,
         positive: float = 0.25) -> np.ndarray:
    """Weights of one size that excite, inhibit or are absent.

    Formula: w = -a, a or 0 with the probabilities `negative`, `positive` and the rest; a such that w² averages to
    Kaiming's 2 / (k² · C_out). Source: Geiger et al. (ICLR 2022), "sign init". Numbers needed: none of a source.
    """
    if not (negative >= 0 and positive >= 0 and 0 < negative + positive <= 1):
        raise WiringError(f"Init('sign') of {context.layer} has probabilities {negative} and {positive}. Both are 0 or "
                          "more, and their sum is above 0 and at most 1.")
    u = rng.random_sample(shape)
    size = std(shape) / math.sqrt(negative + positive)
    return (size * ((u >= 1 - positive).astype(np.float32) - (u < negative))).astype(np.float32)


def eigenvalue(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext) -> np.ndarray:
    """Every slice is a multiple of the identity matrix.

    Formula: w[o, i] = λ · I, λ ~ N(mean, std) of the real part of the largest eigenvalue of the source's slices; in a
    1x1 layer that is the weight itself. I has ones on the diagonal of a slice that is not square.
    Source: Geiger et al. (ICLR 2022), "evd". Numbers needed: 2.
    """
    fitted = _eigenvalues(context)
    values = fitted.mean + fitted.std * rng.standard_normal(shape[:2])
    return (values.reshape(shape[:2] + (1,) * (len(shape) - 2)) * _identity(shape[2:])).astype(np.float32)


def _eigenvalues(context: LayerContext):
    found = getattr(context.statistics, "eigenvalue", None)
    return found if found is not None else held(context, "normal", "eigenvalue")


def _identity(size: tuple[int, ...]) -> np.ndarray:
    return np.eye(*size) if len(size) == 2 else np.ones(size)


@hookimpl
def wiring_initializers():
    reference = "Geiger et al., ICLR 2022"
    return [Initializer(name="uniform", sample=uniform, reference=reference),
            Initializer(name="constant", sample=constant, reference=reference),
            Initializer(name="sign", sample=sign, reference=reference),
            Initializer(name="eigenvalue", sample=eigenvalue, reference=reference,
                        numbers=lambda shape, context: _eigenvalues(context).numbers())]
