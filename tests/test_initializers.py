"""Every registered initialiser over random shapes, and what single ones promise."""
from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wiring_plugins import (Architecture, BatchNorm, Commitment, Init, Layer, LayerContext, Recipe, RegistrationError,
                            UnknownName, WiringError, draw_weights, from_plain, layer_rng, load_registry, to_plain)
from wiring_plugins.counting import count
from wiring_plugins.fitting.fit import fit_distribution
from wiring_plugins.resample import resize
from wiring_plugins.seeding import quick_normal
from wiring_plugins.statistics.types import LayerStatistics, Mixture

REGISTRY = load_registry()
SAME_FOR_ALL_SEEDS = {"constant"}

shapes = st.tuples(st.integers(1, 24), st.integers(1, 17), st.integers(1, 9), st.integers(1, 9))


def two_layers(first: tuple, second: tuple) -> Architecture:
    layers = (Layer(path="first", kind="conv", shape=first), Layer(path="second", kind="conv", shape=second))
    return Architecture(name="two", build=lambda: None, layers=layers, commitment=Commitment(
        regions={"V1": "first"}, readout="second", logits="second"))


def drawn(init: Init, shape, *, seed: int = 0, first=(6, 3, 5, 5)) -> np.ndarray:
    """What `init` gives a layer of that shape behind a Kaiming layer."""
    registry = replace(REGISTRY, architectures={"two": two_layers(first, shape)})
    recipe = Recipe(name="x", architecture="two", init={"first": Init("kaiming"), "second": init}, seed=seed)
    registry.check(recipe)
    return draw_weights(recipe, registry)["second"]


def inits(name: str) -> list[Init]:
    """An Init of that kind for every source that can serve it, each with a layer that holds what it needs."""
    initializer = REGISTRY.initializer(name)
    if "template" in initializer.needs:
        return [Init(name, base=Init("kaiming"))]
    if initializer.numbers is None:
        return [Init(name)]
    layers = ["V1.conv1"] if name.startswith(("gabor", "kernel-mixture")) else ["V1.conv1", "V2.conv2", "V4.conv1"]
    found = [Init(name, source="googlenet", layer=layer) for layer in layers]
    return found + ([Init(name, source="v1-physiology")] if name == "gabor" else [])


