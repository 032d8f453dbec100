"""What batch-normalisation layers begin with: their affine part and running statistics, by the recipe's policy."""
from __future__ import annotations

import numpy as np

from .errors import WiringError
from .recipe import Architecture, Layer, Recipe
from .registry import Registry
from .seeding import layer_rng


def norm_state(recipe: Recipe, architecture: Architecture, registry: Registry) -> dict[str, dict[str, np.ndarray]]:
    """Path of every normalisation layer -> its weight (γ), bias (β), running_mean and running_var, float32.

    A `calibrated` policy begins as `unit` does; :func:`.calibration.calibrate` measures what follows.

    Raises:
        UnknownName: the policy's source has no such layer. WiringError: the layer of that name holds no normalisation.
    """
    policy = recipe.batch_norm
    source = registry.source(policy.source).load() if policy.draws else None
    return {layer.path: _begin(layer, recipe, source) for layer in architecture.layers if layer.kind == "norm"}


def _begin(layer: Layer, recipe: Recipe, source) -> dict[str, np.ndarray]:
    channels, policy = layer.shape[0], recipe.batch_norm
    state = {"weight": np.ones(channels), "bias": np.zeros(channels),
             "running_mean": np.zeros(channels), "running_var": np.ones(channels)}
    if source is not None:
        held = getattr(source.layer(layer.path), "norm", None)
        if held is None:
            raise WiringError(f"Source {policy.source!r} holds no normalisation statistics for {layer.path}. Fit a "
                              "network that has them with `wiring fit`, or take the policy 'calibrated'.")
        if policy.affine == "sampled":
            rng = layer_rng(recipe.seed, layer.path)
            # a trained γ is positive; a negative draw would turn the channel's response upside down
            state["weight"] = np.maximum(held.gamma.mean + held.gamma.std * rng.standard_normal(channels), 0)
            state["bias"] = held.beta.mean + held.beta.std * rng.standard_normal(channels)
        if policy.statistics == "borrowed":  # repeated, or cut off, where the source has other channels
            state["running_mean"] = np.resize(held.running_mean, channels)
            state["running_var"] = np.resize(held.running_var, channels)
    return {name: values.astype(np.float32) for name, values in state.items()}
