"""The results database: nothing lost, nothing invented, several writers, and runs that go on after an interruption."""
from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import time
from dataclasses import replace

import pytest

pytest.importorskip("brainscore_vision", reason="needs brainscore-vision, which runs on Python 3.11 only")

from wiring_plugins import CorruptFile, WiringError  # noqa: E402
from wiring_submission import results  # noqa: E402
from wiring_submission.scoring import BenchmarkScore  # noqa: E402
from wiring_submission.subjects import Subject  # noqa: E402

SUBJECT = Subject(name="m", identifier="m__0", fresh=None, seed=0, weights="untrained", weights_hash="abc")


def outcome(benchmark="b", **values):
    return BenchmarkScore(**{"benchmark": benchmark, "score": 0.5, "raw": 0.4, "ceiling": 0.8, "seconds": 1.0, **values})


def store(path, run, *outcomes, subject=SUBJECT):
    for item in outcomes:
        results.store(path, run, subject, 0, item, {"torch": "2"})


def rows(path):
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute("SELECT * FROM raw_scores")]
    finally:
        connection.close()


def test_a_row_holds_what_makes_it_trustworthy(tmp_path, registry):
    path, recipe = tmp_path / "s.sqlite", registry.recipe("wiring-kaiming")
    run = results.start_run([path], "key")
    store(path, run, outcome(error=0.01, version="1"), subject=replace(SUBJECT, recipe=recipe))
    row, = rows(path)
    assert list(row)[:6] == ["model", "benchmark", "batchnorm", "score", "modification", "time"]
    assert (row["score"], row["raw"], row["ceiling"], row["error"], row["seed"]) == (0.5, 0.4, 0.8, 0.01, 0)
    assert row["modification"] == "m__0" and row["weights_hash"] == "abc" and row["batchnorm"] == 1
    assert json.loads(row["recipe"])["name"] == "wiring-kaiming" and json.loads(row["versions"]) == {"torch": "2"}


def test_a_failed_score_is_null_with_its_reason_and_is_not_read(tmp_path):
    path = tmp_path / "s.sqlite"
    run = results.start_run([path], "key")
    store(path, run, outcome(score=None, raw=None, reason="no network"))
    row, = rows(path)
    assert row["score"] is None and row["reason"] == "no network"
    assert results.newest(path) == []


def test_reading_takes_the_newest_row_and_counts_the_others(tmp_path):
    path = tmp_path / "s.sqlite"
    for score in (0.1, 0.2, 0.3):
        run = results.start_run([path], "key")
        store(path, run, outcome(score=score), outcome("other", score=score / 2))
        results.finish_run([path], run)
    assert [(row.benchmark, row.score, row.rows) for row in results.newest(path)] == [("b", 0.3, 3), ("other", 0.15, 3)]
    assert len(rows(path)) == 6 and len({row["run"] for row in rows(path)}) == 3
    assert results.newest(path, "x*") == []


def test_a_database_of_the_reference_work_is_extended_not_replaced(tmp_path):
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE raw_scores(model character, benchmark character, batchnorm boolean, score int, "
                       "modification character, time timestamp)")
    connection.execute("INSERT INTO raw_scores VALUES ('CORnet-S', 'movshon.FreemanZiemba2013.V1-pls', 0, 0.22, 'x', '2020')")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    row, = results.newest(path, seeds=True)
    assert (row.model, row.score, row.raw, row.seed) == ("CORnet-S", 0.22, None, None)
    assert path.read_bytes() == before  # reading changes nothing
    store(path, results.start_run([path], "key"), outcome())
    assert {(row.model, row.score) for row in results.newest(path)} == {("CORnet-S", 0.22), ("m", 0.5)}


def test_reading_a_database_of_something_else_leaves_it_as_it_is(tmp_path):
    path = tmp_path / "file:ö ?#%20.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks(address)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(WiringError, match="holds no scores"):
        results.newest(path)
    assert path.read_bytes() == before
    store(path, results.start_run([path], "key"), outcome())
    assert [row.score for row in results.newest(path)] == [0.5] and len(list(tmp_path.iterdir())) == 1


def die_in_the_middle(path):
    run = results.start_run([path], "key")
    store(path, run, outcome("first", score=0.25))
    os._exit(9)


def test_a_run_that_was_killed_goes_on(tmp_path):
    path = tmp_path / "s.sqlite"
    process = multiprocessing.get_context("fork").Process(target=die_in_the_middle, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    old, = {row["run"] for row in rows(path)}
    assert results.start_run([path], "other key").identity != old
    run = results.start_run([path], "key")
    assert run.identity == old
    assert results.stored_in_run(path, run, "first").score == 0.25
    assert results.stored_in_run(path, run, "second") is None
    store(path, run, outcome("second"))
    assert results.start_run([path], "key").identity != old  # this process goes on with it
    results.finish_run([path], run)
    assert results.start_run([path], "key").identity != old


def test_a_run_that_is_still_going_is_left_alone(tmp_path):
    path = tmp_path / "s.sqlite"
    going = results.start_run([path], "key")
    store(path, going, outcome("first"))
    assert results.start_run([path], "key").identity != going.identity


def test_a_failed_benchmark_of_an_interrupted_run_is_tried_again(tmp_path):
    path = tmp_path / "s.sqlite"
    run = results.start_run([path], "key")
    store(path, run, outcome("first", score=None, reason="no network"))
    assert results.stored_in_run(path, run, "first") is None


def write_many(path, number):
    run = results.start_run([path], f"key{number}")
    store(path, run, *(outcome(f"b{number}-{item}") for item in range(15)))
    results.finish_run([path], run)


def test_several_processes_write_at_once_and_lose_nothing(tmp_path):
    path, context = tmp_path / "s.sqlite", multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(rows(path)) == len({row["benchmark"] for row in rows(path)}) == 45


def test_files_that_are_no_database_are_refused_and_left_as_they_are(tmp_path):
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"this is not a database, but a text of some length" * 50)
    before = path.read_bytes()
    with pytest.raises(CorruptFile, match="--db"):
        results.start_run([path], "key")
    assert path.read_bytes() == before
    with pytest.raises(WiringError, match="There is no database"):
        results.newest(tmp_path / "none.sqlite")
    with pytest.raises(WiringError, match="folder does not exist"):
        results.database_for("b", tmp_path / "no" / "s.sqlite")


def test_times_sort_by_age(tmp_path):
    path = tmp_path / "s.sqlite"
    run = results.start_run([path], "key")
    store(path, run, outcome(score=0.1))
    time.sleep(0.002)
    store(path, run, outcome(score=0.9))
    assert results.newest(path)[0].score == 0.9
