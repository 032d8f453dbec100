"""Training: what learns, the data it sees, its rules, its run folders, and every way in which a run can go wrong."""
from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wiring_plugins import (BatchNorm, CorruptFile, DataUnavailable, Init, NotEnoughMemory, WiringError, architecture_of,
                            build_model, fingerprint, load_host, load_registry, read_delta, resolve, wire)
from wiring_plugins.delta import _same as same_tensor
from wiring_plugins.delta import tensor_fingerprint
from wiring_training import Condition, Hardware, export, train
from wiring_training.augment import centre_boxes, crop, random_boxes
from wiring_training.average import MovingAverage
from wiring_training.checkpoint import Run, read_checkpoint
from wiring_training.data import PackedImages, choose, open_data
from wiring_training.learner import Diverged, Learner, freeze, trained_names
from wiring_training.pack import _part, pack, verify
from wiring_training.prune import synflow
from wiring_training.schedule import Plateau

SHORT = Condition(images=60, image_size=32, batch_size=16, epochs=2)
CPU = Hardware(device="cpu")


@pytest.fixture(scope="module")
def host():
    host = load_host()
    host.manager.register(tiny)
    return host


@pytest.fixture(scope="module")
def tiny_registry(host):
    return load_registry(host)


@pytest.fixture
def run(host, tiny_registry, tmp_path):
    """Train tiny recipes on synthetic images, or on others."""
    def start(*recipes, condition=SHORT, hardware=CPU, data="synthetic:80:4", out=tmp_path / "run", **more):
        return train(recipes or ["tiny-it"], data=str(data), out=out, condition=condition, hardware=hardware, host=host,
                     **{"registry": tiny_registry, **more})
    return start


@pytest.fixture
def tree(tmp_path):
    """train/ and val/ of three classes with 8 and 4 images each, of several shapes."""
    rng = np.random.RandomState(0)
    for split, count in (("train", 8), ("val", 4)):
        for label in range(3):
            for number in range(count):
                path = tmp_path / "tree" / split / f"n{label:08d}" / f"{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.randint(0, 256, (40 + number, 60 - number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path, "JPEG")
    return tmp_path / "tree"


# ---- what learns

def test_every_recipe_trains_exactly_what_it_names(registry):
    """One optimiser step of every distinct choice of what learns, on one shared model, with gradients everywhere."""
    seen = {}
    for recipe in registry.recipes.values():
        paths = architecture_of(recipe, registry).module_paths()
        assert set(recipe.trainable) <= paths
        seen.setdefault((recipe.architecture, recipe.trainable), recipe)
    models = {}
    for (name, trainable), recipe in seen.items():
        if name not in models:
            model = _drawn_quickly(registry.architecture(name))
            models[name] = model, {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
        model, before = models[name]
        trained = trained_names(recipe, registry)
        named = {key for key, _ in model.named_parameters()
                 if any(key.startswith(f"{path}.") for path in trainable)}
        assert trained == named
        freeze(model, trained)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not learning:
            continue
        model.train()
        optimizer = torch.optim.SGD(learning, lr=1.0, weight_decay=1e-4)
        # images this small leave single pixels in the last area: two of them suffice for batch statistics
        torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])).backward()
        optimizer.step()
        changed = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
        assert changed == trained, recipe.name
        optimizer.zero_grad()
        for key in changed:
            before[key].copy_(model.get_parameter(key).detach())


def _drawn_quickly(architecture):
    torch.manual_seed(0)
    model = architecture.build()
    for module in model.modules():  # no dead channels: every number has to get a gradient
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.bias, 0.5)
    return model


def test_a_wired_area_that_learns_as_a_whole_begins_kaiming(registry):
    init = registry.recipe("wiring-wc-ct-v4").init
    assert init["IT.conv2"].kind == "kaiming" and init["V4.conv2"].kind == "cluster"


