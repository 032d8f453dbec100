"""Recipes, seeds, the Gabor prior, and batch-normalisation statistics at birth."""
from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from wiring_plugins import (BatchNorm, Commitment, FrozenMapping, Init, Initializer, Layer, LayerContext, Recipe, Registry,
                            WeightsRef, WiringError, build_model, fingerprint, from_plain, layer_rng, load_registry,
                            noise_images, to_plain, wire)
from wiring_plugins.gabors import GaborParameters, render
from wiring_plugins.initializers.gabor import gabor
from wiring_plugins.statistics import v1_physiology
from wiring_plugins.testing import check_recipe

NAMES = ("wiring-kaiming", "wiring-gabor-frozen")


@pytest.mark.parametrize("name", NAMES)
def test_recipes_keep_the_contract(registry, name):
    check_recipe(registry.recipe(name), registry)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_come_in_the_reference_works_seeds(registry, name):
    assert [registry.recipe(f"{name}{suffix}").seed for suffix in ("", "-seed42", "-seed94")] == [0, 42, 94]


def test_a_seed_gives_the_same_bits_and_the_named_seed_is_the_same_model():
    first, again, named = (fingerprint(build_model(*arguments).state_dict()) for arguments in (
        ("wiring-gabor-frozen",), ("wiring-gabor-frozen",), ("wiring-gabor-frozen-seed42",)))
    assert first == again != named
    assert fingerprint(build_model("wiring-gabor-frozen", seed=42).state_dict()) == named


def test_gabor_and_kaiming_share_every_layer_but_the_first(registry):
    from wiring_plugins import draw_weights
    one, other = (draw_weights(registry.recipe(name), registry) for name in NAMES)
    assert [path for path in one if not np.array_equal(one[path], other[path])] == ["V1.conv1"]


def test_streams_are_frozen():
    """Numbers written down once: a new numpy, or a change of the derivation, must not change anybody's weights."""
    assert layer_rng(0, "V1.conv1").standard_normal(3) == pytest.approx(
        [0.04659700832730976, 0.06871077784127307, -0.8275879474734018], rel=1e-15)


def test_kaiming_has_the_stated_spread(registry):
    from wiring_plugins import draw_weights
    weights = draw_weights(registry.recipe("wiring-kaiming"), registry)
    assert weights["V1.conv2"].std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert weights["IT.conv1"].std() == pytest.approx(np.sqrt(2 / 2048), rel=0.01)
    assert np.abs(weights["decoder.linear"]).max() <= 1 / np.sqrt(512)


def test_physiology_samples_follow_the_published_counts():
    rng = layer_rng(0, "test")
    prior = v1_physiology.PhysiologyPrior()
    sample = prior.sample(rng, 20_000, size=7, pixels_per_degree=28)
    orientation = np.rad2deg(sample.orientation[:, 0])
    counts = np.histogram(orientation, bins=v1_physiology.ORIENTATION.edges)[0] / 20_000
    assert counts == pytest.approx(np.array([66, 49, 77, 54]) / 246, abs=0.012)
    frequency = sample.frequency[:, 0] * 28
    counts = np.histogram(frequency, bins=v1_physiology.SPATIAL_FREQUENCY.edges)[0] / 20_000
    assert counts == pytest.approx(np.array([4, 4, 8, 25, 32, 26, 28, 12]) / 139, abs=0.012)
    n_x, n_y = sample.sigma_x[:, 0] * sample.frequency[:, 0], sample.sigma_y[:, 0] * sample.frequency[:, 0]
    joint = np.histogram2d(n_x, n_y, bins=[v1_physiology.SHAPE.edges] * 2)[0] / 20_000
    assert joint == pytest.approx(np.array(v1_physiology.SHAPE.counts) / 79, abs=0.012)


