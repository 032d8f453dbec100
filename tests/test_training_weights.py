"""What comes out of a training: delta weights, the manifest, and the commands."""
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from tiny import CPU, SHORT
from wiring_training import Condition, export
from wiring_training.checkpoint import Run, list_in, read_checkpoint

from wiring_plugins import CorruptFile, WiringError, build_model, fingerprint, load_registry, read_delta, wire
from wiring_plugins.delta import is_that_tensor, tensor_fingerprint, write_delta


def test_exported_weights_are_the_trained_model_bit_for_bit(run, tmp_path, tiny_registry):
    result, = run("tiny-it")
    file = export(result.run, tmp_path / "tiny.safetensors")
    learned = read_checkpoint(Run(result.run).path(8))
    model, again = (build_model(f"tiny-it@{place}", registry=tiny_registry) for place in (result.run, file))
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in learned.delta.tensors.items())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), again(images))
    delta = read_delta(file)
    assert delta.recipe.classes == 4 and delta.facts["ledger"]["images"] == 120
    assert delta.facts["classes"] == [f"synthetic-{number}" for number in range(4)] and "licence" in delta.facts["licence"]
    with pytest.raises(WiringError, match="no checkpoint of step 3"):
        export(result.run, tmp_path / "no.safetensors", step=3)


def test_frozen_weights_that_are_drawn_otherwise_are_noticed(run, tmp_path, tiny_registry):
    result, = run("tiny-it")
    file = export(result.run, tmp_path / "tiny.safetensors")
    kaiming = tiny_registry.initializers["kaiming"]

    def changed(rng, shape, context):
        return kaiming.sample(rng, shape, context) * np.float32(1.01)

    other = dataclasses.replace(tiny_registry, initializers={**tiny_registry.initializers,
                                                             "kaiming": dataclasses.replace(kaiming, sample=changed)})
    with pytest.raises(CorruptFile, match="other frozen weights of V1.conv.weight"):
        build_model(f"tiny-it@{file}", registry=other)

    def reordered(rng, shape, context):
        return kaiming.sample(rng, shape, context)[::-1].copy()

    weight = torch.randn(16, 64, 3, 3)  # as many numbers in a kernel as in real ones: divisible by powers of two
    assert not is_that_tensor(weight.flip(0), tensor_fingerprint(weight))
    other = dataclasses.replace(tiny_registry, initializers={**tiny_registry.initializers,
                                                             "kaiming": dataclasses.replace(kaiming, sample=reordered)})
    with pytest.raises(CorruptFile, match="other frozen weights of V1.conv.weight"):
        build_model(f"tiny-it@{file}", registry=other)

    def rounded(rng, shape, context):
        return np.nextafter(kaiming.sample(rng, shape, context), np.float32(1))

    close = dataclasses.replace(tiny_registry, initializers={**tiny_registry.initializers,
                                                             "kaiming": dataclasses.replace(kaiming, sample=rounded)})
    build_model(f"tiny-it@{file}", registry=close)  # another processor's rounding is not another sampler


@pytest.mark.parametrize("key, value", [("recipe", "{"), ("recipe", "3"), ("recipe", '{"sead": 1}'), ("facts", "3"),
                                        ("frozen", '{"V1.conv.weight": 3}')])
def test_a_damaged_header_is_an_error_that_names_the_file(run, tmp_path, tiny_registry, key, value):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    result, = run("tiny-it", condition=dataclasses.replace(SHORT, epochs=0))
    file = export(result.run, tmp_path / "tiny.safetensors")
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    save_file(load_file(file), file, metadata={**header, key: value})
    with pytest.raises(CorruptFile, match="tiny.safetensors"):
        build_model(f"tiny-it@{file}", registry=tiny_registry)


