"""Telling PyTorch's refusals of memory from its other errors."""
from __future__ import annotations

ON_CPU = "DefaultCPUAllocator: "
"""Stands before the reason in a `RuntimeError`: for the CPU's memory PyTorch has no error of its own kind."""


def memory_refusal(error: BaseException) -> str | None:
    """Why no more memory was given, by a GPU or by the system; None if the error is about something else."""
    from torch import OutOfMemoryError

    before, marked, reason = str(error).rpartition(ON_CPU)
    if not (isinstance(error, (MemoryError, OutOfMemoryError)) or isinstance(error, RuntimeError) and marked):
        return None
    return reason.partition("\n")[0].partition(". ")[0] or "out of memory"
