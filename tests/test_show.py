"""`wiring show`, the initialisers' page, and the BatchNorm policies behind them."""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wiring_plugins import (Architecture, BatchNorm, Commitment, DataUnavailable, Init, Layer, Recipe,
                            RegistrationError, StatisticsSource, UnknownName, WeightsRef, WiringError, load_registry)
from wiring_plugins.cli import make_app
from wiring_plugins.counting import count
from wiring_plugins.initializer_page import page
from wiring_plugins.normalisation import norm_state
from wiring_plugins.pictures import GAP, PIXEL, draw_grid
from wiring_plugins.show import describe, print_differences
from wiring_plugins.statistics.types import LayerStatistics, Normal, NormStatistics, Statistics

REGISTRY = load_registry()


def wiring(*arguments):
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


def held(channels: int, gamma: float = 0.1) -> LayerStatistics:
    return LayerStatistics(shape=(channels,), norm=NormStatistics(
        gamma=Normal(mean=gamma, std=0.2), beta=Normal(mean=-1, std=0.5),
        running_mean=np.arange(channels, dtype=np.float32), running_var=np.full(channels, 4, np.float32)))


def registry_with_norms(channels_held: int = 400):
    layers = (Layer(path="a", kind="conv", shape=(400, 3, 1, 1)),
              Layer(path="n", kind="norm", shape=(400,), bias=True, after="a"))
    architecture = Architecture(name="one", build=lambda: None, layers=layers, commitment=Commitment(
        regions={"V1": "a"}, readout="a", logits="a"))
    source = StatisticsSource(name="trained", trained=True, load=lambda: Statistics({"n": held(channels_held)}))
    return replace(REGISTRY, architectures={"one": architecture}, statistics={"trained": source})


def recipe(**policy) -> Recipe:
    return Recipe(name="x", architecture="one", init={"a": Init("kaiming")}, batch_norm=BatchNorm(**policy))


def state(registry, **policy):
    made = recipe(**policy)
    registry.check(made)
    return norm_state(made, registry.architecture("one"), registry)["n"]


def test_batch_norm_policies():
    registry = registry_with_norms()
    unit = state(registry, statistics="unit")
    assert (unit["weight"] == 1).all() and (unit["running_var"] == 1).all() and not unit["running_mean"].any()
    borrowed = state(registry, statistics="borrowed", source="trained")
    assert np.array_equal(borrowed["running_mean"], np.arange(400)) and (borrowed["running_var"] == 4).all()
    sampled = state(registry, statistics="calibrated", affine="sampled", source="trained")
    assert sampled["bias"].mean() == pytest.approx(-1, abs=0.1)
    assert sampled["bias"].std() == pytest.approx(0.5, abs=0.06)
    assert (sampled["weight"] >= 0).all() and (sampled["weight"] == 0).any()  # γ ~ N(.1, .2), cut at 0
    assert (sampled["running_var"] == 1).all()
    assert all(values.dtype == np.float32 for values in (unit | borrowed | sampled).values())


def test_borrowed_statistics_repeat_where_the_source_has_fewer_channels():
    assert np.array_equal(state(registry_with_norms(3), statistics="borrowed", source="trained")["running_mean"][:5],
                          [0, 1, 2, 0, 1])


def test_borrowed_and_sampled_numbers_are_counted():
    registry = registry_with_norms()
    for policy, numbers in (({"statistics": "borrowed"}, 800), ({"affine": "sampled"}, 4),
                            ({"statistics": "borrowed", "affine": "sampled"}, 804)):
        counted = count(recipe(source="trained", **policy), registry)
        assert counted.numbers == counted.borrowed == numbers
    assert count(recipe(), registry).borrowed == 0
    few = registry_with_norms(3)  # which repeat in 400 channels
    assert count(recipe(source="trained", statistics="borrowed"), few).borrowed == 6


def test_borrowing_what_a_source_does_not_hold_is_a_sentence_and_not_a_count():
    borrowed = replace(REGISTRY.recipe("wiring-wc"), batch_norm=BatchNorm(statistics="borrowed", source="googlenet"))
    with pytest.raises(WiringError, match="'googlenet' holds no normalisation statistics for V1.norm1"):
        count(borrowed, REGISTRY)


