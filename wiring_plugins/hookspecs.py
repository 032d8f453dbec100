"""The hooks that a plugin may implement: specifications only.

A hook returns what it offers; nothing is called for its side effects except :func:`wiring_commands`. Mark an
implementation with ``@wiring_plugins.hookimpl`` and announce its module in the entry-point group ``wiring_plugins``.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from .recipe import Architecture, Initializer, Recipe, StatisticsSource

if TYPE_CHECKING:
    import typer

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
