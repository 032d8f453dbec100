"""What batch-normalisation layers begin with: their affine part and running statistics, by the recipe's policy."""
from __future__ import annotations

import numpy as np

from .errors import UnknownName, WiringError
from .recipe import Architecture, BatchNorm, Layer, Recipe
from .registry import Registry
from .seeding import layer_rng


def norm_state(recipe: Recipe, architecture: Architecture, registry: Registry) -> dict[str, dict[str, np.ndarray]]:
    """Path of every normalisation layer -> its weight (γ), bias (β), running_mean and running_var, float32.

    A `calibrated` policy begins as `unit` does; :func:`.calibration.calibrate` measures what follows.

    Raises:
        WiringError: the policy's source holds no normalisation for a layer.
    """
    policy = recipe.batch_norm
    source = registry.load_source(policy.source) if policy.draws else None
    return {layer.path: _begin(layer, recipe, source) for layer in architecture.layers if layer.kind == "norm"}


def _begin(layer: Layer, recipe: Recipe, source) -> dict[str, np.ndarray]:
    channels, policy = layer.shape[0], recipe.batch_norm
    state = {"weight": np.ones(channels), "bias": np.zeros(channels),
             "running_mean": np.zeros(channels), "running_var": np.ones(channels)}
    if source is not None:
        held = held_norm(source, layer.path, policy)
        if policy.affine == "sampled":
            rng = layer_rng(recipe.seed, layer.path)
            # a trained γ is positive; a negative draw would turn the channel's response upside down
            state["weight"] = np.maximum(held.gamma.mean + held.gamma.std * rng.standard_normal(channels), 0)
            state["bias"] = held.beta.mean + held.beta.std * rng.standard_normal(channels)
        if policy.statistics == "borrowed":  # repeated, or cut off, where the source has other channels
            state["running_mean"] = np.resize(held.running_mean, channels)
            state["running_var"] = np.resize(held.running_var, channels)
    return {name: values.astype(np.float32) for name, values in state.items()}


def held_norm(source, path: str, policy: BatchNorm):
    """The :class:`.statistics.types.NormStatistics` that the policy's loaded source holds for the layer at `path`.

    Raises:
        WiringError: the source has no such layer, or no normalisation in it.
    """
    try:
        held = getattr(source.layer(path), "norm", None)
    except UnknownName:
        held = None
    if held is None:
        raise WiringError(f"Source {policy.source!r} holds no normalisation statistics for {path}. Fit a "
                          "network that has them with `wiring fit`, or take the policy 'calibrated'.")
    return held
