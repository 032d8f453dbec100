"""Scores in SQLite: one row for each run and benchmark, with what makes the number trustworthy."""
from __future__ import annotations

import json
import os
import socket
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from wiring_plugins import CorruptFile, WiringError, to_plain

from .benchmarks import is_public
from .scoring import BenchmarkScore

if TYPE_CHECKING:
    from .subjects import Subject

COLUMNS = {
    "model": "TEXT", "benchmark": "TEXT", "batchnorm": "BOOLEAN", "score": "REAL", "modification": "TEXT",
    "time": "TIMESTAMP",  # up to here the table of the reference work
    "error": "REAL", "raw": "REAL", "ceiling": "REAL", "seconds": "REAL", "reason": "TEXT", "seed": "INTEGER",
    "weights_hash": "TEXT", "recipe": "TEXT", "versions": "TEXT", "benchmark_version": "TEXT",
    "run": "TEXT", "run_key": "TEXT", "run_process": "TEXT", "run_finished": "BOOLEAN",
}
"""Columns of `raw_scores`. `model` is the name that was asked for, `modification` the identifier with its hash; `batchnorm`
is whether running statistics were set at birth; `score` is NULL with a `reason` where there is none."""


def data_folder() -> Path:
    """`$WIRING_DATA`, or the operating system's folder for this package's data."""
    from platformdirs import user_data_dir
    return Path(os.environ.get("WIRING_DATA") or user_data_dir("wiring-plugins", appauthor=False))


