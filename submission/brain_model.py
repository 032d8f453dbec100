"""A wired model as an experimental subject of Brain-Score: it looks at stimuli, is recorded from, and performs tasks."""
from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from brainscore_vision.model_helpers.activations.core import MicrosaccadeHelper
from brainscore_vision.model_helpers.brain_transformation.behavior import LabelBehavior, OddOneOut, ProbabilitiesMapping
from brainscore_vision.model_interface import BrainModel

from wiring_plugins import Commitment, UnknownName, WiringError, fingerprint, to_plain

from .assemblies import neuroid_assembly, presentation_coordinates, unit_coordinates
from .extraction import BATCH_SIZE, Extractor, Probe
from .view import ScreenWindow, View

IMAGENET_CLASSES = 1000


class WiredBrainModel(BrainModel):
    """A `torch.nn.Module` and its commitment as the platform's :class:`BrainModel`.

    identifier: ends in a hash of the weights and of the commitment, because the platform's caches know a model by its
        identifier alone: a model that differs in either is another model to them.
    window: if given, only units are recorded that can see this part of the screen, and their coordinates say which. For
        benchmarks that use no other units; see :mod:`.scoring`.
    """

    def __init__(self, name: str, model, commitment: Commitment, *, device: str = "cpu", batch_size: int = BATCH_SIZE,
                 window: ScreenWindow | None = None, weights_hash: str | None = None,
                 progress: Callable[[int], None] | None = None):
        self._commitment = commitment
        self._window = window
        self._identifier = identify(name, weights_hash or fingerprint(model.state_dict()), commitment, window)
        self._extractor = Extractor(model=model.to(device).eval(), commitment=commitment, device=device,
                                    batch_size=batch_size, progress=progress)
        self._activity = None

    @property
    def identifier(self) -> str:
        return self._identifier

    def visual_degrees(self) -> int:
        return self._commitment.visual_degrees

    def start_recording(self, recording_target: str, time_bins: Sequence[tuple[int, int]], **_) -> None:
        """Record from a region from now on, and leave any task. time_bins: (start, end) in ms after stimulus onset.

        Raises:
            UnknownName: the model has no such region.
        """
        if recording_target not in self._commitment.regions:
            raise UnknownName("region", str(recording_target), self._commitment.regions, owner=self._identifier)
        self._activity = _Recording(self, recording_target, time_bins)

    def start_task(self, task: str, *args, **kwargs) -> None:
        """Perform a task from now on: `passive` (look, and answer nothing), `label`, `probabilities` or `odd_one_out`.

        label takes the choice labels (`"imagenet"` or a list of words) and needs the 1,000 outputs of an ImageNet
        classifier; probabilities takes `fitting_stimuli` with an `image_label` column.

        Raises:
            UnknownName: no such task. WiringError: the model's outputs are not the ImageNet classes that `label` needs.
        """
        tasks = {BrainModel.Task.passive: self._passive, BrainModel.Task.label: self._label,
                 BrainModel.Task.probabilities: self._probabilities, BrainModel.Task.odd_one_out: self._odd_one_out}
        if task not in tasks:
            raise UnknownName("task", str(task), tasks, owner=self._identifier)
        activity = tasks[task]()
        if activity is not None:
            activity.start_task(task, *args, **kwargs)
        self._activity = activity

    def look_at(self, stimuli, number_of_trials: int = 1, require_variance: bool = False):
        """Responses to a stimulus set: of the recorded region (presentation, neuroid, time_bin), or of the task.

        The model is deterministic, so trials are equal and each stimulus is shown once; with `require_variance` each is
        shown `number_of_trials` times at the platform's microsaccade positions.
        """
        if self._activity is None:
            return None
        return self._activity.look_at(stimuli, number_of_trials=number_of_trials, require_variance=require_variance)

    def _passive(self) -> None:
        return None

    def _label(self) -> LabelBehavior:
        outputs, = self._extractor.output_shape(Probe(self._commitment.logits))
        if outputs != IMAGENET_CLASSES:
            raise WiringError(f"{self._identifier} has {outputs} output classes and cannot label stimuli: label tasks need "
                              f"the {IMAGENET_CLASSES} classes of ImageNet. Use a model with an ImageNet decoder.")
        return LabelBehavior(identifier=self._identifier, activations_model=self._read_out)

    def _probabilities(self) -> ProbabilitiesMapping:
        return ProbabilitiesMapping(self._identifier, activations_model=self._read_out, layer=self._commitment.readout)

    def _odd_one_out(self) -> OddOneOut:
        return OddOneOut(self._identifier, activations_model=self._read_out, layer=self._commitment.readout)

    def _read_out(self, stimuli, layers: list[str], number_of_trials: int = 1, require_variance: bool = False):
        """The one layer that the platform's behavioural read-outs ask for, (presentation, neuroid); `logits` by name."""
        layer, = layers
        probe = Probe(self._commitment.logits if layer == "logits" else layer)
        view = self._extractor.view(probe, None)
        values, presentations = self._look(stimuli, [probe], view, number_of_trials, require_variance)
        neuroids = unit_coordinates(self._identifier, "behaviour", layer, self._extractor.output_shape(probe), view.units)
        return neuroid_assembly(values[probe], neuroids, presentations)

    def _look(self, stimuli, probes, view: View, number_of_trials: int, require_variance: bool):
        """Values by probe and presentation coordinates. Nothing is kept from one call to the next."""
        paths = [str(stimuli.get_stimulus(stimulus_id)) for stimulus_id in stimuli["stimulus_id"]]
        if not require_variance:
            unique = list(dict.fromkeys(paths))
            values = self._extractor(unique, probes, view)
            if len(unique) < len(paths):
                row = {path: number for number, path in enumerate(unique)}
                values = {probe: value[[row[path] for path in paths]] for probe, value in values.items()}
            return values, presentation_coordinates(stimuli)
        gaze = _Microsaccades(number_of_trials, self.visual_degrees())
        values = self._extractor(paths, probes, view, distort=gaze.trials)
        return values, presentation_coordinates(stimuli, number_of_trials, gaze.coordinates(paths))


