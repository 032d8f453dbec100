"""Images to learn from: trees, packs and shards, what cannot be read, and crops."""
from __future__ import annotations

import dataclasses
import io
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import SHORT, weights_hash
from wiring_training import Condition, Hardware
from wiring_training.augment import centre_boxes, crop, random_boxes
from wiring_training.data import PackedImages, choose, open_data
from wiring_training.pack import _part, pack, verify

from wiring_plugins import CorruptFile, DataUnavailable, WiringError


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


def test_images_in_tars_are_learned_from_or_validated_on_and_never_both(tree, tmp_path):
    def sets(spec):
        return [set(images.names) for images in (open_data(str(spec), split) for split in ("train", "val")) if len(images)]

    for shard in ("imagenet1k-train-00", "imagenet1k-validation-00"):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number, image in enumerate(sorted((tree / "val").rglob("*.JPEG"))):
                tar.add(image, f"{number}.jpg")
                label = tarfile.TarInfo(f"{number}.cls")
                label.size = 1
                tar.addfile(label, io.BytesIO(b"%d" % (number % 3)))
            hidden = tarfile.TarInfo("._0.jpg")  # as macOS adds them
            tar.addfile(hidden)
    training, validation = sets(tmp_path)
    assert len(training) == len(validation) == 12 and not training & validation
    for shard in tmp_path.glob("*.tar"):  # one shard alone says nothing of splits
        assert [len(names) for names in sets(shard)] == [12]
    with tarfile.open(tmp_path / "valley.tar", "w") as tar:
        tar.add(tree / "val", "val")
    assert [len(names) for names in sets(tmp_path / "valley.tar")] == [12]


def test_a_folder_may_be_called_as_it_likes(tree, monkeypatch):
    (tree / "train").rename(tree / "synthetic-shapes")
    monkeypatch.chdir(tree)
    assert len(open_data("synthetic-shapes", "train")) == 24


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
    (tree / "val" / "n00000000").rename(tree / "val" / "n00000007")
    with pytest.raises(WiringError, match="3 and 2; in one of them only: n00000007"):
        run(data=tree, condition=Condition(image_size=32))
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
    assert weights_hash(held) == weights_hash(read) == weights_hash(beside[1])


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
