"""One wired model as a Brain-Score plugin: wired again from its recipe whenever it is loaded, then given its numbers.

`recipe.json` says how the model is wired. `weights.safetensors` holds the tensors that wiring alone does not give, or
`hosted.json` says where the platform keeps that file.
"""
from __future__ import annotations

import json
from functools import partial
from importlib import import_module
from pathlib import Path

from wiring_plugins import (Architecture, Commitment, CorruptFile, Initializer, Layer, Recipe, Registry,
                            StatisticsSource, from_plain, wire_uncalibrated)

from ...brain_model import WiredBrainModel
from .tensors import read_tensors

HERE = Path(__file__).parent


class SubmittedModel(WiredBrainModel):
    """The brain model under the identifier that it is registered with, to the letter."""

    def __init__(self, identifier: str, *arguments, **options):
        super().__init__(identifier, *arguments, **options)
        self._registered = identifier

    @property
    def identifier(self) -> str:
        return self._registered


def build(**options) -> SubmittedModel:
    """The model, on the GPU if there is one. options: of :class:`WiredBrainModel`."""
    import torch
    described = _described()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return SubmittedModel(described["identifier"], build_network(), from_plain(Commitment, described["commitment"]),
                          **{"weights_hash": described["fingerprint"], "device": device, **options})


def build_network():
    """The `torch.nn.Module`, in evaluation mode on the CPU.

    Raises:
        CorruptFile: the stored tensors do not fit the network, or are not those that were packed.
    """
    import torch
    described = _described()
    network = wire_uncalibrated(from_plain(Recipe, described["recipe"]), _registry(described))
    state = network.state_dict()
    for name, values in read_tensors(_weights_file(), described["weights_sha256"]).items():
        if name not in state or tuple(state[name].shape) != values.shape:
            raise CorruptFile(f"The stored tensor {name} {values.shape} does not fit the network.")
        state[name] = torch.from_numpy(values)
    network.load_state_dict(state, assign=True)
    return network.eval()


def get_bibtex(identifier: str) -> str:
    """The publication that the model rests on; empty if the platform would know none."""
    return (HERE / "reference.bib").read_text(encoding="utf-8")


def _described() -> dict:
    return _json("recipe.json")


def _json(name: str) -> dict:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def _registry(described: dict) -> Registry:
    """Just the parts that this recipe names."""
    parts = described["parts"]
    architecture = parts["architecture"]
    layers = tuple(from_plain(Layer, layer) for layer in architecture["layers"])
    return Registry(
        architectures={architecture["name"]: Architecture(
            name=architecture["name"], build=_find(architecture["build"]), layers=layers,
            commitment=from_plain(Commitment, described["commitment"]))},
        initializers={name: Initializer(name=name, sample=_find(item["sample"]), needs=item["needs"])
                      for name, item in parts["initializers"].items()},
        statistics={name: StatisticsSource(name=name, load=partial(_statistics, **where), trained=False)
                    for name, where in parts["statistics"].items()},
    )


def _statistics(load: str, file: str | None):
    """What the source holds: made by code alone, or read from a file."""
    return _find(load)() if file is None else _find(load)((HERE / file).read_text(encoding="utf-8"))


def _find(reference: str):
    """The definition that `module:name` stands for: from the copies beside this file if the module begins with a dot."""
    module, name = reference.split(":")
    return getattr(import_module(module, __package__), name)


def _weights_file() -> Path:
    """The stored tensors: in this folder, or from the platform's storage of large files."""
    packed = HERE / "weights.safetensors"
    if packed.exists():
        return packed
    from brainscore_core.supported_data_standards.brainio.s3 import load_weight_file
    return Path(load_weight_file(**_json("hosted.json")))