def test_training_changes_only_what_the_recipe_names(run, tiny_registry):
    result, = run("tiny-it")
    born = wire(dataclasses.replace(result.recipe), tiny_registry).state_dict()
    learned = build_model(f"tiny-it@{result.run}", registry=tiny_registry).state_dict()
    changed = {key for key in born if not torch.equal(born[key], learned[key])}
    statistics = {key for key in born if "running" in key or "num_batches" in key}
    assert changed == {"IT.conv.weight", "decoder.linear.weight", "decoder.linear.bias"} | statistics


def test_frozen_normalisation_keeps_its_statistics(run, tiny_registry):
    result, = run("tiny-decoder")
    born = wire(result.recipe, tiny_registry).state_dict()
    learned = build_model(f"tiny-decoder@{result.run}", registry=tiny_registry).state_dict()
    assert {key for key in born if not torch.equal(born[key], learned[key])} == {"decoder.linear.weight",
                                                                                  "decoder.linear.bias"}
    assert result.ledger["adapted"] == 0


def test_the_ledger_counts(run):
    result, = run("tiny-it")
    ledger = result.ledger
    synapses = 12 * 8 * 9 + 12 * 4 + 4
    assert (ledger["images"], ledger["steps"], ledger["synapses"]) == (120, 8, synapses)
    assert ledger["updates"] == 120 * synapses and ledger["adapted"] == 40
    assert json.loads((result.run / "ledger.json").read_text())["updates"] == ledger["updates"]


def test_the_ledger_names_what_is_borrowed(registry, tmp_path):
    condition = Condition(images=2, image_size=32, batch_size=2, epochs=0)
    recipe = dataclasses.replace(registry.recipe("wiring-wc"), batch_norm=BatchNorm(statistics="unit"))
    result, = train([recipe], data="synthetic:4:2", out=tmp_path / "run", condition=condition, hardware=CPU,
                    registry=registry, save_only=True)
    ledger = json.loads((result.run / "ledger.json").read_text())
    (name, numbers), = ledger["borrowed"].items()
    assert "googlenet" in name and numbers > 100


# ---- condition and data

@pytest.mark.parametrize("wrong, message", [
    ({"images": 0}, "at least 1"), ({"batch_size": 1}, "at least 2"), ({"lr": 0.0}, "above 0"), ({"lr": 1e39}, "finite"),
    ({"lr": float("nan")}, "above 0"), ({"subset": "random"}, "uniform, balanced"), ({"optimizer": "lion"}, "adagrad"),
    ({"label_smoothing": 1.0}, "below 1"), ({"image_size": 64, "source_size": 32}, "blown up"),
    ({"ema": 1.0}, "below 1"), ({"prune": "synflow"}, "belong together"), ({"density": 0.5}, "belong together"),
    ({"progressive": (224, 3)}, "below --image-size"), ({"progressive": (112, 3), "cached_views": 1}, "one of them"),
])
def test_conditions_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(WiringError, match=message):
        Condition(**wrong)


def test_a_larger_subset_contains_the_smaller_one_and_balance_balances():
    images = open_data("synthetic:100:4", "train")
    few, many = (choose(images, count, Condition()) for count in (20, 60))
    assert set(few) < set(many) and len(set(many)) == 60
    assert set(choose(images, 20, Condition(seed=1))) != set(few)
    balanced = choose(images, 40, Condition(subset="balanced"))
    assert np.bincount(images.labels[balanced]).tolist() == [10, 10, 10, 10]


def test_tree_pack_and_tar_hold_the_same_images(tree, tmp_path):
    pack({split: open_data(str(tree), split) for split in ("train", "val")}, tmp_path / "pack", short_side=None)
    with tarfile.open(tmp_path / "tree.tar", "w") as tar:
        tar.add(tree, "tree")
    for split, count in (("train", 24), ("val", 12)):
        sets = [open_data(str(place), split) for place in (tree, tmp_path / "pack", tmp_path / "tree.tar")]
        assert [len(images) for images in sets] == [count] * 3
        assert len({images.classes for images in sets}) == 1
        for index in range(count):
            assert len({images.encoded(index) for images in sets}) == 1
            assert len({int(images.labels[index]) for images in sets}) == 1


