"""Activations with the labels that the platform's benchmarks read."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def unit_coordinates(identifier: str, region: str, layer: str, shape: tuple[int, ...], kept: np.ndarray) -> dict:
    """Neuroid coordinates of the kept units of an output of that shape; names as the platform's own extractor gives them.

    `channel_x` is the row and `channel_y` the column of a convolution's output; both are NaN without such places.
    """
    places = np.unravel_index(kept, shape)
    nowhere = np.full(len(kept), np.nan)
    channel, row, column = (*places, nowhere, nowhere)[:3] if len(shape) in (1, 3) else (nowhere, nowhere, nowhere)
    return {
        "neuroid_id": ("neuroid", [f"{identifier}.{layer}.{number}" for number in kept]),
        "neuroid_num": ("neuroid", kept),
        "model": ("neuroid", [identifier] * len(kept)),
        "region": ("neuroid", [region] * len(kept)),
        "layer": ("neuroid", [layer] * len(kept)),
        "channel": ("neuroid", channel),
        "channel_x": ("neuroid", row),
        "channel_y": ("neuroid", column),
    }


def presentation_coordinates(stimuli, trials: int = 1, shifts: dict | None = None) -> dict:
    """Every column of the stimulus set, each repeated once a trial; `shifts`, if given, names where the gaze was."""
    columns = {column: ("presentation", np.repeat(stimuli[column].values, trials)) for column in stimuli.columns}
    return {**columns, **(shifts or {})}


def neuroid_assembly(values: np.ndarray, neuroids: dict, presentations: dict,
                     time_bins: Sequence[tuple[float, float]] | None = None):
    """A platform `NeuroidAssembly` of values (presentation, neuroid[, time_bin])."""
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

    dims, times = ["presentation", "neuroid"], {}
    if time_bins is not None:
        dims.append("time_bin")
        starts, ends = zip(*time_bins)
        times = {"time_bin_start": ("time_bin", list(starts)), "time_bin_end": ("time_bin", list(ends))}
    return NeuroidAssembly(values, coords={**presentations, **neuroids, **times}, dims=dims)