def two_from_one_source(kind: str, **parts):
    """Registry and recipe of two 1x1 layers of that kind, whose source is read anew each time that it is asked."""
    def read():
        return Statistics({name: LayerStatistics(shape=(4, 4, 1, 1), **parts) for name in ("a", "b")})

    layers = tuple(Layer(path=path, kind="conv", shape=(4, 4, 1, 1)) for path in ("a", "b"))
    architecture = Architecture(name="two", build=lambda: None, layers=layers, commitment=Commitment(
        regions={"V1": "a"}, readout="b", logits="b"))
    registry = replace(REGISTRY, architectures={"two": architecture}, statistics={
        "anew": StatisticsSource(name="anew", trained=True, load=read)})
    return registry, Recipe(name="x", architecture="two", init={path: Init(kind, source="anew") for path in ("a", "b")})


def test_every_layer_of_a_source_is_counted_and_a_shared_one_once():
    registry, two = two_from_one_source("layer-normal", normal=Normal(mean=0, std=1))
    assert count(two, registry).numbers == 4
    shared = replace(two, init={"a": two.init["a"], "b": Init("layer-normal", source="anew", layer="a")})
    assert count(shared, registry).numbers == 2
    assert [row.numbers for row in count(shared, registry).layers] == [2, 2]


@pytest.mark.parametrize("kind", sorted(name for name, each in REGISTRY.initializers.items() if each.numbers))
def test_a_source_that_lacks_what_is_counted_is_a_sentence(kind):
    registry, recipe = two_from_one_source(kind)
    with pytest.raises(WiringError, match=f"'{kind}' of layer a needs a source that holds"):
        count(recipe, registry)


def test_a_model_from_another_source_says_so():
    result = wiring("show", "wiring-wc@googlenet")
    assert "drawn from 'googlenet' instead" in result.output
    from wiring_plugins.names import from_source
    norms = replace(REGISTRY.recipe("wiring-kaiming"), batch_norm=BatchNorm(statistics="borrowed", source="googlenet"))
    assert from_source(norms, "mine").batch_norm.source == "mine"


def test_the_layer_of_a_source_is_shown():
    from wiring_plugins.show import sources_in_words
    init = Init("permute", base=Init("cluster", source="googlenet", layer="V4.conv2"))
    assert sources_in_words(init) == "googlenet V4.conv2"


def test_a_policy_without_a_source_or_with_one_that_has_no_norms_is_refused():
    with pytest.raises(RegistrationError, match="needs a source"):
        REGISTRY.check(replace(REGISTRY.recipe("wiring-wc"), batch_norm=BatchNorm(statistics="borrowed")))
    with pytest.raises(UnknownName, match="googlent"):
        REGISTRY.check(replace(REGISTRY.recipe("wiring-wc"), batch_norm=BatchNorm(affine="sampled", source="googlent")))
    bare = replace(REGISTRY.recipe("wiring-wc"), batch_norm=BatchNorm(statistics="borrowed", source="googlenet"))
    with pytest.raises(WiringError, match="V1.norm1"):
        norm_state(bare, REGISTRY.architecture("cornet-s"), REGISTRY)


def test_show_prints_the_counts():
    result = wiring("show", "wiring-wc")
    assert result.exit_code == 0
    counted = count(REGISTRY.recipe("wiring-wc"), REGISTRY)
    for said in ("53,372,096", "512,000 (0.96 %)", "53,416,616", f"Wired from {counted.numbers:,} numbers",
                 f"{counted.numbers * 32:,} bits", f"{counted.borrowed:,} of them are borrowed", "IT.conv2", "cluster",
                 "Stays as born: V1, V2, V4, IT", "1/f noise"):
        assert said in result.output, said


def test_every_model_can_be_shown():
    for name in REGISTRY.recipes:
        describe(REGISTRY.recipe(name), count(REGISTRY.recipe(name), REGISTRY))


def test_an_area_whose_normalisation_learns_does_not_stay_as_born():
    assert "Stays as born: nothing as a whole" in wiring("show", "wiring-bn").output


@pytest.mark.parametrize("changed, said", [
    ({"batch_norm": BatchNorm(images=99)}, "on 99 generated"), ({"architecture": "one", "init": {}}, "V4.conv1"),
    ({"weights": WeightsRef(kind="full", file="x.pth")}, "read from x.pth"),
    ({"weights": WeightsRef(kind="delta", file="x.safetensors")}, "read from x.safetensors"),
    ({"seed": 7}, "wired alike, under the seeds 0 and 7"), ({"trainable": ()}, "wired alike.")], ids=str)
