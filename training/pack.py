"""`wiring data pack`: an image tree as one file that is read by memory mapping."""
from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from wiring_plugins import CorruptFile, WiringError

from .data import ImageSet
from .decoders import to_rgb
from .loader import cores

BLOCK = 512


def pack(sets: Mapping[str, ImageSet], folder: Path, *, short_side: int | None, quality: int = 90,
         max_corrupt: int = 10) -> list[str]:
    """Write one folder per split into the new folder `folder`: images.bin, offsets.npy, labels.npy, and pack.json with
    a checksum.

    Images larger than `short_side` are resized (Lanczos) and encoded again as JPEG of that quality; all others are
    copied byte for byte. The folder appears when it is whole. Returns what was left out because it cannot be read.

    Raises:
        WiringError: the folder exists or cannot be written. CorruptFile: more than `max_corrupt` images cannot be read.
    """
    if folder.exists():
        raise WiringError(f"{folder} exists. Give the name of a folder that does not.")
    if short_side is not None and short_side < 16:
        raise WiringError(f"--short-side has to be at least 16, or 'original'; it was {short_side}.")
    skipped: list[str] = []
    try:
        with _part(folder) as part:
            for split, images in sets.items():
                if len(images):
                    (part / split).mkdir()
                    _write(images, part / split, short_side, quality, skipped, max_corrupt)
            os.replace(part, folder)
        return skipped
    except OSError as error:
        raise WiringError(f"{folder} cannot be written: {error.strerror}. Give a folder on a disk "
                          "with room.") from error


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` that only this process uses and that is gone afterwards; one that a killed process
    left is emptied first."""
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    handle = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process dies
    except BlockingIOError:
        os.close(handle)
        raise WiringError(f"Another process is packing into {folder}. Wait for it, or give another folder.") from None
    try:
        for leftover in part.iterdir():
            shutil.rmtree(leftover)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(handle)


def _write(images: ImageSet, part: Path, short_side: int | None, quality: int, skipped: list[str], limit: int) -> None:
    digest, offsets, labels = hashlib.sha256(), [0], []

    def shrink(index: int) -> bytes | CorruptFile:
        try:
            return _shrunk(images.encoded(index), short_side, quality)
        except NotImplementedError:
            raise WiringError(f"{images.spec} has no image files to pack. Give a tree of images, shards or a .tar "
                              "file.") from None
        except Exception as error:  # broken images fail in many ways
            return CorruptFile(f"{images.name(index)} ({type(error).__name__}: {error})")

    with open(part / "images.bin", "wb") as file, ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(images), BLOCK):
            indices = range(start, min(start + BLOCK, len(images)))
            for index, data in zip(indices, pool.map(shrink, indices)):
                if isinstance(data, CorruptFile):
                    skipped.append(str(data))
                    if len(skipped) > limit:
                        raise CorruptFile(f"{len(skipped)} images of {images.spec} cannot be read; --max-corrupt "
                                          f"allows {limit}. The last: {data}.")
                    continue
                file.write(data)
                digest.update(data)
                offsets.append(offsets[-1] + len(data))
                labels.append(int(images.labels[index]))
    np.save(part / "offsets.npy", np.array(offsets, dtype=np.int64))
    np.save(part / "labels.npy", np.array(labels, dtype=np.int64))
    facts = {"images": len(labels), "classes": list(images.classes), "short_side": short_side, "quality": quality,
             "sha256": digest.hexdigest()}
    (part / "pack.json").write_text(json.dumps(facts, indent=1))


def _shrunk(data: bytes, short_side: int | None, quality: int) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if short_side is None or min(image.size) <= short_side:
            image.load()  # a broken image has to be noticed now
            return data
        image.draft("RGB", (2 * short_side, 2 * short_side))
        scale = short_side / min(image.size)
        size = [max(short_side, round(scale * side)) for side in image.size]
        small = to_rgb(image).resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=quality)
    return out.getvalue()


def verify(folder: Path) -> int:
    """Compare a pack with its checksum. Returns its number of images.

    Raises:
        CorruptFile: they differ.
    """
    from .data import PackedImages
    images = PackedImages(folder)
    digest = hashlib.sha256()
    for start in range(0, len(images.bytes), 1 << 24):
        digest.update(images.bytes[start:start + (1 << 24)])
    if digest.hexdigest() != images.facts["sha256"]:
        raise CorruptFile(f"{folder} differs from its checksum. Make it again with `wiring data pack`.")
    return len(images)
