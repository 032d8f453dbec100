"""The hooks that a plugin may implement: specifications only.

A hook returns what it offers; nothing is called for its side effects except :func:`wiring_commands` and
:func:`wiring_event`. Mark an implementation with ``@wiring_plugins.hookimpl`` and announce its module in the entry-point
group ``wiring_plugins``.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from .recipe import Architecture, Initializer, Recipe, StatisticsSource, WeightsRef

if TYPE_CHECKING:
    import typer
    from wiring_training.data import ImageSet

PROJECT = "wiring_plugins"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def wiring_architectures() -> Iterable[Architecture]:
    """Networks that recipes can wire, each with the table of its layers."""


@hookspec
def wiring_initializers() -> Iterable[Initializer]:
    """Named ways to draw a layer's weights."""


@hookspec
def wiring_statistics() -> Iterable[StatisticsSource]:
    """Named sets of small distributions that initialisers sample from."""


@hookspec
def wiring_recipes() -> Iterable[Recipe]:
    """Models: what `wiring models` lists, and `build_model` and `brainscore score` take by name."""


@hookspec
def wiring_commands(app: typer.Typer, bench: typer.Typer) -> None:
    """Add sub-commands to `app` (`wiring ...`) and measurements to `bench` (`wiring bench ...`)."""


@hookspec(firstresult=True)
def wiring_open_data(spec: str, split: str) -> ImageSet | None:
    """The labelled images that `spec` (what follows `--data`) names, or None to leave it to others.

    split: `train` or `val`. A validation set that is not there is an empty one.
    """


@hookspec(firstresult=True)
def wiring_locate_weights(recipe: Recipe) -> WeightsRef | None:
    """Trained weights for this recipe, which is then built with them; None to leave it as it was born."""


@hookspec
def wiring_event(run: Path, event: Mapping[str, Any]) -> None:
    """Take note of something that happened in a training: a logger.

    run: the run's folder. event: JSON values; `event` is `start`, `progress`, `epoch` or `end`, and `step` and `recipe`
    are always there.
    """
