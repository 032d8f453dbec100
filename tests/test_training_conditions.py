"""Conditions of a training: what is refused, the learning rate, and what is off unless asked for."""
from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SHORT, weights_hash
from wiring_training import Condition
from wiring_training.average import MovingAverage
from wiring_training.checkpoint import Run, read_checkpoint
from wiring_training.prune import synflow
from wiring_training.schedule import Plateau

from wiring_plugins import WiringError, build_model


@pytest.mark.parametrize("wrong, message", [
    ({"images": 0}, "at least 1"), ({"batch_size": 1}, "at least 2"), ({"lr": 0.0}, "above 0"), ({"lr": 1e39}, "finite"),
    ({"lr": float("nan")}, "above 0"), ({"subset": "random"}, "uniform, balanced"), ({"optimizer": "lion"}, "adagrad"),
    ({"label_smoothing": 1.0}, "below 1"), ({"image_size": 64, "source_size": 32}, "blown up"),
    ({"ema": 1.0}, "below 1"), ({"prune": "synflow"}, "belong together"), ({"density": 0.5}, "belong together"),
    ({"first_epoch": True, "epochs": 5}, "give one of them"),
    ({"progressive": (224, 3)}, "below --image-size"), ({"progressive": (112, 3), "cached_views": 1}, "one of them"),
])
def test_conditions_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(WiringError, match=message):
        Condition(**wrong)


@pytest.mark.parametrize("other", [
    {"optimizer": "adam"}, {"optimizer": "adagrad"}, {"ema": 0.5}, {"progressive": (16, 2)},
    {"prune": "synflow", "density": 0.3}, {"prune": "synflow", "density": 0.5, "ema": 0.9, "optimizer": "adam"}], ids=str)
def test_other_conditions_resume_bit_for_bit(run, other):
    condition = dataclasses.replace(SHORT, lr=0.01, **other)
    result, = run("tiny-all", condition=condition)
    weights = weights_hash(result)
    Run(result.run).path(8).unlink()
    again, = run("tiny-all", condition=condition, resume=True)
    assert again.ledger["steps"] == 8 and weights_hash(again) == weights


@given(st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=60))
@settings(deadline=None, max_examples=50)
def test_the_plateau_is_that_of_pytorch(losses):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", 0.1, 3, eps=0)
    ours = Plateau(0.1, 3, 1e-4)
    for loss in losses:
        ours.step(loss)
        theirs.step(loss)
        assert ours.rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)


def test_converged_is_below_and_not_at_the_least_rate():
    plateau = Plateau(0.1, 0, 1e-4)
    rates = []
    while not plateau.converged:
        rates.append(plateau.rate)
        plateau.step(1.0)
    assert rates[-1] == pytest.approx(1e-4)


def test_pruned_synapses_are_gone_for_ever_and_not_counted(run, tiny_registry):
    learning = {"V1.conv.weight": 8 * 3 * 9, "IT.conv.weight": 12 * 8 * 9, "decoder.linear.weight": 4 * 12}
    result, = run("tiny-all", condition=dataclasses.replace(SHORT, prune="synflow", density=0.25, weight_decay=0.01))
    state = build_model(f"tiny-all@{result.run}", registry=tiny_registry).state_dict()
    kept = sum(int((state[name] != 0).sum()) for name in learning)
    assert kept == round(0.25 * sum(learning.values())) == result.ledger["trained"]["conv"] + result.ledger["trained"][
        "linear"] - 4  # the decoder's four offsets are not pruned
    assert result.ledger["pruned"] == sum(learning.values()) - kept
    assert result.ledger["updates"] == 120 * result.ledger["synapses"]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), density=st.floats(0.2, 0.95))
def test_synflow_keeps_the_weights_that_most_flows_through(seed, density):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                                torch.nn.Linear(4, 25))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mask = synflow(model, ["3.weight"], density, 16)["3.weight"]
    inflow = model[0].weight.abs().sum(dim=(1, 2, 3))
    through = (model[3].weight.abs() * inflow).double().flatten()
    assert int(mask.sum()) == round(density * 100)
    assert through[mask.flatten()].min() >= through[~mask.flatten()].max() * (1 - 1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_density_that_cuts_all_paths_is_refused(run):
    with pytest.raises(WiringError, match=r"lets nothing through .*larger --density"):
        run("tiny-all", condition=dataclasses.replace(SHORT, prune="synflow", density=1e-4))


def test_the_average_is_validated_and_loaded_and_training_goes_on_beside_it(run, tmp_path, tiny_registry):
    plain, = run("tiny-it", out=tmp_path / "plain")
    result, = run("tiny-it", condition=dataclasses.replace(SHORT, ema=0.9))
    saved = Run(result.run).newest()
    now = saved.optimizer["IT.conv.weight/now"]
    assert torch.equal(now, Run(plain.run).newest().delta.tensors["IT.conv.weight"])  # averaging changes no step
    loaded = build_model(f"tiny-it@{result.run}", registry=tiny_registry).state_dict()["IT.conv.weight"]
    birth = read_checkpoint(Run(result.run).path(0)).delta.tensors["IT.conv.weight"]
    assert 0 < (loaded - birth).norm() < (now - birth).norm()


def test_a_moving_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = MovingAverage(model, ["weight"], 0.75)
    for value in (2.0, 3.0):
        model.weight.data.fill_(value)
        average.update()
    with average.in_place():
        assert model.weight.item() == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 3)
    assert model.weight.item() == 3.0


def test_crops_grow_to_the_image_size_and_validation_uses_that_one(run, host):
    seen = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: seen.append((module.training, inputs[0].shape[-1])) if inputs[0].shape[1] == 3 else None)
    try:
        run("tiny-it", condition=dataclasses.replace(SHORT, image_size=64, progressive=(16, 3), epochs=4))
    finally:
        hook.remove()
    assert list(dict.fromkeys(side for training, side in seen if training)) == [16, 32, 48, 64]
    assert {side for training, side in seen if not training} == {32, 64}  # 32: calibration at birth


def test_features_can_be_cached_for_a_decoder_only(run, tmp_path):
    condition = dataclasses.replace(SHORT, cached_views=2, epochs=3)
    result, = run("tiny-decoder", condition=condition)
    assert result.ledger["images"] == 180 and result.top1 > 0.25
    with pytest.raises(WiringError, match="one linear layer"):
        run("tiny-it", condition=condition, out=tmp_path / "other")


def test_the_first_epoch_is_kept_in_tenths(run):
    result, = run("tiny-it", condition=Condition(images=80, batch_size=4, image_size=32, first_epoch=True))
    assert Run(result.run).steps() == list(range(0, 21, 2))
