"""Labelled images to learn from: folders, packs, tar files and synthetic ones, behind one small interface."""
from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wiring_plugins import CorruptFile, DataUnavailable, WiringError, layer_rng

from .decoders import decode, decoder_name

if TYPE_CHECKING:
    from wiring_plugins.plugins import Host

    from .condition import Condition

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}
Split = Literal["train", "val"]
SPLIT_WORDS = {"train": {"train", "training"}, "val": {"val", "valid", "validation"}}


class ImageSet:
    """Labelled images of one split.

    classes: their names, in the order of the labels; for ImageNet these are the wnids. labels: int64 (n,).
    """

    def __init__(self, spec: str, classes: Sequence[str], labels: np.ndarray):
        self.spec, self.classes, self.labels = spec, tuple(classes), np.asarray(labels, dtype=np.int64)
        self.decoder = decoder_name()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What to call that image in a message."""
        raise NotImplementedError

    def encoded(self, index: int) -> bytes:
        """That image's file."""
        raise NotImplementedError

    def identity(self, index: int) -> str:
        """A text that changes when the image does, as far as that can be told without reading it."""
        raise NotImplementedError

    def pixels(self, index: int, size: int) -> tuple[np.ndarray, float]:
        """The whole image squeezed into a square, uint8 (3, size, size), and its width divided by its height.

        Raises:
            CorruptFile: it cannot be read.
        """
        try:
            return decode(self.encoded(index), size, self.decoder)
        except Exception as error:  # a decoder meets broken files in many ways, and each is the file's fault
            reason = str(error).partition(" <_io")[0]  # Pillow names the buffer that it read from
            raise CorruptFile(f"{self.name(index)} cannot be read as an image "
                              f"({type(error).__name__}: {reason}).") from error

    def fingerprint(self, chosen: np.ndarray) -> str:
        """SHA-256 over the identities and labels of the chosen images."""
        digest = hashlib.sha256()
        for index in chosen:
            digest.update(f"{self.identity(index)} {self.labels[index]}\n".encode())
        return digest.hexdigest()


class ImageFolder(ImageSet):
    """`root/split/class/image`, as ImageNet is usually kept. Names that begin with a dot are passed over."""

    def __init__(self, folder: Path):
        self.folder = folder
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        self.files = [(path, label) for label, name in enumerate(classes) for path in _image_files(folder / name)]
        super().__init__(str(folder), classes, np.array([label for _, label in self.files], dtype=np.int64))

    def name(self, index: int) -> str:
        return str(self.files[index][0])

    def encoded(self, index: int) -> bytes:
        return self.files[index][0].read_bytes()

    def identity(self, index: int) -> str:
        path = self.files[index][0]
        return f"{path.relative_to(self.folder)} {path.stat().st_size}"


def _image_files(folder: Path) -> list[Path]:
    """The images in a folder and below it, in the order of their paths.

    Raises:
        OSError: a folder among them cannot be read.
    """
    def refuse(error: OSError):
        raise error

    paths = (Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names)
    return sorted(path for path in paths if _is_image(path) and path.is_file())


def _is_image(path: str | Path) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