def test_webdataset_shards_give_their_labels(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(3):
                file = io.BytesIO()
                Image.new("RGB", (40, 40), (number, 0, 0)).save(file, "PNG")
                for name, data in ((f"a.b/{number}.png", file.getvalue()), (f"a.b/{number}.cls", str(10 - number).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    images = open_data(str(tmp_path), "train")
    assert images.classes == ("8", "9", "10") and images.labels.tolist() == [2, 1, 0, 2, 1, 0]


def test_shards_that_cannot_be_understood_are_named(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "PNG")

    def shard(mode="w", **members) -> str:
        with tarfile.open(tmp_path / "x.tar", mode) as tar:
            for name, data in members.items():
                member = tarfile.TarInfo(name.replace("_", "."))
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return str(tmp_path / "x.tar")

    image = file.getvalue()
    for spec, message in ((lambda: shard("w:gz", a_png=image), "not compressed"),
                          (lambda: shard(a_png=image, a_cls=b"1", b_png=image), "x/b.png has no x/b.cls"),
                          (lambda: shard(a_png=image, a_cls=b"cat"), "x/a.cls holds b'cat'")):
        with pytest.raises(CorruptFile, match=message):
            open_data(spec(), "train")


def test_names_that_begin_with_a_dot_are_no_images_and_unreadable_folders_no_empty_ones(tree, monkeypatch):
    (tree / "train" / ".cache").mkdir()
    (tree / "train" / "n00000000" / "._0.JPEG").write_bytes(b"what macOS leaves")
    images = open_data(str(tree), "train")
    assert len(images.classes) == 3 and len(images) == 24

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", deny)
    with pytest.raises(DataUnavailable, match="n00000000: Permission denied"):
        open_data(str(tree), "train")


def test_deep_greys_keep_their_shades_and_nobody_turns_an_image(monkeypatch):
    from wiring_training.decoders import decode
    deep, flat = io.BytesIO(), io.BytesIO()
    shades = np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40
    Image.fromarray(shades).save(deep, "PNG")
    assert abs(decode(deep.getvalue(), 40, "pillow")[0].astype(int) - shades // 257).max() == 0
    tags = Image.Exif()
    tags[274] = 6  # to be shown turned by 90 degrees
    Image.new("RGB", (60, 40)).save(flat, "JPEG", exif=tags)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(decode_image=None))
    assert decode(flat.getvalue(), 40, "torchcodec")[1] == decode(flat.getvalue(), 40, "pillow")[1] == 1.5


def test_packing_shrinks_and_its_damage_is_noticed(tree, tmp_path):
    pack({"train": open_data(str(tree), "train")}, tmp_path / "pack", short_side=32)
    folder = tmp_path / "pack" / "train"
    assert min(Image.open(io.BytesIO(PackedImages(folder).encoded(0))).size) == 32
    assert verify(folder) == 24
    data = bytearray((folder / "images.bin").read_bytes())
    data[100] ^= 1
    (folder / "images.bin").write_bytes(data)
    with pytest.raises(CorruptFile, match="checksum"):
        verify(folder)
    (folder / "images.bin").write_bytes(data[:-1])
    with pytest.raises(CorruptFile, match="differ in length"):
        open_data(str(folder), "train")
    left = tmp_path / ".again.part" / "train"  # by a process that was killed
    left.mkdir(parents=True)
    (left / "images.bin").write_bytes(b"half")
    with _part(tmp_path / "again"), pytest.raises(WiringError, match="Another process is packing"):
        assert not left.exists()
        pack({"train": open_data(str(tree), "train")}, tmp_path / "again", short_side=32)
    pack({"train": open_data(str(tree), "train")}, tmp_path / "again", short_side=32)
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "pack", "again"}
    for data, folder, side, message in ((tree, "pack", 32, "exists"), (tree, "new", 0, "at least 16"),
                                        ("synthetic:9:3", "new", 32, "no image files")):
        with pytest.raises(WiringError, match=message):
            pack({"train": open_data(str(data), "train")}, tmp_path / folder, short_side=side)


def test_data_that_cannot_teach_is_refused(run, tree, tmp_path):
    (tmp_path / "empty" / "a").mkdir(parents=True)
    one = tmp_path / "one"
    one.mkdir()
    (tree / "train" / "n00000000").rename(one / "n00000000")
    for data, kind, message in ((tmp_path / "absent", DataUnavailable, "There are no images"),
                                (tmp_path / "empty", WiringError, "holds no images"),
                                (one, WiringError, "1 class"), ("synthetic:x", WiringError, "synthetic:1000:10")):
        with pytest.raises(kind, match=message):
            run(data=data)
    with pytest.raises(WiringError, match="--images 99 is more than the 80"):
        run(condition=dataclasses.replace(SHORT, images=99))
    with pytest.raises(WiringError, match="--validation-images 99 is more than the 80"):
        run(condition=dataclasses.replace(SHORT, validation_images=99))
    with pytest.raises(WiringError, match="--images all in a balanced choice needs 27 images of each of 3"):
        run(data="synthetic:80:3", condition=dataclasses.replace(SHORT, images=None, subset="balanced"))
    with pytest.raises(WiringError, match="named twice"):
        run("tiny-it", "tiny-it")
    with pytest.raises(WiringError, match="needs validation images"):
        run(data=one.parent / "tree" / "train", condition=Condition(image_size=32, patience_policy="validation"))


def test_corrupt_images_are_named_counted_and_skipped_up_to_a_limit(run, tree):
    bad = sorted((tree / "train").rglob("*.JPEG"))[:2]
    bad[0].write_bytes(b"no image")
    bad[1].write_bytes(bad[1].read_bytes()[:200])
    bad.append(tree / "val" / "n00000000" / "0.JPEG")
    bad[2].write_bytes(b"")
    whole = Condition(image_size=32, batch_size=8, epochs=2)
    for hold in ("yes", "no"):
        result, = run(data=tree, condition=whole, hardware=Hardware(device="cpu", hold=hold), out=tree.parent / hold)
        assert result.ledger["skipped"] == [str(path) for path in bad]
        assert result.ledger["images"] == 2 * 22
    with pytest.raises(CorruptFile, match="--max-corrupt allows 1"):
        run(data=tree, condition=whole, hardware=Hardware(device="cpu", max_corrupt=1))
    with pytest.raises(CorruptFile, match="1 of 1 images .* one has to be left"):
        for path in sorted((tree / "val").rglob("*.JPEG"))[1:]:
            path.unlink()
        run(data=tree, condition=whole, out=tree.parent / "unvalidated")


def test_how_images_are_held_and_who_else_learns_changes_nothing(run, tree, tmp_path):
    condition = Condition(image_size=32, batch_size=8, epochs=2)
    held, = run("tiny-it", data=tree, condition=condition, hardware=Hardware(device="cpu", hold="yes"))
    read, = run("tiny-it", data=tree, condition=condition, hardware=Hardware(device="cpu", hold="no"), out=tmp_path / "read")
    beside = run("tiny-all", "tiny-it", data=tree, condition=condition, out=tmp_path / "beside")
    assert _weights(held) == _weights(read) == _weights(beside[1])


def _weights(result) -> str:
    return fingerprint(Run(result.run).newest().delta.tensors)


# ---- crops

def test_crops_are_those_of_torchvision():
    from torchvision.transforms.functional import resized_crop
    images = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
    places = [(10, 20, 48, 72), (0, 0, 96, 96), (40, 3, 20, 31)]  # left, top, width, height
    boxes = torch.tensor([[*(value / 96 for value in place), flip] for place, flip in zip(places, (0, 1, 0))])
    found = crop(images, boxes, 32)
    for number, (left, top, width, height) in enumerate(places):
        expected = resized_crop(images[number].float(), top, left, height, width, [32, 32], antialias=True)
        expected = expected.flip(-1) if boxes[number, 4] else expected
        assert (found[number] - expected).abs().max() < 0.01


@given(st.integers(0, 2 ** 31), st.lists(st.floats(0.05, 20), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_boxes_stay_inside_any_image(seed, aspects):
    aspects = np.array(aspects)
    for boxes in (random_boxes(np.random.RandomState(seed), aspects), centre_boxes(aspects)):
        left, top, width, height, flip = boxes.T
        assert ((left >= 0) & (top >= 0) & (left + width <= 1 + 1e-6) & (top + height <= 1 + 1e-6)).all()
        shape = width * aspects / height
        assert (width > 0).all() and (shape > 0.74).all() and (shape < 1.34).all()


# ---- the learning rate

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


# ---- run folders

def test_a_run_is_not_continued_by_accident(run, tmp_path, tiny_registry):
    run("tiny-it")
    with pytest.raises(WiringError, match="Add --resume"):
        run("tiny-it")
    with pytest.raises(WiringError, match=r"condition\.lr: 0\.1 -> 0\.2"):
        run("tiny-it", condition=dataclasses.replace(SHORT, lr=0.2), resume=True)
    with pytest.raises(WiringError, match="recipe.name: 'tiny-it' -> 'tiny-all'"):
        run("tiny-all", resume=True)
    with pytest.raises(WiringError, match="data.fingerprint"):
        run("tiny-it", data="synthetic:90:4", resume=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again, = run("tiny-it", resume=True)
    assert again.reason == "2 epochs"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_one_process_at_a_time(run, tmp_path):
    with Run(tmp_path / "run"):
        with pytest.raises(WiringError, match="Another process"):
            run()


def test_a_damaged_checkpoint_is_passed_over_and_another_version_refused(run, tmp_path):
    result, = run("tiny-it")
    files = sorted((result.run / "checkpoints").iterdir())
    weights = _weights(result)
    files[-1].write_bytes(files[-1].read_bytes()[:1000])
    again, = run("tiny-it", resume=True)
    assert _weights(again) == weights
    facts = json.loads((result.run / "run.json").read_text())
    (result.run / "run.json").write_text(json.dumps({**facts, "format": "wiring-delta-0"}))
    with pytest.raises(WiringError, match="another version"):
        run("tiny-it", resume=True)


@pytest.mark.parametrize("other", [
    {"optimizer": "adam"}, {"optimizer": "adagrad"}, {"ema": 0.5}, {"progressive": (16, 2)},
    {"prune": "synflow", "density": 0.3}, {"prune": "synflow", "density": 0.5, "ema": 0.9, "optimizer": "adam"}], ids=str)
def test_other_conditions_resume_bit_for_bit(run, other):
    condition = dataclasses.replace(SHORT, lr=0.01, **other)
    result, = run("tiny-all", condition=condition)
    weights = _weights(result)
    Run(result.run).path(8).unlink()
    again, = run("tiny-all", condition=condition, resume=True)
    assert again.ledger["steps"] == 8 and _weights(again) == weights


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


def test_layers_that_draw_numbers_resume_bit_for_bit(run, tmp_path, tiny_registry):
    def build():
        model = tiny.build()
        model.decoder.flatten = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5))
        return model

    registry = dataclasses.replace(tiny_registry, architectures={"tiny": dataclasses.replace(tiny.TINY, build=build)})
    result, = run("tiny-all", registry=registry)
    weights = _weights(result)
    Run(result.run).path(8).unlink()
    torch.manual_seed(5)
    assert _weights(run("tiny-all", registry=registry, resume=True)[0]) == weights
    assert _weights(run("tiny-all", out=tmp_path / "dry")[0]) != weights


def test_the_first_epoch_is_kept_in_tenths(run):
    result, = run("tiny-it", condition=Condition(images=80, batch_size=4, image_size=32, first_epoch=True))
    assert Run(result.run).steps() == list(range(0, 21, 2))


def test_a_stopped_run_is_saved_counted_and_resumed(run, tmp_path):
    whole, = run("tiny-it", out=tmp_path / "whole")

    def stop(event):
        if event["event"] == "progress":
            os.kill(os.getpid(), signal.SIGTERM)

    stopped, = run("tiny-it", report=stop)
    assert stopped.reason == "" and stopped.ledger["steps"] == 1 and stopped.ledger["images"] == 16
    again, = run("tiny-it", resume=True)
    assert _weights(again) == _weights(whole) and again.ledger["images"] == whole.ledger["images"]


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
    with pytest.raises(WiringError, match="does not fit"):
        run("tiny-it", data="synthetic:80:5", start=first.run, out=tmp_path / "third")


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


def test_features_can_be_cached_for_a_decoder_only(run, tmp_path):
    condition = dataclasses.replace(SHORT, cached_views=2, epochs=3)
    result, = run("tiny-decoder", condition=condition)
    assert result.ledger["images"] == 180 and result.top1 > 0.25
    with pytest.raises(WiringError, match="one linear layer"):
        run("tiny-it", condition=condition, out=tmp_path / "other")


# ---- weights out

def test_exported_weights_are_the_trained_model_bit_for_bit(run, tmp_path, tiny_registry):
    result, = run("tiny-it")
    file = export(result.run, tmp_path / "tiny.safetensors")
    learned = read_checkpoint(Run(result.run).path(8))
    model, again = (build_model(f"tiny-it@{place}", registry=tiny_registry) for place in (result.run, file))
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in learned.delta.tensors.items())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), again(images))
    delta = read_delta(file)
    assert delta.recipe.classes == 4 and delta.facts["ledger"]["images"] == 120
    assert delta.facts["classes"] == [f"synthetic-{number}" for number in range(4)] and "licence" in delta.facts["licence"]
    with pytest.raises(WiringError, match="no checkpoint of step 3"):
        export(result.run, tmp_path / "no.safetensors", step=3)


