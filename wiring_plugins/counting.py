"""What a recipe costs: synapses, those that learn, and the numbers that everything is wired from."""
from __future__ import annotations

import math
from dataclasses import dataclass

from .build import architecture_of
from .recipe import Init, Layer, LayerContext, Recipe
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
    running_statistics: int

    @property
    def synapses(self) -> int:
        return sum(layer.synapses for layer in self.layers)

    @property
    def trained_synapses(self) -> int:
        return sum(layer.synapses for layer in self.layers if layer.learns)


def count(recipe: Recipe, registry: Registry) -> Count:
    """Count from the tables alone: nothing is built or drawn.

    Raises:
        DataUnavailable: a source of the recipe is not on this machine.
    """
    architecture = architecture_of(recipe, registry)
    shared: dict[tuple, tuple[int, bool]] = {}
    rows = []
    for layer in architecture.weight_layers().values():
        needed = {}
        for init in recipe.init[layer.path].steps():
            needed |= _numbers(init, layer, registry)
        shared |= needed
        rows.append(LayerCount(layer=layer, init=recipe.init[layer.path], learns=_learns(layer.path, recipe),
                               numbers=sum(numbers for numbers, _ in needed.values()),
                               borrowed=any(trained for _, trained in needed.values())))
    norms = [layer for layer in architecture.layers if layer.kind == "norm"]
    channels = sum(layer.shape[0] for layer in norms)
    policy, norm_numbers, running = recipe.batch_norm, 0, 0
    if policy.affine == "sampled":
        norm_numbers = 4 * len(norms)
    if policy.statistics == "borrowed":
        running = 2 * channels
    trained_norms = norm_numbers + running if policy.draws and registry.source(policy.source).trained else 0
    sizes = {layer.path: math.prod(layer.shape) + (layer.shape[0] if layer.bias else 0)
             for layer in architecture.layers}
    return Count(
        layers=tuple(rows), parameters=sum(sizes.values()), running_statistics=running,
        trained_parameters=sum(size for path, size in sizes.items() if _learns(path, recipe)),
        numbers=sum(numbers for numbers, _ in shared.values()) + norm_numbers + running,
        borrowed=sum(numbers for numbers, trained in shared.values() if trained) + trained_norms)


def _numbers(init: Init, layer: Layer, registry: Registry) -> dict[tuple, tuple[int, bool]]:
    """(initialiser, source, the source's own object for the layer) -> numbers, and whether training made them."""
    initializer = registry.initializer(init.kind)
    if init.source is None or initializer.numbers is None:
        return {}
    source = registry.source(init.source)
    statistics = source.load().layer(init.layer or layer.path)
    context = LayerContext(layer=layer.path, statistics=statistics)
    numbers = initializer.numbers(layer.shape, context, **init.params)
    return {(init.kind, init.source, id(statistics)): (numbers, source.trained)}


def _learns(path: str, recipe: Recipe) -> bool:
    return any(path == trained or path.startswith(f"{trained}.") for trained in recipe.trainable)
