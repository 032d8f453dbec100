"""CORnet-S: the published checkpoint's keys, and a forward pass without side effects."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from wiring_plugins import BatchNorm, CorruptFile, WiringError, fingerprint, load_weights, resolve, wire
from wiring_plugins.architectures.cornet_s import CORNET_S


@pytest.fixture(scope="module")
def model(registry):
    return wire(replace(registry.recipe("wiring-kaiming"), batch_norm=BatchNorm(statistics="unit")), registry)


@pytest.fixture
def image():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_parameters_and_keys_are_the_published_ones(model):
    state = model.state_dict()
    assert sum(parameter.numel() for parameter in model.parameters()) == 53_416_616
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) == 29
    assert state["V1.conv1.weight"].shape == (64, 3, 7, 7)
    assert state["V2.norm1_0.running_mean"].shape == (512,)
    assert state["V4.norm3_3.weight"].shape == (256,)
    assert state["IT.conv2.weight"].shape == (2048, 2048, 3, 3)
    assert state["IT.norm_skip.bias"].shape == (512,)
    assert state["decoder.linear.weight"].shape == (1000, 512)


def test_the_layer_table_is_that_of_the_module(model):
    state = model.state_dict()
    assert {f"{layer.path}.weight": layer.shape for layer in CORNET_S.layers} == {
        name: tuple(tensor.shape) for name, tensor in state.items() if name.endswith("weight")}
    assert {f"{layer.path}.bias" for layer in CORNET_S.layers if layer.bias} == {
        name for name in state if name.endswith("bias")}


def test_a_forward_pass_changes_nothing_in_the_module(model, image):
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    first = model(image)
    for name, module in model.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert all(before[name][key] is value or before[name][key] == value for key, value in vars(module).items()
                   if isinstance(value, (int, float, str, tuple, bool, type(None))))
    assert torch.equal(first, model(image))


def test_it_compiles_whole(model, image):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(image), model(image))


@pytest.mark.parametrize("area, steps, shape", [("V1", 1, (64, 16, 16)), ("V2", 2, (128, 8, 8)), ("V4", 4, (256, 4, 4)),
                                                ("IT", 2, (512, 2, 2))])
def test_every_areas_output_is_seen_at_every_time_step(model, image, area, steps, shape):
    seen = []
    handle = model.get_submodule(f"{area}.output").register_forward_hook(lambda *call: seen.append(call[2].clone()))
    model(image)
    handle.remove()
    assert [tuple(output.shape[1:]) for output in seen] == [shape] * steps
    assert all(not torch.equal(early, late) for early, late in zip(seen, seen[1:]))


def test_recurrence_follows_the_description(model, image):
    """V2 computed step by step from its parts, in plain functional form."""
    area, F = model.V2, torch.nn.functional
    x = F.conv2d(model.V1(image), area.conv_input.weight)

    def norm(y, module):
        return F.batch_norm(y, module.running_mean, module.running_var, module.weight, module.bias)

    for step, (n1, n2, n3) in enumerate(((area.norm1_0, area.norm2_0, area.norm3_0), (area.norm1_1, area.norm2_1, area.norm3_1))):
        skip = norm(F.conv2d(x, area.skip.weight, stride=2), area.norm_skip) if step == 0 else x
        y = F.relu(norm(F.conv2d(x, area.conv1.weight), n1))
        y = F.relu(norm(F.conv2d(y, area.conv2.weight, stride=2 if step == 0 else 1, padding=1), n2))
        x = F.relu(norm(F.conv2d(y, area.conv3.weight), n3) + skip)
    assert torch.allclose(x, area(model.V1(image)), atol=1e-5)


def test_a_published_checkpoint_loads(model, tmp_path):
    state = {f"module.{name}": tensor + 1 for name, tensor in model.state_dict().items()
             if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": state, "epoch": 43}, tmp_path / "cornet_s.pth")
    loaded = load_weights(CORNET_S.build(), tmp_path / "cornet_s.pth")
    assert torch.equal(loaded.V2.conv3.weight, model.V2.conv3.weight + 1)


def test_a_whole_checkpoint_stands_in_for_wiring(model, registry, tmp_path):
    file = tmp_path / "cornet_s.pth"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()}}, file)
    recipe = resolve(f"wiring-gabor-frozen@{file}", registry)
    assert recipe.weights.kind == "full" and recipe.name == "wiring-gabor-frozen@cornet_s.pth"
    loaded = wire(recipe, registry)
    assert not loaded.training
    assert fingerprint(loaded.state_dict()) == fingerprint(model.state_dict())
    with pytest.raises(CorruptFile, match="has SHA-256 .*wiring-gabor-frozen@birth"):
        wire(replace(recipe, weights=replace(recipe.weights, sha256="0" * 64)), registry)
    file.unlink()
    with pytest.raises(WiringError, match="There is no weights file"):
        wire(recipe, registry)


@pytest.mark.parametrize("change, text", [
    (lambda state: state.pop("V2.conv3.weight"), "lacks V2.conv3.weight"),
    (lambda state: state.update({"V3.x": torch.zeros(1)}), "unexpected V3.x"),
    (lambda state: state.update({"decoder.linear.weight": torch.zeros(10, 512)}), "wrong shape of decoder.linear.weight"),
    (lambda state: state["V1.norm1.weight"].fill_(float("nan")), "NaN or infinity in V1.norm1.weight"),
])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(model, tmp_path, change, text):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "x.pth")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CorruptFile, match=text):
        load_weights(model, tmp_path / "x.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_checkpoint_that_runs_code_is_refused(model, tmp_path, capsys):
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CorruptFile, match="refused"):
        load_weights(model, tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def test_truncated_and_missing_files_are_refused(model, tmp_path):
    (tmp_path / "half.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    for name in ("half.safetensors", "half.pth"):
        with pytest.raises(CorruptFile, match=name):
            load_weights(model, tmp_path / name)
    with pytest.raises(WiringError, match="There is no weights file"):
        load_weights(model, tmp_path / "none.pth")