def test_frozen_weights_that_are_drawn_otherwise_are_noticed(run, tmp_path, tiny_registry):
    result, = run("tiny-it")
    file = export(result.run, tmp_path / "tiny.safetensors")
    kaiming = tiny_registry.initializers["kaiming"]

    def changed(rng, shape, context):
        return kaiming.sample(rng, shape, context) * np.float32(1.01)

    other = dataclasses.replace(tiny_registry, initializers={**tiny_registry.initializers,
                                                             "kaiming": dataclasses.replace(kaiming, sample=changed)})
    with pytest.raises(CorruptFile, match="other frozen weights of V1.conv.weight"):
        build_model(f"tiny-it@{file}", registry=other)

    def reordered(rng, shape, context):
        return kaiming.sample(rng, shape, context)[::-1].copy()

    weight = torch.randn(16, 64, 3, 3)  # as many numbers in a kernel as in real ones: divisible by powers of two
    assert not same_tensor(weight.flip(0), tensor_fingerprint(weight))
    other = dataclasses.replace(tiny_registry, initializers={**tiny_registry.initializers,
                                                             "kaiming": dataclasses.replace(kaiming, sample=reordered)})
    with pytest.raises(CorruptFile, match="other frozen weights of V1.conv.weight"):
        build_model(f"tiny-it@{file}", registry=other)

    def rounded(rng, shape, context):
        return np.nextafter(kaiming.sample(rng, shape, context), np.float32(1))

    close = dataclasses.replace(tiny_registry, initializers={**tiny_registry.initializers,
                                                             "kaiming": dataclasses.replace(kaiming, sample=rounded)})
    build_model(f"tiny-it@{file}", registry=close)  # another processor's rounding is not another sampler


