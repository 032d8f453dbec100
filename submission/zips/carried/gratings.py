"""The stimulus that a packed model is compared on."""
from __future__ import annotations

from pathlib import Path

import numpy as np


def grating_stimuli(folder: Path, identifier: str):
    """A platform `StimulusSet` of one image of coloured gratings, written to `folder`.

    The pixels are made from whole numbers and stored without loss, so that they are the same on every machine.
    """
    from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
    from PIL import Image

    row, column = np.mgrid[:224, :224]
    colours = [(row * 3 + column) % 256, (row + column * 5) % 256, (row * column // 7) % 256]
    path = Path(folder) / "gratings.png"
    Image.fromarray(np.stack(colours, axis=-1).astype(np.uint8)).save(path)
    stimuli = StimulusSet({"stimulus_id": ["gratings"]})
    stimuli.stimulus_paths = {"gratings": path}
    stimuli.identifier = f"{identifier}-gratings"
    return stimuli
