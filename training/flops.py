"""Floating-point operations of a training step, and how much a device could do."""
from __future__ import annotations

from typing import TYPE_CHECKING

from wiring_plugins import Recipe, Registry, architecture_of

if TYPE_CHECKING:
    import torch

DENSE_BF16 = {"B200": 2250e12, "GH200": 989e12, "H200 NVL": 836e12, "H200": 989e12, "H100 PCIe": 756e12,
              "H100 NVL": 836e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A40": 150e12, "4090": 165e12,
              "3090": 71e12}
"""Operations a second of dense bf16 matrix products, by words of the device's name; the first that fits counts (NVIDIA's
data sheets)."""


def step_flops(recipe: Recipe, registry: Registry, image_size: int) -> float:
    """Operations per image of one training step: forward, and backward as far as something learns.

    Counted by PyTorch on tensors without memory; a multiplication and an addition are two operations.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from .learner import freeze, trained_names

    with torch.device("meta"):
        model = architecture_of(recipe, registry).build()
        freeze(model, trained_names(recipe, registry))
        images = torch.empty(2, 3, image_size, image_size)
        with FlopCounterMode(display=False) as counter:
            model(images).sum().backward()
    return counter.get_total_flops() / len(images)


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bf16 operations a second; None if this table does not know it."""
    if device.type != "cuda":
        return None
    import torch
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((peak for name, peak in DENSE_BF16.items() if set(name.split()) <= set(words)), None)


def measured_flops(device: torch.device) -> float:
    """Operations a second of a large fp32 matrix product on this device: the best of three."""
    import time

    import torch

    matrix = torch.randn(2048, 2048, device=device)
    best = float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        (matrix @ matrix).sum().item()
        best = min(best, time.perf_counter() - begun)
    return 2 * 2048 ** 3 / best