@pytest.mark.parametrize("key, value", [("recipe", "{"), ("recipe", "3"), ("recipe", '{"sead": 1}'), ("facts", "3"),
                                        ("frozen", '{"V1.conv.weight": 3}')])
def test_a_damaged_header_is_an_error_that_names_the_file(run, tmp_path, tiny_registry, key, value):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    result, = run("tiny-it", condition=dataclasses.replace(SHORT, epochs=0))
    file = export(result.run, tmp_path / "tiny.safetensors")
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    save_file(load_file(file), file, metadata={**header, key: value})
    with pytest.raises(CorruptFile, match="tiny.safetensors"):
        build_model(f"tiny-it@{file}", registry=tiny_registry)


def test_weights_of_another_recipe_or_seed_are_refused(run, tmp_path, tiny_registry):
    from wiring_plugins import WeightsRef
    result, = run("tiny-it")
    file = export(result.run, tmp_path / "tiny.safetensors")
    with pytest.raises(WiringError, match="Type tiny-it@"):
        build_model(f"tiny-all@{file}", registry=tiny_registry)
    recipe = dataclasses.replace(tiny_registry.recipe("tiny-it"), seed=1, weights=WeightsRef(kind="delta", file=str(file)))
    with pytest.raises(CorruptFile, match="another seed"):
        wire(recipe, tiny_registry)
    wrong = WeightsRef(kind="delta", file=str(file), sha256="0" * 64)
    with pytest.raises(CorruptFile, match="SHA-256"):
        wire(dataclasses.replace(recipe, seed=0, weights=wrong), tiny_registry)


