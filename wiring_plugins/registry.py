"""What is registered: architectures, initialisers, statistics and recipes by name, checked against each other."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import RegistrationError, UnknownName, WiringError
from .misfit import misfit
from .recipe import (Architecture, Commitment, FrozenMapping, Initializer, Recipe, StatisticsSource, WeightsRef)

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Everything that plugins offer, by name. Made by :func:`wiring_plugins.load_registry`, or by hand from parts."""

    architectures: Mapping[str, Architecture] = FrozenMapping()
    initializers: Mapping[str, Initializer] = FrozenMapping()
    statistics: Mapping[str, StatisticsSource] = FrozenMapping()
    recipes: Mapping[str, Recipe] = FrozenMapping()

    def architecture(self, name: str) -> Architecture:
        return _look_up("architecture", name, self.architectures)

    def initializer(self, name: str) -> Initializer:
        return _look_up("initialiser", name, self.initializers, listed_by="wiring initializers")

    def source(self, name: str) -> StatisticsSource:
        return _look_up("statistics source", name, self.statistics, listed_by="wiring statistics list")

    def load_source(self, name: str) -> Any:
        """What the statistics source of that name holds.

        Raises:
            DataUnavailable: it is not on this machine. WiringError: its `load` fails.
        """
        source = self.source(name)
        try:
            return source.load()
        except WiringError:
            raise
        except Exception as error:  # a stranger's plugin may fail in any way
            raise WiringError(f"The statistics source {name!r} cannot be loaded: {type(error).__name__}: {error}. "
                              "Set WIRING_DEBUG=1 to see where.") from error

    def recipe(self, name: str) -> Recipe:
        return _look_up("model", name, self.recipes, listed_by="wiring models")

    def commitment(self, recipe: Recipe) -> Commitment:
        """The recipe's own commitment, or else its architecture's."""
        return recipe.commitment or self.architecture(recipe.architecture).commitment

    def check(self, recipe: Recipe) -> None:
        """Raise :class:`RegistrationError` or :class:`UnknownName` unless every part of the recipe is of its type and
        every name in it exists."""
        _require_type(recipe, Recipe, "recipe")
        if not NAME.fullmatch(recipe.name):
            raise RegistrationError(f"{recipe.name!r} is no legal model name. A name is lower-case words and numbers "
                                    "joined by single hyphens, such as 'wiring-gabor-frozen'.")
        architecture = self.architecture(recipe.architecture)
        wired, owner = architecture.weight_layers(), f"recipe {recipe.name!r}"
        for path, init in recipe.init.items():
            _look_up("layer", path, wired, owner=f"{architecture.name} (init of {owner})")
            for step in init.steps():
                if "template" in self.initializer(step.kind).needs and step.base is None:
                    raise RegistrationError(f"Init({step.kind!r}) of {path} in {owner} alters weights and needs them: "
                                            f"give Init({step.kind!r}, base=Init('kaiming')), or another base.")
                if step.source is not None:
                    self.source(step.source)
        if missing := [path for path in wired if path not in recipe.init]:
            raise RegistrationError(f"The init of {owner} says nothing of {', '.join(missing)}. "
                                    "Every convolution and linear layer needs an Init.")
        if recipe.batch_norm.images < 1:
            raise RegistrationError(f"The batch_norm of {owner} has {recipe.batch_norm.images} images, and needs 1 or more.")
        if recipe.batch_norm.draws and recipe.batch_norm.source is None:
            raise RegistrationError(f"The batch_norm of {owner} is {recipe.batch_norm.statistics} and "
                                    f"{recipe.batch_norm.affine} and needs a source that holds normalisation layers.")
        if recipe.batch_norm.source is not None:
            self.source(recipe.batch_norm.source)
        paths = architecture.module_paths()
        for path in recipe.trainable:
            if path not in paths:
                raise UnknownName("module", path, paths, owner=f"{architecture.name} (trainable of {owner})")
        check_weights(recipe.weights)


def check_weights(weights: WeightsRef) -> None:
    """Raise :class:`RegistrationError` unless it says where weights are. Whether the file is there is not looked at."""
    _require_type(weights, WeightsRef, "weights")
    if weights.kind != "generated" and weights.file is None:
        raise RegistrationError(f"Weights of kind {weights.kind!r} need a file: "
                                f"WeightsRef(kind={weights.kind!r}, file=...).")


def _require_type(value, kind: type, name: str) -> None:
    if problem := misfit(value, kind, name):
        raise RegistrationError(problem)


def _look_up(kind: str, name: str, items: Mapping, *, listed_by: str = "", owner: str = ""):
    if name not in items:
        raise UnknownName(kind, name, items, listed_by=listed_by, owner=owner)
    return items[name]
