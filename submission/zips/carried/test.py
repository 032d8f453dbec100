"""What the platform runs beside its generic tests: this is the model that was packed."""
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from brainscore_vision import load_model

EXPECTED = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
TOLERANCE = 0.1
"""In standard deviations of the region's activations. Another seed is off by 1.3 (root mean square). Summing in another
order, as processors and versions of PyTorch do, changes wiring-gabor-frozen by 0.00003 at most, and rounding the
factors of every product to ten bits, as GPUs may, by 0.05 at most (IT, second time step)."""


@pytest.fixture(scope="module")
def model():
    return load_model(EXPECTED["identifier"])


@pytest.fixture(scope="module")
def stimuli(model, tmp_path_factory):
    gratings = import_module(f"brainscore_vision.models.{EXPECTED['identifier']}.gratings")
    return gratings.grating_stimuli(tmp_path_factory.mktemp("stimuli"), EXPECTED["identifier"])


def test_identifier(model):
    assert model.identifier == EXPECTED["identifier"]


@pytest.mark.parametrize("region", EXPECTED["regions"])
def test_activations(model, stimuli, region):
    expected = EXPECTED["regions"][region]
    model.start_recording(region, time_bins=[tuple(time_bin) for time_bin in expected["time_bins"]])
    recorded = model.look_at(stimuli)
    assert dict(recorded.sizes) == expected["sizes"]
    values = np.asarray(recorded.transpose("presentation", "neuroid", "time_bin").values)[0]
    slack = TOLERANCE * expected["std"]
    assert abs(values.mean() - expected["mean"]) < slack
    assert abs(values.std() - expected["std"]) < slack
    np.testing.assert_allclose(values[expected["units"]], expected["values"], rtol=0, atol=slack)