def test_a_recipe_in_the_manifest_is_built_trained_unless_asked_for_its_birth(run, tmp_path, host, monkeypatch):
    import wiring_weights.plugin as weights
    result, = run("tiny-it")
    export(result.run, tmp_path / "tiny.safetensors")
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    monkeypatch.setattr(weights, "manifest", lambda: {"tiny-it": {"file": "tiny.safetensors", "sha256": None}})
    registry = load_registry(host)
    trained, born = (fingerprint(build_model(name, registry=registry).state_dict()) for name in ("tiny-it", "tiny-it@birth"))
    assert trained == fingerprint(build_model(f"tiny-it@{result.run}", registry=registry).state_dict()) != born


# ---- several processes

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


# ---- GPUs, as far as a machine without one can tell

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


def test_too_little_memory_is_a_sentence(run, monkeypatch):
    def full(learner, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Learner, "learn", full)
    with pytest.raises(NotEnoughMemory, match="16 images of 32 pixels .*smaller --batch-size"):
        run()


# ---- commands

def test_commands_from_training_to_export(tmp_path, capsys, tree):
    from wiring_training.commands import train_and_show
    train_and_show(["wiring-dt-decoder"], data=str(tree), out=tmp_path / "run", hardware=CPU,
                   condition=Condition(image_size=32, batch_size=8, epochs=1, images=12))
    printed = capsys.readouterr().out
    assert "supervised synaptic updates" in printed and "validation top-1" in printed
    file = export(tmp_path / "run", tmp_path / "dt.safetensors")
    model = build_model(f"wiring-dt-decoder@{file}")
    assert model.decoder.linear.weight.shape == (3, 512)
    assert file.stat().st_size < 1e6


def test_tensorboard_gets_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from wiring_training.tensorboard import TensorBoard
    logger = TensorBoard()
    for step in range(3):
        logger.wiring_event(tmp_path, {"event": "epoch", "step": step, "loss": 3.0 - step, "top1": 0.5, "lr": 0.1,
                                       "validation": {"loss": 1.0, "top1": 0.4, "top5": 0.9}})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [point.value for point in events.Scalars("training/loss")] == [3.0, 2.0, 1.0]
    assert len(events.Scalars("validation/top1")) == 3
