"""From the name that a person types to a recipe: `NAME`, or `NAME@SOURCE`."""
from __future__ import annotations

from dataclasses import replace

from .errors import UnknownName, WiringError
from .recipe import Recipe
from .registry import Registry


def resolve(name: str, registry: Registry) -> Recipe:
    """The recipe that `name` means.

    `NAME` is a registered recipe. `NAME@SOURCE` is that recipe, wired from another statistics source.

    >>> from wiring_plugins import load_registry
    >>> resolve("wiring-wc@wiring-up-vision", load_registry()).init["V1.conv2"]
    Init(kind='cluster', source='wiring-up-vision', layer=None, params={})

    Raises:
        UnknownName: there is no such recipe or source. WiringError: the recipe draws from no source.
    """
    base, at, variant = name.partition("@")
    recipe = registry.recipe(base)
    if not at:
        return recipe
    if variant not in registry.statistics:
        raise UnknownName("statistics source", variant, registry.statistics, listed_by="wiring statistics list")
    return from_source(recipe, variant)


def from_source(recipe: Recipe, source: str) -> Recipe:
    """The recipe named `NAME@SOURCE`, all of whose layers that draw from a source draw from `source`."""
    init = {path: replace(item, source=source) if item.source else item for path, item in recipe.init.items()}
    if init == dict(recipe.init) and source not in {item.source for item in init.values()}:
        raise WiringError(f"No layer of {recipe.name!r} draws from a statistics source, so '@{source}' says nothing. "
                          f"Build {recipe.name!r} itself.")
    return replace(recipe, name=f"{recipe.name}@{source}", init=init)