def database_for(benchmark: str, chosen: Path | None) -> Path:
    """The file that a benchmark's scores go to: the one chosen, or by default one for public and one for other data.

    Raises:
        WiringError: the chosen file's folder does not exist.
    """
    if chosen is None:
        return data_folder() / ("scores_public.sqlite" if is_public(benchmark) else "scores.sqlite")
    if not chosen.absolute().parent.is_dir():
        raise WiringError(f"The database {chosen} cannot be made: its folder does not exist. Make it, or give another --db.")
    return chosen


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of the score command. key: equal for calls that would compute the same numbers."""

    identity: str
    key: str


def start_run(databases: Iterable[Path], key: str) -> Run:
    """A new run, or the newest one of the same key that was interrupted: whose process is gone without finishing it."""
    rows = []
    for path in dict.fromkeys(databases):
        with _open(path) as connection:
            rows += connection.execute("SELECT max(time), run, run_process FROM raw_scores WHERE run_key = ? AND "
                                       "run_finished = 0 GROUP BY run, run_process", (key,)).fetchall()
    running = {run for _, run, process in rows if _is_running(process)}  # one that goes on has rows of two processes
    interrupted = [(time, run) for time, run, _ in rows if run not in running]
    return Run(identity=max(interrupted)[1] if interrupted else uuid.uuid4().hex, key=key)


def stored_in_run(path: Path, run: Run, benchmark: str) -> BenchmarkScore | None:
    """The score that an interrupted run had already stored for a benchmark."""
    with _open(path) as connection:
        row = connection.execute(
            "SELECT score, error, raw, ceiling, seconds, benchmark_version FROM raw_scores "
            "WHERE run = ? AND benchmark = ? AND score IS NOT NULL", (run.identity, benchmark)).fetchone()
    if row is None:
        return None
    score, error, raw, ceiling, seconds, version = row
    return BenchmarkScore(benchmark=benchmark, score=score, error=error, raw=raw, ceiling=ceiling, seconds=seconds,
                          version=version)


def store(path: Path, run: Run, subject: Subject, seed: int, result: BenchmarkScore, versions: dict) -> None:
    """Append one row. It is on disk when this returns."""
    recipe = subject.recipe
    row = {
        "model": subject.name, "benchmark": result.benchmark,
        "batchnorm": None if recipe is None else recipe.batch_norm.statistics != "unit",
        "score": result.score, "modification": subject.identifier, "time": _now(), "error": result.error,
        "raw": result.raw, "ceiling": result.ceiling, "seconds": result.seconds, "reason": result.reason, "seed": seed,
        "weights_hash": subject.weights_hash, "recipe": None if recipe is None else json.dumps(to_plain(recipe)),
        "versions": json.dumps(versions), "benchmark_version": result.version, "run": run.identity, "run_key": run.key,
        "run_process": _this_process(), "run_finished": False,
    }
    with _open(path) as connection:
        connection.execute(f"INSERT INTO raw_scores ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                           tuple(row.values()))


def finish_run(databases: Iterable[Path], run: Run) -> None:
    """Mark the run as complete: the same command then starts a new one."""
    for path in dict.fromkeys(databases):
        with _open(path) as connection:
            connection.execute("UPDATE raw_scores SET run_finished = 1 WHERE run = ?", (run.identity,))


@dataclass(frozen=True, kw_only=True)
class StoredScore:
    """The newest score of a model and benchmark in a database, and how many rows there are of the two."""

    model: str
    benchmark: str
    score: float
    error: float | None
    raw: float | None
    ceiling: float | None
    seed: int | None
    time: str
    rows: int


def newest(path: Path, model_pattern: str = "*", *, seeds: bool = False) -> list[StoredScore]:
    """For each model (matching a wildcard) and benchmark, and if `seeds` for each seed, the newest row that has a score.

    The file is only read, and may be one of the reference work.

    Raises:
        WiringError: there is no such file, or no scores in it. CorruptFile: it is not a database.
    """
    if not path.is_file():
        raise WiringError(f"There is no database {path}. `brainscore score --model NAME` makes one; --db FILE names another.")
    with _connected(path, "ro") as connection:
        present = _columns(connection)
        if not present:
            raise WiringError(f"The database {path} holds no scores: it has no table raw_scores. Give another --db.")
        optional = ("error", "raw", "ceiling", "seed")
        error, raw, ceiling, seed = (name if name in present else "NULL" for name in optional)
        rows = connection.execute(
            f"""SELECT model, benchmark, score, {error}, {raw}, {ceiling}, {seed},
                       max(time || printf('%012d', rowid)), time, count(*)
                FROM raw_scores WHERE score IS NOT NULL AND model GLOB ?
                GROUP BY model, benchmark{f', {seed}' if seeds else ''} ORDER BY model, benchmark""",
            (model_pattern,)).fetchall()
    return [StoredScore(model=model, benchmark=benchmark, score=score, error=error, raw=raw, ceiling=ceiling, seed=seed,
                        time=time, rows=count)
            for model, benchmark, score, error, raw, ceiling, seed, _, time, count in rows]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, with its table, for writing; one transaction. Writers wait for each other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WiringError(f"The database {path} cannot be opened ({error}). Choose another with --db FILE.") from error
    with _connected(path, "rwc") as connection:
        connection.execute("BEGIN IMMEDIATE")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS raw_scores ({columns})")
        for name in COLUMNS.keys() - _columns(connection):  # a database of the reference work has the first six
            connection.execute(f"ALTER TABLE raw_scores ADD COLUMN {name} {COLUMNS[name]}")
        yield connection
        connection.execute("COMMIT")


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection that ends with the block, whose open transaction is then undone. mode: SQLite's `ro` or `rwc`."""
    try:
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=60, isolation_level=None)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        kind = WiringError if isinstance(error, sqlite3.OperationalError) else CorruptFile
        raise kind(f"The database {path} cannot be used ({error}). Choose another with --db FILE.") from error


def _columns(connection: sqlite3.Connection) -> set[str]:
    """Names of the table's columns; none if there is no table."""
    return {row[1] for row in connection.execute("PRAGMA table_info(raw_scores)")}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _this_process() -> str:
    """Host, process number and start time: together they name one process for ever."""
    import psutil
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time()}"


def _is_running(process: str) -> bool:
    import psutil
    host, number, created = process.rsplit(":", 2)
    if host != socket.gethostname():
        return True  # it cannot be asked from here, so its run is left alone
    try:
        return str(psutil.Process(int(number)).create_time()) == created
    except psutil.NoSuchProcess:
        return False