class _Recording:
    """Recording one region in given time bins."""

    def __init__(self, subject: WiredBrainModel, region: str, time_bins: Sequence[tuple[int, int]]):
        self._subject, self._region = subject, region
        self._time_bins = [tuple(np.asarray(time_bin).tolist()) for time_bin in time_bins]
        commitment = subject._commitment
        self._layer = commitment.regions[region]
        self._probes = [Probe(self._layer, step) for step in time_steps(commitment.time_bins.get(region, ()),
                                                                        self._time_bins)]

    @functools.cached_property
    def _view(self) -> View:
        return self._subject._extractor.view(self._probes[0], self._subject._window)

    def look_at(self, stimuli, number_of_trials: int, require_variance: bool):
        shape = self._subject._extractor.output_shape(self._probes[0])
        values, presentations = self._subject._look(stimuli, list(dict.fromkeys(self._probes)), self._view,
                                                    number_of_trials, require_variance)
        neuroids = unit_coordinates(self._subject.identifier, self._region, self._layer, shape, self._view.units)
        return neuroid_assembly(np.stack([values[probe] for probe in self._probes], axis=-1), neuroids, presentations,
                                time_bins=self._time_bins)


class _Microsaccades:
    """The platform's microsaccades for one look: image shifts in a spiral of 0.05 degrees, one a trial."""

    def __init__(self, number_of_trials: int, visual_degrees: float):
        self._helper = MicrosaccadeHelper()
        self._helper.number_of_trials = number_of_trials
        self._helper.visual_degrees = visual_degrees

    def trials(self, inputs: np.ndarray, paths: Sequence[str]) -> list[np.ndarray]:
        """One shifted copy of the batch for each trial."""
        for path in paths:
            self._helper.build_microsaccades(path, inputs.shape[-2:])
        return [np.stack([self._helper.translate(image=image, shift=self._helper.microsaccades["pixels"][path][trial],
                                                 image_shape=inputs.shape[-2:], image_is_channels_first=True)
                          for image, path in zip(inputs, paths)])
                for trial in range(self._helper.number_of_trials)]

    def coordinates(self, paths: Sequence[str]) -> dict:
        """Where the gaze was at each presentation, in pixels and in degrees."""
        return {f"microsaccade_shift_{axis}_{unit}": ("presentation", [
                    shift[number] for path in paths for shift in self._helper.microsaccades[unit][path]])
                for unit in ("pixels", "degrees") for number, axis in enumerate("xy")}


def time_steps(own: Sequence[tuple[int, int]], asked: Sequence[tuple[int, int]]) -> list[int]:
    """For each time bin asked for, the model's time step whose bin starts nearest; step 0 if the model has no time bins.

    This is how CORnet-S has been scored since it was published: a 70-170 ms recording is of every area's first step.

    >>> time_steps([(90, 140), (140, 190), (190, 240), (240, 290)], [(70, 170), (200, 250)])
    [0, 2]
    """
    starts = np.array([start for start, _ in own] or [0])
    return [int(np.abs(starts - start).argmin()) for start, _ in asked]


def identify(name: str, weights_hash: str, commitment: Commitment, window: ScreenWindow | None = None) -> str:
    """`name__0123abcd`: the name and eight digits that change with the weights, the commitment or the window."""
    described = json.dumps([weights_hash, to_plain(commitment), to_plain(window)], sort_keys=True)
    return f"{name}__{hashlib.sha256(described.encode()).hexdigest()[:8]}"
