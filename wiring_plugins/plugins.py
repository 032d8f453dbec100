"""The plugin manager: finds plugins, loads them guarded, and turns what they offer into a :class:`Registry`.

Environment switches: ``WIRING_PLUGINS_BLOCK=name,name`` leaves plugins out; ``WIRING_PLUGINS_TRACE=1`` writes every
hook call to standard error.
"""
from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import pluggy

from . import hookspecs
from .errors import RegistrationError, UnknownName
from .hookspecs import PROJECT
from .recipe import FrozenMapping, Recipe
from .registry import Registry

BLOCK, TRACE = "WIRING_PLUGINS_BLOCK", "WIRING_PLUGINS_TRACE"

BUILT_IN = (
    "wiring_plugins.look",
    "wiring_plugins.show",
    "wiring_plugins.initializer_page",
    "wiring_plugins.fitting.fit",
    "wiring_plugins.measure",
    "wiring_plugins.architectures.cornet_s",
    "wiring_plugins.initializers.kaiming",
    "wiring_plugins.initializers.linear",
    "wiring_plugins.initializers.gabor",
    "wiring_plugins.initializers.cluster",
    "wiring_plugins.initializers.kernel_normal",
    "wiring_plugins.initializers.mixture",
    "wiring_plugins.initializers.distribution",
    "wiring_plugins.initializers.simple",
    "wiring_plugins.initializers.previous",
    "wiring_plugins.initializers.perturb",
    "wiring_plugins.statistics.v1_physiology",
    "wiring_plugins.statistics.sources",
    "wiring_plugins.variants.kaiming",
    "wiring_plugins.variants.gabor_frozen",
    "wiring_plugins.variants.weight_compression",
    "wiring_plugins.variants.kernel_normal",
    "wiring_plugins.variants.mixture",
    "wiring_plugins.variants.no_gabor",
    "wiring_plugins.variants.gabor_only",
    "wiring_plugins.variants.standard",
    "wiring_plugins.variants.critical",
    "wiring_plugins.variants.downstream",
    "wiring_plugins.variants.conv1",
    "wiring_plugins.variants.batch_norm",
    "wiring_plugins.variants.wired_then_trained",
)
"""The plugins of this package. They use the same hooks as anybody's and can be blocked like any."""


class PluginWarning(UserWarning):
    """A plugin that could not be loaded, and was left out."""


@dataclass(frozen=True, kw_only=True)
class PluginInfo:
    """One plugin as `wiring plugins` lists it. error: why it was left out, or None."""

    name: str
    version: str
    hooks: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Host:
    """A plugin manager and what became of each plugin that it was given."""

    manager: pluggy.PluginManager
    plugins: tuple[PluginInfo, ...]


def load_host() -> Host:
    """Load the built-in plugins and all that installed distributions announce.

    A plugin whose import fails is left out with a :class:`PluginWarning`.

    Raises:
        RegistrationError: a plugin implements a hook that does not exist.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in filter(None, os.environ.get(BLOCK, "").split(",")):
        manager.set_blocked(name.strip())
    if os.environ.get(TRACE, "").lower() not in ("", "0", "false", "no"):
        manager.trace.root.setwriter(lambda text: sys.stderr.write(text))
        manager.enable_tracing()
    found = [_register_built_in(manager, module) for module in BUILT_IN]
    found += [_register_entry_point(manager, point) for point in entry_points(group=PROJECT)]
    _refuse_unknown_hooks(manager)
    return Host(manager, tuple(found))


def load_registry(host: Host | None = None) -> Registry:
    """Ask every plugin what it offers, refuse what collides or does not fit together, and return the rest by name.

    Raises:
        RegistrationError: two plugins register one name, or a recipe names something that does not exist.
    """
    manager = (host or load_host()).manager
    recipes = _collect(manager, "wiring_recipes", "model")
    registry = Registry(
        architectures=_collect(manager, "wiring_architectures", "architecture"),
        initializers=_collect(manager, "wiring_initializers", "initialiser"),
        statistics=_collect(manager, "wiring_statistics", "statistics source"),
        recipes={name: _with_weights(recipe, manager) for name, recipe in recipes.items()},
    )
    for recipe in registry.recipes.values():
        try:
            registry.check(recipe)
        except UnknownName as error:
            raise RegistrationError(f"Recipe {recipe.name!r} cannot be used. {error}") from None
    return registry


def _with_weights(recipe: Recipe, manager: pluggy.PluginManager) -> Recipe:
    """The recipe with the trained weights that a plugin has for it, if one has."""
    if recipe.weights.kind != "generated":
        return recipe
    weights = manager.hook.wiring_locate_weights(recipe=recipe)
    return recipe if weights is None else replace(recipe, weights=weights)


def _register_built_in(manager: pluggy.PluginManager, module: str) -> PluginInfo:
    return _register(manager, module, f"{PROJECT} (built in)", lambda: import_module(module))


def _register_entry_point(manager: pluggy.PluginManager, point: EntryPoint) -> PluginInfo:
    version = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
    return _register(manager, point.name, version, point.load)


def _register(manager: pluggy.PluginManager, name: str, version: str, load) -> PluginInfo:
    if manager.is_blocked(name):
        return PluginInfo(name=name, version=version, error=f"blocked by {BLOCK}")
    try:
        plugin = load()
        manager.register(plugin, name=name)
    except Exception as error:  # a stranger's plugin may fail in any way, and must not take the program down
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"Plugin {name!r} ({version}) could not be loaded and is left out. {reason}", PluginWarning, 2)
        return PluginInfo(name=name, version=version, error=reason)
    hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or ()))
    return PluginInfo(name=name, version=version, hooks=hooks)


def _refuse_unknown_hooks(manager: pluggy.PluginManager) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = manager.get_name(error.plugin)
        specified = {hook for hook in vars(hookspecs) if hook.startswith("wiring_")}
        unknown = [hook for hook in vars(manager.hook) if not hook.startswith("_") and hook not in specified]
        reason = UnknownName("hook", unknown[0], specified) if unknown else error
        raise RegistrationError(f"Plugin {name!r} cannot be used. {reason} "
                                f"Set {BLOCK}={name} to go on without it.") from None


def _collect(manager: pluggy.PluginManager, hook: str, kind: str) -> FrozenMapping:
    """name -> item over all plugins that implement `hook`; a name that two of them register is an error."""
    items, owners = {}, {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        plugin = implementation.plugin_name
        for item in _call(manager, hook, implementation):
            if item.name in items:
                raise RegistrationError(f"Plugins {owners[item.name]!r} and {plugin!r} both register the {kind} "
                                        f"{item.name!r}. Rename one, or set {BLOCK}={plugin} to go on without it.")
            items[item.name], owners[item.name] = item, plugin
    return FrozenMapping(items)


def _call(manager: pluggy.PluginManager, hook: str, implementation: pluggy.HookImpl) -> list:
    """What one plugin's implementation of `hook` returns. The call goes through pluggy, so that a trace shows it."""
    others = [plugin for plugin in manager.get_plugins() if plugin is not implementation.plugin]
    try:
        return list(manager.subset_hook_caller(hook, remove_plugins=others)()[0])
    except Exception as error:
        raise RegistrationError(
            f"Plugin {implementation.plugin_name!r} fails in {hook}: {type(error).__name__}: {error} "
            f"Set {BLOCK}={implementation.plugin_name} to go on without it.") from error
