"""The contract that every initialiser and recipe keeps, for plugin authors to run in tests of their own.

    from wiring_plugins.testing import check_initializer, check_recipe

Every check raises :class:`ContractError`, whose text says what is expected and what was found.
"""
from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .birth import draw_weights
from .build import wire
from .recipe import BatchNorm, Initializer, LayerContext, Recipe, from_plain, to_plain
from .registry import Registry
from .seeding import layer_rng

SHAPES = ((8, 3, 7, 7), (16, 8, 3, 3), (12, 16, 1, 1), (5, 12, 3, 5))


class ContractError(AssertionError):
    """A plugin's initialiser or recipe does not do what every one has to do."""


def check_initializer(initializer: Initializer, *, context: LayerContext | None = None, params: dict | None = None,
                      shapes: Sequence[tuple[int, ...]] = SHAPES) -> None:
    """Check that `initializer` is documented, and pure: float32 weights of the right shape that are finite, depend on the
    random stream that is given and on no other, and leave every global random state alone.

    context: with the statistics that it needs, if it needs any. params: parameters of its `Init`.
    """
    name = initializer.name
    _require(bool(initializer.doc), f"Initialiser {name!r} has no docstring. Give formula, source and units.")
    context, params = context or LayerContext(layer="test"), params or {}
    for shape in shapes:
        before = _global_states()
        first, again, other = (initializer.sample(layer_rng(seed, "test"), shape, context, **params) for seed in (0, 0, 1))
        _require(_global_states() == before, f"Initialiser {name!r} uses a global random state. Draw from `rng` alone.")
        found = f"{first.dtype} {first.shape}" if isinstance(first, np.ndarray) else f"a {type(first).__name__}"
        _require(found == f"float32 {shape}", f"Initialiser {name!r} gives {found} where float32 {shape} is asked for.")
        _require(bool(np.isfinite(first).all()), f"Initialiser {name!r} gives NaN or infinity for shape {shape}.")
        _require(np.array_equal(first, again), f"Initialiser {name!r} gives other weights for the same seed.")
        _require(not np.array_equal(first, other) or np.unique(first).size == 1,
                 f"Initialiser {name!r} gives the same weights for another seed.")


def check_recipe(recipe: Recipe, registry: Registry, *, image_size: int = 64) -> None:
    """Check that `recipe` fits the registry, survives JSON, is wired the same twice and differently under another seed,
    runs, and that what its commitment promises exists: every region's module, called once for each of its time bins.

    image_size: pixels of the test image; the model's own size would only be slower.
    """
    registry.check(recipe)
    plain = json.loads(json.dumps(to_plain(recipe)))
    _require(from_plain(Recipe, plain) == recipe, f"Recipe {recipe.name!r} is another one after a round trip through JSON.")
    _require(bool(recipe.doc), f"Recipe {recipe.name!r} has no doc. Say in a sentence what it is.")
    first, again, other = (draw_weights(replace(recipe, seed=recipe.seed + shift), registry) for shift in (0, 0, 1))
    _require(all(np.array_equal(first[path], again[path]) for path in first),
             f"Recipe {recipe.name!r} gives other weights for the same seed.")
    _require(any(not np.array_equal(first[path], other[path]) for path in first),
             f"Recipe {recipe.name!r} gives the same weights for another seed.")
    _check_commitment(replace(recipe, batch_norm=BatchNorm(statistics="unit")), registry, image_size)


def _check_commitment(recipe: Recipe, registry: Registry, image_size: int) -> None:
    import torch

    model, commitment = wire(recipe, registry), registry.commitment(recipe)
    promised = {**commitment.regions, "readout": commitment.readout, "logits": commitment.logits}
    calls = dict.fromkeys(promised, 0)

    def count(name: str):
        def hook(*_):
            calls[name] += 1
        return hook

    for name, path in promised.items():
        model.get_submodule(path).register_forward_hook(count(name))
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, image_size, image_size))
    _require(bool(logits.isfinite().all()), f"Recipe {recipe.name!r} gives NaN or infinite outputs for a gray image.")
    for name, found in calls.items():
        expected = len(commitment.time_bins.get(name, ())) or found
        _require(found >= 1 and found == expected,
                 f"Recipe {recipe.name!r}: module {promised[name]!r} ({name}) is called {found} times in a forward pass, "
                 f"and its commitment names {expected} time bins.")


def _global_states() -> tuple:
    name, keys, *position = np.random.get_state()
    return random.getstate(), name, keys.tobytes(), *position


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ContractError(sentence)