@pytest.mark.parametrize("name", sorted(REGISTRY.initializers))
@given(shape=shapes, seed=st.integers(0, 2 ** 31), data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_initializer_is_pure_finite_and_seeded(name, shape, seed, data):
    init = data.draw(st.sampled_from(inits(name)))
    before = random.getstate(), repr(np.random.get_state())
    first, again, other = (drawn(init, shape, seed=s) for s in (seed, seed, seed + 1))
    assert (random.getstate(), repr(np.random.get_state())) == before
    assert first.shape == shape and first.dtype == np.float32 and np.isfinite(first).all()
    assert np.array_equal(first, again)
    # a few weights may well be drawn alike, or be zero, under two seeds; and a bank is the same but for its order
    enough = np.prod(shape) > 200 and (name != "gabor-bank" or shape[0] > 3 and shape[2] * shape[3] > 8)
    assert name in SAME_FOR_ALL_SEEDS or not enough or not np.array_equal(first, other)


@pytest.mark.parametrize("name", [name for name in sorted(REGISTRY.initializers) if not name.startswith("gabor")])
def test_every_initializer_but_pictures_serves_linear_layers(name):
    for init in inits(name):
        weights = drawn(init, (40, 30))
        assert weights.shape == (40, 30) and np.isfinite(weights).all()


def test_pictures_refuse_linear_layers():
    with pytest.raises(WiringError, match="no height and width"):
        drawn(Init("gabor-bank"), (40, 30))


@pytest.mark.parametrize("name", sorted(REGISTRY.initializers))
def test_every_initializer_says_formula_source_and_numbers(name):
    doc = REGISTRY.initializer(name).doc
    for part in ("Formula:", "Source:" if name != "gabor" else "Geiger", "Numbers needed:"):
        assert part in doc


@pytest.mark.parametrize("name", sorted(REGISTRY.initializers))
def test_a_missing_source_is_a_sentence(name):
    if REGISTRY.initializer(name).numbers is not None:
        with pytest.raises(WiringError, match="needs a source that holds"):
            drawn(Init(name), (8, 4, 3, 3))


def test_a_source_without_the_layer_or_the_part_is_a_sentence():
    with pytest.raises(UnknownName, match="V9"):
        drawn(Init("cluster", source="googlenet", layer="V9.conv1"), (8, 4, 3, 3))
    with pytest.raises(WiringError, match="holds 'gabors'"):
        drawn(Init("gabor-fitted", source="googlenet", layer="V2.conv2"), (8, 4, 3, 3))


def test_misspelt_parameters_are_a_sentence():
    with pytest.raises(WiringError, match="witin"):
        drawn(Init("permute", base=Init("kaiming"), params={"witin": "layer"}), (8, 4, 3, 3))


@pytest.mark.parametrize("init", [
    Init("permute", base=Init("kaiming"), params={"within": "row"}),
    Init("sign", params={"negative": 0.9, "positive": 0.9}),
    Init("zero", base=Init("kaiming"), params={"share": 2}), Init("distribution", params={"family": "laplac"}),
    Init("uniform", params={"bound": -1}), Init("uniform", params={"bound": float("inf")}),
    Init("gabor-bank", params={"cycles": ()}), Init("gabor-bank", params={"widths": (0,)}),
    Init("distribution", params={"family": "beta"}), Init("distribution", params={"family": "t", "arguments": (-3,)}),
    Init("best-distribution", source="googlenet", layer="V1.conv2", params={"per": "row"})], ids=str)
def test_impossible_parameters_are_a_sentence(init):
    with pytest.raises(WiringError):
        drawn(init, (8, 4, 3, 3))


def test_a_perturbation_without_a_base_is_refused_at_registration():
    with pytest.raises(RegistrationError, match="give Init\\('permute', base="):
        drawn(Init("permute"), (8, 4, 3, 3))


def test_the_first_layer_has_none_before_it():
    registry = replace(REGISTRY, architectures={"two": two_layers((4, 3, 3, 3), (4, 4, 3, 3))})
    recipe = Recipe(name="x", architecture="two", init={"first": Init("correlation"), "second": Init("kaiming")})
    with pytest.raises(WiringError, match="none before first"):
        draw_weights(recipe, registry)


@pytest.mark.parametrize("within, axes", [("channel", (2, 3)), ("kernel", (1, 2, 3)), ("layer", (0, 1, 2, 3))])
def test_permute_moves_weights_within_their_group_only(within, axes):
    shape = (5, 4, 3, 3)
    base = drawn(Init("kaiming"), shape)
    moved = drawn(Init("permute", base=Init("kaiming"), params={"within": within}), shape)
    assert not np.array_equal(base, moved)
    groups = shape[:4 - len(axes)]
    assert np.array_equal(np.sort(base.reshape(*groups, -1)), np.sort(moved.reshape(*groups, -1)))


def test_zero_and_cut_variance_take_the_share_that_they_say():
    shape = (20, 4, 5, 5)
    base = drawn(Init("kaiming"), shape)
    small = drawn(Init("zero", base=Init("kaiming"), params={"share": 0.3}), shape)
    large = drawn(Init("zero", base=Init("kaiming"), params={"share": 0.3, "which": "largest"}), shape)
    assert (small == 0).mean() == (large == 0).mean() == pytest.approx(0.3)
    assert np.abs(base[small == 0]).max() <= np.abs(base[small != 0]).min()
    assert np.abs(base[large == 0]).min() >= np.abs(base[large != 0]).max()
    cut = drawn(Init("cut-variance", base=Init("kaiming"), params={"share": 0.25}), shape)
    gone = (cut == 0).all(axis=(1, 2, 3))
    assert gone.sum() == 5 and base[gone].var(axis=(1, 2, 3)).max() <= base[~gone].var(axis=(1, 2, 3)).min()


def test_cluster_and_normals_have_the_source_s_moments():
    source = REGISTRY.source("googlenet").load().layer("V2.conv2")
    for kind in ("cluster", "kernel-normal", "layer-normal", "slice-mixture", "best-distribution"):
        weights = drawn(Init(kind, source="googlenet", layer="V2.conv2"), source.shape)
        assert weights.std() == pytest.approx(source.normal.std, rel=0.08), kind
        assert weights.mean() == pytest.approx(source.normal.mean, abs=0.08 * source.normal.std), kind


@pytest.mark.parametrize("inputs", [1, 3, 200])
def test_clusters_keep_their_shares_in_few_channels_and_many(inputs):
    layer = REGISTRY.source("googlenet").load().layer("V2.conv1")
    clusters = replace(layer.clusters, spread=np.zeros_like(layer.clusters.spread))
    weights = REGISTRY.initializer("cluster").sample(
        layer_rng(0, "x"), (3000, inputs, 1, 1), LayerContext(layer="x", statistics=replace(layer, clusters=clusters)))
    shares = [(weights == center).mean() for center in clusters.centers.ravel()]
    assert np.allclose(shares, clusters.count_mean / clusters.inputs, atol=0.03)


@pytest.mark.parametrize("name", ["gabor", "gabor-independent", "gabor-fitted", "gabor-shuffled"])
def test_gabors_grow_with_the_kernel(name):
    """At thrice the size every third pixel is a pixel of the small kernel, up to the norm."""
    init = Init(name, source="googlenet", layer="V1.conv1", params={"zero_mean": False})
    small, large = drawn(init, (32, 3, 7, 7)), drawn(init, (32, 3, 21, 21))
    thinned = large[:, :, 1::3, 1::3]
    ratio = np.sqrt((thinned ** 2).sum(axis=(1, 2, 3), keepdims=True) / (small ** 2).sum(axis=(1, 2, 3), keepdims=True))
    assert np.allclose(thinned / ratio, small, atol=1e-5 * np.abs(small).max())


def test_each_colour_has_its_own_gabor_and_repeats_in_more_channels():
    init = Init("gabor", source="googlenet", layer="V1.conv1")
    three, five = (drawn(init, (8, inputs, 7, 7)) for inputs in (3, 5))
    assert all(not np.allclose(three[:, 0], three[:, colour]) for colour in (1, 2))
    assert np.array_equal(five[:, :2], five[:, 3:]) and np.corrcoef(five[0, :3].ravel(), three[0].ravel())[0, 1] > 0.999


def test_making_kernels_smaller_averages_and_keeps_what_is_even():
    board = np.indices((9, 9)).sum(axis=0) % 2 * 2.0 - 1
    assert np.abs(resize(board, 3, 3)).max() < 0.2 and np.allclose(resize(np.ones((9, 9)), 3, 5), 1)


@pytest.mark.parametrize("name", ["gabor", "gabor-independent"])
def test_drawn_gabors_keep_to_the_ranges_of_the_fits(name, monkeypatch):
    from wiring_plugins.initializers import gabor
    layer, seen = REGISTRY.source("googlenet").load().layer("V1.conv1"), []
    monkeypatch.setattr(gabor, "render", lambda gabors, *size: seen.append(gabors) or np.ones((2000, 3, *size)))
    REGISTRY.initializer(name).sample(layer_rng(0, "x"), (2000, 3, 7, 7), LayerContext(layer="x", statistics=layer))
    table = layer.gabors.table
    for column, field in ((0, "frequency"), (2, "sigma_x"), (3, "sigma_y"), (5, "x"), (6, "y"), (7, "scale")):
        values = getattr(seen[0], field)
        assert (values >= table[..., column].min(axis=0)).all() and (values <= table[..., column].max(axis=0)).all(), field


@pytest.mark.parametrize("name", ["kernel-normal", "best-distribution"])
def test_every_kernel_has_the_deviation_of_its_own_in_the_source(name):
    source = REGISTRY.source("googlenet").load().layer("V2.conv2")
    weights = drawn(Init(name, source="googlenet", layer="V2.conv2"), source.shape)
    found = weights.reshape(len(weights), -1).std(axis=1)
    assert np.corrcoef(found, source.kernels.std)[0, 1] > 0.9


def test_whole_kernels_keep_their_channels_and_repeat_them():
    means = np.arange(12, dtype=np.float32).reshape(1, 12)
    mixture = Mixture(weights=np.ones(1, np.float32), means=means, cholesky=np.zeros((1, 12), np.float32))
    source = LayerStatistics(shape=(9, 3, 2, 2), whole_kernels=mixture)
    weights = REGISTRY.initializer("kernel-mixture").sample(
        layer_rng(0, "x"), (2, 5, 2, 2), LayerContext(layer="x", statistics=source))
    assert np.array_equal(weights[1], means.reshape(3, 2, 2)[[0, 1, 2, 0, 1]])


@pytest.mark.parametrize("init", [
    Init("kaiming"), Init("uniform"), Init("distribution"), Init("sign", params={"negative": 0.1, "positive": 0.3}),
    Init("kernel-convolution")], ids=str)
def test_weights_have_the_size_of_kaiming_s(init):
    weights = drawn(init, (64, 48, 3, 3)).astype(float)
    assert np.sqrt((weights ** 2).mean()) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.03)


