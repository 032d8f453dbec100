"""A recipe's model before it learns: its module, its weights as they are drawn, its normalisation."""
from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .calibration import calibrate
from .errors import UnknownName, WiringError
from .normalisation import norm_state
from .recipe import Architecture, Commitment, Initializer, Layer, LayerContext, Recipe
from .registry import Registry
from .seeding import layer_rng

if TYPE_CHECKING:
    import torch


def wire_at_birth(recipe: Recipe, registry: Registry) -> torch.nn.Module:
    """Make the recipe's architecture, draw its weights, and set its batch normalisation; `weights` is not looked at.

    Raises:
        WiringError: an initialiser fails, or the architecture's table or commitment is not that of its module.
    """
    model = wire_uncalibrated(recipe, registry)
    if recipe.batch_norm.statistics == "calibrated":
        calibrate(model, registry.commitment(recipe), images=recipe.batch_norm.images, seed=recipe.seed)
    return model


def wire_uncalibrated(recipe: Recipe, registry: Registry) -> torch.nn.Module:
    """As :func:`wire_at_birth`, but `calibrated` normalisations are still unit ones."""
    import torch

    architecture, commitment = architecture_of(recipe, registry), registry.commitment(recipe)
    model = bare_module(architecture, commitment)
    state = model.state_dict()
    for path, weights in draw_weights(recipe, registry).items():
        state[f"{path}.weight"] = torch.from_numpy(weights)
    for layer in architecture.layers:
        if layer.kind != "norm" and layer.bias:
            state[f"{layer.path}.bias"] = torch.zeros(layer.shape[0])
    for path, parts in norm_state(recipe, architecture, registry).items():
        parts = {"num_batches_tracked": np.array(0), **parts}
        state |= {f"{path}.{name}": torch.from_numpy(values) for name, values in parts.items()
                  if f"{path}.{name}" in state}
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(True).eval()


def bare_module(architecture: Architecture, commitment: Commitment) -> torch.nn.Module:
    """The architecture's module on the CPU, its weights still to come. Constants in its buffers are as `build` makes them.

    Raises:
        UnknownName: the commitment names a module that is not there. WiringError: the layer table is not the module's.
    """
    import torch

    with torch.device("meta"):  # no memory and no time for default weights that are replaced at once
        model = architecture.build()
    modules = [name for name, _ in model.named_modules()]
    for part, path in {**commitment.regions, "readout": commitment.readout, "logits": commitment.logits}.items():
        if path not in modules:
            raise UnknownName("module", path, modules, owner=f"{architecture.name} ({part} of its commitment)")
    _check_table(architecture, model)
    norms = {layer.path for layer in architecture.layers if layer.kind == "norm"}
    if all(name.rpartition(".")[0] in norms for name, _ in model.named_buffers()):
        return model.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        return architecture.build()


def _check_table(architecture: Architecture, model: torch.nn.Module) -> None:
    told = {f"{layer.path}.{part}": shape for layer in architecture.layers
            for part, shape in (("weight", layer.shape), ("bias", layer.shape[:1]))[:1 + layer.bias]}
    there = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name in [*told, *there]:
        if told.get(name) != there.get(name):
            raise WiringError(f"The layer table of architecture {architecture.name!r} gives {name} the shape "
                              f"{told.get(name, 'of nothing')}, and its module {there.get(name, 'none')}. Every parameter "
                              "has to be the weight or the bias of a Layer with its path, shape and bias.")


def architecture_of(recipe: Recipe, registry: Registry) -> Architecture:
    """The recipe's architecture, with as many class scores as the recipe asks for.

    Raises:
        WiringError: the recipe asks for a number, and the layer of the class scores is not a linear one.
    """
    architecture = registry.architecture(recipe.architecture)
    if recipe.classes is None:
        return architecture
    logits = registry.commitment(recipe).logits
    head = architecture.weight_layers().get(logits)
    if head is None or head.kind != "linear":
        raise WiringError(f"{recipe.name!r} cannot have {recipe.classes} classes: its commitment names {logits!r} for the "
                          f"class scores, which is no linear layer of {architecture.name!r} and cannot be made anew.")
    if recipe.classes == head.shape[0]:
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
    sources = {name: registry.load_source(name)
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
    except (WiringError, MemoryError):
        raise
    except Exception as error:
        if mismatch := _signature_mismatch(initializer, rng, layer.shape, context, **params):
            raise WiringError(f"Init({initializer.name!r}) of {layer.path} cannot take its params {dict(params)}: "
                              f"{mismatch}. See docs/initialisers.md.") from error
        raise WiringError(f"Initialiser {initializer.name!r} fails for layer {layer.path} of shape {layer.shape}: "
                          f"{type(error).__name__}: {error}. Set WIRING_DEBUG=1 to see where.") from error
    return _checked(np.asarray(weights), layer, initializer.name)


def _signature_mismatch(initializer: Initializer, *arguments, **params) -> TypeError | None:
    try:
        inspect.signature(initializer.sample).bind(*arguments, **params)
    except TypeError as mismatch:
        return mismatch


def _checked(weights: np.ndarray, layer, kind: str) -> np.ndarray:
    if weights.shape != layer.shape or weights.dtype != np.float32:
        raise WiringError(f"Initialiser {kind!r} gave {weights.dtype} weights of shape {weights.shape} for layer "
                          f"{layer.path}. It has to give float32 of shape {layer.shape}.")
    if not np.isfinite(weights.sum(dtype=np.float64)):  # without a mask as large as the layer
        raise WiringError(f"Initialiser {kind!r} gave NaN or infinite weights for layer {layer.path}.")
    return np.ascontiguousarray(weights)
