"""The plugin host: third-party plugins, their failures, and the switches."""
from __future__ import annotations

import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pluggy
import pytest
import tiny
from wiring_plugins import (BatchNorm, CorruptFile, Init, RegistrationError, Registry, UnknownName, WeightsRef, WiringError,
                            build_model, hookimpl, load_host, load_registry, plugins)
from wiring_plugins.testing import check_initializer
from wiring_plugins.variants.kaiming import KAIMING


def host_with(**modules):
    """The built-in host and further plugins, as if installed under these names."""
    host = load_host()
    for name, module in modules.items():
        host.manager.register(module, name=name)
    return host


def plugin(**hooks):
    module = types.ModuleType("a_plugin")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def recipes(*items):
    def wiring_recipes():
        return list(items)
    return plugin(wiring_recipes=wiring_recipes)


def test_a_plugin_adds_a_recipe():
    registry = load_registry(host_with(mine=recipes(replace(KAIMING, name="mine"))))
    assert registry.recipe("mine").architecture == "cornet-s"


def test_one_name_registered_twice_names_both_plugins():
    host = host_with(one=recipes(replace(KAIMING, name="same")), two=recipes(replace(KAIMING, name="same")))
    with pytest.raises(RegistrationError, match="'one'.*'two'|'two'.*'one'"):
        load_registry(host)


@pytest.mark.parametrize("changes, text", [
    ({"trainable": ("V2.con3",)}, "'V2.conv3'"),
    ({"init": {**KAIMING.init, "V1.conv3": Init("kaiming")}}, "'V1.conv2'|'V1.conv1'"),
    ({"init": {**KAIMING.init, "V1.conv1": Init("gabr")}}, "'gabor'"),
    ({"init": {**KAIMING.init, "V1.conv1": Init("gabor", source="v1-physiolog")}}, "'v1-physiology'"),
    ({"init": {"V1.conv1": Init("kaiming")}}, "says nothing of"),
    ({"architecture": "cornet"}, "'cornet-s'"),
    ({"name": "Wiring_X"}, "no legal model name"),
    ({"batch_norm": BatchNorm(statistics="calibratd")}, "batch_norm.statistics is 'calibratd'.*'calibrated'"),
    ({"batch_norm": BatchNorm(images=0)}, "0 images"),
    ({"init": {**KAIMING.init, "V1.conv1": "gabor"}}, r"init\['V1.conv1'\] is 'gabor', and has to be of type Init"),
    ({"trainable": ("V2", 3)}, r"trainable\[1\] is 3"),
    ({"seed": "1"}, "seed is '1', and has to be of type int"),
    ({"weights": WeightsRef(kind="full")}, "need a file"),
    ({"commitment": {"regions": {}}}, "commitment is .*Commitment"),
])
def test_a_mistake_in_a_recipe_is_refused_with_near_names(changes, text):
    with pytest.raises(RegistrationError, match=text):
        load_registry(host_with(mine=recipes(replace(KAIMING, **{"name": "mine", **changes}))))


def fails(*_):
    raise ZeroDivisionError("oh")


def gives_then_fails():
    yield replace(KAIMING, name="mine")
    fails()


@pytest.mark.parametrize("name, hook, text", [
    ("wiring_recipes", lambda: fails(), "fails in wiring_recipes: ZeroDivisionError: oh"),
    ("wiring_recipes", gives_then_fails, "fails in wiring_recipes: ZeroDivisionError: oh"),
    ("wiring_recipes", lambda: None, "returns None from wiring_recipes, which has to return a list of Recipe"),
    ("wiring_recipes", lambda: {"mine": KAIMING}, "returns 'mine' from wiring_recipes"),
    ("wiring_initializers", lambda: Init("kaiming"), "fails in wiring_initializers: TypeError"),
    ("wiring_locate_weights", lambda recipe: fails(), "fails in wiring_locate_weights: ZeroDivisionError: oh"),
    ("wiring_locate_weights", lambda recipe: "x.safetensors", "weights is 'x.safetensors'.*WeightsRef"),
    ("wiring_locate_weights", lambda recipe: WeightsRef(kind="Delta", file="x"), "'Delta'.*'generated' or 'delta'"),
    ("wiring_locate_weights", lambda recipe: WeightsRef(kind="delta"), "need a file"),
])
def test_what_a_hook_does_wrong_is_a_sentence_that_names_its_plugin(name, hook, text, monkeypatch):
    monkeypatch.setenv(plugins.BLOCK, "another")
    with pytest.raises(RegistrationError, match=f"'mine' {text}|'mine' .*{text}") as caught:
        load_registry(host_with(mine=plugin(**{name: hook})))
    assert f"Set {plugins.BLOCK}=another,mine to go on without it." in str(caught.value)


