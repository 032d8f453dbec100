"""Several processes, SLURM jobs, and GPUs as far as a machine without one can tell."""
from __future__ import annotations

import sys
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import pytest
import tiny
import torch
from wiring_training import Condition, Hardware, commands
from wiring_training.augment import crop
from wiring_training.learner import Learner, freeze, trained_names
from wiring_training.loader import Loader
from wiring_training.screen import Screen

from wiring_plugins import NotEnoughMemory, UnknownName, WiringError, wire


@pytest.mark.parametrize("device, message", [("meta", "Legal on this machine: auto, cpu"), ("cuda:99", "Legal"),
                                             ("cpu:1", "Legal")])
def test_devices_that_are_not_there_are_refused(run, device, message):
    with pytest.raises(WiringError, match=message):
        run(hardware=Hardware(device=device))


def test_only_what_learns_is_reduced(run, tiny_registry, tmp_path):
    import torch.distributed as dist
    from wiring_training.distributed import Group, share
    recipe = tiny_registry.recipe("tiny-it")
    model = wire(recipe, tiny_registry)
    freeze(model, trained_names(recipe, tiny_registry))
    reduced = []

    def hook(state, bucket):
        reduced.append(bucket.buffer().numel())
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        network = share(model, Group(0, 2, torch.device("cpu")), local_batch_norm=False)
        network.register_comm_hook(None, hook)
        network(torch.randn(4, 3, 32, 32)).sum().backward()
    finally:
        dist.destroy_process_group()
    assert sum(reduced) == 12 * 8 * 9 + 1000 * 12 + 1000


@pytest.mark.parametrize("norm, shape", [
    (torch.nn.BatchNorm2d(3), (6, 3, 5, 5)), (torch.nn.BatchNorm1d(3), (6, 3)), (torch.nn.BatchNorm1d(3), (6, 3, 5)),
    (torch.nn.BatchNorm2d(3, momentum=None), (6, 3, 5, 5))], ids=str)
def test_normalisation_over_processes_is_that_of_pytorch(norm, shape):
    import torch.distributed as dist
    from wiring_training.whole_batch_norm import forward
    torch.nn.init.uniform_(norm.weight)
    alone = deepcopy(norm)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for _ in range(2):
            x, slope = torch.randn(shape), torch.randn(shape)
            results = []
            for module, run in ((norm, partial(forward, norm)), (alone, alone)):
                images = x.clone().requires_grad_()
                y = run(images)
                (y * slope).sum().backward()
                results.append([y, images.grad, module.weight.grad, module.bias.grad, *module.buffers()])
            for ours, theirs in zip(*results):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    finally:
        dist.destroy_process_group()


def test_slurm_orders_are_checked():
    from wiring_training.slurm import parse
    assert parse("gpus=8,hours=12")["gpus"] == 8
    for text, message in (("gpu=8", "Legal: gpus"), ("gpus=many", "whole number"), ("gpus", "key=value")):
        with pytest.raises(WiringError, match=message):
            parse(text)


def test_a_job_that_is_queued_again_goes_on(tmp_path, monkeypatch):
    from wiring_training.slurm import _Job
    helpers = SimpleNamespace(DelayedSubmission=lambda job: ("again", job))
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(JobEnvironment=lambda: SimpleNamespace(num_tasks=1)))
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)
    calls = []
    job = _Job(lambda **arguments: calls.append(arguments["resume"]), {"out": tmp_path, "resume": False})
    job()
    (tmp_path / "wiring-ct").mkdir()
    (tmp_path / "wiring-ct" / "run.json").touch()
    assert job.checkpoint() == ("again", job)
    job()
    assert calls == [False, True]


