"""What a packed model's own test expects of it."""
from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from wiring_plugins import Commitment

from ..brain_model import WiredBrainModel
from .carried.gratings import grating_stimuli

ANY_TIME = ((70, 170),)
"""The time bin that most recordings of the platform ask for."""


def expectations(identifier: str, network, commitment: Commitment, *, units: int) -> dict[str, dict]:
    """For each region: sizes, mean and standard deviation of all activations, and `units` of them from the whole layer.

    Rounded to six digits: a fingerprint within a tolerance, not to the bit, because processors and versions of PyTorch
    sum in different orders. So do threads, and one alone gives the same digits whatever their number.
    """
    import torch
    subject = WiredBrainModel(identifier, network, commitment)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {region: _of_region(subject, region, commitment.time_bins.get(region) or ANY_TIME, units)
                for region in sorted(commitment.regions)}
    finally:
        torch.set_num_threads(threads)


def _of_region(subject: WiredBrainModel, region: str, time_bins, units: int) -> dict:
    subject.start_recording(region, time_bins=time_bins)
    with tempfile.TemporaryDirectory() as folder:
        recorded = subject.look_at(grating_stimuli(Path(folder), subject.identifier))
    values = np.asarray(recorded.transpose("presentation", "neuroid", "time_bin").values)[0]
    chosen = np.linspace(0, len(values) - 1, units).astype(int)
    return {
        "time_bins": [list(time_bin) for time_bin in time_bins],
        "sizes": {str(name): int(size) for name, size in recorded.sizes.items()},
        "mean": _rounded(values.mean()), "std": _rounded(values.std()),
        "units": chosen.tolist(), "values": [[_rounded(value) for value in row] for row in values[chosen]],
    }


def _rounded(value) -> float:
    return float(f"{value:.6g}")
