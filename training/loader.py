"""From an image set to batches on the device: held there as uint8 if they fit, else decoded ahead by threads."""
from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wiring_plugins import CorruptFile, layer_rng

from .augment import centre_boxes, crop, random_boxes
from .layout import memory_layout

if TYPE_CHECKING:
    import torch

    from .condition import Condition, Hardware
    from .data import ImageSet

IGNORED = -100
"""The label of an image that could not be read: the loss leaves it out."""

AHEAD = 3
"""Batches that are decoded before they are needed."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch. images: float (n, 3, size, size), normalised. labels: int64 (n,).

    size: images in the whole batch, over all processes.
    """

    images: torch.Tensor
    labels: torch.Tensor
    size: int


class Loader:
    """The chosen images of a set, in batches. Which images, in which order, cut how, follows from seed, epoch and step
    alone: it does not depend on the number of processes, on what was read before, or on where the images are held."""

    def __init__(self, images: ImageSet, chosen: np.ndarray, condition: Condition, hardware: Hardware, *,
                 device: torch.device, mean, std, train: bool, rank: int = 0, world: int = 1):
        import torch

        self.images, self.chosen, self.condition, self.device, self.train = images, chosen, condition, device, train
        self.rank, self.world, self.max_corrupt = rank, world, hardware.max_corrupt
        self.labels = torch.from_numpy(images.labels[chosen])
        self.corrupt: dict[str, str] = {}
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(hardware.workers or cores(), thread_name_prefix="decode")
        to_pixels = 255 * torch.tensor([mean, std], dtype=torch.float32, device=device)[:, None, :, None, None]
        self.mean, self.std = to_pixels[0], to_pixels[1]
        self.fits, self.held = self._fits(hardware), None

    def __len__(self) -> int:
        """Batches in an epoch. A last training batch of one image is left out: one image has no batch statistics."""
        whole, rest = divmod(len(self.chosen), self.condition.batch_size)
        return whole + (rest > (1 if self.train and whole else 0))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of that epoch from number `start` on."""
        order = np.arange(len(self.chosen))
        if self.train:
            layer_rng(self.condition.seed, f"order {epoch}").shuffle(order)
        size, side = self.condition.batch_size, self.condition.crop_size(epoch) if self.train else self.condition.image_size
        whole = [order[step * size:(step + 1) * size] for step in range(start, len(self))]
        shares = [batch[self._share(len(batch))] for batch in whole]
        pixels = self._held_batches(shares) if self.held else self._decoded_batches(shares)
        for step, (batch, share, (squares, aspects, readable)) in enumerate(zip(whole, shares, pixels), start):
            boxes = self._boxes(epoch, step, len(batch), aspects)
            images = crop(squares, self._send(boxes), side)
            labels = self.labels[share].where(self._tensor(readable), self._tensor(IGNORED))
            images = ((images.float() - self.mean) / self.std)
            yield Batch(images.contiguous(memory_format=memory_layout(self.device)), self._send(labels), len(batch))

    def hold(self) -> None:
        """Decode all images into the device's memory, if they are to be held there. Until then they are decoded anew in
        every epoch, with the same result."""
        if self.fits and self.held is None:
            self.held = self._hold()

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)

    def _share(self, count: int) -> slice:
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def _boxes(self, epoch: int, step: int, count: int, aspects: np.ndarray) -> np.ndarray:
        if not self.train:
            return centre_boxes(aspects)
        whole = np.ones(count)
        share = self._share(count)
        whole[share] = aspects  # every process draws the whole batch's numbers and uses its own
        return random_boxes(layer_rng(self.condition.seed, f"augment {epoch} {step}"), whole)[share]

    def _read(self, place: int) -> tuple[np.ndarray, float, bool]:
        index, size = int(self.chosen[place]), self.condition.source_size
        try:
            return *self.images.pixels(index, size), True
        except CorruptFile as error:
            with self.lock:
                self.corrupt[self.images.name(index)] = str(error)
            return np.zeros((3, size, size), dtype=np.uint8), 1.0, False

    def _gather(self, items: list[tuple[np.ndarray, float, bool]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(self.corrupt) > self.max_corrupt or len(self.corrupt) == len(self.chosen):
            raise CorruptFile(f"{len(self.corrupt)} of {len(self.chosen)} images of {self.images.spec} cannot be read; "
                              f"--max-corrupt allows {self.max_corrupt}, and one has to be left. "
                              f"The last: {list(self.corrupt.values())[-1]}")
        if not items:  # this process has no share in a last batch of fewer images than processes
            return np.zeros((0, 3, *[self.condition.source_size] * 2), dtype=np.uint8), np.ones(0), np.ones(0, dtype=bool)
        squares, aspects, readable = zip(*items)
        return np.stack(squares), np.array(aspects), np.array(readable)

    def _fits(self, hardware: Hardware) -> bool:
        if hardware.hold != "auto":
            return hardware.hold == "yes"
        if self.device.type == "cuda":
            import torch
            free = torch.cuda.mem_get_info(self.device)[0]
        else:
            import psutil
            free = psutil.virtual_memory().available
        return 3 * self.condition.source_size ** 2 * len(self.chosen) < free / 3

    def _hold(self):
        """All images on the device as uint8 (n, 3, side, side); their aspect ratios and readability on the host."""
        import torch
        count, side = len(self.chosen), self.condition.source_size
        squares = torch.empty((count, 3, side, side), dtype=torch.uint8, device=self.device)
        aspects, readable = np.ones(count), np.ones(count, dtype=bool)
        block = 256
        for start in range(0, count, block):
            end = min(start + block, count)
            pixels, aspects[start:end], readable[start:end] = self._gather(
                list(self.pool.map(self._read, range(start, end))))
            squares[start:end] = torch.from_numpy(pixels)
        return squares, aspects, readable

    def _held_batches(self, shares):
        squares, aspects, readable = self.held
        for share in shares:
            yield squares[self._send(share)], aspects[share], readable[share]

    def _decoded_batches(self, shares):
        waiting = []
        for share in [*shares, *[None] * AHEAD]:
            if share is not None:
                waiting.append([self.pool.submit(self._read, int(place)) for place in share])
            if waiting and (share is None or len(waiting) > AHEAD):
                pixels, aspects, readable = self._gather([future.result() for future in waiting.pop(0)])
                yield self._send(pixels), aspects, readable

    def _tensor(self, values) -> torch.Tensor:
        import torch
        return torch.as_tensor(values)

    def _send(self, values) -> torch.Tensor:
        """To the device without waiting for it."""
        tensor = self._tensor(values)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor
