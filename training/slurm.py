"""Submit a training to SLURM, through submitit."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wiring_plugins import WiringError

DEFAULTS = {"gpus": 1, "nodes": 1, "cpus": 8, "hours": 24, "partition": None, "account": None, "cluster": "slurm"}
"""What `--slurm` may say. gpus and cpus are per node and per process; cluster=local runs here, to try it out."""


def parse(text: str) -> dict[str, Any]:
    """`gpus=8,hours=12` as a mapping, with defaults for what it leaves out."""
    order = dict(DEFAULTS)
    for item in filter(None, text.split(",")):
        key, given, value = item.partition("=")
        if key not in DEFAULTS or not given:
            raise WiringError(f"--slurm {text}: {item!r} is not understood. Legal: {', '.join(DEFAULTS)}, each as "
                              "key=value, separated by commas.")
        if isinstance(DEFAULTS[key], int):
            if not value.isdigit():
                raise WiringError(f"--slurm {text}: {key} is a whole number; it was {value!r}.")
            value = int(value)
        order[key] = value
    return order


def submit(text: str, out: Path, function: Callable, arguments: Mapping[str, Any]) -> str:
    """Submit `function(**arguments)`, one process per GPU. Returns the job's number.

    Raises:
        WiringError: submitit is not installed, there is no SLURM here, or `text` is not understood.
    """
    order = parse(text)
    try:
        import submitit
    except ImportError:
        raise WiringError("--slurm needs submitit. Type: pip install submitit") from None
    processes = max(order["gpus"], 1)
    try:
        executor = submitit.AutoExecutor(folder=out / "slurm", cluster=order["cluster"])
    except RuntimeError as error:
        raise WiringError(f"--slurm: {error}. Run this on a machine that can submit to SLURM.") from error
    executor.update_parameters(
        name="wiring", nodes=order["nodes"], tasks_per_node=processes, gpus_per_node=order["gpus"],
        cpus_per_task=order["cpus"], timeout_min=60 * order["hours"],
        **{f"slurm_{key}": order[key] for key in ("partition", "account") if order[key]})
    return executor.submit(_Job(function, dict(arguments))).job_id


@dataclass(frozen=True)
class _Job:
    """One process of the job. A job that was requeued goes on where it was saved."""

    function: Callable
    arguments: dict[str, Any]

    def __call__(self) -> None:
        import submitit
        if submitit.JobEnvironment().num_tasks > 1:
            submitit.helpers.TorchDistributedEnvironment().export()
        out = Path(self.arguments["out"])
        begun = (out / "run.json").exists() or any(out.glob("*/run.json"))
        self.function(**{**self.arguments, "resume": self.arguments["resume"] or begun})

    def checkpoint(self):
        """Called by submitit shortly before the job's time is over: what to submit in its place."""
        from submitit.helpers import DelayedSubmission
        return DelayedSubmission(self)
