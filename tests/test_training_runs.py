"""Run folders: resuming, continuing, and every way in which a run can go wrong."""
from __future__ import annotations

import dataclasses
import json
import os
import signal

import pytest
import tiny
import torch
from tiny import CPU, SHORT, weights_hash
from wiring_training import export, train
from wiring_training.checkpoint import Run, read_checkpoint
from wiring_training.learner import Diverged, Learner
from wiring_training.loader import Loader
from wiring_training.loop import load_start

from wiring_plugins import Init, WiringError, build_model, fingerprint, hookimpl, load_host, resolve, wire


def test_a_run_is_not_continued_by_accident(run, tmp_path, tiny_registry, monkeypatch):
    run("tiny-it")
    with pytest.raises(WiringError, match="Add --resume"):
        run("tiny-it")
    with pytest.raises(WiringError, match=r"condition\.lr: 0\.1 -> 0\.2"):
        run("tiny-it", condition=dataclasses.replace(SHORT, lr=0.2), resume=True)
    with pytest.raises(WiringError, match="recipe.name: 'tiny-it' -> 'tiny-all'"):
        run("tiny-all", resume=True)
    with pytest.raises(WiringError, match="data.fingerprint"):
        run("tiny-it", data="synthetic:90:4", resume=True)
    with pytest.raises(WiringError, match="condition.validation_images.*data.validation"):
        run("tiny-it", condition=dataclasses.replace(SHORT, validation_images=9), resume=True)
    monkeypatch.setattr(Loader, "_hold", None)  # nothing is decoded for a run that is refused or finished
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    (tmp_path / "run" / "checkpoints" / ".ipynb_checkpoints").mkdir()  # what others leave there is theirs
    recipe = dataclasses.replace(tiny_registry.recipe("tiny-it"), doc="The same in other words.")
    again, = run(recipe, resume=True)
    assert again.reason == "2 epochs"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_the_birth_of_a_recipe_is_the_recipe(run):
    result, = run("tiny-it@birth")
    again, = run("tiny-it", resume=True)
    assert result.recipe.name == "tiny-it" and again.ledger == result.ledger


def test_a_folder_of_runs_is_not_a_run(run, tmp_path, tiny_registry):
    run("tiny-it", "tiny-all", condition=dataclasses.replace(SHORT, epochs=0))
    for use in (lambda: export(tmp_path / "run", tmp_path / "x.safetensors"), lambda: run(start=tmp_path / "run"),
                lambda: resolve(f"tiny-it@{tmp_path / 'run'}", tiny_registry)):
        with pytest.raises(WiringError, match=r"several runs\. Give one of them: \S+/run/tiny-all, \S+/run/tiny-it"):
            use()


def test_one_process_at_a_time(run, tmp_path):
    with Run(tmp_path / "run"):
        with pytest.raises(WiringError, match="Another process"):
            run()


def test_a_damaged_checkpoint_is_passed_over_and_another_version_refused(run, tmp_path):
    result, = run("tiny-it")
    files = sorted((result.run / "checkpoints").iterdir())
    weights = weights_hash(result)
    files[-1].write_bytes(files[-1].read_bytes()[:1000])
    again, = run("tiny-it", resume=True)
    assert weights_hash(again) == weights
    facts = json.loads((result.run / "run.json").read_text())
    (result.run / "run.json").write_text(json.dumps({**facts, "format": "wiring-delta-0"}))
    with pytest.raises(WiringError, match="another version"):
        run("tiny-it", resume=True)


def test_layers_that_draw_numbers_resume_bit_for_bit(run, tmp_path, tiny_registry):
    def build():
        model = tiny.build()
        model.decoder.flatten = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5))
        return model

    registry = dataclasses.replace(tiny_registry, architectures={"tiny": dataclasses.replace(tiny.TINY, build=build)})
    result, = run("tiny-all", registry=registry)
    weights = weights_hash(result)
    Run(result.run).path(8).unlink()
    torch.manual_seed(5)
    assert weights_hash(run("tiny-all", registry=registry, resume=True)[0]) == weights
    assert weights_hash(run("tiny-all", out=tmp_path / "dry")[0]) != weights


def test_a_stopped_run_is_saved_counted_and_resumed(run, tmp_path):
    whole, = run("tiny-it", out=tmp_path / "whole")

    def stop(event):
        if event["event"] == "progress":
            os.kill(os.getpid(), signal.SIGTERM)

    stopped, = run("tiny-it", report=stop)
    assert stopped.reason == "" and stopped.ledger["steps"] == 1 and stopped.ledger["images"] == 16
    again, = run("tiny-it", resume=True)
    assert weights_hash(again) == weights_hash(whole) and again.ledger["images"] == whole.ledger["images"]


def test_birth_only(run, tiny_registry):
    result, = run("tiny-it", save_only=True)
    assert Run(result.run).steps() == [0] and result.reason == "birth only"
    born = fingerprint(wire(result.recipe, tiny_registry).state_dict())
    assert fingerprint(build_model(f"tiny-it@{result.run}", registry=tiny_registry).state_dict()) == born


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(run, tmp_path):
    with pytest.raises(Diverged, match=r"first layer to hold NaN or infinity is .*smaller --lr"):
        run("tiny-all", condition=dataclasses.replace(SHORT, lr=1e30, epochs=4))
    checkpoint = Run(tmp_path / "run").newest()
    assert all(tensor.isfinite().all() for tensor in checkpoint.delta.tensors.values())