def test_a_plugin_whose_commands_fail_leaves_the_other_commands():
    host = host_with(mine=plugin(wiring_commands=lambda app: fails()))
    with pytest.warns(plugins.PluginWarning, match="'mine' fails in wiring_commands: ZeroDivisionError: oh"):
        app = commands_of(host)
    assert {"models", "show"} <= {command.callback.__name__ for command in app.registered_commands}


def test_one_command_added_twice_names_both_plugins():
    host = host_with(mine=plugin(wiring_commands=lambda app: app.command("models")(print)))
    with pytest.raises(RegistrationError, match="'wiring_plugins.look' and 'mine' both add the command `wiring models`"):
        commands_of(host)


def commands_of(host):
    import typer
    app, bench = typer.Typer(), typer.Typer()
    plugins.add_commands(host, app, bench)
    return app


def with_weights(**fields):
    def wiring_locate_weights(recipe):
        return WeightsRef(**fields) if recipe.name == "tiny-all" else None
    return load_registry(host_with(tiny=tiny, mine=plugin(wiring_locate_weights=wiring_locate_weights)))


def test_a_plugin_gives_a_recipe_the_weights_of_a_checkpoint(tmp_path):
    import torch
    file = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {f"module.{name}": torch.full_like(tensor, 2)
                               for name, tensor in tiny.build().state_dict().items()}}, file)
    trained = build_model("tiny-all", registry=with_weights(kind="full", file=str(file)))
    assert all((tensor == 2).all() for tensor in trained.state_dict().values())
    with pytest.raises(CorruptFile, match="has SHA-256 .*tiny-all@birth"):
        build_model("tiny-all", registry=with_weights(kind="full", file=str(file), sha256="0"))


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_weights_that_are_not_there_are_named_with_their_source(kind):
    registry = with_weights(kind=kind, file="/nowhere/x.safetensors", url="https://example.org/x")
    with pytest.raises(WiringError, match="no weights file /nowhere/x.safetensors. Get it from https://example.org/x"):
        build_model("tiny-all", registry=registry)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install one-module distributions that announce themselves, by giving their source text."""
    def install(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
            info = tmp_path / f"{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[wiring_plugins]\n{name} = {name}\n")
        monkeypatch.syspath_prepend(tmp_path)
    return install


@pytest.mark.parametrize("source, text", [
    ("import a_module_that_does_not_exist", "a_module_that_does_not_exist"), ("raise SystemExit(3)", "SystemExit: 3")])
def test_a_plugin_that_cannot_be_imported_is_reported_and_left_out(installed, source, text):
    installed(broken_plugin=source)
    with pytest.warns(plugins.PluginWarning, match="broken_plugin"):
        host = load_host()
    info, = [info for info in host.plugins if info.name == "broken_plugin"]
    assert text in info.error
    assert "wiring-kaiming" in load_registry(host).recipes


def test_a_plugin_cannot_take_the_place_of_another(installed):
    same = "import sys, training\nsys.modules[__name__] = training"
    installed(training="hook = 1", weights="import training", again=same, first=same)
    with pytest.warns(plugins.PluginWarning):
        host = load_host()
    errors = {info.version: info.error for info in host.plugins}
    assert "Another plugin has this name" in errors["training 1.0"] and "this name" in errors["weights 1.0"]
    assert any("It is registered already, as" in errors[version] for version in ("again 1.0", "first 1.0"))
    assert host.manager.get_plugin("training").__name__ == "wiring_training.plugin"


def test_a_misspelt_hook_is_an_error_with_the_near_name(installed):
    installed(misspelt="from wiring_plugins import hookimpl\n@hookimpl\ndef wiring_recipe():\n    return []\n")
    with pytest.raises(RegistrationError, match="'misspelt'.*'wiring_recipe'.*'wiring_recipes'"):
        load_host()


def test_a_blocked_plugin_is_left_out(installed, monkeypatch):
    installed(misspelt="from wiring_plugins import hookimpl\n@hookimpl\ndef wiring_recipe():\n    return []\n")
    monkeypatch.setenv(plugins.BLOCK, "misspelt, wiring_plugins.variants.gabor_frozen")
    assert "wiring-gabor-frozen" not in load_registry(load_host()).recipes


def test_the_trace_switch_writes_hook_calls(monkeypatch, capsys):
    monkeypatch.setenv(plugins.TRACE, "1")
    load_registry()
    assert "wiring_recipes" in capsys.readouterr().err


def test_every_hook_is_documented_and_used():
    host = load_host()
    specified = [name for name in vars(plugins.hookspecs) if name.startswith("wiring_")]
    page = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
    for name in specified:
        assert getattr(plugins.hookspecs, name).__doc__, name
        assert f"`{name}(" in page, f"docs/plugins.md does not give the signature of {name}"
        assert getattr(host.manager.hook, name).get_hookimpls(), f"no built-in plugin implements {name}"


def test_hook_calls_are_free_of_plugin_order():
    names = list(load_registry().recipes)
    manager = pluggy.PluginManager(plugins.PROJECT)
    manager.add_hookspecs(plugins.hookspecs)
    for module in reversed([module for _, module in load_host().manager.list_name_plugin()]):
        manager.register(module)
    assert set(load_registry(plugins.Host(manager, ())).recipes) == set(names)


def test_an_unknown_model_names_near_ones():
    with pytest.raises(UnknownName, match="Did you mean 'wiring-kaiming'.*`wiring models`"):
        load_registry().recipe("wiring-kaimin")
    assert Registry().recipes == {}


def test_the_plugin_in_the_readme_works():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    source, = [block.partition("```")[0] for block in text.split("```python\n")[1:] if "wiring_recipes" in block]
    module = types.ModuleType("from_the_readme")
    exec(source, module.__dict__)
    registry = load_registry(host_with(readme=module))
    check_initializer(registry.initializer("example-signs"))
    assert registry.recipe("example-signs").init["V1.conv1"].kind == "example-signs"


def test_the_architecture_in_the_documentation_is_built():
    text = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
    source, = [block.partition("```")[0] for block in text.split("```python\n")[1:] if "wiring_architectures" in block]
    module = types.ModuleType("from_the_documentation")
    exec(source, module.__dict__)
    model = build_model("example-alexnet-gabor", registry=load_registry(host_with(page=module)))
    assert model.features[0].weight.shape == (64, 3, 11, 11)


@pytest.fixture(scope="session")
def example_site(tmp_path_factory):
    """A folder into which pip has installed the example plugin, from its own packaging file."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "example"
    source.mkdir()
    for path in (Path(__file__).parent / "example_plugin").glob("*.*"):
        (source / path.name).write_text(path.read_text())
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target",
                    folder, source], check=True)
    return folder


def run(site, *code):
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, cwd=site,
                          env={**os.environ, "PYTHONPATH": str(site)})


def test_the_example_plugin_is_listed(example_site):
    listed = run(example_site, "-c", "from wiring_plugins.cli import main; main()", "plugins")
    assert "wiring-example 1.0" in listed.stdout, listed.stderr


def test_the_example_plugins_model_is_built_and_keeps_the_contract(example_site):
    built = run(example_site, "-c", """
from wiring_plugins import build_model, load_registry
from wiring_plugins.testing import check_initializer, check_recipe
registry = load_registry()
check_initializer(registry.initializer("example-signs"))
check_recipe(registry.recipe("example-signs"), registry)
print(sorted(set(build_model("example-signs").V1.conv1.weight.unique().tolist())))
""")
    assert built.stdout.strip() == str([-0.05000000074505806, 0.05000000074505806]), built.stderr
