"""The offline benchmarks: stimuli, references, and scores that no short cut changes."""
from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("brainscore_vision", reason="needs brainscore-vision, which runs on Python 3.11 only")

from wiring_plugins import Commitment, WiringError  # noqa: E402
from wiring_submission import offline  # noqa: E402
from wiring_submission.brain_model import WiredBrainModel  # noqa: E402
from wiring_submission.cache import verified_folder  # noqa: E402
from wiring_submission.offline import gratings, references, stimuli  # noqa: E402
from wiring_submission.platform import no_network, platform_session  # noqa: E402
from wiring_submission.scoring import IN_RECEPTIVE_FIELD, score_benchmark  # noqa: E402
from wiring_submission.subjects import Subject  # noqa: E402

CEILINGS = dict(zip(offline.BENCHMARKS, (0.956, 0.954, 0.957, 0.961, 0.967, 0.963, 0.933)))


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory):
    before = dict(os.environ)
    os.environ.setdefault("WIRING_CACHE", str(tmp_path_factory.mktemp("cache")))
    with platform_session() as folder, no_network():
        yield folder
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("grid, size, levels", [
    (gratings.receptive_field_grid, 3528, (21, 21, 1, 1, 1, 4, 2)),
    (gratings.orientation_grid, 1152, (1, 1, 1, 9, 4, 12, 8)),
    (gratings.spatial_frequency_grid, 2112, (1, 1, 1, 2, 22, 6, 8)),
    (gratings.size_grid, 2304, (1, 1, 1, 12, 4, 6, 8)),
])
def test_grids_have_the_published_sizes_and_the_order_that_benchmarks_assert(grid, size, levels):
    rows = np.array([[getattr(grating, column) for column in gratings.COLUMNS] for grating in grid()])
    assert len(rows) == size == len(np.unique(rows, axis=0))
    assert tuple(len(np.unique(column)) for column in rows.T) == levels
    if grid is not gratings.orientation_grid:
        assert np.array_equal(rows, rows[np.lexsort(rows.T[::-1])])


def test_gratings_are_the_published_formula_at_every_pixel():
    rng = np.random.RandomState(0)
    grids = [*gratings.receptive_field_grid(), *gratings.orientation_grid(), *gratings.size_grid()]
    for grating in [grids[index] for index in rng.choice(len(grids), 25)]:
        x, y = np.meshgrid(*[(np.arange(672) - 336) / 56] * 2)
        x, y, angle = x - grating.position_x, y - grating.position_y, grating.orientation / 180 * np.pi
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * grating.spatial_frequency * 2 * np.pi
                      + grating.phase / 180 * np.pi) * grating.contrast
        expected = np.where(x ** 2 + y ** 2 <= grating.radius ** 2, np.uint8((wave + 1) / 2 * 255), 128)
        assert np.array_equal(gratings.render(grating, 672), expected)


def test_a_patch_off_the_screen_leaves_it_gray():
    assert (gratings.render(replace(gratings.size_grid()[0], position_x=9.0), 448) == 128).all()


@pytest.fixture
def small_sets(monkeypatch, tmp_path):
    """Sixty stimuli in place of thousands, in a cache of their own."""
    monkeypatch.setenv("WIRING_CACHE", str(tmp_path))
    monkeypatch.setattr(stimuli, "GRIDS", {name: lambda grid=grid: grid()[::60] for name, grid in stimuli.GRIDS.items()})


def test_local_stimuli_for_8_degrees_are_what_the_platform_would_place_on_screen(small_sets):
    from brainscore_vision.benchmark_helpers.screen import place_on_screen
    from PIL import Image
    for name in stimuli.STIMULUS_SETS:
        ours, placed = stimuli.load(name, 8), place_on_screen(stimuli.load(name, 12), target_visual_degrees=8)
        assert (ours["degrees"] == 8).all() and place_on_screen(ours, target_visual_degrees=8) is ours
        for stimulus_id in ours["stimulus_id"]:
            left, right = (np.asarray(Image.open(chosen.get_stimulus(stimulus_id))) for chosen in (ours, placed))
            assert np.array_equal(left, right)


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "Marques2020_size_0001.png").unlink(),
    lambda folder: (folder / "Marques2020_size_0002.png").write_bytes(b""),
    lambda folder: (folder / "manifest.json").write_text("{"),
    lambda folder: (folder / "manifest.json").write_text("[]"),
    lambda folder: shutil.copy(folder / "Marques2020_size_0003.png", folder / "Marques2020_size_0004.png"),
])
def test_a_damaged_cache_is_made_again(small_sets, damage):
    first = stimuli.load("Marques2020_size", 8)
    folder = next(iter(first.stimulus_paths.values())).parent
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    damage(folder)
    stimuli.load("Marques2020_size", 8)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


def test_an_intact_cache_is_reused(small_sets):
    made = []
    stimuli.load("Marques2020_blank", 8, progress=made.append)
    stimuli.load("Marques2020_blank", 8, progress=made.append)
    assert made == [1]


