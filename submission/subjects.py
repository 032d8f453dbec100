"""What can be scored: this project's recipes, and any model of the platform."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wiring_plugins import Commitment, Recipe, UnknownName, WiringError, fingerprint, load_registry, resolve, wire

from .brain_model import WiredBrainModel, identify
from .extraction import BATCH_SIZE
from .platform import registered
from .view import ScreenWindow


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to score. `fresh` makes a new brain model, because one must not be reused across benchmarks.

    fresh: `(window or None, progress or None)` -> platform `BrainModel`.
    weights_hash, recipe: None for a model of the platform, whose weights this package does not know.
    """

    name: str
    identifier: str
    fresh: Callable[[ScreenWindow | None, Callable[[int], None] | None], Any]
    seed: int
    weights: str
    weights_hash: str | None = None
    recipe: Recipe | None = None
    commitment: Commitment | None = None


def load_subject(name: str, *, seed: int | None = None, device: str = "cpu", batch_size: int = BATCH_SIZE) -> Subject:
    """The recipe (with or without `@...`, see `wiring_plugins.resolve`) or platform model of that name.

    seed: replaces the recipe's own; weights that were trained have only the seed that they were born with.

    Raises:
        UnknownName: neither has it. WiringError: another seed is asked of trained weights.
    """
    registry = load_registry()
    if name.partition("@")[0] in registry.recipes:
        recipe = resolve(name, registry)
        if seed not in (None, recipe.seed) and recipe.weights.kind != "generated":
            raise WiringError(f"{name!r} has trained weights, and there are none of seed {seed}. "
                              f"Leave --seed out, or score {name.partition('@')[0]}@birth --seed {seed}.")
        return _wired(recipe if seed is None else replace(recipe, seed=seed), registry, device, batch_size)
    of_the_platform = registered("models")
    if name not in of_the_platform:
        raise UnknownName("model", name, [*registry.recipes, *of_the_platform],
                          listed_by="wiring models` or `wiring platform-models")

    def fresh(window, progress):
        from brainscore_vision import load_model
        return load_model(name)

    return Subject(name=name, identifier=name, fresh=fresh, seed=seed or 0, weights="of the platform")


def _wired(recipe: Recipe, registry, device: str, batch_size: int) -> Subject:
    model = wire(recipe, registry).to(device)
    commitment = registry.commitment(recipe)
    weights_hash = fingerprint(model.state_dict())

    def fresh(window, progress):
        return WiredBrainModel(recipe.name, model, commitment, device=device, batch_size=batch_size, window=window,
                               weights_hash=weights_hash, progress=progress)

    return Subject(name=recipe.name, identifier=identify(recipe.name, weights_hash, commitment), fresh=fresh,
                   seed=recipe.seed, weights="untrained" if recipe.weights.kind == "generated" else "trained",
                   weights_hash=weights_hash, recipe=recipe, commitment=commitment)
