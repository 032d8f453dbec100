"""What a training costs: time, and energy where the driver counts it."""
from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .distributed import Group

if TYPE_CHECKING:
    import torch


class Meter:
    """Adds up what a run costs, between one reading and the next."""

    def __init__(self, group: Group):
        self.group = group
        self.before = time.perf_counter(), joules(group.device)

    def add(self, cost: Mapping[str, Any]) -> dict[str, Any]:
        """`cost`, as it was at the last reading, with what has come since; joules of all processes' devices, or None."""
        now = time.perf_counter(), joules(self.group.device)
        seconds = now[0] - self.before[0]
        each = self.group.gather(None if None in (now[1], self.before[1]) else now[1] - self.before[1])
        used = None if None in each else (cost.get("joules") or 0.0) + sum(each)
        self.before = now
        return {"device": device_name(self.group.device), "processes": self.group.world, "joules": used,
                "seconds": cost.get("seconds", 0.0) + seconds}


def device_name(device: torch.device) -> str:
    import platform
    from pathlib import Path

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {torch.get_num_threads()} threads"


def joules(device: torch.device) -> float | None:
    """What the GPU's driver has counted since it was loaded, in joules; None where it, or pynvml, is not there."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
        import torch
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except Exception:  # no such package, or a driver or card that does not count
        return None
