"""Weights on disk and in hashes."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CorruptFile, WiringError

if TYPE_CHECKING:
    import torch

    from .recipe import WeightsRef

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs keep a network's weights, beside the epoch and the optimiser's state."""


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of a state dict: of every tensor's name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view("uint8").data)
    return digest.hexdigest()


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors` or PyTorch checkpoint file, on the CPU, without a leading `module.`.

    A PyTorch file is read without executing anything in it (`weights_only`); a checkpoint that keeps its weights under
    one of :data:`WRAPPERS`, as the published CORnet-S does, is unwrapped.

    Raises:
        WiringError: there is no such file. CorruptFile: the file holds no weights that can be read, or other things.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise WiringError(f"There is no weights file {path}. Give the path of a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, AttributeError, TypeError, OSError) as error:
        raise CorruptFile(f"{path} cannot be read as weights ({type(error).__name__}: {error}). "
                          "It may be truncated; get it again.") from error
    except Exception as error:  # pickle.UnpicklingError: PyTorch refuses what is not plain tensors
        raise CorruptFile(f"{path} is refused: it holds more than tensors ({type(error).__name__}). Save its "
                          "state dict alone, best as .safetensors.") from error
    return {name.removeprefix("module."): tensor for name, tensor in _tensors(state, path).items()}


def _tensors(held: object, path: Path) -> Mapping[str, torch.Tensor]:
    """The state dict in what a PyTorch file holds: that itself, or what it keeps under one of :data:`WRAPPERS`."""
    import torch

    advice = "Save the model's state dict alone, best as .safetensors."
    if not isinstance(held, Mapping):
        raise CorruptFile(f"{path} holds one {type(held).__name__}, where tensors by name belong. {advice}")
    state = next((held[key] for key in WRAPPERS if isinstance(held.get(key), Mapping)), held)
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise CorruptFile(f"{path} holds {name!r}: {type(value).__name__}, where tensors by name belong. {advice}")
    return state


def check_file(weights: WeightsRef, name: str) -> None:
    """Compare the file with the SHA-256 that it was registered with, if it was with one.

    Raises:
        WiringError: there is no such file. CorruptFile: it is another.
    """
    path = Path(weights.file)
    if not path.is_file():
        source = f"Get it from {weights.url}, or type" if weights.url else "Type"
        raise WiringError(f"There is no weights file {path}. {source} {name.partition('@')[0]}@birth for the model "
                          "without it.")
    if weights.sha256 is None:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != weights.sha256:
        raise CorruptFile(f"{path} has SHA-256 {found}, not {weights.sha256}. Get it again, or type "
                          f"{name.partition('@')[0]}@birth for the model without it.")


def load_weights(model: torch.nn.Module, path: str | Path) -> torch.nn.Module:
    """Load a checkpoint into `model`, every name and shape of which has to match, and return the model.

    Raises:
        CorruptFile: a tensor is missing, unexpected or of another shape, or holds NaN or infinity. The model is as before.
    """
    import torch

    expected = model.state_dict()
    counters = {name: torch.tensor(0) for name in expected if name.endswith("num_batches_tracked")}
    state = counters | read_state(path)  # old checkpoints have no counters
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    misshapen = [f"{name} {tuple(state[name].shape)} for {tuple(expected[name].shape)}"
                 for name in expected.keys() & state.keys() if state[name].shape != expected[name].shape]
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    for problem, names in (("lacks", missing), ("has the unexpected", extra),
                           ("has the wrong shape of", sorted(misshapen)), ("holds NaN or infinity in", bad)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CorruptFile(f"{path} does not fit this model: it {problem} {', '.join(names[:3])}{more}.")
    model.load_state_dict(state)
    return model