def test_what_two_models_begin_with_differently_is_said(capsys, changed, said):
    wc = REGISTRY.recipe("wiring-wc")
    print_differences(wc, replace(wc, **changed))
    output = capsys.readouterr().out
    assert said in output and ("alike" in said) == ("alike" in output)


def test_of_a_model_that_is_read_from_a_file_no_wiring_is_shown(capsys):
    read = replace(REGISTRY.recipe("wiring-wc"), weights=WeightsRef(kind="full", file="x.pth"))
    describe(read, count(read, REGISTRY))
    output = capsys.readouterr().out
    assert "Not wired: all 53,416,616 parameters are read from x.pth" in output
    assert "Batch normalisation: as in the file" in output and "cluster" not in output.split("layer ")[1]


def test_filters_are_drawn_side_by_side(tmp_path):
    from PIL import Image
    file = tmp_path / "wc.png"
    result = wiring("show", "wiring-wc", "--filters", file, "--compare", "wiring-no-gabor")
    assert result.exit_code == 0, result.output
    assert "gabor(zero_mean=False)" in result.output
    picture = np.asarray(Image.open(file))
    side = 8 * (7 * PIXEL + GAP) + GAP
    assert picture.shape == (side, 2 * side + 4 * GAP, 3)
    # Gabors are smooth: neighbouring weights are alike; slices with independent noise are not
    halves = picture[:, :side], picture[:, -side:]
    left, right = (half[GAP + PIXEL // 2::PIXEL, :, 0].astype(float) for half in halves)
    assert np.abs(np.diff(left, axis=0)).mean() < np.abs(np.diff(right, axis=0)).mean()
    assert os.listdir(tmp_path) == ["wc.png"]


def test_one_kernel_is_drawn_in_its_colours():
    kernel = np.zeros((1, 3, 2, 2))
    kernel[0, 0, 0, 0], kernel[0, 2, 1, 1] = 2, -2
    picture = draw_grid(kernel)
    assert tuple(picture[GAP, GAP]) == (255, 128, 128) and tuple(picture[-GAP - 1, -GAP - 1]) == (128, 128, 0)
    assert (draw_grid(np.zeros((1, 5, 2, 2)))[GAP, GAP] == 128).all()


def test_a_source_that_is_not_here_is_said_before_anything_is_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("WIRING_STATISTICS", str(tmp_path))
    result = wiring("show", "wiring-wc", "--compare", "wiring-wc@wiring-up-vision")
    assert isinstance(result.exception, DataUnavailable) and result.exception.exit_code == 3
    assert "wiring statistics fetch" in str(result.exception) and not result.output


@pytest.mark.parametrize("arguments, complaint", [
    (["show", "wiring-wx"], "wiring-wc"), (["show", "wiring-wc@googlenit"], "googlenet"),
    (["show", "wiring-kaiming@googlenet"], "draws from a statistics source"),
    (["show", "wiring-wc@./x.json"], "wiring statistics import ./x.json"),
    (["bench", "init", "wiring-wx"], "wiring-wc"), (["bench", "init", "wiring-kaiming"], "wired from clusters"),
    (["bench", "gabor-fit", "absent.npz"], "no checkpoint"),
    (["show", "wiring-wc", "--filters", "a.jpg"], ".png"),
    (["show", "wiring-wc", "--filters", "no/folder/a.png"], "cannot be written")])
def test_bad_requests_are_a_sentence_and_leave_no_file(tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    result = wiring(*arguments)
    assert isinstance(result.exception, WiringError) and result.exception.exit_code == 2
    assert complaint in str(result.exception) and os.listdir(tmp_path) == []


def test_the_page_of_initialisers_is_what_the_docstrings_say():
    built_in = [each for each in REGISTRY.initializers.values() if each.sample.__module__.startswith("wiring_plugins.")]
    stored = (Path(__file__).parents[1] / "docs" / "initialisers.md").read_text(encoding="utf-8")
    assert stored == page(built_in), "run: wiring initializers --markdown > docs/initialisers.md"
    assert "not said" not in stored