def test_an_interrupted_rendering_leaves_no_folder_behind(tmp_path):
    def fail(folder):
        (folder / "a").write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        verified_folder(tmp_path / "set", ["a", "b"], fail)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_fill_the_cache_at_once(tmp_path):
    barrier = threading.Barrier(2)

    def fill(folder):
        barrier.wait(timeout=10)
        (folder / "a").write_text("the same")
    threads = [threading.Thread(target=verified_folder, args=(tmp_path / "set", ["a"], fill)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["set"] and (tmp_path / "set" / "a").read_text() == "the same"


@pytest.mark.parametrize("identifier", references.REFERENCES)
def test_references_bin_back_to_the_published_counts(identifier, small_sets):
    reference = references.REFERENCES[identifier]
    assembly = references.load(identifier, stimuli.load(reference.stimulus_set, 8))
    for name, counts in reference.properties.items():
        values = assembly.sel(neuronal_property=name).values
        assert tuple(np.histogram(values[~np.isnan(values)], bins=assembly.attrs[f"{name}_bins"])[0]) == counts.counts
    assert assembly.sizes["neuroid"] == reference.cells and set(assembly["region"].values) == {"V1"}


@pytest.mark.parametrize("benchmark", offline.BENCHMARKS)
def test_ceilings_are_the_published_ones(benchmark, small_sets):
    import brainscore_vision
    np.random.seed(0)
    with offline.serve_locally(8):
        ceiling = brainscore_vision.load_benchmark(benchmark).ceiling
    assert float(ceiling) == pytest.approx(CEILINGS[benchmark], abs=0.006)


def test_the_platforms_own_loaders_are_back_afterwards():
    import brainscore_vision
    before = dict(brainscore_vision.data_registry), dict(brainscore_vision.stimulus_set_registry)
    with offline.serve_locally():
        assert brainscore_vision.data_registry != before[0]
    assert (brainscore_vision.data_registry, brainscore_vision.stimulus_set_registry) == before


def small_network():
    """Eight small filters, rectified and pooled: enough of a V1 to be scored in seconds."""
    import torch
    from torch import nn
    torch.manual_seed(0)
    area = nn.Sequential()
    area.add_module("conv", nn.Conv2d(3, 8, 5, stride=2, padding=2))
    area.add_module("relu", nn.ReLU())
    area.add_module("output", nn.MaxPool2d(3, stride=2, padding=1))
    model = nn.Sequential()
    model.add_module("V1", area)
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    return model.eval()


COMMITMENT = Commitment(regions={"V1": "V1.output"}, time_bins={"V1": ((50, 150),)}, readout="pool", logits="pool", image_size=112)


def subject(fresh) -> Subject:
    return Subject(name="small", identifier="small", fresh=fresh, seed=0, weights="untrained", commitment=COMMITMENT)


@pytest.fixture
def fewer_gratings(monkeypatch, tmp_path):
    """Receptive fields mapped near the stimulus only, and orientation measured at one size: 1,033 images in all."""
    def near():
        return tuple(grating for grating in gratings.receptive_field_grid()
                     if -0.5 <= grating.position_y <= 1.5 and -0.5 <= grating.position_x <= 1.5)

    monkeypatch.setenv("WIRING_CACHE", str(tmp_path))
    monkeypatch.setattr(stimuli, "GRIDS", {"Marques2020_receptive_field": near,
                                           "Marques2020_orientation": lambda: gratings.orientation_grid()[:384]})


def test_windows_and_early_stops_change_no_score(fewer_gratings):
    """The platform's own wrapper and full forward pass, our extraction of every unit, and of the units in the window."""
    from wiring_submission.plain import plain_brain_model
    network = small_network()
    ways = {
        "plain": lambda *_: plain_brain_model("small-plain", network, COMMITMENT),
        "whole": lambda *_: WiredBrainModel("small-whole", network, COMMITMENT),
        "window": lambda window, _: WiredBrainModel("small-window", network, COMMITMENT, window=window),
    }
    scores = {way: score_benchmark(subject(fresh), "Marques2020_DeValois1982-pref_or", seed=0, online=False)
              for way, fresh in ways.items()}
    assert scores["plain"].reason is None
    assert scores["plain"].score == scores["whole"].score == scores["window"].score
    assert scores["plain"].raw == scores["window"].raw and scores["plain"].ceiling == scores["window"].ceiling


def test_the_window_holds_every_unit_that_the_benchmark_finds_in_its_receptive_field(session):
    from brainscore_vision.benchmark_helpers.properties_common import map_receptive_field_locations
    network, found = small_network(), {}
    for window in (None, IN_RECEPTIVE_FIELD):
        model = WiredBrainModel("small-rf", network, COMMITMENT, window=window)
        with offline.serve_locally(8):
            model.start_recording("V1", [(70, 170)])
            positions, _ = map_receptive_field_locations(model_identifier=model.identifier, model=model, region="V1")
            units = model.look_at(stimuli.load("Marques2020_blank", 8))["neuroid_num"].values
        near = np.linalg.norm(positions.values - 0.5, axis=1) <= 0.15
        found[window] = units[near], len(units)
    (whole, all_units), (windowed, kept) = found.values()
    assert len(whole) >= 4 and np.array_equal(whole, windowed) and kept < all_units / 4


def test_a_model_without_any_tuning_has_no_score_rather_than_zero():
    from torch import nn
    network = small_network()
    nn.init.zeros_(network.V1.conv.weight)
    dead = score_benchmark(subject(lambda window, _: WiredBrainModel("dead", network, COMMITMENT, window=window)),
                           "Marques2020_DeValois1982-pref_or", seed=0, online=False)
    assert dead.score is None and dead.reason and dead.exit_code == 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WiringError, match=f"cache folder {tmp_path}/file/a cannot be written: .*WIRING_CACHE"):
        verified_folder(tmp_path / "file" / "a", ["x"], lambda folder: None)
