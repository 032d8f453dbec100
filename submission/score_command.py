"""`brainscore score`: a model's scores on benchmarks as a table, in a database and as JSON."""
from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wiring_plugins import UnknownName, WiringError, replacing, require_writable, to_plain

from . import results
from .benchmarks import resolve
from .memory import BASE_MEMORY, require_memory
from .offline import BENCHMARKS as OFFLINE
from .platform import hide_progress_bars, platform_session, require_platform, storage_reachable
from .termination import terminated_like_interrupted

PACKAGES = ("wiring-plugins", "brainscore-vision", "brainscore-core", "torch", "torchvision", "numpy", "xarray")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What the command line asks for; names as its options."""

    model: str
    benchmarks: tuple[str, ...] = ()
    device: str = "auto"
    batch_size: int = 32
    seed: int | None = None
    db: Path | None = None
    json: Path | None = None
    offline: bool = False


def run(options: ScoreOptions) -> int:
    """Score, print the table, store every score as soon as it is there. Returns the exit code.

    Bad options are refused before any work. A benchmark that fails leaves a row with its reason, and the others go on.
    """
    require_platform()
    hide_progress_bars()
    require_memory(BASE_MEMORY, f"Scoring {options.model}")
    benchmarks = resolve(options.benchmarks)
    device = choose_device(options.device)
    if options.batch_size < 1:
        raise WiringError(f"The batch size is {options.batch_size}, and has to be 1 or more.")
    if options.seed is not None and not 0 <= options.seed < 1 << 63:  # SQLite's integers end there
        raise WiringError(f"The seed is {options.seed}, and has to be between 0 and {(1 << 63) - 1}.")
    if options.json:
        require_writable(options.json)
    databases = {benchmark: results.database_for(benchmark, options.db) for benchmark in benchmarks}
    if options.json and options.json.resolve() in {path.resolve() for path in databases.values()}:
        raise WiringError(f"--json and the database are one file, {options.json}. Give two.")
    try:
        with terminated_like_interrupted(), platform_session():
            return _score_all(options, benchmarks, device, databases)
    except KeyboardInterrupt:
        print("\nInterrupted. What was scored is stored; the same command goes on from there.", file=sys.stderr)
        return 130


def choose_device(name: str) -> str:
    """`auto` is the GPU if there is one.

    Raises:
        UnknownName: no such device. WiringError: `cuda` where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UnknownName("device", name, ("auto", "cpu", "cuda"))
    import torch
    if name == "cuda" and not torch.cuda.is_available():
        raise WiringError("Device 'cuda' was asked for, and PyTorch finds no GPU here. Use --device cpu.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _score_all(options: ScoreOptions, benchmarks: list[str], device: str, databases: dict[str, Path]) -> int:
    from rich.console import Console

    from .progress import ScoreProgress
    from .scoring import score_benchmark
    from .subjects import load_subject

    subject = load_subject(options.model, seed=options.seed, device=device, batch_size=options.batch_size)
    versions = package_versions()
    key = _run_key(subject, benchmarks, versions)
    run_ = results.start_run(databases.values(), key)
    downloads = subject.recipe is None or not set(benchmarks) <= set(OFFLINE)
    online = downloads and not options.offline and storage_reachable()
    outcomes, earlier = [], set()
    with ScoreProgress(subject.name, len(benchmarks)) as progress:
        for benchmark in benchmarks:
            outcome = results.stored_in_run(databases[benchmark], run_, benchmark)
            if outcome:
                earlier.add(benchmark)
            else:
                progress.begin(benchmark)
                outcome = score_benchmark(subject, benchmark, seed=subject.seed, online=online, progress=progress.advance)
                results.store(databases[benchmark], run_, subject, subject.seed, outcome, versions)
            outcomes.append(outcome)
            progress.finish(benchmark)
    results.finish_run(databases.values(), run_)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(subject, outcomes, earlier))
    for outcome in outcomes:
        if outcome.reason:
            print(f"{outcome.benchmark}: {outcome.reason}", file=sys.stderr)
    print(f"Stored in {', '.join(map(str, dict.fromkeys(databases.values())))}")
    if options.json:
        _write_json(options.json, subject, outcomes, versions, device)
    return max(outcome.exit_code for outcome in outcomes)


def _table(subject, outcomes, earlier: set[str]):
    from rich.table import Table

    def cell(value: float | None, digits: int = 3) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    table = Table(title=f"{subject.name} ({subject.weights}, seed {subject.seed})", box=None, title_justify="left",
                  header_style="bold", pad_edge=False)
    table.add_column("benchmark", overflow="fold")  # what gives way in a narrow terminal are names, never numbers
    for column in ("score", "error", "raw", "ceiling", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for outcome in outcomes:
        seconds = "earlier" if outcome.benchmark in earlier else cell(outcome.seconds, 1)
        table.add_row(outcome.benchmark, *map(cell, (outcome.score, outcome.error, outcome.raw, outcome.ceiling)), seconds)
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    if scores:
        scored = "" if len(scores) == len(outcomes) else f" of the {len(scores)} scored"
        table.add_row(f"mean{scored}", cell(sum(scores) / len(scores)), "", "", "",
                      cell(sum(outcome.seconds for outcome in outcomes), 1), style="bold")
    return table


def _write_json(path: Path, subject, outcomes, versions: dict, device: str) -> None:
    document = {
        "model": subject.name, "identifier": subject.identifier, "weights": subject.weights, "seed": subject.seed,
        "weights_hash": subject.weights_hash, "device": device if subject.recipe else None, "versions": versions,
        "recipe": to_plain(subject.recipe), "commitment": to_plain(subject.commitment),
        "scores": [asdict(outcome) for outcome in outcomes],
    }
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=2), encoding="utf-8")


def _run_key(subject, benchmarks: list[str], versions: dict) -> str:
    described = json.dumps([subject.identifier, subject.seed, benchmarks, versions], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that a score depends on, and of Python."""
    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None
    return {"python": ".".join(map(str, sys.version_info[:3])), **{package: installed(package) for package in PACKAGES}}