def test_weights_that_are_no_numbers_are_not_saved(run, tmp_path, monkeypatch):
    """The last step before a checkpoint may break the weights after its loss was still good."""
    def broken(learner, batch):
        learn(learner, batch)
        if learner.step == 8:
            learner.model.IT.conv.weight.data[0] = float("inf")

    learn = Learner.learn
    monkeypatch.setattr(Learner, "learn", broken)
    with pytest.raises(Diverged, match=r"IT\.conv\.weight"):
        run("tiny-it", condition=dataclasses.replace(SHORT, validation_images=0))
    assert Run(tmp_path / "run").steps() == [0, 4]


def test_a_full_disk_leaves_what_was_saved(run, tmp_path, monkeypatch):
    import safetensors.torch
    save, calls = safetensors.torch.save_file, []

    def full(*arguments, **keywords):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return save(*arguments, **keywords)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(WiringError, match="Make room on the disk"):
        run("tiny-it")
    assert not list(tmp_path.rglob("*.part")) and Run(tmp_path / "run").steps() == [0, 4]
    (tmp_path / "run" / "log.jsonl").rename(tmp_path / "log")
    (tmp_path / "run" / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(WiringError, match="log.jsonl cannot be written: No space left on device"):
        Run(tmp_path / "run").log({"step": 5})
    (tmp_path / "log").replace(tmp_path / "run" / "log.jsonl")
    monkeypatch.undo()
    assert run("tiny-it", resume=True)[0].reason == "2 epochs"


def test_continuing_from_a_run_keeps_what_it_had_learned(run, tmp_path, tiny_registry):
    first, = run("tiny-all")
    second, = run("tiny-decoder", start=first.run, out=tmp_path / "second", condition=dataclasses.replace(SHORT, epochs=1))
    before = build_model(f"tiny-all@{first.run}", registry=tiny_registry).state_dict()
    after = build_model(f"tiny-decoder@{second.run}", registry=tiny_registry).state_dict()
    assert torch.equal(before["V1.conv.weight"], after["V1.conv.weight"])
    assert not torch.equal(before["decoder.linear.weight"], after["decoder.linear.weight"])
    assert list(second.ledger["borrowed"]) == [f"weights {first.run}"]
    fact = read_checkpoint(Run(second.run).path(4)).delta.facts["start"]
    assert fact == {"name": str(first.run), "fingerprint": load_start(first.run, tiny_registry).fingerprint()}
    first.run.rename(tmp_path / "moved")
    more = {"out": tmp_path / "second", "condition": dataclasses.replace(SHORT, epochs=1), "resume": True}
    assert run("tiny-decoder", start=tmp_path / "moved", **more)[0].reason == "1 epoch"
    Run(tmp_path / "moved").path(8).unlink()
    with pytest.raises(WiringError, match="something else: start.fingerprint"):
        run("tiny-decoder", start=tmp_path / "moved", **more)
    with pytest.raises(WiringError, match="does not fit"):
        run("tiny-it", data="synthetic:80:5", start=tmp_path / "moved", out=tmp_path / "third")


def test_what_is_wired_from_another_source_is_trained_and_loaded_by_name(tiny_registry, host, tmp_path):
    drawn = Init("layer-normal", source="googlenet", layer="V1.conv1")
    recipe = dataclasses.replace(tiny_registry.recipe("tiny-it"), name="tiny-drawn",
                                 init={**tiny_registry.recipe("tiny-it").init, "V1.conv": drawn})
    other = dataclasses.replace(tiny_registry.source("googlenet"), name="other")
    registry = dataclasses.replace(tiny_registry, recipes={**tiny_registry.recipes, "tiny-drawn": recipe},
                                   statistics={**tiny_registry.statistics, "other": other})
    more = {"data": "synthetic:80:4", "out": tmp_path / "run", "condition": SHORT, "hardware": CPU, "registry": registry}
    result, = train(["tiny-drawn@other"], host=host, **more)
    assert result.recipe.init["V1.conv"].source == "other"
    found = resolve(f"tiny-drawn@{result.run}", registry)
    assert found.name == "tiny-drawn@other@run" and found.init["V1.conv"].source == "other"
    assert torch.equal(wire(found, registry).V1.conv.weight, wire(recipe, registry).V1.conv.weight)  # never trained
    with pytest.raises(WiringError, match="wiring train tiny-drawn --from"):
        train([f"tiny-drawn@{result.run}"], host=host, **more)


class Logger:
    """A plugin whose services are not to be had."""

    @hookimpl
    def wiring_event(self, event):
        raise ConnectionError("no network")

    @hookimpl(tryfirst=True)
    def wiring_open_data(self, spec):
        if spec == "their-images":
            raise KeyError(spec)


def test_a_plugin_that_fails_is_named_and_a_logger_takes_no_training_with_it(tmp_path):
    host = load_host()
    host.manager.register(tiny)
    host.manager.register(Logger(), name="their-logger")
    more = {"condition": SHORT, "hardware": CPU, "host": host}
    with pytest.raises(WiringError, match="Plugin 'their-logger' fails in wiring_open_data: KeyError: 'their-images'"):
        train(["tiny-it"], data="their-images", out=tmp_path / "run", **more)
    with pytest.warns(UserWarning, match="'their-logger' fails in wiring_event .*ConnectionError: no network") as caught:
        result, = train(["tiny-it"], data="synthetic:80:4", out=tmp_path / "run", **more)
    assert result.reason == "2 epochs" and len([one for one in caught if "their-logger" in str(one.message)]) == 1
