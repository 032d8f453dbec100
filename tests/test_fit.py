"""Fitting statistics to trained weights: what is put in is found again, and what cannot be fitted is refused."""
from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from wiring_plugins import CorruptFile, LayerContext, WiringError, layer_rng, load_registry
from wiring_plugins.cli import make_app
from wiring_plugins.fitting.checkpoints import GOOGLENET_AREAS, LARGEST, RESNET_AREAS, RESNET_NORMS, read_arrays
from wiring_plugins.fitting.clusters import fit_clusters
from wiring_plugins.fitting.fit import fit_statistics, largest_eigenvalues
from wiring_plugins.fitting.gabor_fit import fit_gabors
from wiring_plugins.fitting.mixtures import fit_gabor_prior, fit_mixture
from wiring_plugins.gabors import render
from wiring_plugins.initializers.cluster import cluster
from wiring_plugins.statistics import files
from wiring_plugins.statistics.types import LayerStatistics, gabor_parameters


def wiring(*arguments):
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


def filters(n=8, inputs=3, size=7, seed=0):
    return np.random.RandomState(seed).randn(n, inputs, size, size).astype(np.float32)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@given(seed=st.integers(0, 10_000), size=st.sampled_from([5, 7, 11]))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_gabors_are_found_again_with_amplitude_and_offset(seed, size):
    rng = np.random.RandomState(seed)
    table = np.stack([rng.uniform(low, high, (6, 1)) for low, high in (
        (1 / size, .35), (-1.5, 1.5), (size / 8, size / 3), (size / 8, size / 3), (-3, 3), (-1, 1), (-1, 1), (.5, 5))],
        axis=-1)
    offset = rng.uniform(-1, 1, (6, 1, 1, 1)) * 0.05
    pictures = render(gabor_parameters(table), size, size) + offset
    fits, fitted = fit_gabors(pictures)
    assert np.median(fits.r2) > 0.999 and fits.r2.min() > 0.95
    again = render(gabor_parameters(fits.table), size, size)
    good = fits.r2[:, 0] > 0.9999
    rest = (fitted - again)[good]
    assert np.abs(rest - rest.mean(axis=(2, 3), keepdims=True)).max() < 1e-4  # a Gabor leaves one number, the offset


def test_amplitudes_scale_with_the_weights():
    pictures = filters(3)
    small, large = (fit_gabors(pictures * factor)[0] for factor in (1, 100))
    assert np.allclose(large.table[..., 7], 100 * small.table[..., 7], rtol=1e-3)
    assert np.allclose(large.table[..., :7], small.table[..., :7], atol=1e-3)
    assert np.allclose(large.r2, small.r2, atol=1e-4)


def test_a_dead_filter_is_recognised_and_left_out_of_the_prior(tmp_path):
    pictures = filters(12)
    pictures[3] = 0.25
    pictures[5, 1] = 0
    fits, fitted = fit_gabors(pictures)
    assert (fits.r2[3] == 0).all() and fits.r2[5, 1] == 0 < fits.r2[5, 0]
    assert (fits.table[3, :, 7] == 0).all() and np.isfinite(fits.table).all() and (fitted[3] == 0).all()
    statistics = fit_statistics(npz(tmp_path / "dead.npz", **{"conv1.weight": pictures}))
    assert statistics.layer("conv1").gabor_prior is not None
    statistics = fit_statistics(npz(tmp_path / "all_dead.npz", **{"conv1.weight": np.zeros_like(pictures)}))
    assert statistics.layer("conv1").gabor_prior is None and (statistics.layer("conv1").gabors.r2 == 0).all()


def test_clusters_are_found_again():
    rng = np.random.RandomState(0)
    centers = np.array([[3, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 3, 0, 0, 0, 0], [-2] * 9], float).reshape(3, 3, 3)
    labels = rng.choice(3, (40, 50), p=[.5, .3, .2])
    weights = (centers[labels] + 0.1 * rng.standard_normal((40, 50, 3, 3))).astype(np.float32)
    found = fit_clusters(weights)
    assert len(found.centers) == 3 and np.allclose(found.centers, centers, atol=0.02)
    assert np.allclose(found.spread, 0.1, atol=0.01)
    counts = np.stack([(labels == j).sum(axis=1) for j in range(3)])
    assert np.allclose(found.count_mean, counts.mean(axis=1), atol=0.01) and found.inputs == 50
    assert np.allclose(found.count_std, counts.std(axis=1), atol=0.01)


