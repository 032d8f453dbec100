"""`wiring scores` and `wiring benchmarks`: what has been scored, and on what one can score."""
from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from wiring_plugins import UnknownName, WiringError

from . import results
from .benchmarks import GROUPS, LEGACY, is_public, resolve
from .offline import BENCHMARKS as OFFLINE
from .platform import registered


def show(pattern: str, db: Path | None) -> None:
    """Print the newest stored score of each model and benchmark, and say how many rows it was chosen from."""
    from rich.console import Console
    from rich.table import Table

    defaults = [results.data_folder() / name for name in ("scores_public.sqlite", "scores.sqlite")]
    files = [db] if db else [path for path in defaults if path.is_file()] or defaults[:1]
    rows = [row for path in files for row in results.newest(path, pattern)]
    if not rows:
        raise WiringError(f"No score of a model like {pattern!r} is stored in {', '.join(map(str, files))}. "
                          "`brainscore score --model NAME` makes one.")
    table = Table("model", "benchmark", "score", "raw", "ceiling", "seed", "scored at (UTC)", box=None, header_style="bold",
                  pad_edge=False)
    for row in rows:
        chosen = "" if row.rows == 1 else f", newest of {row.rows}"
        numbers = ("–" if value is None else f"{value:.3f}" for value in (row.score, row.raw, row.ceiling))
        table.add_row(row.model, row.benchmark, *numbers, "–" if row.seed is None else str(row.seed),
                      f"{str(row.time)[:16]}{chosen}")
    Console(width=160).print(table)


def list_benchmarks(pattern: str) -> None:
    """Print the benchmarks that `--benchmark` would take the pattern for, then the groups."""
    from rich.console import Console
    from rich.table import Table

    table = Table("benchmark", "data", "in the reference work", box=None, header_style="bold", pad_edge=False)
    for identifier in sorted(resolve([pattern]), key=lambda identifier: (identifier not in OFFLINE, identifier)):
        data = "offline: made here" if identifier in OFFLINE else "download" if is_public(identifier) else "private"
        table.add_row(identifier, data, ", ".join(old for old, today in LEGACY.items() if today == identifier))
    console = Console(width=160)
    console.print(table)
    for name, members in GROUPS.items():
        console.print(f"group {name}: {', '.join(members)}", highlight=False)


def list_models(pattern: str) -> None:
    """Print the platform's models whose names match; any of them can be scored."""
    names = [name for name in registered("models") if fnmatchcase(name, pattern)]
    if not names:
        raise UnknownName("model of the platform", pattern, registered("models"), listed_by="wiring platform-models")
    print("\n".join(names))