def test_a_gabor_has_its_orientation_and_frequency():
    """A grating with the Gabor's own wave vector drives it more than one turned by 90 degrees or of twice the frequency."""
    one = {name: np.full((1, 1), value) for name, value in dict(
        frequency=0.1, orientation=np.deg2rad(30), sigma_x=4.0, sigma_y=4.0, phase=0.0, x=0.0, y=0.0, scale=1.0).items()}
    kernel = render(GaborParameters(**one), 25, 25)[0, 0]
    y, x = np.mgrid[-12:13, -12:13]

    def drive(degrees, frequency):
        angle = np.deg2rad(degrees)
        return (kernel * np.cos(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))).sum()

    assert drive(30, 0.1) > 5 * max(abs(drive(120, 0.1)), abs(drive(30, 0.2)), abs(drive(-30, 0.1)))


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
       seed=st.integers(0, 2 ** 31), pixels=st.floats(2, 200))
def test_gabor_kernels_are_balanced_and_of_the_stated_norm(shape, seed, pixels):
    context = LayerContext(layer="V1.conv1", statistics=v1_physiology.V1Physiology(), pixels_per_degree=pixels)
    kernels = gabor(layer_rng(seed, "V1.conv1"), shape, context)
    assert kernels.shape == shape and kernels.dtype == np.float32
    norms = np.sqrt((kernels.astype(float) ** 2).sum(axis=(1, 2, 3)))
    assert norms == pytest.approx(np.sqrt(2 * shape[1] / shape[0]), rel=1e-4)
    assert np.array_equal(kernels, np.repeat(kernels[:, :1], shape[1], axis=1))
    if shape[2] * shape[3] > 1:
        assert np.abs(kernels.mean(axis=(2, 3))).max() < 1e-6


def test_calibration_gives_every_channel_mean_0_and_variance_1_on_noise():
    model = build_model("wiring-gabor-frozen")
    seen = {}
    for name in ("V1.norm1", "V2.norm1_0", "V2.norm1_1", "IT.norm3_1"):
        model.get_submodule(name).register_forward_hook(lambda *call, name=name: seen.update({name: call[2].detach().clone()}))
    with torch.no_grad():
        model(torch.from_numpy(noise_images(16, 224, seed=0)))
    for name, output in seen.items():
        assert output.mean(dim=(0, 2, 3)).abs().max() < 0.03, name
        assert (output.var(dim=(0, 2, 3)) - 1).abs().max() < 0.05, name


def test_noise_has_the_stated_spectrum():
    images = noise_images(8, 128, seed=1)
    assert images.mean(axis=(2, 3)) == pytest.approx(0, abs=1e-5) and images.std(axis=(2, 3)) == pytest.approx(1, abs=1e-4)
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=(0, 1))[0]
    octaves = [power[low:2 * low].mean() for low in (2, 4, 8, 16)]
    assert np.log2(np.array(octaves[:-1]) / octaves[1:]) == pytest.approx(2, abs=0.8)
    assert np.corrcoef(images[:, 0].ravel(), images[:, 1].ravel())[0, 1] == pytest.approx(0.9, abs=0.05)


scalars = st.one_of(st.booleans(), st.integers(-9, 9), st.floats(-9, 9), st.text(max_size=4), st.none())
inits = st.builds(lambda kind, source, params: Init(kind, source=source, params=params), st.text(max_size=5),
                  st.none() | st.text(max_size=5), st.dictionaries(st.text(max_size=4), scalars | st.lists(scalars), max_size=3))
recipe_strategy = st.builds(
    Recipe, name=st.text(max_size=6), architecture=st.text(max_size=6),
    init=st.dictionaries(st.text(max_size=6), inits, max_size=4),
    trainable=st.lists(st.text(max_size=6), max_size=3), batch_norm=st.builds(BatchNorm, images=st.integers(1, 99)),
    weights=st.builds(WeightsRef, file=st.none() | st.text(max_size=4)), seed=st.integers(0, 2 ** 32),
    commitment=st.none() | st.builds(Commitment, regions=st.dictionaries(st.sampled_from(["V1", "IT"]), st.text(max_size=4)),
                                     time_bins=st.dictionaries(st.sampled_from(["V1", "IT"]), st.lists(
                                         st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=3)),
                                     readout=st.text(max_size=3), logits=st.text(max_size=3)))


