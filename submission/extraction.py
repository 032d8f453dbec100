"""Activations of a network: only of the layers asked for, no further than the last of them, only of the units kept."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wiring_plugins import Commitment

from .memory import require_memory
from .preprocessing import load_images, normalise
from .view import ScreenWindow, View, seen_through, whole

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


def largest_output(model: torch.nn.Module, inputs: torch.Tensor, probe: Probe) -> int:
    """Bytes of the largest output that any module has on the way to the probe."""
    sizes = [inputs.nbytes]

    def measure(module, arguments, output) -> None:
        sizes.append(getattr(output, "nbytes", 0))

    handles = [module.register_forward_hook(measure) for module in model.modules()]
    try:
        activations(model, inputs, [probe])
    finally:
        for handle in handles:
            handle.remove()
    return max(sizes)


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

    def __call__(self, paths: Sequence[str | Path], probes: Sequence[Probe], view: View, *,
                 distort: Callable[[np.ndarray, Sequence[str]], list[np.ndarray]] | None = None,
                 ) -> dict[Probe, np.ndarray]:
        """float32 (presentations, units) for each probe.

        view: the units to keep, of probes that all have outputs of the same shape.
        distort: turns a batch of whole inputs (n, 3, height, width) and its paths into one or more batches of the same
            shape, the trials; presentations are then all trials of the first image, all of the second, and so on.

        Raises:
            NotEnoughMemory: the result would not fit into memory. Raised after the first batch.
        """
        view = view.without_crop() if distort else view
        results: dict[Probe, np.ndarray] = {}
        done = 0
        for batch_paths, inputs in self._batches(paths, view):
            trials = distort(inputs.numpy(), batch_paths) if distort else [inputs]
            outputs = [self._record(trial, probes, view) for trial in trials]
            if not results:
                results = self._space(len(paths) * len(trials), len(view.units), probes)
            rows = slice(done * len(trials), (done + len(batch_paths)) * len(trials))
            for probe, result in results.items():
                by_image = np.stack([output[probe] for output in outputs], axis=1)
                result[rows] = by_image.reshape(-1, result.shape[1])
            done += len(batch_paths)
            if self.progress:
                self.progress(len(batch_paths))
        return results

    def view(self, probe: Probe, window: ScreenWindow | None) -> View:
        """All units of the probe, or those that can see `window`.

        Raises:
            NotEnoughMemory: a batch would not fit into memory.
        """
        self._require_room_for_a_batch(probe)
        shape = self.output_shape(probe)
        if window is None:
            return whole(shape)
        return seen_through(window, lambda inputs: self._outputs(inputs, [probe])[probe].cpu().numpy(), shape,
                            image_size=self.commitment.image_size, batch_size=self.batch_size,
                            pixels_per_degree=self.commitment.pixels_per_degree)

    def output_shape(self, probe: Probe) -> tuple[int, ...]:
        """Shape of the probe's output for one image, such as (channels, height, width)."""
        return tuple(self._outputs(self._blank(), [probe])[probe].shape[1:])

    def _blank(self) -> np.ndarray:
        size = self.commitment.image_size
        return np.zeros((1, 3, size, size), np.float32)

    def _require_room_for_a_batch(self, probe: Probe) -> None:
        """A forward pass holds its inputs and two layers' outputs at once. How much a GPU has is left to PyTorch."""
        import torch
        if self.device == "cpu":
            image = self._blank()
            needed = self.batch_size * 2 * (image.nbytes + largest_output(self.model, torch.from_numpy(image), probe))
            require_memory(needed, f"A batch of {self.batch_size} images", "Take a smaller --batch-size.")

    def _outputs(self, inputs, probes: Sequence[Probe]) -> dict[Probe, torch.Tensor]:
        import torch
        return activations(self.model, torch.as_tensor(inputs).to(self.device), probes)

    def _record(self, inputs, probes: Sequence[Probe], view: View) -> dict[Probe, np.ndarray]:
        import torch

        outputs = {probe: output.flatten(start_dim=1) for probe, output in self._outputs(inputs, probes).items()}
        if view.crop or any(output.shape[1] != len(view.places) for output in outputs.values()):
            places = torch.as_tensor(view.places, device=self.device)
            outputs = {probe: output[:, places] for probe, output in outputs.items()}
        return {probe: output.float().cpu().numpy() for probe, output in outputs.items()}

    def _space(self, presentations: int, units: int, probes: Sequence[Probe]) -> dict[Probe, np.ndarray]:
        """Room for the result, if there is enough for it and for the platform's packaging, which copies it twice."""
        require_memory(presentations * units * len(probes) * 4 * 3,
                       f"Recording {units} units at {len(probes)} time steps for {presentations} presentations")
        return {probe: np.empty((presentations, units), np.float32) for probe in probes}

    def _batches(self, paths: Sequence[str | Path], view: View):
        """(paths, inputs) of each batch; two batches are loaded ahead in threads."""
        batches = [paths[start:start + self.batch_size] for start in range(0, len(paths), self.batch_size)]

        def load(batch):
            images = load_images(batch, self.commitment.image_size)
            return normalise(images[:, :, *view.crop] if view.crop else images, self.commitment)

        with ThreadPoolExecutor(2) as pool:
            ahead = [pool.submit(load, batch) for batch in batches[:2]]
            for number, batch in enumerate(batches):
                inputs = ahead.pop(0).result()
                if number + 2 < len(batches):
                    ahead.append(pool.submit(load, batches[number + 2]))
                yield batch, inputs
