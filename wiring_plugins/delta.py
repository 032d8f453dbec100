"""Delta weights: a recipe, and the few tensors in which a trained model differs from what the recipe gives at birth.

One safetensors file. Its tensors are the trained parameters and the normalisation statistics; its metadata are JSON
texts: `format`, `recipe`, `facts` (class names, condition, data, ledger, licence) and `frozen`, a fingerprint of every
tensor that is *not* in the file. The rest of the model is drawn again from recipe and seed when the file is loaded, and
compared with those fingerprints, so that a sampler that has changed since is noticed.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import CorruptFile, WiringError
from .files import replacing
from .recipe import FrozenMapping, Recipe, from_plain, to_plain
from .weights_io import fingerprint

if TYPE_CHECKING:
    import torch

DELTA_FORMAT = "wiring-delta-2"
OPTIMIZER = "optimizer/"
"""Tensors under this prefix belong to a checkpoint of a run, not to the model."""

CHECKPOINTS = "checkpoints"
"""The folder, in a run's folder, of the delta files that a training leaves: `step-00000123.safetensors`."""

SKETCH = 13
"""Every thirteenth number is summed: a prime, so that kernels drawn in another order give other sums."""

TOLERANCE = 1e-4
"""How far rounding may move a sum of a tensor's numbers, as a part of the tensor's norm."""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What one delta file holds. facts: plain JSON values; the keys that a reader may count on are `classes`, the
    names of the class scores in their order or None, and `ledger`, what was learned from what."""

    recipe: Recipe
    tensors: Mapping[str, torch.Tensor]
    frozen: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any] = FrozenMapping()


def stored_names(model: torch.nn.Module, trained: Iterable[str]) -> set[str]:
    """Names in the state dict that a delta has to hold: the trained ones, and all normalisation statistics."""
    statistics = {name for name, _ in model.named_buffers()}
    return statistics | set(trained)


def tensor_fingerprint(tensor: torch.Tensor) -> dict[str, Any]:
    """SHA-256 of the tensor, and a sketch that survives rounding: 13 sums of its numbers, and their scale."""
    flat = tensor.detach().cpu().reshape(-1).numpy()
    sums = [float(flat[start::SKETCH].sum(dtype=np.float64)) for start in range(SKETCH)]
    return {"sha256": fingerprint({"": tensor}), "sketch": sums, "norm": float(np.linalg.norm(flat))}


def is_that_tensor(tensor: torch.Tensor, known: Mapping[str, Any]) -> bool:
    """Equal bit for bit, or up to the rounding in which one processor's sine differs from another's."""
    found = tensor_fingerprint(tensor)
    if found["sha256"] == known["sha256"]:
        return True
    slack = TOLERANCE * max(known["norm"], 1e-12)
    return bool(np.allclose([*found["sketch"], found["norm"]], [*known["sketch"], known["norm"]], rtol=0, atol=slack))


def frozen_fingerprints(model: torch.nn.Module, stored: set[str]) -> dict[str, dict[str, Any]]:
    return {name: tensor_fingerprint(tensor) for name, tensor in model.state_dict().items() if name not in stored}


def write_delta(path: str | Path, delta: Delta, *, extra: Mapping[str, torch.Tensor] = FrozenMapping(),
                metadata: Mapping[str, Any] = FrozenMapping()) -> None:
    """Write the file whole or not at all. extra, metadata: a checkpoint's further tensors and JSON values."""
    from safetensors.torch import save_file

    texts = {"recipe": to_plain(delta.recipe), "facts": to_plain(delta.facts), "frozen": to_plain(delta.frozen),
             **metadata}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in {**delta.tensors, **extra}.items()}
    with replacing(path) as part:
        try:
            save_file(tensors, part, metadata={"format": DELTA_FORMAT, **{key: json.dumps(value, sort_keys=True)
                                                                    for key, value in texts.items()}})
        except OSError:
            raise
        except Exception as error:  # safetensors wraps the operating system's errors in one of its own
            raise _system_error(error) from error
        part.chmod(0o644)  # safetensors writes files that nobody else may read


def _system_error(error: Exception) -> OSError:
    """The operating system's error that is behind one of safetensors, which only tells its number."""
    import os
    import re
    found = re.search(r"os error (\d+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))


def read_delta(path: str | Path) -> Delta:
    """The delta in a file, or in a checkpoint of a run.

    Raises:
        WiringError: there is no such file. CorruptFile: it is no delta, truncated, or of another version.
    """
    from safetensors import safe_open

    metadata, recipe = read_metadata(path), read_recipe(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(OPTIMIZER)}
    frozen, facts = (metadata.get(key) for key in ("frozen", "facts"))
    if not isinstance(facts, dict) or not isinstance(frozen, dict) or not all(
            isinstance(known, dict) and {"sha256", "sketch", "norm"} <= known.keys() for known in frozen.values()):
        raise CorruptFile(f"{path} is no delta weights file of this version: its header lacks facts or fingerprints. "
                          "Export it again.")
    return Delta(recipe=recipe, tensors=tensors, frozen=frozen, facts=facts)


def read_recipe(path: str | Path) -> Recipe:
    """The recipe that a delta or a checkpoint was trained from; no tensor is read.

    Raises:
        WiringError, CorruptFile: as :func:`read_delta`.
    """
    try:
        return from_plain(Recipe, read_metadata(path)["recipe"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{path} is no delta weights file of this version: its header holds no recipe that can be "
                          f"read ({type(error).__name__}: {error}). Export it again.") from error


def is_delta(path: str | Path) -> bool:
    """Whether the file's header says that it holds delta weights, of this version or another."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("format", "")).startswith("wiring-delta")
    except (SafetensorError, OSError):
        return False


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The JSON values in a delta's or a checkpoint's header; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WiringError(f"There is no weights file {path}. `wiring export RUN -o FILE.safetensors` makes one.")
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CorruptFile(f"{path} cannot be read as weights ({error}). It may be truncated; get it again.") from error
    if (found := metadata.pop("format", None)) != DELTA_FORMAT:
        raise CorruptFile(f"{path} is of format {found!r}; this version reads {DELTA_FORMAT!r}. "
                          "Export the weights again with `wiring export RUN -o FILE.safetensors`.")
    try:
        return {key: json.loads(text) for key, text in metadata.items()}
    except ValueError as error:
        raise CorruptFile(f"{path} has a damaged header ({error}). Get it again.") from error


def newest_in(run: Path) -> Path:
    """The newest checkpoint's file in a run folder.

    Raises:
        WiringError: there is none.
    """
    files = sorted((run / CHECKPOINTS).glob("step-*.safetensors"))
    inside = sorted({str(file.parents[1]) for file in run.glob(f"*/{CHECKPOINTS}/step-*.safetensors")})
    if inside and not files:
        raise WiringError(f"{run} holds several runs. Give one of them: {', '.join(inside)}.")
    if not files:
        raise WiringError(f"{run} holds no checkpoint. `wiring train RECIPE --data PATH -o {run}` makes one.")
    return files[-1]
