"""What a recipe costs: synapses, those that learn, and the numbers that everything is wired from."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .birth import architecture_of
from .normalisation import held_norm
from .recipe import BatchNorm, Init, Layer, LayerContext, Recipe
from .registry import Registry

BITS = 32
"""Bits of a number of a source: they are kept as float32."""


@dataclass(frozen=True, kw_only=True)
class LayerCount:
    """One convolution or linear layer. numbers: what its initialiser needs of the source, and of which source."""

    layer: Layer
    init: Init
    learns: bool
    numbers: int
    borrowed: bool

    @property
    def synapses(self) -> int:
        return math.prod(self.layer.shape)


@dataclass(frozen=True, kw_only=True)
class Count:
    """The whole model. Synapses are the weights of convolutions and linear layers; parameters also biases, γ and β.

    numbers: all that birth is drawn from; a distribution that several layers share counts once.
    borrowed: those of them, and of the running statistics, that come from a trained network.
    """

    layers: tuple[LayerCount, ...]
    parameters: int
    trained_parameters: int
    numbers: int
    borrowed: int

    @property
    def synapses(self) -> int:
        return sum(layer.synapses for layer in self.layers)

    @property
    def trained_synapses(self) -> int:
        return sum(layer.synapses for layer in self.layers if layer.learns)


def count(recipe: Recipe, registry: Registry) -> Count:
    """Count from the tables alone: nothing is built or drawn.

    Raises:
        DataUnavailable: a source of the recipe is not on this machine. WiringError: it lacks what a layer needs.
    """
    architecture = architecture_of(recipe, registry)
    load = functools.cache(registry.load_source)
    shared: dict[tuple, _Share] = {}
    rows = []
    for layer in architecture.layers:
        if layer.kind == "norm":
            _keep_larger(shared, _norm_shares(recipe.batch_norm, layer, registry, load))
            continue
        needed = {}
        for init in recipe.init[layer.path].steps():
            needed |= _shares(init, layer, registry, load)
        _keep_larger(shared, needed)
        rows.append(LayerCount(layer=layer, init=recipe.init[layer.path], learns=recipe.learns(layer.path),
                               numbers=sum(share.numbers for share in needed.values()),
                               borrowed=any(share.trained for share in needed.values())))
    sizes = {layer.path: math.prod(layer.shape) + (layer.shape[0] if layer.bias else 0)
             for layer in architecture.layers}
    return Count(
        layers=tuple(rows), parameters=sum(sizes.values()),
        trained_parameters=sum(size for path, size in sizes.items() if recipe.learns(path)),
        numbers=sum(share.numbers for share in shared.values()),
        borrowed=sum(share.numbers for share in shared.values() if share.trained))


@dataclass(frozen=True, kw_only=True)
class _Share:
    """What one initialiser needs of one layer's statistics, which are kept here: a lost object's id may come again."""

    numbers: int
    trained: bool
    statistics: object


def _shares(init: Init, layer: Layer, registry: Registry, load: Callable[[str], Any]) -> dict[tuple, _Share]:
    """(initialiser, source, id of the source's own object for the layer) -> what it needs of that."""
    initializer = registry.initializer(init.kind)
    if init.source is None or initializer.numbers is None:
        return {}
    statistics = load(init.source).layer(init.layer or layer.path)
    numbers = initializer.numbers(layer.shape, LayerContext(layer=layer.path, statistics=statistics), **init.params)
    return {(init.kind, init.source, id(statistics)): _Share(
        numbers=numbers, trained=registry.source(init.source).trained, statistics=statistics)}


def _norm_shares(policy: BatchNorm, layer: Layer, registry: Registry,
                 load: Callable[[str], Any]) -> dict[tuple, _Share]:
    """The same for a normalisation layer: 4 for drawn γ and β, and the running statistics that are borrowed."""
    if not policy.draws:
        return {}
    held = held_norm(load(policy.source), layer.path, policy)
    numbers = 4 if policy.affine == "sampled" else 0
    if policy.statistics == "borrowed":
        numbers += 2 * min(layer.shape[0], held.running_mean.size)  # they repeat in a layer of more channels
    return {("norm", policy.source, id(held)): _Share(
        numbers=numbers, trained=registry.source(policy.source).trained, statistics=held)}


def _keep_larger(shared: dict[tuple, _Share], needed: dict[tuple, _Share]) -> None:
    """What layers have in common counts once, as much of it as the layer that needs most."""
    for key, share in needed.items():
        shared[key] = max(share, shared.get(key, share), key=lambda each: each.numbers)