def test_weights_of_another_recipe_or_seed_are_refused(run, tmp_path, tiny_registry):
    from wiring_plugins import WeightsRef
    result, = run("tiny-it")
    file = export(result.run, tmp_path / "tiny.safetensors")
    with pytest.raises(WiringError, match="Type tiny-it@"):
        build_model(f"tiny-all@{file}", registry=tiny_registry)
    recipe = dataclasses.replace(tiny_registry.recipe("tiny-it"), seed=1, weights=WeightsRef(kind="delta", file=str(file)))
    with pytest.raises(CorruptFile, match="another seed"):
        wire(recipe, tiny_registry)
    wrong = WeightsRef(kind="delta", file=str(file), sha256="0" * 64)
    with pytest.raises(CorruptFile, match="SHA-256"):
        wire(dataclasses.replace(recipe, seed=0, weights=wrong), tiny_registry)


def test_a_recipe_in_the_manifest_is_built_trained_unless_asked_for_its_birth(run, tmp_path, host, monkeypatch):
    import wiring_weights.plugin as weights
    result, = run("tiny-it")
    for _ in range(2):  # the second time, it takes the place of the first
        list_in(tmp_path / "manifest.json", export(result.run, tmp_path / "tiny.safetensors"))
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    monkeypatch.setattr(weights, "manifest", weights.manifest.__wrapped__)
    entry, = json.loads((tmp_path / "manifest.json").read_text())
    assert entry["classes"] == 4 and entry["ledger"]["updates"] > 0 and 0 <= entry["top1"] <= 1
    registry = load_registry(host)
    trained, born = (fingerprint(build_model(name, registry=registry).state_dict()) for name in ("tiny-it", "tiny-it@birth"))
    assert trained == fingerprint(build_model(f"tiny-it@{result.run}", registry=registry).state_dict()) != born


def test_a_manifest_lists_files_of_its_own_folder_and_registered_recipes(run, tmp_path):
    result, = run("tiny-it")
    file = export(result.run, tmp_path / "tiny.safetensors")
    with pytest.raises(WiringError, match="not beside"):
        list_in(tmp_path / "other" / "manifest.json", file)
    for text in ("3", "[3]", '[{"file": "x"}]', "{"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(CorruptFile, match="manifest.json"):
            list_in(tmp_path / "manifest.json", file)
    (tmp_path / "manifest.json").unlink()
    delta = read_delta(file)
    write_delta(file, dataclasses.replace(delta, recipe=dataclasses.replace(delta.recipe, name="tiny-it@elsewhere")))
    with pytest.raises(WiringError, match="registered recipes only"):
        list_in(tmp_path / "manifest.json", file)
    assert not (tmp_path / "manifest.json").exists()


def test_commands_from_training_to_export(tmp_path, capsys, tree):
    from wiring_training.commands import train_and_show
    train_and_show(["wiring-dt-decoder"], data=str(tree), out=tmp_path / "run", hardware=CPU,
                   condition=Condition(image_size=32, batch_size=8, epochs=1, images=12))
    printed = capsys.readouterr().out
    assert "supervised synaptic updates" in printed and "validation top-1" in printed
    file = export(tmp_path / "run", tmp_path / "dt.safetensors")
    model = build_model(f"wiring-dt-decoder@{file}")
    assert model.decoder.linear.weight.shape == (3, 512)
    assert file.stat().st_size < 1e6


def test_tensorboard_gets_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from wiring_training.tensorboard import TensorBoard
    logger = TensorBoard()
    for step in range(3):
        logger.wiring_event(tmp_path, {"event": "epoch", "step": step, "loss": 3.0 - step, "top1": 0.5, "lr": 0.1,
                                       "validation": {"loss": 1.0, "top1": 0.4, "top5": 0.9}})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [point.value for point in events.Scalars("training/loss")] == [3.0, 2.0, 1.0]
    assert len(events.Scalars("validation/top1")) == 3
    resumed = TensorBoard()  # by a process that goes on from step 1
    resumed.wiring_event(tmp_path, {"event": "start", "step": 1})
    resumed.wiring_event(tmp_path, {"event": "end", "step": 2, "loss": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [point.value for point in events.Scalars("training/loss")] == [3.0, 2.0, 0.5]