def test_the_line_on_a_terminal_fits_it_and_tells_of_all_recipes(tiny_registry, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    screen = Screen([tiny_registry.recipe(name) for name in ("tiny-it", "tiny-all")], tiny_registry, Condition(), peak=1e12)
    for name, loss in (("tiny-it", 2.5), ("tiny-all", 3.25)):
        screen({"event": "start", "recipe": name, "step": 0, "steps_per_epoch": 5005, "reason": ""})
        screen({"event": "progress", "recipe": name, "step": 7, "epoch": 0.0, "lr": 0.1, "loss": loss, "top1": 0.25})
    line = capsys.readouterr().err.rpartition("\x1b[K")[2]
    assert len(line) == 79 and "  loss 2.500/3.250  " in line


@pytest.mark.parametrize("losses, hint", [((2.5, 3.25), "from 2.500 to 3.250"), ((3.25, 2.5), "")])
def test_a_loss_that_grew_ends_in_a_hint(tiny_registry, capsys, losses, hint):
    screen = Screen([tiny_registry.recipe("tiny-it")], tiny_registry, Condition(lr=0.1))
    for number, loss in enumerate(losses, 1):
        screen({"event": "epoch", "recipe": "tiny-it", "epoch": number, "step": number, "lr": 0.1, "loss": loss,
                "top1": 0.1, "validation": None})
    screen({"event": "end", "recipe": "tiny-it", "step": 2, "reason": "2 epochs"})
    printed = capsys.readouterr().out
    assert hint in printed and ("Try --lr 0.01." in printed) == bool(hint)


@pytest.mark.parametrize("name, peak", [
    ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 836), ("NVIDIA H200", 989),
    ("NVIDIA GH200 480GB", 989), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100-PCIE-40GB", 312),
    ("NVIDIA GeForce RTX 4090", 165), ("NVIDIA H20", None),
])
def test_the_peak_is_that_of_the_very_card(monkeypatch, name, peak):
    from wiring_training.flops import peak_flops
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == (peak and peak * 1e12)


def test_what_is_long_enough_is_compiled_unless_normalisation_joins_processes():
    from wiring_training.distributed import Group
    from wiring_training.loop import COMPILE_STEPS, _compiles
    one, two = (Group(0, world, torch.device("cuda", 0)) for world in (1, 2))
    assert _compiles(COMPILE_STEPS, Hardware(), one) and not _compiles(COMPILE_STEPS - 1, Hardware(), one)
    assert not _compiles(COMPILE_STEPS, Hardware(), two)
    assert _compiles(COMPILE_STEPS, Hardware(local_batch_norm=True), two)
    assert _compiles(1, Hardware(compile="yes"), one) and not _compiles(COMPILE_STEPS, Hardware(compile="no"), one)


def test_images_are_cropped_on_the_device():
    """On tensors that only claim to be on a GPU: types, devices and shapes."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode():
        squares = torch.empty((2, 3, 64, 64), dtype=torch.uint8, device="cuda:0")
        images = crop(squares, torch.empty((2, 5), device="cuda:0"), 32)
    assert (images.device.type, images.dtype, images.shape) == ("cuda", torch.float16, (2, 3, 32, 32))


def test_many_recipes_are_compiled_and_none_falls_back(run, monkeypatch):
    """Every recipe needs a graph for each size of a batch; by default PyTorch stops after eight and runs the rest slowly."""
    compiled, compile_ = [], torch.compile

    def count(module, **options):
        return compile_(module, backend=lambda graph, inputs: compiled.append(1) or graph.forward, **options)

    monkeypatch.setattr(torch, "compile", count)
    parts = ("V1.conv", "V1.norm", "IT.conv", "IT.norm", "V1")
    run(*(tiny.recipe(f"tiny-{number}", part, "decoder") for number, part in enumerate(parts)),
        condition=Condition(images=20, image_size=32, epochs=1, batch_size=16, validation_images=0),
        hardware=Hardware(device="cpu", compile="yes"))
    assert len(compiled) == 2 * len(parts)


@pytest.mark.parametrize("where, error", [
    (Learner, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")),
    (Loader, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")),
    (Loader, MemoryError())])
def test_too_little_memory_is_a_sentence(run, monkeypatch, where, error):
    def full(*arguments):
        raise error

    monkeypatch.setattr(where, "learn" if where is Learner else "_fits", full)
    with pytest.raises(NotEnoughMemory, match="16 images of 32 pixels .*smaller --batch-size"):
        run()


def test_a_slurm_job_of_a_recipe_that_does_not_exist_is_not_submitted(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)  # would be the next complaint
    with pytest.raises(UnknownName, match="no model 'wiring-tc'"):
        commands.train(["wiring-tc"], data="synthetic:9:3", out=tmp_path, slurm="gpus=8")
