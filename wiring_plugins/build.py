"""From a name to a `torch.nn.Module`: wired, with what it has learned in place."""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .birth import architecture_of, bare_module, wire_at_birth
from .delta import Delta, is_that_tensor, read_delta
from .errors import CorruptFile
from .names import resolve
from .recipe import BatchNorm, Recipe, WeightsRef
from .registry import Registry
from .weights_io import check_file, load_weights

if TYPE_CHECKING:
    import torch


def build_model(name: str, *, seed: int | None = None, registry: Registry | None = None) -> torch.nn.Module:
    """The model of that name, wired and in evaluation mode on the CPU. Names: :func:`wiring_plugins.names.resolve`.

    The same name and seed give the same weights, bit for bit. `seed` replaces the recipe's own.

    >>> from wiring_plugins import build_model
    >>> build_model("wiring-gabor-frozen").V1.conv1.weight.shape
    torch.Size([64, 3, 7, 7])

    Raises:
        UnknownName: no recipe has that name. DataUnavailable: its statistics source is not on this machine.
    """
    if registry is None:
        from .plugins import load_registry
        registry = load_registry()
    recipe = resolve(name, registry)
    return wire(recipe if seed is None else replace(recipe, seed=seed), registry)


def wire(recipe: Recipe, registry: Registry) -> torch.nn.Module:
    """The recipe's model, in evaluation mode on the CPU: as at birth, or as it is in the file that `weights` names.

    Raises:
        CorruptFile: the recipe has trained weights that are not those it was registered with, or no longer fit it.
        WiringError: an initialiser fails, or the architecture's table or commitment is not that of its module.
    """
    return wire_at_birth(recipe, registry) if recipe.weights.kind == "generated" else _wire_trained(recipe, registry)


def _wire_trained(recipe: Recipe, registry: Registry) -> torch.nn.Module:
    """The model, in evaluation mode, of a recipe whose `weights` name a file.

    Raises:
        CorruptFile: the file is not the one that was registered, or of a recipe that is wired otherwise.
    """
    check_file(recipe.weights, recipe.name)
    file = recipe.weights.file
    if recipe.weights.kind == "full":
        return load_weights(bare_module(architecture_of(recipe, registry), registry.commitment(recipe)), file).eval()
    delta = read_delta(file)
    unlike = [field for field in ("architecture", "init", "seed")
              if getattr(recipe, field) != getattr(delta.recipe, field)]
    if unlike:
        raise CorruptFile(f"{file} was trained from another {' and '.join(unlike)} than {recipe.name!r} has. Type "
                          f"{recipe.name}@birth, or train it again with `wiring train {recipe.name}`.")
    return build_delta(delta, registry, name=file)


def build_delta(delta: Delta, registry: Registry, *, name: str = "these weights") -> torch.nn.Module:
    """The trained model, in evaluation mode: wired from the delta's recipe, with the delta's tensors in place.

    Raises:
        CorruptFile: a tensor is missing, unknown, of another shape or not finite, or a frozen layer is drawn otherwise
            now than when the model was trained.
    """
    born = replace(delta.recipe, weights=WeightsRef(),  # the statistics come from the file: no need to calibrate
                   batch_norm=replace(delta.recipe.batch_norm or BatchNorm(), statistics="unit"))
    model = wire_at_birth(born, registry)
    _load_tensors(model, delta, name=name)
    return model


def _load_tensors(model: torch.nn.Module, delta: Delta, *, name: str = "these weights") -> None:
    """Put the delta's tensors into a model born from its recipe, and check the rest against its fingerprints."""
    import torch

    state = model.state_dict()
    problems = {
        "holds the unknown": delta.tensors.keys() - state.keys(),
        "lacks": state.keys() - delta.tensors.keys() - delta.frozen.keys(),
        "has the wrong shape of": {key for key, tensor in delta.tensors.items()
                                   if key in state and tensor.shape != state[key].shape},
        "holds NaN or infinity in": {key for key, tensor in delta.tensors.items() if not tensor.isfinite().all()},
        "was trained beside other frozen weights of": {
            key for key, known in delta.frozen.items()
            if key in state and key not in delta.tensors and not is_that_tensor(state[key], known)},
    }
    for problem, keys in problems.items():
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CorruptFile(f"{name} does not fit recipe {delta.recipe.name!r} as this version wires it: it "
                              f"{problem} {', '.join(sorted(keys)[:3])}{more}.")
    with torch.no_grad():
        for key, tensor in delta.tensors.items():
            state[key].copy_(tensor)
