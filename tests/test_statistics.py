"""Statistics files, the import of the reference work's parameters, and what is sampled from them."""
from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections import OrderedDict
from dataclasses import replace
from http.client import IncompleteRead
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from wiring_plugins import (CorruptFile, DataUnavailable, LayerContext, Registry, StatisticsSource, UnknownName,
                            WiringError, layer_rng, load_registry)
from wiring_plugins.cli import make_app
from wiring_plugins.initializers.cluster import cluster
from wiring_plugins.statistics import files, wiring_up_vision
from wiring_plugins.statistics.pickles import read_plain_pickle
from wiring_plugins.statistics.types import (Clusters, LayerStatistics, Mixture, Normal, NormStatistics, Statistics,
                                             canonical, from_vectors, to_vectors)

PUBLISHED = {  # mean and standard deviation of the layers that the reference procedure samples
    "V1.conv2": (-.0033, .0599), "V2.conv_input": (.0048, .0603), "V2.skip": (-.0008, .0291),
    "V2.conv1": (-.0029, .0313), "V2.conv2": (-.0005, .0120), "V4.conv_input": (-.0002, .0394),
    "V4.skip": (-.0002, .0129), "V4.conv1": (-.0020, .0267), "V4.conv2": (-.0003, .0105),
    "IT.conv_input": (.0008, .0301), "IT.skip": (.0001, .0108), "IT.conv1": (-.0018, .0212),
    "IT.conv2": (-.0006, .0071),
}


@pytest.fixture(scope="module")
def reference(shared):
    return wiring_up_vision.convert(shared / "reference" / "training_reductions_pretrained")


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(files.FOLDER, str(tmp_path / "statistics"))
    return tmp_path / "statistics"


def wiring(*arguments):
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


def some_clusters(k=3, size=3, spread=0.01):
    return Clusters(centers=np.random.RandomState(1).randn(k, size, size).astype(np.float32), inputs=32,
                    count_mean=np.full(k, 32 / k, np.float32), count_std=np.full(k, 4, np.float32),
                    spread=np.full(k, spread, np.float32))


@pytest.mark.parametrize("path", PUBLISHED)
def test_parity_with_the_reference_procedure(reference, path):
    layer = reference.layer(path)
    seeds = range(2 if path == "IT.conv2" else 8)
    drawn = [cluster(layer_rng(seed, path), layer.shape, LayerContext(layer=path, statistics=layer), faithful=True)
             for seed in seeds]
    moments = np.array([(weights.mean(dtype=np.float64), weights.std(dtype=np.float64)) for weights in drawn])
    rounding = 5e-5
    kernels = drawn[0].reshape(layer.shape[0], -1)
    error = np.array([kernels.mean(axis=1).std(), kernels.std(axis=1).std()]) / np.sqrt(layer.shape[0])
    assert (np.abs(moments.mean(axis=0) - PUBLISHED[path]) < 4 * error * np.sqrt(1 + 1 / len(drawn)) + rounding).all()


def test_faithful_sampling_agrees_with_a_plain_loop(reference):
    """The procedure as it is described, one kernel and channel at a time, against the vectorised one."""
    layer = reference.layer("V1.conv2")
    held, (_, inputs, *size) = layer.clusters, layer.shape
    rng, loop = np.random.RandomState(0), np.zeros((16, *layer.shape))
    for weights in loop:
        for kernel in weights:
            channel = 0
            for j in range(len(held.centers)):
                for _ in range(abs(int(np.rint(rng.normal(held.count_mean[j], held.count_std[j]))))):
                    if channel < inputs:
                        kernel[channel] = held.centers[j] + rng.normal(0, held.spread[j], size)
                        channel += 1
            for left in range(channel, inputs):
                kernel[left] = held.centers[-1] + rng.normal(0, held.spread[-1], size)
    context = LayerContext(layer="V1.conv2", statistics=layer)
    ours = np.stack([cluster(layer_rng(seed, "x"), layer.shape, context, faithful=True) for seed in range(16)])
    for statistic in (np.mean, np.std, lambda a, axis: np.abs(a).max(axis=axis)):
        a, b = statistic(loop, axis=(2, 3, 4)), statistic(ours, axis=(2, 3, 4))
        assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(a.size)


def test_one_by_one_layers_are_two_valued_only_when_faithful(reference):
    layer = reference.layer("V2.skip")
    context = LayerContext(layer="V2.skip", statistics=layer)
    assert len(np.unique(cluster(layer_rng(0, "x"), layer.shape, context, faithful=True))) == 2
    assert len(np.unique(cluster(layer_rng(0, "x"), layer.shape, context))) > 1000


def test_counts_scale_to_the_target_and_every_channel_is_filled():
    layer = LayerStatistics(shape=(8, 32, 3, 3), clusters=some_clusters(spread=0))
    weights = cluster(layer_rng(0, "x"), (500, 100, 3, 3), LayerContext(layer="x", statistics=layer))
    matches = (weights[:, :, None] == layer.clusters.centers).all(axis=(3, 4))
    assert (matches.sum(axis=2) == 1).all()
    assert np.allclose(matches.sum(axis=1).mean(axis=0), 100 / 3, atol=1.5)
    middle = matches[:, :, 0].mean(axis=0)  # the channels are in random order
    assert abs(middle[:50].mean() - middle[50:].mean()) < 0.03


def test_import_makes_a_source_that_a_model_is_wired_from(shared, own_folder):
    result = wiring("statistics", "import", shared / "reference" / "training_reductions_pretrained")
    assert result.exit_code == 0, result.output
    registry = load_registry()
    source = registry.source("wiring-up-vision").load()
    assert len(source.layers) == 17 and source.layer("V1.conv1").gabor_prior is not None
    from wiring_plugins import resolve
    recipe = resolve("wiring-wc@wiring-up-vision", registry)
    assert {item.source for path, item in recipe.init.items() if path != "decoder.linear"} == {"wiring-up-vision"}
    assert wiring("statistics", "show", "wiring-up-vision").exit_code == 0
    assert os.listdir(own_folder) == ["wiring-up-vision.json"]


def test_an_absent_source_says_how_to_get_it(own_folder):
    with pytest.raises(DataUnavailable, match="wiring statistics fetch wiring-up-vision"):
        load_registry().source("wiring-up-vision").load()


def test_an_altered_published_file_is_refused_and_nothing_kept(shared, own_folder, tmp_path):
    copy = tmp_path / "pretrained"
    shutil.copytree(shared / "reference" / "training_reductions_pretrained", copy)
    os.chmod(copy, 0o755)
    os.chmod(copy / "cluster_V2.skip.pkl", 0o644)
    content = (copy / "cluster_V2.skip.pkl").read_bytes()
    (copy / "cluster_V2.skip.pkl").write_bytes(content[:-40])
    with pytest.raises(CorruptFile, match="cluster_V2.skip.pkl.*altered or damaged"):
        wiring_up_vision.convert(copy)
    result = wiring("statistics", "import", copy)
    assert isinstance(result.exception, CorruptFile) and not own_folder.exists()
    os.unlink(copy / "cluster_V2.skip.pkl")
    with pytest.raises(WiringError, match="lacks cluster_V2.skip.pkl"):
        wiring_up_vision.convert(copy)


@pytest.mark.parametrize("error", [URLError("no route to host"), IncompleteRead(b"no route to host")], ids=str)
def test_offline_fetch_is_one_sentence_and_leaves_nothing(own_folder, monkeypatch, error):
    def offline(*args, **kwargs):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", offline)
    result = wiring("statistics", "fetch", "wiring-up-vision")
    assert isinstance(result.exception, DataUnavailable) and result.exception.exit_code == 3
    assert "cannot be reached" in str(result.exception) and not own_folder.exists()


def test_fetched_files_are_checked_against_their_sums(own_folder, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: io.BytesIO(b"not what was published"))
    assert isinstance(wiring("statistics", "fetch", "wiring-up-vision").exception, CorruptFile)
    assert not own_folder.exists()


class Command:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("evil", [
    Command(os.system, "touch PWNED"), Command(eval, "1"), Command(getattr, OrderedDict(), "clear"),
    Command(np.ndarray, (1 << 50,)), np.array([Command(os.system, "touch PWNED")], dtype=object), np.dtype("O"),
    [np.float64, 1], {"mean": Command(np.load, "x")}], ids=lambda evil: type(evil).__name__)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_a_function_is_refused(tmp_path, monkeypatch, evil, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(evil, protocol=protocol))
    with pytest.raises(CorruptFile, match="refused|cannot be read"):
        read_plain_pickle(tmp_path / "evil.pkl")
    assert not (tmp_path / "PWNED").exists()


