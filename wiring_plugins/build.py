"""From a recipe to a `torch.nn.Module`."""
from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .calibration import calibrate
from .errors import WiringError
from .names import resolve
from .normalisation import norm_state
from .recipe import Architecture, Initializer, Layer, LayerContext, Recipe
from .registry import Registry
from .seeding import layer_rng

if TYPE_CHECKING:
    import torch


def build_model(name: str, *, seed: int | None = None, registry: Registry | None = None) -> torch.nn.Module:
    """The model of that name, wired and in evaluation mode on the CPU. Names: :func:`wiring_plugins.names.resolve`.

    The same name and seed give the same weights, bit for bit. `seed` replaces the recipe's own.

    >>> from wiring_plugins import build_model
    >>> build_model("wiring-gabor-frozen").V1.conv1.weight.shape
    torch.Size([64, 3, 7, 7])

    Raises:
        UnknownName: no recipe has that name. DataUnavailable: its statistics source is not on this machine.
    """
    if registry is None:
        from .plugins import load_registry
        registry = load_registry()
    recipe = resolve(name, registry)
    return wire(recipe if seed is None else replace(recipe, seed=seed), registry)


def wire(recipe: Recipe, registry: Registry) -> torch.nn.Module:
    """Make the recipe's architecture, draw its weights, set its batch normalisation, and load what it has learned.

    Raises:
        CorruptFile: the recipe has trained weights that are not those it was registered with, or no longer fit it.
    """
    if recipe.weights.kind == "delta":
        from .delta import build_trained
        return build_trained(recipe, registry)
    import torch

    architecture = architecture_of(recipe, registry)
    with torch.device("meta"):  # no memory and no time for default weights that are replaced at once
        model = architecture.build()
    model = model.to_empty(device="cpu")
    if recipe.weights.kind == "full":
        from .weights_io import check_file, load_weights
        check_file(recipe.weights, recipe.name)
        return load_weights(model, recipe.weights.file).eval()
    state = model.state_dict()
    for path, weights in draw_weights(recipe, registry).items():
        state[f"{path}.weight"] = torch.from_numpy(weights)
    for layer in architecture.layers:
        if layer.kind != "norm" and layer.bias:
            state[f"{layer.path}.bias"] = torch.zeros(layer.shape[0])
    for path, parts in norm_state(recipe, architecture, registry).items():
        state[f"{path}.num_batches_tracked"] = torch.tensor(0)
        state |= {f"{path}.{name}": torch.from_numpy(values) for name, values in parts.items()}
    model.load_state_dict(state, assign=True)
    model.requires_grad_(True).eval()
    if recipe.batch_norm.statistics == "calibrated":
        calibrate(model, registry.commitment(recipe), images=recipe.batch_norm.images, seed=recipe.seed)
    return model


def architecture_of(recipe: Recipe, registry: Registry) -> Architecture:
    """The recipe's architecture, with as many class scores as the recipe asks for."""
    architecture = registry.architecture(recipe.architecture)
    logits = registry.commitment(recipe).logits
    if recipe.classes in (None, architecture.weight_layers()[logits].shape[0]):
        return architecture

    def build() -> torch.nn.Module:
        from torch import nn
        model = architecture.build()
        given = model.get_submodule(logits)
        model.set_submodule(logits, nn.Linear(given.in_features, recipe.classes, bias=given.bias is not None))
        return model

    layers = tuple(replace(layer, shape=(recipe.classes, *layer.shape[1:])) if layer.path == logits else layer
                   for layer in architecture.layers)
    return replace(architecture, build=build, layers=layers)


def draw_weights(recipe: Recipe, registry: Registry) -> Mapping[str, np.ndarray]:
    """Every convolution's and linear layer's weights, float32, by layer path.

    Layers are drawn side by side in threads: each has a random stream of its own, so the order does not matter.
    """
    architecture = architecture_of(recipe, registry)
    pixels_per_degree = registry.commitment(recipe).pixels_per_degree
    sources = {name: registry.source(name).load()
               for name in {step.source for init in recipe.init.values() for step in init.steps()} - {None}}

    drawn: dict[str, np.ndarray] = {}

    def draw(layer: Layer, previous: np.ndarray | None = None) -> np.ndarray:
        rng, weights = layer_rng(recipe.seed, layer.path), None
        for init in recipe.init[layer.path].steps():
            statistics = sources[init.source].layer(init.layer or layer.path) if init.source else None
            context = LayerContext(layer=layer.path, statistics=statistics, pixels_per_degree=pixels_per_degree,
                                   previous=previous, template=weights)
            weights = _sampled(registry.initializer(init.kind), rng, layer, context, init.params)
        return weights

    def needs_previous(layer: Layer) -> bool:
        return any("previous" in registry.initializer(init.kind).needs for init in recipe.init[layer.path].steps())

    layers = list(architecture.weight_layers().values())
    alone = sorted((layer for layer in layers if not needs_previous(layer)), key=lambda layer: -np.prod(layer.shape))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn.update(zip((layer.path for layer in alone), pool.map(draw, alone)))
    for before, layer in zip([None, *layers], layers):
        if layer.path not in drawn:
            drawn[layer.path] = draw(layer, drawn[before.path] if before else None)
    return drawn


def _sampled(initializer: Initializer, rng, layer: Layer, context: LayerContext, params: Mapping) -> np.ndarray:
    if "previous" in initializer.needs and context.previous is None:
        raise WiringError(f"Initialiser {initializer.name!r} makes weights from those of the layer before, and there "
                          f"is none before {layer.path}. Give it to a later layer.")
    try:
        weights = initializer.sample(rng, layer.shape, context, **params)
    except TypeError as error:
        try:
            inspect.signature(initializer.sample).bind(rng, layer.shape, context, **params)
        except TypeError as mismatch:
            raise WiringError(f"Init({initializer.name!r}) of {layer.path} cannot take its params {dict(params)}: "
                              f"{mismatch}. See docs/initialisers.md.") from error
        raise
    return _checked(weights, layer, initializer.name)


def _checked(weights: np.ndarray, layer, kind: str) -> np.ndarray:
    if weights.shape != layer.shape or weights.dtype != np.float32:
        raise WiringError(f"Initialiser {kind!r} gave {weights.dtype} weights of shape {weights.shape} for layer "
                          f"{layer.path}. It has to give float32 of shape {layer.shape}.")
    if not np.isfinite(weights.sum(dtype=np.float64)):  # without a mask as large as the layer
        raise WiringError(f"Initialiser {kind!r} gave NaN or infinite weights for layer {layer.path}.")
    return np.ascontiguousarray(weights)