@pytest.mark.parametrize("size", [1, 3])
def test_what_clusters_sample_has_the_variance_of_what_was_fitted(size):
    weights = np.random.RandomState(0).standard_normal((300, 50, size, size)).astype(np.float32)
    layer = LayerStatistics(shape=weights.shape, clusters=fit_clusters(weights))
    drawn = cluster(layer_rng(0, "x"), weights.shape, LayerContext(layer="x", statistics=layer))
    assert drawn.std() == pytest.approx(weights.std(), rel=0.03)


def test_a_mixture_is_found_by_bic():
    rng = np.random.RandomState(0)
    points = np.concatenate([rng.randn(200, 2) * [1, .1] + [0, 5], rng.randn(100, 2) * [.1, 1] + [100, 0]])
    mixture = fit_mixture(points)
    assert len(mixture.weights) == 2 and np.allclose(np.sort(mixture.weights), [1 / 3, 2 / 3], atol=0.01)
    drawn = mixture.sample(np.random.RandomState(1), 3000)
    assert np.allclose(drawn.mean(axis=0), points.mean(axis=0), atol=3)
    assert np.allclose(np.cov(drawn.T), np.cov(points.T), rtol=.1)


@pytest.mark.parametrize("diagonal", [False, True])
def test_what_is_constant_stays_so_in_a_mixture(diagonal):
    points = np.random.RandomState(0).randn(50, 3) * [1, 1e-9, 0] + [0, 0, 0.3]
    drawn = fit_mixture(points, diagonal=diagonal).sample(np.random.RandomState(1), 1000)
    assert drawn[:, 1].std() == pytest.approx(1e-9, rel=0.3) and (drawn[:, 2] == np.float32(0.3)).all()


def test_more_components_than_filters_is_a_sentence():
    fits, _ = fit_gabors(filters(6))
    with pytest.raises(WiringError, match="7 components cannot be fitted to 6 points"):
        fit_gabor_prior(fits.table, 7, components=7)


def test_more_clusters_than_slices_is_a_sentence():
    with pytest.raises(WiringError, match="9 clusters cannot be made of 4 different"):
        fit_clusters(filters(2, 2), k=9)


def test_more_clusters_than_a_source_holds_is_a_sentence():
    with pytest.raises(WiringError, match="at most 256"):
        fit_clusters(filters(40, 20), k=257)


def test_every_cluster_of_a_sparse_layer_has_members():
    weights = np.zeros((100, 100, 3, 3), np.float32)
    weights[::10, ::50] = filters(10, 2, 3)
    assert (fit_clusters(weights, k=6).count_mean > 0).all()


def test_eigenvalues_agree_with_numpy():
    weights = filters(2, 3, 3)
    expected = [max(np.linalg.eigvals(piece.astype(float)), key=abs).real for piece in weights.reshape(-1, 3, 3)]
    assert np.allclose(largest_eigenvalues(weights.reshape(-1, 3, 3)), expected)


def test_the_shipped_source_is_reproduced(shared):
    fitted = fit_statistics(shared / "reference" / "trained_nets" / "bvlc_googlenet.npz", name="googlenet",
                            layers=("V1.conv1", "V2.skip", "V4.conv2"))
    shipped = load_registry().source("googlenet").load()
    for area in ("V1.conv1", "V2.skip", "V4.conv2"):
        for part, found in fitted.layer(area).parts().items():
            expected = shipped.layer(area).parts()[part]
            assert found.numbers() == expected.numbers()
            for name, values in vars(found).items():
                if isinstance(values, np.ndarray):  # bit for bit on one machine; elsewhere within a thousandth
                    scale = np.abs(getattr(expected, name)).max(initial=0)
                    assert np.allclose(values, getattr(expected, name), atol=1e-3 * scale), (area, part, name)


def test_the_shipped_source_explains_its_network():
    shipped = load_registry().source("googlenet").load()
    assert dict(shipped.areas) == GOOGLENET_AREAS
    first = shipped.layer("V1.conv1")
    assert first.shape == (64, 3, 7, 7) and np.median(first.gabors.r2) > 0.95
    assert shipped.provenance["command"].startswith("wiring fit bvlc_googlenet.npz")
    assert len(shipped.provenance["sha256"]) == 64
    assert files.encode(shipped).count("\n") < 60  # one line per layer


