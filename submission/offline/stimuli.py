"""The five stimulus sets of the offline benchmarks as image files in the user's cache."""
from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import numpy as np

from ..cache import cache_folder, verified_folder
from . import gratings

NATIVE_DEGREES = 12
BLANK, BLANK_SIZE = "Marques2020_blank", 448
GRIDS = {
    "Marques2020_receptive_field": gratings.receptive_field_grid,
    "Marques2020_orientation": gratings.orientation_grid,
    "Marques2020_spatial_frequency": gratings.spatial_frequency_grid,
    "Marques2020_size": gratings.size_grid,
}
STIMULUS_SETS = (BLANK, *GRIDS)
VERSION = 1
"""Counts up when the pixels or file names change, so that an older cache is left alone."""


def load(identifier: str, degrees: int = NATIVE_DEGREES, *, progress=None):
    """The stimulus set as a platform `StimulusSet`, its images rendered first if the cache does not hold them intact.

    The native screen is 12 degrees wide. For fewer `degrees` the images are cut to the screen's middle, pixel by pixel as
    the platform's `place_on_screen` would, so that a model which sees that much needs no second copy of them.

    identifier: one of :data:`STIMULUS_SETS`. progress: called with the number of images made, as they are made.
    """
    import pandas as pd
    from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

    grid = GRIDS[identifier]() if identifier in GRIDS else ()
    ids = [f"{identifier}_{number:04d}" for number in range(max(1, len(grid)))]
    files = [f"{stimulus_id}.png" for stimulus_id in ids]
    folder = cache_folder() / "stimuli" / f"{identifier}-{degrees}deg-v{VERSION}"
    verified_folder(folder, files, lambda target: _render(target, files, grid, degrees, progress))
    columns = pd.DataFrame([astuple(grating) for grating in grid], columns=gratings.COLUMNS) if grid else pd.DataFrame()
    stimuli = StimulusSet(pd.concat([pd.DataFrame({"stimulus_id": ids, "degrees": degrees}), columns], axis=1))
    stimuli.stimulus_paths = {stimulus_id: folder / file for stimulus_id, file in zip(ids, files)}
    stimuli.identifier = identifier
    return stimuli


def _render(folder: Path, files: list[str], grid: tuple[gratings.Grating, ...], degrees: int, progress) -> None:
    from PIL import Image

    def write(job) -> None:
        file, grating = job
        if grating is None:
            size = round(BLANK_SIZE * degrees / NATIVE_DEGREES)
            pixels = np.full((size, size), gratings.GRAY, dtype=np.uint8)
        else:
            pixels = gratings.render(grating, gratings.PIXELS_PER_DEGREE * degrees)
        Image.fromarray(pixels).save(folder / file, compress_level=1)
        if progress:
            progress(1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, zip(files, grid or (None,))))