def test_signs_have_their_shares_and_correlations_their_bound():
    weights = drawn(Init("sign", params={"negative": 0.1, "positive": 0.3}), (64, 48, 3, 3))
    assert (weights < 0).mean() == pytest.approx(0.1, abs=0.01) and (weights > 0).mean() == pytest.approx(0.3, abs=0.01)
    assert np.abs(drawn(Init("correlation"), (64, 48, 3, 3))).max() == pytest.approx(0.25)


def test_previous_std_gives_each_input_the_moments_of_the_kernel_that_makes_it():
    previous = np.stack([np.random.RandomState(i).normal(i, i + 1, (3, 5, 5)) for i in range(4)]).astype(np.float32)
    weights = REGISTRY.initializer("previous-std").sample(
        layer_rng(0, "x"), (4000, 8, 1, 1), LayerContext(layer="x", previous=previous))
    expected = np.tile(previous.reshape(4, -1).std(axis=1), 2)
    assert np.allclose(weights[:, :, 0, 0].std(axis=0), expected, rtol=0.05)


@pytest.mark.parametrize("name, flip", [("correlation", False), ("kernel-convolution", True)])
def test_correlation_maps_agree_with_scipy(name, flip):
    from scipy.signal import convolve2d, correlate2d
    previous = np.random.RandomState(0).randn(1, 2, 5, 5).astype(np.float32)
    weights = REGISTRY.initializer(name).sample(
        layer_rng(0, "x"), (1, 1, 5, 5), LayerContext(layer="x", previous=previous))[0, 0]
    kernel = previous[0] - previous.mean() if flip else previous[0]
    expected = sum(convolve2d(k, k, "same") if flip else correlate2d(k, k, "same") for k in kernel.astype(float))
    assert np.allclose(weights / np.abs(weights).max(), expected / np.abs(expected).max(), atol=1e-5)