class TarImages(ImageSet):
    """Tar files read in place: WebDataset shards (`key.jpg` beside `key.cls`), or a packed folder tree.

    The members' positions are found once; after that every image is one read, in any order.
    """

    def __init__(self, spec: str, shards: Sequence[Path], split: Split):
        members, numbers = {}, {}
        for shard in shards:
            try:
                with tarfile.open(shard, "r:") as tar:  # a compressed one cannot be read in place
                    for member in tar:
                        if member.isfile():
                            members[f"{shard.stem}/{member.name}"] = (shard, member.offset_data, member.size)
            except tarfile.TarError as error:
                raise CorruptFile(f"{shard} cannot be read as a tar file that is not compressed ({error}).") from error
        for name, place in members.items():
            if name.endswith(".cls"):
                numbers[name.removesuffix(".cls")] = _class_number(name, _read(*place))
        images = _of_split(split, sorted(name for name in members if _is_image(name)))
        keys = {name: name[:name.index(".", name.rindex("/"))] for name in images}
        if without := [name for name in images if numbers and keys[name] not in numbers]:
            raise CorruptFile(f"{spec}: {without[0]} has no {keys[without[0]]}.cls beside it, as {len(numbers)} others "
                              "have. Give every image the number of its class in such a file.")
        groups = [str(numbers[keys[name]]) if numbers else Path(name).parent.name for name in images]
        classes = sorted(set(groups), key=(lambda text: (len(text), text)) if numbers else None)
        labels = {name: label for label, name in enumerate(classes)}
        self.members, self.names = members, images
        super().__init__(spec, classes, np.array([labels[group] for group in groups], dtype=np.int64))

    def name(self, index: int) -> str:
        return self.names[index]

    def encoded(self, index: int) -> bytes:
        return _read(*self.members[self.names[index]])

    def identity(self, index: int) -> str:
        return f"{self.names[index]} {self.members[self.names[index]][2]}"


def _of_split(split: Split, names: list[str]) -> list[str]:
    """The members `SHARD/PATH` of a split, which shards say by a word of their names and trees by a folder. All are for
    training unless the names tell training from validation."""
    said: dict[str, list[str]] = {"train": [], "val": []}
    for name in names:
        shard, _, path = name.partition("/")
        words = {*re.split("[^a-z]+", shard.lower()), *Path(path).parts[:-1]}
        for part in said:
            if words & SPLIT_WORDS[part]:
                said[part].append(name)
    return said[split] if all(said.values()) else names if split == "train" else []


