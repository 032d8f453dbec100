"""The plugin manager: finds plugins, loads them guarded, and turns what they offer into a :class:`Registry`.

Environment switches: ``WIRING_PLUGINS_BLOCK=name,name`` leaves plugins out; ``WIRING_PLUGINS_TRACE=1`` writes every
hook call to standard error.
"""
from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from . import hookspecs
from .errors import RegistrationError, UnknownName, WiringError
from .hookspecs import PROJECT
from .recipe import Architecture, FrozenMapping, Initializer, Recipe, StatisticsSource
from .registry import Registry, check_weights

if TYPE_CHECKING:
    import typer

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
    """One plugin as `wiring plugins` lists it. error: why it was left out or has no effect, or None."""

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
    for name in _blocked():
        manager.set_blocked(name)
    if os.environ.get(TRACE, "").lower() not in ("", "0", "false", "no"):
        manager.trace.root.setwriter(lambda text: sys.stderr.write(text))
        manager.enable_tracing()
    found = [_register_built_in(manager, module) for module in BUILT_IN]
    points = sorted(entry_points(group=PROJECT), key=_is_foreign)  # ours first: a stranger's cannot take their names
    found += [_register_entry_point(manager, point) for point in points]
    _refuse_unknown_hooks(manager)
    return Host(manager, tuple(found))


def load_registry(host: Host | None = None) -> Registry:
    """Ask every plugin what it offers, refuse what collides or does not fit together, and return the rest by name.

    Raises:
        RegistrationError: two plugins register one name, or a recipe names something that does not exist.
    """
    manager = (host or load_host()).manager
    offered = {
        "architectures": _collect(manager, "wiring_architectures", Architecture, "architecture"),
        "initializers": _collect(manager, "wiring_initializers", Initializer, "initialiser"),
        "statistics": _collect(manager, "wiring_statistics", StatisticsSource, "statistics source"),
        "recipes": _collect(manager, "wiring_recipes", Recipe, "model"),
    }
    registry = Registry(**{field: FrozenMapping({name: item for name, (_, item) in offers.items()})
                           for field, offers in offered.items()})
    for name, (plugin, recipe) in offered["recipes"].items():
        try:
            registry.check(recipe)
        except WiringError as error:
            raise RegistrationError(f"Recipe {name!r} of plugin {plugin!r} cannot be used. {error} "
                                    f"{_to_go_on_without(plugin)}") from None
    return replace(registry, recipes=FrozenMapping({name: _with_weights(recipe, manager)
                                                    for name, recipe in registry.recipes.items()}))


def add_commands(host: Host, app: typer.Typer, bench: typer.Typer) -> None:
    """Let every plugin add its commands. A plugin that fails in this adds none further, with a :class:`PluginWarning`.

    Raises:
        RegistrationError: two plugins add a command of one name.
    """
    owners: dict[tuple[str, str], str] = {}
    for implementation in host.manager.hook.wiring_commands.get_hookimpls():
        plugin = implementation.plugin_name
        try:
            with _guarded("wiring_commands", plugin):
                _call(host.manager, "wiring_commands", implementation, app=app, bench=bench)
        except RegistrationError as error:
            warnings.warn(str(error), PluginWarning, 2)
        for parent, added in (("wiring", app), ("wiring bench", bench)):
            names = _command_names(added)
            for name in set(names):
                owner = owners.setdefault((parent, name), plugin)
                if names.count(name) > 1:
                    raise RegistrationError(f"Plugins {owner!r} and {plugin!r} both add the command `{parent} {name}`. "
                                            f"Rename one. {_to_go_on_without(plugin)}")


def first_answer(host: Host, hook: str, **arguments) -> Any:
    """What the first plugin that knows an answer says, the last registered first; None if none does.

    Raises:
        RegistrationError: a plugin fails. WiringError, OSError, MemoryError: as a plugin raises them, about what it was asked.
    """
    for implementation in reversed(getattr(host.manager.hook, hook).get_hookimpls()):
        try:
            answer = _call(host.manager, hook, implementation, **arguments)
        except (WiringError, OSError, MemoryError):
            raise
        except Exception as error:
            raise _failure(hook, implementation.plugin_name, error) from error
        if answer is not None:
            return answer
    return None


