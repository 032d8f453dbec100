"""Activations of a network: only of the layers asked for, no further than the last of them, only of the units kept."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wiring_plugins import Commitment

from .memory import require_memory
from .preprocessing import load_images, normalise

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 32


@dataclass(frozen=True)
class Probe:
    """One recording site: the output of the module at path `module` in its `step`-th call of a forward pass (from 0)."""

    module: str
    step: int = 0


class _Recorded(Exception):
    """Raised inside a forward pass when every probe has been read: what comes after cannot change it."""


def activations(model: torch.nn.Module, inputs: torch.Tensor, probes: Sequence[Probe]) -> dict[Probe, torch.Tensor]:
    """Outputs of `probes` for one batch of inputs. The forward pass ends at the last probe.

    Raises:
        KeyError: a probed module is not called that often in a forward pass.
    """
    import torch

    recorded: dict[Probe, torch.Tensor] = {}
    with torch.inference_mode(), _hooks(model, set(probes), recorded):
        try:
            model(inputs)
        except _Recorded:
            pass
    return {probe: recorded[probe] for probe in probes}


@contextmanager
def _hooks(model, wanted: set[Probe], recorded: dict) -> Iterator[None]:
    def watch(path: str):
        calls = 0

        def hook(module, arguments, output) -> None:
            nonlocal calls
            probe = Probe(path, calls)
            calls += 1
            if probe in wanted:
                recorded[probe] = output.clone()  # a later in-place operation must not change the record
                if len(recorded) == len(wanted):
                    raise _Recorded
        return hook

    modules = {probe.module for probe in wanted}
    handles = [model.get_submodule(path).register_forward_hook(watch(path)) for path in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, kw_only=True)
class ScreenWindow:
    """A square of the screen: centre and half width in degrees from the screen's middle, y downwards."""

    y: float
    x: float
    half_width: float


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Runs image files through a model in batches, loading the next batch while one is computed.

    progress: called with the number of images done, as they are done.
    """

    model: torch.nn.Module
    commitment: Commitment
    device: str = "cpu"
    batch_size: int = BATCH_SIZE
    progress: Callable[[int], None] | None = None

    def __call__(self, paths: Sequence[str | Path], probes: Sequence[Probe], *,
                 keep: Mapping[Probe, np.ndarray] | None = None,
                 distort: Callable[[np.ndarray, Sequence[str]], list[np.ndarray]] | None = None,
                 ) -> dict[Probe, np.ndarray]:
        """float32 (presentations, units) for each probe.

        keep: indices of the units to keep, in the flattened output; all of them for a probe that is not named.
        distort: turns a batch of inputs (n, 3, height, width) and its paths into one or more batches of the same shape,
            the trials; presentations are then all trials of the first image, all of the second, and so on.

        Raises:
            NotEnoughMemory: the result would not fit into memory. Raised after the first batch.
        """
        keep = keep or {}
        results: dict[Probe, np.ndarray] = {}
        done = 0
        for batch_paths, inputs in self._batches(paths):
            trials = distort(inputs.numpy(), batch_paths) if distort else [inputs]
            outputs = [self._record(trial, probes, keep) for trial in trials]
            if not results:
                sizes = {probe: outputs[0][probe].shape[1] for probe in probes}
                presentations = len(paths) * len(trials)
                require_memory(presentations * sum(sizes.values()) * 4 * 3,  # the platform's packaging copies it twice
                               f"Recording {sum(sizes.values())} units for {presentations} presentations")
                results = {probe: np.empty((presentations, size), np.float32) for probe, size in sizes.items()}
            rows = slice(done * len(trials), (done + len(batch_paths)) * len(trials))
            for probe, result in results.items():
                by_image = np.stack([output[probe] for output in outputs], axis=1)
                result[rows] = by_image.reshape(-1, result.shape[1])
            done += len(batch_paths)
            if self.progress:
                self.progress(len(batch_paths))
        return results

    def reachable(self, probe: Probe, window: ScreenWindow) -> np.ndarray:
        """Indices of the units of `probe` that anything shown inside `window` can change, and of their neighbours in
        other channels.

        Found by showing noise images that differ in the window alone: a unit whose receptive field ends outside it cannot
        tell them apart. Of an output (channels, height, width) all channels at a changed place count as reached.
        """
        import torch

        size, per_degree = self.commitment.image_size, self.commitment.pixels_per_degree
        low, high = (np.clip(np.array([window.y, window.x]) * per_degree + size / 2 + sign * window.half_width * per_degree,
                             0, size) for sign in (-1, 1))
        (top, left), (bottom, right) = np.floor(low).astype(int), np.ceil(high).astype(int)
        noise = torch.from_numpy(np.random.RandomState(0).standard_normal((8, 3, size, size)).astype(np.float32))
        changed = noise.clone()
        changed[:, :, top:bottom, left:right] = noise.roll(1, dims=0)[:, :, top:bottom, left:right]
        before, after = (activations(self.model, images.to(self.device), [probe])[probe] for images in (noise, changed))
        units = (before != after).any(dim=0)
        if units.ndim == 3:
            units = units.any(dim=0).expand_as(units)
        return np.flatnonzero(units.reshape(-1).cpu().numpy())

    def _record(self, inputs, probes, keep) -> dict[Probe, np.ndarray]:
        import torch

        outputs = activations(self.model, torch.as_tensor(inputs).to(self.device), probes)
        flat = {probe: output.flatten(start_dim=1) for probe, output in outputs.items()}
        return {probe: (output[:, torch.as_tensor(keep[probe], device=output.device)] if probe in keep else output)
                .float().cpu().numpy() for probe, output in flat.items()}

    def _batches(self, paths: Sequence[str | Path]):
        """(paths, inputs) of each batch; two batches are loaded ahead in threads."""
        batches = [paths[start:start + self.batch_size] for start in range(0, len(paths), self.batch_size)]

        def load(batch):
            return normalise(load_images(batch, self.commitment.image_size), self.commitment)

        with ThreadPoolExecutor(2) as pool:
            ahead = [pool.submit(load, batch) for batch in batches[:2]]
            for number, batch in enumerate(batches):
                inputs = ahead.pop(0).result()
                if number + 2 < len(batches):
                    ahead.append(pool.submit(load, batches[number + 2]))
                yield batch, inputs

    def output_shape(self, probe: Probe) -> tuple[int, ...]:
        """Shape of the probe's output for one image, such as (channels, height, width)."""
        import torch
        size = self.commitment.image_size
        return tuple(activations(self.model, torch.zeros(1, 3, size, size, device=self.device), [probe])[probe].shape[1:])