@given(data=st.binary(max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_plain_values_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.pkl"
    path.write_bytes(data)
    try:
        read_plain_pickle(path)
    except CorruptFile:
        pass


def test_plain_content_survives_the_restricted_unpickler(tmp_path):
    centers = np.arange(6, dtype=">f4").reshape(1, 2, 3)
    content = {"mean": [np.float64(0.5), 2], "centers": centers, "n": OrderedDict(a=1)}
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(content))
    read = read_plain_pickle(tmp_path / "good.pkl")
    assert read["mean"] == content["mean"] and read["n"] == content["n"]
    assert np.array_equal(read["centers"], content["centers"])
    assert np.dtype(">f4").byteorder == ">" and np.dtype("f4").isnative


def test_a_file_reads_back_to_the_same_bits(own_folder):
    registry = load_registry()
    source = registry.source("googlenet").load()
    again = files.decode(files.encode(source))
    assert files.encode(again) == files.encode(source)
    a, b = source.layer("V1.conv2").clusters.centers, again.layer("V1.conv2").clusters.centers
    assert a.dtype == np.float32 and np.array_equal(a, b)


@pytest.mark.parametrize("spoil, complaint", [
    (lambda plain: plain.update(format="other/1"), "format"),
    (lambda plain: plain["layers"]["a"]["clusters"]["centers"].append([[1.0]]), "centres|sequence|count_mean"),
    (lambda plain: plain["layers"]["a"]["clusters"]["spread"].__setitem__(0, -1.0), "spread"),
    (lambda plain: plain["layers"]["a"]["clusters"]["spread"].__setitem__(0, float("nan")), "NaN"),
    (lambda plain: plain["layers"]["a"]["clusters"]["spread"].__setitem__(0, 1e300), "finite"),
    (lambda plain: plain["layers"]["a"].update(surprise=1), "surprise"),
    (lambda plain: plain["layers"]["a"].update(shape=[8, 32, 5, 5]), "another number of dimensions"),
    (lambda plain: plain["layers"].update(a=[]), "no statistics file"),
    (lambda plain: plain.pop("areas"), "areas"),
])
def test_a_spoilt_file_is_refused_in_a_sentence(tmp_path, spoil, complaint):
    slices = Mixture(weights=np.ones(1, np.float32), means=np.zeros((1, 9), np.float32),
                     cholesky=np.ones((1, 9), np.float32))
    statistics = Statistics({"a": LayerStatistics(shape=(8, 32, 3, 3), clusters=some_clusters(), slices=slices)})
    plain = json.loads(files.encode(statistics))
    spoil(plain)
    (tmp_path / "x.json").write_text(json.dumps(plain))
    with np.errstate(over="ignore"), pytest.raises(CorruptFile, match=complaint):
        files.read(tmp_path / "x.json")


def test_a_truncated_or_foreign_file_is_refused(tmp_path, own_folder):
    text = files.encode(Statistics({"a": LayerStatistics(shape=(8, 32, 3, 3), clusters=some_clusters())}))
    for content in (text[:len(text) // 2], "", "[]", "[" * 100_000, "\x00" * 50):
        (tmp_path / "x.json").write_text(content)
        result = wiring("statistics", "import", tmp_path / "x.json", "--name", "mine")
        assert isinstance(result.exception, CorruptFile), content[:20]
    assert not own_folder.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(WiringError, match="No space left"):
        files.write(Statistics({}), path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.json"]


def test_names_of_shipped_sources_are_not_taken(tmp_path, own_folder):
    files.write(Statistics({"a": LayerStatistics(shape=(8, 32, 3, 3), clusters=some_clusters())}), tmp_path / "x.json")
    assert "ships with" in str(wiring("statistics", "import", tmp_path / "x.json", "--name", "googlenet").exception)
    assert "legal name" in str(wiring("statistics", "import", tmp_path / "x.json", "--name", "../up").exception)
    assert wiring("statistics", "import", tmp_path / "x.json", "--name", "mine").exit_code == 0
    assert load_registry().source("mine").load().layer("a").clusters.inputs == 32
    assert "reference work's own" in str(
        wiring("statistics", "import", tmp_path / "x.json", "--name", "wiring-up-vision").exception)


def test_a_name_that_a_plugin_or_the_command_line_uses_is_not_taken(tmp_path, own_folder, monkeypatch):
    files.write(Statistics({"a": LayerStatistics(shape=(8, 32, 3, 3), clusters=some_clusters())}), tmp_path / "x.json")
    assert "no source is called 'birth'" in str(
        wiring("statistics", "import", tmp_path / "x.json", "--name", "birth").exception)
    registry = load_registry()
    theirs = StatisticsSource(name="theirs", load=dict, trained=False)
    with monkeypatch.context() as patch:
        patch.setattr("wiring_plugins.plugins.load_registry", lambda: replace(
            registry, statistics={**registry.statistics, "theirs": theirs}))
        assert "ships with" in str(wiring("statistics", "import", tmp_path / "x.json", "--name", "theirs").exception)
    assert not own_folder.exists()
    for _ in range(2):  # one's own source may be replaced
        assert wiring("statistics", "import", tmp_path / "x.json", "--name", "mine").exit_code == 0


def test_a_copied_file_of_a_shipped_source_s_name_is_not_a_source(own_folder):
    own_folder.mkdir()
    for name in ("googlenet", "v1-physiology"):
        files.write(Statistics({}), own_folder / f"{name}.json")
    assert load_registry().source("googlenet").load().layers


def test_a_source_that_fails_to_load_is_a_sentence_that_names_it():
    theirs = StatisticsSource(name="theirs", trained=False, load=lambda: open("/no/such/file"))
    with pytest.raises(WiringError, match="source 'theirs' cannot be loaded: FileNotFoundError"):
        Registry(statistics={"theirs": theirs}).load_source("theirs")


def test_where_recordings_come_from_is_shown():
    assert "De Valois" in wiring("statistics", "show", "v1-physiology").output


def test_a_file_is_imported_under_the_name_that_it_was_fitted_under(tmp_path, own_folder):
    layers = {"a": LayerStatistics(shape=(8, 32, 3, 3), clusters=some_clusters())}
    files.write(Statistics(layers, provenance={"name": "my-net"}), tmp_path / "x.json")
    assert wiring("statistics", "import", tmp_path / "x.json").exit_code == 0
    assert os.listdir(own_folder) == ["my-net.json"]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path, monkeypatch):
    files.write(Statistics({"a": LayerStatistics(shape=(8, 32, 3, 3), clusters=some_clusters())}), tmp_path / "x.json")
    monkeypatch.setenv(files.FOLDER, str(tmp_path / "x.json" / "own"))
    result = wiring("statistics", "import", tmp_path / "x.json", "--name", "mine")
    assert isinstance(result.exception, WiringError) and files.FOLDER in str(result.exception)


def test_an_unknown_layer_lists_near_names():
    with pytest.raises(UnknownName, match="Did you mean 'V2.conv1'"):
        Statistics({"V2.conv1": LayerStatistics(shape=(1, 1))}, provenance={"name": "x"}).layer("V2.con1")


def test_gabor_vectors_and_canonical_form_keep_the_gabor():
    from wiring_plugins.gabors import render
    from wiring_plugins.statistics.types import gabor_parameters
    rng = np.random.RandomState(0)
    table = np.stack([rng.uniform(*bounds, (50, 3)) for bounds in (
        (.05, .5), (-9, 9), (.5, 3), (.5, 3), (-9, 9), (-2, 2), (-2, 2), (.1, 2))], axis=-1)
    plain = canonical(table)
    assert (np.abs(plain[..., 1]) <= np.pi / 2 + 1e-9).all() and (np.abs(plain[..., 4]) <= np.pi + 1e-9).all()
    pictures = [render(gabor_parameters(t), 7, 7) for t in (table, plain, from_vectors(to_vectors(plain)))]
    assert np.allclose(pictures[0], pictures[1]) and np.allclose(pictures[0], pictures[2])


def test_numbers_are_those_that_have_to_be_known():
    """Shares of a mixture add up to one and a covariance is symmetric, so that some of what is kept follows."""
    ones = np.ones
    assert some_clusters(k=3, size=3).numbers() == 3 * 9 + 3 * 3
    diagonal = Mixture(weights=ones(2, np.float32) / 2, means=ones((2, 5)), cholesky=ones((2, 5)))
    assert diagonal.numbers() == 1 + 2 * 5 + 2 * 5
    norm = NormStatistics(gamma=Normal(mean=1, std=1), beta=Normal(mean=0, std=1), running_mean=ones(7),
                          running_var=ones(7))
    assert norm.numbers() == 4 + 2 * 7
    first = load_registry().source("googlenet").load().layer("V1.conv1")
    assert first.gabor_prior.numbers() == 4 + 5 * 30 + 5 * 30 * 31 // 2 + 2 * 3 * 8  # shares, means, covariances, ranges
    assert first.gabors.numbers() == 64 * 3 * 8 and first.kernels.numbers() == 64 * 2


def test_mixture_draws_have_its_moments():
    factor = np.array([[1.0, 0.0], [0.8, 0.6]], np.float32)
    mixture = Mixture(weights=np.array([0.3, 0.7], np.float32), means=np.array([[5.0, 0.0], [-5.0, 1.0]], np.float32),
                      cholesky=np.stack([factor, 0.1 * factor]))
    draws = mixture.sample(np.random.RandomState(0), 40_000)
    first = draws[draws[:, 0] > 0]
    assert abs(len(first) / len(draws) - 0.3) < 0.01
    assert np.allclose(np.cov(first.T), factor @ factor.T, atol=0.05)