def tell(host: Host, hook: str, **arguments) -> None:
    """Call `hook` of every plugin. One that fails is named in a :class:`PluginWarning`, and told nothing more: what it
    listens to is worth more than it."""
    for implementation in getattr(host.manager.hook, hook).get_hookimpls():
        try:
            _call(host.manager, hook, implementation, **arguments)
        except Exception as error:
            host.manager.unregister(implementation.plugin)
            warnings.warn(f"Plugin {implementation.plugin_name!r} fails in {hook} and is told nothing more. "
                          f"{type(error).__name__}: {error}", PluginWarning, 2)


def _command_names(app: typer.Typer) -> list[str]:
    commands = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]
    return commands + [group.name for group in app.registered_groups]


def _with_weights(recipe: Recipe, manager: pluggy.PluginManager) -> Recipe:
    """The recipe with the trained weights that a plugin has for it, if one has."""
    if recipe.weights.kind != "generated":
        return recipe
    for implementation in reversed(manager.hook.wiring_locate_weights.get_hookimpls()):
        with _guarded("wiring_locate_weights", implementation.plugin_name):
            weights = _call(manager, "wiring_locate_weights", implementation, recipe=recipe)
            if weights is not None:
                check_weights(weights)
                return replace(recipe, weights=weights)
    return recipe


def _is_foreign(point: EntryPoint) -> bool:
    return point.dist is None or point.dist.name != "wiring-plugins"


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
        if manager.has_plugin(name):
            raise RegistrationError("Another plugin has this name. Rename its entry point.")
        if manager.is_registered(plugin):
            raise RegistrationError(f"It is registered already, as {manager.get_name(plugin)!r}.")
        manager.register(plugin, name=name)
    except (Exception, SystemExit) as error:  # a stranger's plugin may fail in any way, and must not take the program down
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(f"Plugin {name!r} ({version}) could not be loaded and is left out. {reason}", PluginWarning, 2)
        return PluginInfo(name=name, version=version, error=reason)
    hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or ()))
    return PluginInfo(name=name, version=version, hooks=hooks, error=None if hooks else "no function is marked @hookimpl")


def _refuse_unknown_hooks(manager: pluggy.PluginManager) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = manager.get_name(error.plugin)
        specified = {hook for hook in vars(hookspecs) if hook.startswith("wiring_")}
        unknown = [hook for hook in vars(manager.hook) if not hook.startswith("_") and hook not in specified]
        reason = UnknownName("hook", unknown[0], specified) if unknown else error
        raise RegistrationError(f"Plugin {name!r} cannot be used. {reason} {_to_go_on_without(name)}") from None


def _collect(manager: pluggy.PluginManager, hook: str, kind: type, noun: str) -> dict[str, tuple[str, Any]]:
    """name -> (plugin, item) over all plugins that implement `hook`; a name that two of them register is an error."""
    found: dict[str, tuple[str, Any]] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        plugin = implementation.plugin_name
        with _guarded(hook, plugin):
            returned = _call(manager, hook, implementation)
            items = [item for offered in returned for item in offered]
        for item in items if returned else [None]:
            if not isinstance(item, kind):
                raise RegistrationError(f"Plugin {plugin!r} returns {item!r} from {hook}, which has to return a list of "
                                        f"{kind.__name__} objects. {_to_go_on_without(plugin)}")
            if item.name in found:
                raise RegistrationError(f"Plugins {found[item.name][0]!r} and {plugin!r} both register the {noun} "
                                        f"{item.name!r}. Rename one. {_to_go_on_without(plugin)}")
            found[item.name] = plugin, item
    return found


def _call(manager: pluggy.PluginManager, hook: str, implementation: pluggy.HookImpl, **arguments) -> Any:
    """Call one plugin's implementation of `hook`, through pluggy, so that a trace shows it."""
    others = [plugin for plugin in manager.get_plugins() if plugin is not implementation.plugin]
    return manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)


@contextmanager
def _guarded(hook: str, plugin: str) -> Iterator[None]:
    """Whatever a plugin's hook raises becomes a sentence that names the plugin."""
    try:
        yield
    except Exception as error:
        raise _failure(hook, plugin, error) from error


def _failure(hook: str, plugin: str, error: Exception) -> RegistrationError:
    reason = error if isinstance(error, WiringError) else f"{type(error).__name__}: {error}."
    return RegistrationError(f"Plugin {plugin!r} fails in {hook}: {reason} {_to_go_on_without(plugin)}")


def _blocked() -> list[str]:
    return [name.strip() for name in os.environ.get(BLOCK, "").split(",") if name.strip()]


def _to_go_on_without(plugin: str) -> str:
    return f"Set {BLOCK}={','.join([*_blocked(), plugin])} to go on without it."
