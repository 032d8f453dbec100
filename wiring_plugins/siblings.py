"""Recipes that are one model under several seeds."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .recipe import Recipe, WeightsRef


def families(recipes: Iterable[Recipe]) -> list[tuple[Recipe, ...]]:
    """Groups of recipes that differ in nothing but name, seed and trained weights, each in the order of seeds.

    The groups are in the order of their first members' names.
    """
    groups: dict[Recipe, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(replace(recipe, name="", seed=0, weights=WeightsRef()), []).append(recipe)
    return sorted((tuple(sorted(group, key=lambda recipe: (recipe.seed, recipe.name))) for group in groups.values()),
                  key=lambda group: group[0].name)
