"""From the name that a person types to a recipe: `NAME`, `NAME@SOURCE`, `NAME@birth` or `NAME@RUN`."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .delta import is_delta, newest_in, read_recipe
from .errors import UnknownName, WiringError
from .recipe import Init, Recipe, WeightsRef
from .registry import Registry

BIRTH = "birth"


def resolve(name: str, registry: Registry) -> Recipe:
    """The recipe that `name` means.

    `NAME` is a registered recipe, with its trained weights if there are any. `NAME@SOURCE` is that recipe, wired from
    another statistics source. `NAME@birth` is the recipe before any training. `NAME@RUN` is what it has learned in a
    run folder, or in a delta weights file; any other weights file, such as the published CORnet-S's, holds the whole
    model, and nothing is wired. A path without a slash is written `NAME@./RUN`.

    >>> from wiring_plugins import load_registry
    >>> resolve("wiring-wc@wiring-up-vision", load_registry()).init["V1.conv2"]
    Init(kind='cluster', source='wiring-up-vision', layer=None, params={}, base=None)

    Raises:
        UnknownName: there is no such recipe or source. WiringError: the recipe draws from no source, or the run is of
            another recipe.
    """
    base, at, variant = name.partition("@")
    recipe = registry.recipe(base)
    if not at:
        return recipe
    if variant == BIRTH:
        return replace(recipe, name=name, weights=WeightsRef())
    if variant.endswith(".json"):
        raise WiringError(f"{variant} is a statistics file, not weights. Type `wiring statistics import {variant} --name "
                          f"SOURCE`, and then {base}@SOURCE.")
    if "/" in variant or variant.endswith(".safetensors"):
        return trained_in(recipe, variant)
    if variant not in registry.statistics:
        raise UnknownName("statistics source", variant, [*registry.statistics, BIRTH], listed_by="wiring statistics list")
    return from_source(recipe, variant)


def from_source(recipe: Recipe, source: str) -> Recipe:
    """The recipe named `NAME@SOURCE`, all of whose layers that draw from a source draw from `source`."""
    norms = recipe.batch_norm
    if not (norms.source or any(step.source for init in recipe.init.values() for step in init.steps())):
        raise WiringError(f"No layer of {recipe.name!r} draws from a statistics source, so '@{source}' says nothing. "
                          f"Build {recipe.name!r} itself.")
    init = {path: _with_source(item, source) for path, item in recipe.init.items()}
    return replace(recipe, name=f"{recipe.name}@{source}", init=init, weights=WeightsRef(),
                   batch_norm=replace(norms, source=source if norms.source else None),
                   doc=f"{recipe.doc}\nHere, all that is drawn from statistics is drawn from {source!r} instead.")


def _with_source(init: Init, source: str) -> Init:
    return replace(init, source=source if init.source else None, base=init.base and _with_source(init.base, source))


def trained_in(recipe: Recipe, place: str) -> Recipe:
    """The recipe named `NAME@PLACE`, with the weights that a run folder's newest checkpoint or a weights file holds."""
    path = Path(place).expanduser()
    file = newest_in(path) if path.is_dir() else path
    if file.is_file() and not is_delta(file):
        return replace(recipe, name=f"{recipe.name}@{path.name}", weights=WeightsRef(kind="full", file=str(file)))
    trained = read_recipe(file)
    base = trained.name.partition("@")[0]  # it may have been wired from another source
    if base != recipe.name:
        raise WiringError(f"{place} holds weights of {trained.name!r}, not of {recipe.name!r}. Type {base}@{place}.")
    return replace(trained, name=f"{trained.name}@{path.name}", weights=WeightsRef(kind="delta", file=str(file)))