@settings(max_examples=60, deadline=None)
@given(recipe_strategy)
def test_any_recipe_survives_json(recipe):
    import json
    again = from_plain(Recipe, json.loads(json.dumps(to_plain(recipe))))
    assert again == recipe and hash(again) == hash(recipe)


def test_frozen_mappings_cannot_be_changed():
    mapping = FrozenMapping({"a": 1})
    with pytest.raises(TypeError):
        mapping["a"] = 2
    assert {**mapping, "b": 2} == {"a": 1, "b": 2}


def with_architecture(build=tiny.build, layers=tiny.TINY.layers, **commitment) -> Registry:
    architecture = replace(tiny.TINY, build=build, layers=layers, commitment=replace(tiny.TINY.commitment, **commitment))
    return replace(load_registry(), architectures={"tiny": architecture})


def build_with_constant():
    model = tiny.build()
    model.register_buffer("constant", torch.arange(3.0))
    return model


def build_with_parameter():
    model = tiny.build()
    model.register_parameter("position", torch.nn.Parameter(torch.zeros(3)))
    return model


def test_an_architecture_keeps_the_constants_in_its_buffers():
    state = torch.random.get_rng_state()
    model = wire(tiny.recipe("x"), with_architecture(build_with_constant))
    assert model.constant.tolist() == [0, 1, 2] and model.V1.norm.running_mean.isfinite().all()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_architecture_may_normalise_without_running_statistics():
    def build():
        model = tiny.build()
        model.IT.norm = torch.nn.GroupNorm(3, 12)
        return model
    assert torch.equal(wire(tiny.recipe("x"), with_architecture(build)).IT.norm.weight, torch.ones(12))


@pytest.mark.parametrize("changes, text", [
    ({"build": build_with_parameter}, "gives position the shape of nothing, and its module (3,)"),
    ({"layers": tiny.TINY.layers[1:]}, "gives V1.conv.weight the shape of nothing, and its module (8, 3, 3, 3)"),
    ({"layers": (*tiny.TINY.layers, Layer(path="V2.conv", kind="conv", shape=(8, 8, 1, 1)))}, "module none"),
    ({"regions": {"V1": "V1.relu"}}, "no module 'V1.relu' in tiny (V1 of its commitment). Did you mean"),
    ({"logits": "decoder.linaer"}, "no module 'decoder.linaer' in tiny (logits of its commitment). Did you mean 'decoder.linear'"),
])
def test_an_architecture_that_is_not_as_described_is_refused(changes, text):
    registry = with_architecture(**changes)
    init = {path: Init("kaiming") for path in registry.architecture("tiny").weight_layers()}
    with pytest.raises(WiringError, match=re.escape(text)):
        wire(replace(tiny.recipe("x"), init=init), registry)


def test_class_scores_may_come_from_any_module_but_only_a_linear_layer_is_made_anew():
    registry = with_architecture(logits="IT.nonlin")
    assert wire(tiny.recipe("x"), registry)(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)
    with pytest.raises(WiringError, match="'x' cannot have 10 classes.*'IT.nonlin'"):
        wire(replace(tiny.recipe("x"), classes=10), registry)


@pytest.mark.parametrize("sample, text", [
    (lambda rng, shape, context: 1 / 0, "'odd' fails for layer V1.conv .*ZeroDivisionError"),
    (lambda rng, shape, context: [1.0], "gave float64 weights of shape .1,. for layer V1.conv"),
    (lambda rng, shape: np.zeros(shape), "of V1.conv cannot take its params"),
])
def test_an_initialiser_that_fails_is_named_with_its_layer(sample, text):
    registry = replace(with_architecture(), initializers={**load_registry().initializers,
                                                          "odd": Initializer(name="odd", sample=sample)})
    with pytest.raises(WiringError, match=text):
        wire(replace(tiny.recipe("x"), init={**tiny.INIT, "V1.conv": Init("odd")}), registry)