def test_the_command_writes_a_source_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setenv(files.FOLDER, str(tmp_path / "own"))
    linear = {"fc.weight": np.random.RandomState(0).randn(10, 6), "fc.bias": np.zeros(10)}
    checkpoint = npz(tmp_path / "net.npz", **{"conv1.weight": filters(), "conv2.weight": filters(6, 8, 3)}, **linear)
    result = wiring("fit", checkpoint, "-o", tmp_path / "net.json", "--picture", tmp_path / "net.png", "-k", "conv2=3")
    assert result.exit_code == 0, result.output
    assert "median R²" in result.output and (tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")
    statistics = files.read(tmp_path / "net.json")
    assert set(statistics.layers) == {"conv1", "conv2", "fc"} and len(statistics.layer("conv2").clusters.centers) == 3
    assert wiring("fit", checkpoint, "-o", tmp_path / "again.json", "-k", "conv2=3").exit_code == 0
    first, again = (json.loads((tmp_path / name).read_text()) for name in ("net.json", "again.json"))
    assert alike(first, again)  # to the last bit in fresh processes; within one, memory alignment may change a digit


def alike(one, other) -> bool:
    """Whether two JSON values are equal, their numbers within a ten-thousandth."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == pytest.approx(other, rel=1e-4, abs=1e-6) if isinstance(one, float) else one == other


def test_formats_and_names(tmp_path):
    from safetensors.torch import save_file
    state = {"module.layer1.0.conv1.weight": torch.randn(6, 4, 3, 3), "module.layer1.0.bn1.weight": torch.rand(6),
             "module.layer1.0.bn1.bias": torch.rand(6), "module.layer1.0.bn1.running_mean": torch.rand(6),
             "module.layer1.0.bn1.running_var": torch.rand(6),
             "module.layer1.0.bn1.num_batches_tracked": torch.tensor(3)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "b.pth")
    save_file(state, tmp_path / "a.safetensors")
    np.save(tmp_path / "kernels.npy", filters())
    a, b = (fit_statistics(tmp_path / name) for name in ("a.pth", "a.safetensors"))
    assert set(a.layers) == {"layer1.0.conv1", "layer1.0.bn1"}
    gamma = state["module.layer1.0.bn1.weight"]
    assert a.layer("layer1.0.bn1").norm.gamma.mean == pytest.approx(gamma.mean().item(), rel=1e-5)
    assert files.encode(a).split('"layers"')[1] == files.encode(b).split('"layers"')[1]
    assert read_arrays(tmp_path / "b.pth").keys() == read_arrays(tmp_path / "a.pth").keys()
    assert fit_statistics(tmp_path / "kernels.npy").layer("kernels").gabors is not None


def test_resnet_layers_stand_for_areas_and_alexnet_s_keep_their_names(tmp_path):
    resnet = {f"{layer}.weight": filters(4, 3, 7 if layer == "conv1" else 1) for layer in RESNET_AREAS.values()}
    norm = {f"layer2.1.bn1.{part}": np.ones(3) for part in ("weight", "bias", "running_mean", "running_var")}
    fitted = fit_statistics(npz(tmp_path / "resnet.npz", **resnet, **norm, **{"layer2.3.conv1.weight": filters(4, 4, 1)}))
    assert dict(fitted.areas) == RESNET_AREAS | dict.fromkeys(("V2.norm1_0", "V2.norm1_1"), "layer2.1.bn1")
    assert set(fitted.layers) == {*RESNET_AREAS.values(), "layer2.1.bn1"}
    assert fitted.layer("IT.skip") is fitted.layer("layer4.0.downsample.0")
    some = fit_statistics(tmp_path / "resnet.npz", layers=("IT.conv?", "layer2.3.*"))
    assert list(some.layers) == [RESNET_AREAS[f"IT.conv{i}"] for i in (1, 2, 3)] + ["layer2.3.conv1"]
    alexnet = {"features.0.weight": filters(4, 3, 11), "classifier.1.weight": filters(4, 3, 1)[:, :, 0, 0]}
    fitted = fit_statistics(npz(tmp_path / "alexnet.npz", **alexnet))
    assert fitted.layer("features.0").gabors.size == 11 and not fitted.areas


def test_the_reference_s_numbers_of_clusters_go_to_the_layers_that_are_fitted(tmp_path):
    layers = {"V1.conv2.weight": filters(8, 8, 3), "V2.skip.weight": filters(8, 8, 1)}
    result = wiring("fit", npz(tmp_path / "my net.npz", **layers), "-o", tmp_path / "x.json",
                    "-k", "reference", "-k", "V2.skip=3")
    assert result.exit_code == 0, result.exception
    fitted = files.read(tmp_path / "x.json")
    assert [len(fitted.layer(path).clusters.centers) for path in ("V1.conv2", "V2.skip")] == [7, 3]
    assert fitted.provenance["command"] == "wiring fit 'my net.npz' -k reference -k V2.skip=3 -o FILE"


def test_every_normalisation_of_cornet_s_has_one_of_resnet_s():
    from torchvision.models import resnet50

    from wiring_plugins.architectures.cornet_s import CORNET_S
    assert set(RESNET_NORMS) == {layer.path for layer in CORNET_S.layers if layer.kind == "norm"}
    with torch.device("meta"):
        modules = dict(resnet50().named_modules())
    for conv, norm in ((RESNET_AREAS[layer.after], RESNET_NORMS[layer.path])
                       for layer in CORNET_S.layers if layer.kind == "norm"):
        assert modules[conv].out_channels == modules[norm].num_features


def test_googlenet_channels_are_turned_to_rgb_and_scaled(tmp_path):
    weights = np.zeros((4, 3, 7, 7), np.float32)
    weights[:, 0] = np.random.RandomState(0).randn(4, 7, 7)  # blue, as Caffe has it
    other = {f"{layer}.weight": filters(3, 4, 1) for layer in GOOGLENET_AREAS.values() if layer != "conv1/7x7_s2"}
    fitted = fit_statistics(npz(tmp_path / "g.npz", **{"conv1/7x7_s2.weight": weights}, **other), layers=("V1.conv1",))
    r2 = fitted.layer("V1.conv1").gabors.r2
    assert (r2[:, :2] == 0).all() and (r2[:, 2] > 0).all()
    assert fitted.layer("V1.conv1").normal.std == pytest.approx((weights * 57.375).std(), rel=1e-5)


def torch_files():
    """Name -> what such a file holds instead of a plain state dict."""
    kernels = torch.from_numpy(filters())
    return {"whole": {"conv1.weight": kernels}, "sparse": {"conv1.weight": kernels.to_sparse()},
            "complex": {"conv1.weight": kernels.to(torch.complex64)}, "epoch": {"conv1.weight": kernels, "epoch": 3},
            "list": [kernels], "stretched": {"conv1.weight": torch.zeros(1).expand(1 << 16, 1 << 16, 1, 1)}}


def bad_checkpoints(folder):
    """(file, what its refusal says)"""
    good = {"conv1.weight": filters()}
    nan = filters()
    nan[2, 1, 3, 3] = np.nan
    buffer = io.BytesIO()
    np.savez(buffer, **good)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("conv1.weight.npy", "w") as member:
            header = {"descr": "|b1", "fortran_order": False, "shape": (LARGEST + 1,)}
            np.lib.format.write_array_header_1_0(member, header)
    with open(folder / "bomb.npz", "r+b") as file:  # the directory says that it unpacks to 4 GiB
        content = bytearray(file.read())
        at = content.rindex(b"PK\x01\x02")
        content[at + 24:at + 28] = (0xFFFFFFFE).to_bytes(4, "little")
        file.seek(0)
        file.write(content)
    for name, held in torch_files().items():
        torch.save(held, folder / f"{name}.pth")
    damaged = bytearray((folder / "whole.pth").read_bytes())
    at = damaged.rindex(b"PK\x01\x02")
    damaged[at:at + 2] = b"XX"
    (folder / "whole.pth").write_bytes(damaged)
    (folder / "cut.npz").write_bytes(buffer.getvalue()[:-200])
    (folder / "empty.npz").write_bytes(b"")
    (folder / "text.pth").write_text("hello")
    (folder / "evil.pth").write_bytes(pickle.dumps(os.system))
    np.savez(folder / "objects.npz", a=np.array([{}], dtype=object))
    return [
        ("absent.npz", "no checkpoint"), ("cut.npz", "cannot be read|truncated"), ("empty.npz", "cannot be read"),
        ("text.pth", "cannot be read|refused"), ("evil.pth", "refused|cannot be read"),
        ("objects.npz", "cannot be read"),
        ("bomb.npz", "cannot be read|unpack"), ("whole.pth", "cannot be read as an archive"),
        ("stretched.pth", "unpack to 16.0 GiB"), ("sparse.pth", "sparse, quantised or complex"),
        ("complex.pth", "sparse, quantised or complex"), ("epoch.pth", "'epoch': int"), ("list.pth", "one list"),
        (npz(folder / "huge.npz", **{"conv1.weight": filters() * 1e200}).name, "infinity, as float32"),
        (npz(folder / "nan.npz", **{"conv1.weight": nan}).name, "NaN or infinity"),
        (npz(folder / "words.npz", **{"conv1.weight": np.array(["a"])}).name, "numbers"),
        (npz(folder / "nothing.npz", bias=np.zeros(3)).name, "holds no convolution"),
        (npz(folder / "void.npz", **{"conv1.weight": np.zeros((0, 3, 7, 7))}).name, "holds no weights"),
        (npz(folder / "cornet.npz", **{"V1.conv1.weight": filters(64)}).name, "no whole CORnet-S: it lacks"),
        (npz(folder / "googlenet.npz", **{"conv1/7x7_s2.weight": filters(64)}).name, "BVLC GoogLeNet but lacks"),
        (npz(folder / "mono.npz", **{"conv1/7x7_s2.weight": filters(4, 1)}).name, "3 input channels"),
    ]


def test_small_types_that_would_grow_beyond_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("wiring_plugins.fitting.checkpoints.LARGEST", 1 << 20)
    np.savez_compressed(tmp_path / "bits.npz", **{"conv1.weight": np.zeros((512, 1024, 1, 1), bool)})
    np.save(tmp_path / "bits.npy", np.zeros((512, 1024), np.int8))
    for name in ("bits.npz", "bits.npy"):
        with pytest.raises(CorruptFile, match="would unpack to"):
            read_arrays(tmp_path / name)


def test_bad_checkpoints_are_refused_in_a_sentence_and_leave_no_file(tmp_path):
    for name, complaint in bad_checkpoints(tmp_path):
        before = set(os.listdir(tmp_path))
        result = wiring("fit", tmp_path / name, "-o", tmp_path / "out.json")
        assert isinstance(result.exception, WiringError), (name, result.exception, result.output)
        assert result.exception.exit_code == 2
        assert re.search(complaint, str(result.exception)), (name, result.exception)
        assert set(os.listdir(tmp_path)) == before


def test_a_misshapen_or_extra_cornet_layer_is_named(tmp_path):
    from wiring_plugins.architectures.cornet_s import CORNET_S
    arrays = {f"{layer.path}.weight": np.broadcast_to(np.float32(1), layer.shape) for layer in CORNET_S.layers}
    from wiring_plugins.fitting.checkpoints import check_cornet
    check_cornet(arrays, tmp_path)
    with pytest.raises(CorruptFile, match="unexpected V9.conv1"):
        check_cornet(arrays | {"V9.conv1.weight": np.zeros((1, 1, 1, 1))}, tmp_path)
    with pytest.raises(CorruptFile, match="wrong shape of V2.skip"):
        check_cornet(arrays | {"V2.skip.weight": np.zeros((1, 1, 1, 1))}, tmp_path)


@pytest.mark.parametrize("arguments, complaint", [
    (["--layers", "conv9"], "no layer 'conv9'"), (["-k", "conv1"], "LAYER=NUMBER"), (["-k", "conv9=3"], "conv9"),
    (["-k", "conv1=0"], "LAYER=NUMBER"), (["--components", "40"], "40 components"),
    (["--layers", "fc", "-k", "conv1=3"], "no convolution 'conv1'"), (["-k", "reference"], "says nothing"),
    (["-k", "conv1=999"], "999 clusters"), (["-k", "conv1=²"], "LAYER=NUMBER"), (["-k", "fc=3"], "no convolution 'fc'"),
    (["--layers", "fc", "--components", "2"], "Leave --components"), (["--layers", "fc", "--picture", "x.png"], "5x5"),
    (["-o", "net.npz"], "different files"), (["-o", "x.png", "--picture", "./x.png"], "different files"),
    (["--picture", "no/such/folder.png"], "no folder"), (["-o", "."], "is a folder"), (["--picture", "x.gif"], "no .png")])
def test_bad_options_are_a_sentence_and_leave_no_file(tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    before = npz(tmp_path / "net.npz", **{"conv1.weight": filters(), "fc.weight": np.ones((4, 5))}).read_bytes()
    result = wiring("fit", "net.npz", "-o", "out.json", *arguments)
    assert (tmp_path / "net.npz").read_bytes() == before
    assert isinstance(result.exception, WiringError) and complaint in str(result.exception)
    assert os.listdir(tmp_path) == ["net.npz"]


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".npz", ".npy", ".pth", ".safetensors"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_refused(tmp_path_factory, data, suffix):
    path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
    path.write_bytes(data)
    try:
        read_arrays(path)
    except WiringError:
        pass


def test_a_batch_normalisation_without_its_parts_is_named(tmp_path):
    with pytest.raises(CorruptFile, match="norm1.running_var"):
        fit_statistics(npz(tmp_path / "n.npz", **{
            "norm1.weight": np.ones(3), "norm1.bias": np.ones(3), "norm1.running_mean": np.ones(3)}))
