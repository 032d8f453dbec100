"""Progress on the terminal: benchmarks done, and images shown to the model for the present one."""
from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column


class ScoreProgress:
    """A context manager around a scoring run; silent where standard error is not a terminal."""

    def __init__(self, model: str, benchmarks: int):
        self._progress = Progress(TextColumn("{task.description}", table_column=Column(overflow="fold")), BarColumn(10),
                                  TextColumn("{task.completed:.0f}{task.fields[unit]}"), TimeElapsedColumn(),
                                  console=Console(stderr=True), transient=True)
        self._all: TaskID = self._progress.add_task(model, total=benchmarks, unit=f" of {benchmarks} benchmarks")
        self._present: TaskID | None = None

    def __enter__(self) -> ScoreProgress:
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def begin(self, benchmark: str) -> None:
        self._present = self._progress.add_task(benchmark, total=None, unit=" images")

    def advance(self, images: int) -> None:
        self._progress.advance(self._present, images)

    def finish(self, benchmark: str) -> None:
        if self._present is not None:
            self._progress.remove_task(self._present)
            self._present = None
        self._progress.advance(self._all)
