"""A logger: every run's curves in RUN/tensorboard, if TensorBoard is installed (extra `tensorboard`)."""
from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wiring_plugins import hookimpl


class TensorBoard:
    """Holds one writer per run while it learns."""

    def __init__(self):
        self.writers: dict[Path, Any] = {}

    @hookimpl
    def wiring_event(self, run: Path, event: Mapping[str, Any]) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            return
        if run not in self.writers:
            from torch.utils.tensorboard import SummaryWriter
            after = event["step"] + 1  # what was drawn beyond it is about to happen again
            self.writers[run] = SummaryWriter(str(run / "tensorboard"), purge_step=after)
        writer = self.writers[run]
        kind = "validation" if event["event"] == "epoch" else "training"
        values = {f"training/{key}": event[key] for key in ("loss", "top1", "lr") if key in event}
        if kind == "validation" and event["validation"]:
            values |= {f"validation/{key}": value for key, value in event["validation"].items()}
        for name, value in values.items():
            writer.add_scalar(name, value, event["step"])
        if event["event"] in ("epoch", "end"):
            writer.flush()


plugin = TensorBoard()
