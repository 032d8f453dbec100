"""Controls that take something away from weights that another initialiser, the Init's `base`, has drawn."""
from __future__ import annotations

import numpy as np

from ..errors import WiringError
from ..hookspecs import hookimpl
from ..recipe import Initializer, LayerContext


def permute(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *,
            within: str = "kernel") -> np.ndarray:
    """The base's weights in a random order: their distribution stays, where they are does not.

    Formula: w = base[π], a random permutation π of the weights of each slice (within="channel"), of each output kernel
    ("kernel"), or of the whole layer ("layer"). Source: Geiger et al. (ICLR 2022), "jumblers".
    Numbers needed: those of the base.
    """
    groups = {"channel": shape[0] * shape[1], "kernel": shape[0], "layer": 1}
    if within not in groups:
        raise WiringError(f"Init('permute') of {context.layer} has within={within!r}. "
                          f"Legal: {', '.join(map(repr, groups))}.")
    rows = context.template.reshape(groups[within], -1)
    order = rng.random_sample(rows.shape).argsort(axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1).reshape(shape)


def zero(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *, share: float = 0.5,
         which: str = "smallest") -> np.ndarray:
    """The base's weights without the smallest, or without the largest.

    Formula: w = base, but 0 for the `share` of the layer's weights whose absolute value is smallest or largest.
    Source: Geiger et al. (ICLR 2022), "low/high zero". Numbers needed: those of the base.
    """
    weights = context.template.copy()
    gone = _extreme(np.abs(weights).ravel(), share, which, "zero", context)
    weights.reshape(-1)[gone] = 0
    return weights


def cut_variance(rng: np.random.RandomState, shape: tuple[int, ...], context: LayerContext, *, share: float = 0.25,
                 which: str = "smallest") -> np.ndarray:
    """The base's kernels without those of the smallest, or largest, variance.

    Formula: w[o] = base[o], but 0 for the `share` of output kernels whose weights vary least or most.
    Source: Geiger et al. (ICLR 2022), "low/high variance cut". Numbers needed: those of the base.
    """
    weights = context.template.copy()
    weights[_extreme(weights.reshape(len(weights), -1).var(axis=1), share, which, "cut-variance", context)] = 0
    return weights


def _extreme(values: np.ndarray, share: float, which: str, kind: str, context: LayerContext) -> np.ndarray:
    """Indices of the `share` of the values that are smallest or largest."""
    if which not in ("smallest", "largest") or not 0 <= share <= 1:
        raise WiringError(f"Init({kind!r}) of {context.layer} has share={share!r}, which={which!r}. A share is 0 to 1, "
                          "and which is 'smallest' or 'largest'.")
    order = np.argsort(values if which == "smallest" else -values, kind="stable")
    return order[:round(share * len(order))]


@hookimpl
def wiring_initializers():
    reference = "Geiger et al., ICLR 2022"
    return [Initializer(name=name, sample=sample, needs=("template",), reference=reference) for name, sample in (
        ("permute", permute), ("zero", zero), ("cut-variance", cut_variance))]