def test_mutual_information_is_largest_for_a_copy():
    rng = np.random.RandomState(0)
    previous = rng.randn(3, 4, 5, 5).astype(np.float32)
    previous[1] = previous[0]
    weights = REGISTRY.initializer("mutual-information").sample(
        layer_rng(0, "x"), (60, 3, 1, 1), LayerContext(layer="x", previous=previous))[:, :, 0, 0]
    assert (np.isclose(weights[:, 0], weights[:, 1]) & (weights[:, 0] > weights[:, 2])).sum() > 20


@pytest.mark.parametrize("family", ["laplace", "uniform", "cauchy", "expon", "gumbel_r"])
def test_named_distributions_are_themselves(family):
    from scipy import stats
    weights = drawn(Init("distribution", params={"family": family}), (64, 32, 3, 3)).ravel().astype(float)
    fitted = getattr(stats, family).fit(weights[:4000])
    assert stats.kstest(weights[4000:8000], family, fitted).pvalue > 1e-4


@pytest.mark.parametrize("family", ["laplace", "norm", "t"])
def test_the_best_distribution_is_found(family):
    from scipy import stats
    rng = np.random.RandomState(0)
    arguments = (3,) if family == "t" else ()
    kernels = getattr(stats, family)(*arguments).rvs((40, 500), random_state=rng) * rng.uniform(1, 3, (40, 1))
    assert fit_distribution(kernels).family == family


