"""Memory: how much there is, and a refusal before the work when it cannot be enough."""
from __future__ import annotations

import resource
from pathlib import Path

from wiring_plugins import NotEnoughMemory


BASE_MEMORY = 1_200_000_000
"""Bytes that the network, PyTorch and the platform take before any recording."""


def available_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: the least of free memory, the control group's limit and `ulimit -v`."""
    import psutil

    limits = [psutil.virtual_memory().available]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space - psutil.Process().memory_info().vms)
    try:
        limits.append(int((group / "memory.max").read_text()) - _taken_in(group))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        pass
    return max(0, min(limits))


def _taken_in(group: Path) -> int:
    """Bytes that a control group's processes hold, without copies of files, which the kernel gives back when asked."""
    parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    files = int(parts.get("active_file", 0)) + int(parts.get("inactive_file", 0))
    return int((group / "memory.current").read_text()) - files


def require_memory(needed: int, what: str,
                   advice: str = "Close other programs, or use a machine with more memory.") -> None:
    """Raise :class:`NotEnoughMemory` unless `needed` bytes are available; `what` begins its text, `advice` ends it."""
    available = available_memory()
    if needed > available:
        raise NotEnoughMemory(f"{what} needs about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are "
                              f"available. {advice}")


def peak_memory() -> int:
    """The most bytes that this process has had in memory at once."""
    import sys
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