def _class_number(name: str, text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise CorruptFile(f"{name} holds {text[:20]!r} in place of the number of a class.") from None


def _read(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


class PackedImages(ImageSet):
    """What `wiring data pack` writes: `images.bin`, one image file after the other, memory-mapped; and their index."""

    def __init__(self, folder: Path):
        try:
            facts = json.loads((folder / "pack.json").read_text())
            offsets, labels = np.load(folder / "offsets.npy"), np.load(folder / "labels.npy")
            self.bytes = np.memmap(folder / "images.bin", dtype=np.uint8, mode="r")
            whole = len(offsets) == len(labels) + 1 == facts["images"] + 1 and offsets[-1] == len(self.bytes)
        except (OSError, ValueError, KeyError) as error:
            raise CorruptFile(f"{folder} is no whole pack ({error}). Make it again with `wiring data pack`.") from error
        if not whole:
            raise CorruptFile(f"{folder} is no whole pack: its index and its images differ in length. "
                              "Make it again with `wiring data pack`.")
        self.folder, self.offsets, self.facts = folder, offsets, facts
        super().__init__(str(folder), facts["classes"], labels)

    def name(self, index: int) -> str:
        return f"image {index} of {self.folder}"

    def encoded(self, index: int) -> bytes:
        return self.bytes[self.offsets[index]:self.offsets[index + 1]].tobytes()

    def identity(self, index: int) -> str:
        return f"{self.facts['sha256']} {index}"


class SyntheticImages(ImageSet):
    """`synthetic:IMAGES` or `synthetic:IMAGES:CLASSES`: noise around one random coarse pattern per class.

    Images of a class resemble each other, so that a model can learn them; nothing is read from disk.
    """

    def __init__(self, spec: str, split: Split):
        numbers = spec.split(":")[1:]
        if not 1 <= len(numbers) <= 2 or not all(number.isdigit() for number in numbers):
            raise WiringError(f"--data {spec} is not understood. Synthetic images are synthetic:IMAGES or "
                              "synthetic:IMAGES:CLASSES, such as synthetic:1000:10.")
        count, classes = int(numbers[0]), max(1, int(numbers[1])) if len(numbers) == 2 else 10
        self.split = split
        super().__init__(spec, [f"synthetic-{number}" for number in range(classes)], np.arange(count) % classes)

    def name(self, index: int) -> str:
        return f"synthetic image {index}"

    def pixels(self, index: int, size: int) -> tuple[np.ndarray, float]:
        pattern = layer_rng(int(self.labels[index]), "synthetic pattern").randint(0, 160, (3, 4, 4))
        noise = layer_rng(int(index), f"synthetic {self.split}").randint(0, 96, (3, size, size), dtype=np.uint8)
        places = np.arange(size) * 4 // size
        return pattern[:, places][:, :, places].astype(np.uint8) + noise, 1.0

    def identity(self, index: int) -> str:
        return f"{self.spec} {self.split} {index}"


def open_built_in(spec: str, split: Split) -> ImageSet | None:
    """The image set that `spec` names, or None if it is of a kind that is not built in.

    A validation set that is not there is an empty one.
    """
    if spec.partition(":")[0] == "synthetic":
        return SyntheticImages(spec, split)
    path = Path(spec).expanduser()
    if path.suffix == ".tar" and path.is_file():
        return TarImages(spec, [path], split)
    if not path.is_dir():
        return None
    if (path / "pack.json").is_file():
        return PackedImages(path) if split == "train" else ImageSet(spec, (), np.empty(0))
    if (path / "train").is_dir():
        inside = path / split
        return open_built_in(str(inside), "train") if inside.is_dir() else ImageSet(spec, (), np.empty(0))
    if shards := sorted(path.glob("*.tar")):
        return TarImages(spec, shards, split)
    return ImageFolder(path) if split == "train" else ImageSet(spec, (), np.empty(0))


def open_data(spec: str, split: Split, host: Host | None = None) -> ImageSet:
    """Ask the plugins for the images that `spec` names.

    Raises:
        DataUnavailable: nobody can open it, or it is unreadable. WiringError: it holds too little to learn from, or a
            plugin fails.
    """
    from wiring_plugins import first_answer, load_host
    try:
        images = first_answer(host or load_host(), "wiring_open_data", spec=spec, split=split)
    except OSError as error:
        raise DataUnavailable(f"--data {spec} cannot be read ({error.filename or spec}: {error.strerror}).") from error
    if images is None:
        raise DataUnavailable(f"There are no images at {spec!r}. Give a folder with a sub-folder of images per class "
                              "(or train/ and val/ of such), a pack, a .tar file, or synthetic:IMAGES.")
    if split == "train":
        if not len(images):
            raise WiringError(f"{spec} holds no images. Expected {spec}/CLASS/IMAGE.JPEG or "
                              f"{spec}/train/CLASS/IMAGE.JPEG; legal endings: {', '.join(sorted(IMAGE_SUFFIXES))}.")
        if len(present := set(images.labels.tolist())) < 2:
            raise WiringError(f"{spec} holds images of {len(present)} class ({', '.join(images.classes[:3])}); "
                              "there is nothing to tell apart. Give images of at least two classes.")
    return images


def choose(images: ImageSet, count: int | None, condition: Condition, *, flag: str = "--images") -> np.ndarray:
    """Sorted indices of `count` images, drawn by the condition's seed and policy; of all if `count` is None.

    Raises:
        WiringError: there are fewer, or a class has too few for a balanced choice.
    """
    total = len(images)
    given, count = ("all", total) if count is None else (count, count)
    if count > total:
        raise WiringError(f"{flag} {count} is more than the {total} images of {images.spec}. "
                          f"Give at most {total}{', or `all`' if flag == '--images' else ''}.")
    rng = layer_rng(condition.seed, f"subset {condition.subset}")
    order = rng.permutation(total)
    if condition.subset == "balanced":
        rounds, seen = np.empty(total, dtype=np.int64), Counter()
        for place, label in enumerate(images.labels[order].tolist()):
            rounds[place] = seen[label]
            seen[label] += 1
        order = order[np.argsort(rounds, kind="stable")]  # the first of every class, then the second, ...
        if min(seen.values()) * len(seen) < count:
            raise WiringError(f"{flag} {given} in a balanced choice needs {-(-count // len(seen))} images of each of "
                              f"{len(seen)} classes; the smallest has {min(seen.values())}. "
                              "Take fewer, or --subset uniform.")
    return np.sort(order[:count])
