"""How images and weights lie in memory."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def memory_layout(device: torch.device) -> torch.memory_format:
    """Channels last on CUDA, whose tensor cores want it; PyTorch's own layout on a CPU, where small batches are faster in
    it (`wiring bench train --reference` shows both)."""
    import torch
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
