"""What learns while a recipe is trained, and what the ledger counts."""
from __future__ import annotations

import dataclasses
import json

import torch
from tiny import CPU
from wiring_training import Condition, train
from wiring_training.checkpoint import Run
from wiring_training.distributed import join
from wiring_training.learner import Learner
from wiring_training.loader import Batch

from wiring_plugins import BatchNorm, Init, WeightsRef, architecture_of, build_model, wire


def test_every_recipe_trains_exactly_what_it_names(registry, tmp_path):
    """One step of a training, of every distinct choice of what learns; weights quickly drawn, for they do not matter."""
    distinct = {(recipe.architecture, recipe.trainable, recipe.batch_norm.training): recipe
                for recipe in registry.recipes.values()}
    # images this small leave single pixels in the last area: two of them suffice for batch statistics
    batch = Batch(images=torch.randn(2, 3, 32, 32), labels=torch.tensor([0, 1]), size=2)
    for recipe in distinct.values():
        assert set(recipe.trainable) <= architecture_of(recipe, registry).module_paths()
        if not recipe.trainable:
            continue
        quick = dataclasses.replace(recipe, init={path: Init("kaiming") for path in recipe.init}, weights=WeightsRef(),
                        batch_norm=dataclasses.replace(recipe.batch_norm, statistics="unit"))
        learner = Learner(quick, registry, Condition(images=2, batch_size=2, epochs=1), CPU, join(CPU),
                          Run(tmp_path / recipe.name), facts={})
        before = {key: parameter.detach().clone() for key, parameter in learner.model.named_parameters()}
        learner.learn(batch)
        changed = {key for key, parameter in learner.model.named_parameters() if not torch.equal(parameter, before[key])}
        assert changed == {key for key in before if any(key.startswith(f"{path}.") for path in recipe.trainable)}, recipe.name


def test_a_wired_area_that_learns_as_a_whole_begins_kaiming(registry):
    init = registry.recipe("wiring-wc-ct-v4").init
    assert init["IT.conv2"].kind == "kaiming" and init["V4.conv2"].kind == "cluster"


def test_training_changes_only_what_the_recipe_names(run, tiny_registry):
    result, = run("tiny-it")
    born = wire(dataclasses.replace(result.recipe), tiny_registry).state_dict()
    learned = build_model(f"tiny-it@{result.run}", registry=tiny_registry).state_dict()
    changed = {key for key in born if not torch.equal(born[key], learned[key])}
    statistics = {key for key in born if "running" in key or "num_batches" in key}
    assert changed == {"IT.conv.weight", "decoder.linear.weight", "decoder.linear.bias"} | statistics


def test_frozen_normalisation_keeps_its_statistics(run, tiny_registry):
    result, = run("tiny-decoder")
    born = wire(result.recipe, tiny_registry).state_dict()
    learned = build_model(f"tiny-decoder@{result.run}", registry=tiny_registry).state_dict()
    assert {key for key in born if not torch.equal(born[key], learned[key])} == {"decoder.linear.weight",
                                                                                  "decoder.linear.bias"}
    assert result.ledger["adapted"] == 0


def test_the_ledger_counts(run):
    result, = run("tiny-it")
    ledger = result.ledger
    synapses = 12 * 8 * 9 + 12 * 4 + 4
    assert (ledger["images"], ledger["steps"], ledger["synapses"]) == (120, 8, synapses)
    assert ledger["updates"] == 120 * synapses and ledger["adapted"] == 40
    assert json.loads((result.run / "ledger.json").read_text())["updates"] == ledger["updates"]


def test_the_ledger_names_what_is_borrowed(registry, tmp_path):
    condition = Condition(images=2, image_size=32, batch_size=2, epochs=0)
    recipe = dataclasses.replace(registry.recipe("wiring-wc"), batch_norm=BatchNorm(statistics="unit"))
    result, = train([recipe], data="synthetic:4:2", out=tmp_path / "run", condition=condition, hardware=CPU,
                    registry=registry, save_only=True)
    ledger = json.loads((result.run / "ledger.json").read_text())
    (name, numbers), = ledger["borrowed"].items()
    assert "googlenet" in name and numbers > 100
