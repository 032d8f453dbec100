"""Pruning at birth, as a control: few synapses that learn, chosen by what flows through them instead of by a recipe."""
from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING

from wiring_plugins import WiringError

if TYPE_CHECKING:
    import torch

ROUNDS = 100
SAMPLE = 1_000_000
"""About how many weights stand for all of them in every round but the last, which is exact."""


def synflow(model: torch.nn.Module, names: Iterable[str], density: float, image_size: int) -> dict[str, torch.Tensor]:
    """Which of the weights `names` to keep, found without any image: bool masks of their shapes, on the CPU.

    SynFlow (Tanaka, Kunin, Yamins & Ganguli 2020, NeurIPS). With all weights made positive and all offsets left out, the
    sum R of the outputs to an image of ones is a sum over paths, and w dR/dw is the part of it that passes through a
    weight w. In 100 rounds the weights with the smallest part are removed; what remains falls geometrically to the
    fraction `density`. Normalisation counts as the gain that its statistics give it.

    Raises:
        WiringError: what is left connects no input with an output.
    """
    import torch

    flow = _positive(model)
    weights = {name: flow.get_parameter(name).requires_grad_() for name in names}
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    total = sum(weight.numel() for weight in weights.values())
    ones = torch.ones(1, 3, image_size, image_size, dtype=torch.float64, device=next(flow.parameters()).device)
    for number in range(1, ROUNDS + 1):
        parts = torch.autograd.grad(flow(ones).sum(), list(weights.values()))
        with torch.no_grad():
            scores = {name: part.mul_(weight) for (name, weight), part in zip(weights.items(), parts)}
            stride = 1 if number == ROUNDS else total // SAMPLE | 1  # odd: layers' widths are powers of two
            ranked = torch.cat([score.flatten()[::stride] for score in scores.values()]).cpu()  # CUDA has no sure kthvalue
            removed = len(ranked) - max(1, round(len(ranked) * density ** (number / ROUNDS)))
            if removed:
                threshold = ranked.kthvalue(removed).values.item()
                masks = {name: score > threshold for name, score in scores.items()}
            for name, weight in weights.items():
                weight.mul_(masks[name])
    if not flow(ones).sum() > 0:
        raise WiringError(f"--density {density:g} of {total:,} weights lets nothing through to the decoder. "
                          "Give a larger --density.")
    return {name: mask.cpu() for name, mask in masks.items()}


def _positive(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in double precision in which every layer passes on a positive sum of its inputs."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    flow = deepcopy(model).double().eval().requires_grad_(False)
    with torch.no_grad():
        for module in flow.modules():
            for name, parameter in module.named_parameters(recurse=False):
                parameter.zero_() if name == "bias" else parameter.abs_()
            if isinstance(module, _BatchNorm):
                module.running_mean.zero_()
    return flow