def test_quick_normal_is_normal_and_the_same_in_pieces():
    from scipy import stats
    whole, odd = np.empty(100_000, np.float32), np.empty(33_333, np.float32)
    quick_normal(layer_rng(0, "x"), whole)
    quick_normal(layer_rng(0, "x"), odd)
    assert np.array_equal(whole[:33_333], odd)
    assert stats.kstest(whole.astype(float), "norm").pvalue > 1e-3
    assert abs(whole.std() - 1) < 0.01 and np.abs(whole).max() < 4.4


def test_threads_do_not_change_the_bits(monkeypatch):
    recipe = replace(REGISTRY.recipe("wiring-no-gabor"), architecture="two", init={
        "first": Init("cluster", source="googlenet", layer="V1.conv1"),
        "second": Init("cluster", source="googlenet", layer="V1.conv2")})
    registry = replace(REGISTRY, architectures={"two": two_layers((64, 3, 7, 7), (128, 64, 3, 3))})
    results = []
    for threads in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        results.append(draw_weights(recipe, registry))
    assert all(np.array_equal(results[0][path], results[1][path]) for path in results[0])


@pytest.mark.parametrize("init", [
    Init("permute", base=Init("cluster", source="googlenet"), params={"within": "layer"}), Init("kaiming")], ids=str)
def test_nested_inits_survive_json(init):
    recipe = replace(REGISTRY.recipe("wiring-wc"), init={"V1.conv1": init},
                     batch_norm=BatchNorm(statistics="borrowed", affine="sampled", source="x"))
    assert from_plain(Recipe, json.loads(json.dumps(to_plain(recipe)))) == recipe


def test_counts_add_up():
    counted = count(REGISTRY.recipe("wiring-wc"), REGISTRY)
    source = REGISTRY.source("googlenet").load()
    clusters = [source.layer(row.layer.path).clusters for row in counted.layers[1:-1]]
    assert counted.numbers == counted.borrowed == source.layer("V1.conv1").gabor_prior.numbers() + sum(
        len(c.centers) * (c.centers[0].size + 3) for c in clusters)
    assert (counted.synapses, counted.trained_synapses) == (53_372_096, 512_000)
    assert (counted.parameters, counted.trained_parameters) == (53_416_616, 513_000)
    independent = Init("gabor-independent", source="googlenet")
    recipe = replace(REGISTRY.recipe("wiring-kaiming"), init={**REGISTRY.recipe("wiring-kaiming").init,
                                                              "V1.conv1": independent})
    assert count(recipe, REGISTRY).numbers == 3 * (20 + 16)
    untrained = count(REGISTRY.recipe("wiring-gabor-frozen"), REGISTRY)
    assert untrained.borrowed == 0 < untrained.numbers
    assert untrained.trained_synapses == untrained.synapses - 9_408 - 36_864
