"""`brainscore score` from the command line's side: names, groups, exit codes, output, and interruptions."""
from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("brainscore_vision", reason="needs brainscore-vision, which runs on Python 3.11 only")

from wiring_plugins import UnknownName, WiringError  # noqa: E402
from wiring_submission import benchmarks, platform, score_command, scoring  # noqa: E402
from wiring_submission.offline import BENCHMARKS as OFFLINE  # noqa: E402
from wiring_submission.scoring import BenchmarkScore  # noqa: E402
from wiring_submission.score_command import ScoreOptions, choose_device, run  # noqa: E402


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """The environment as it was, afterwards; databases in a temporary folder."""
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WIRING_DATA", str(tmp_path / "data"))


@pytest.fixture
def scored(monkeypatch):
    """Scoring in no time: what was scored is listed, and each benchmark's outcome can be set."""
    calls, outcomes = [], {}

    def fake(subject, benchmark, *, seed, online, progress):
        calls.append(benchmark)
        result = outcomes.get(benchmark, {"score": 0.5, "raw": 0.4, "ceiling": 0.8, "error": 0.01})
        if isinstance(result, BaseException):
            raise result
        return BenchmarkScore(benchmark=benchmark, seconds=1.0, **result)

    monkeypatch.setattr(scoring, "score_benchmark", fake)
    return calls, outcomes


@pytest.mark.parametrize("names, expected", [
    ([], list(OFFLINE)),
    (["offline"], list(OFFLINE)),
    (["dicarlo.Majaj2015.IT-pls"], ["MajajHong2015.IT-pls"]),
    (["movshon.FreemanZiemba2013.V1-pls", "fei-fei.Deng2009-top1"], ["FreemanZiemba2013.V1-pls", "ImageNet-top1"]),
    (["IT", "MajajHong2015public.IT-pls"], ["MajajHong2015public.IT-pls"]),
    (["dicarlo.Majaj2015public.*"], ["MajajHong2015public.V4-pls", "MajajHong2015public.IT-pls"]),
    (["Marques2020_Schiller1976-*"], ["Marques2020_Schiller1976-sf_bandwidth", "Marques2020_Schiller1976-sf_selective"]),
])
def test_benchmark_names_groups_and_wildcards(names, expected):
    assert benchmarks.resolve(names) == expected


def test_every_alias_group_and_counterpart_exists_on_the_platform():
    known = set(benchmarks.registered("benchmarks"))
    assert set(benchmarks.LEGACY.values()) <= known and set(benchmarks.PUBLIC_COUNTERPARTS.values()) <= known
    assert {member for members in benchmarks.GROUPS.values() for member in members} <= known


def test_the_list_takes_what_scoring_takes_and_shows_every_old_name(capsys):
    from wiring_submission.stored import list_benchmarks
    for name in ("IT", "dicarlo.Majaj2015public.IT-pls", "MajajHong2015public.IT-pls"):
        list_benchmarks(name)
        shown = capsys.readouterr().out.splitlines()[1]
        assert shown.startswith("MajajHong2015public.IT-pls")
        assert "dicarlo.Majaj2015public.IT-pls, dicarlo.MajajHong2015public.IT-pls" in shown


def test_public_data_are_those_that_can_be_downloaded():
    public = {name for name in benchmarks.registered("benchmarks") if benchmarks.is_public(name)}
    assert {*OFFLINE, "MajajHong2015public.IT-temporal-pls", "Hebart2023-match"} <= public
    assert not public & {"MajajHong2015.IT-pls", "Kar2019-ost", *benchmarks.PUBLIC_COUNTERPARTS}


def test_the_data_storage_is_reached_through_the_proxy_that_downloads_use(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:%d" % proxy.getsockname()[1])
        assert platform.storage_reachable()
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:none")
        assert not platform.storage_reachable()


def test_unknown_names_are_refused_with_near_ones(tmp_path):
    with pytest.raises(UnknownName, match="Marques2020_DeValois1982-pref_or"):
        benchmarks.resolve(["Marques2020_DeValois1982-pref-or"])
    with pytest.raises(UnknownName, match="wiring-kaiming"):
        run(ScoreOptions(model="wiring-kaimin"))
    with pytest.raises(UnknownName, match="'cuda'"):
        choose_device("cud")
    with pytest.raises(WiringError, match="batch size"):
        run(ScoreOptions(model="wiring-kaiming", batch_size=0))
    for seed in (-1, 1 << 63):
        with pytest.raises(WiringError, match="seed is"):
            run(ScoreOptions(model="wiring-kaiming", seed=seed))
    for path in (tmp_path / "no" / "x.json", tmp_path, Path("/proc/x.json")):  # the last is closed to everybody
        with pytest.raises(WiringError, match="cannot be written|is a folder"):
            run(ScoreOptions(model="wiring-kaiming", json=path))


def test_the_platforms_progress_bars_are_switched_off_before_they_are_imported():
    code = """
from wiring_submission.score_command import ScoreOptions, run
try: run(ScoreOptions(model="no-such-model"))
except Exception: pass
import tqdm
assert tqdm.tqdm([]).disable
"""
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_narrow_terminal_shows_every_number_whole():
    import io

    from rich.console import Console
    from wiring_submission.subjects import Subject
    subject = Subject(name="wiring-kaiming", identifier="x", fresh=None, seed=0, weights="untrained")
    outcomes = [BenchmarkScore(benchmark=name, score=0.651, error=0.042, raw=0.533, ceiling=0.964, seconds=123.4)
                for name in OFFLINE]
    console = Console(width=70, file=io.StringIO())
    console.print(score_command._table(subject, outcomes, set()))
    shown = console.file.getvalue()
    assert all(shown.count(number) == len(OFFLINE) for number in ("0.042", "0.533", "0.964", "123.4")) and "…" not in shown


def test_where_scoring_failed_is_shown_on_demand(monkeypatch, capsys):
    from wiring_submission.subjects import Subject

    def fresh(window, progress):
        raise ZeroDivisionError("oh")

    subject = Subject(name="mine", identifier="x", fresh=fresh, seed=0, weights="untrained")
    for debug, shown in (("", False), ("1", True)):
        monkeypatch.setenv("WIRING_DEBUG", debug)
        outcome = scoring.score_benchmark(subject, OFFLINE[0], seed=0, online=True)
        assert outcome.score is None and "mine failed: ZeroDivisionError: oh. Set WIRING_DEBUG=1" in outcome.reason
        assert ("in fresh" in capsys.readouterr().err) is shown


@pytest.mark.parametrize("error", ["OutOfMemoryError", "RuntimeError", "MemoryError"])
def test_memory_that_runs_out_is_said_as_such(error):
    import builtins

    import torch
    from wiring_submission.subjects import Subject

    def fresh(window, progress):
        kind = getattr(torch, error, None) or getattr(builtins, error)
        raise kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 6 bytes. Error code 12")

    subject = Subject(name="mine", identifier="x", fresh=fresh, seed=0, weights="untrained")
    outcome = scoring.score_benchmark(subject, OFFLINE[0], seed=0, online=True)
    assert outcome.exit_code == 4 and "does not fit into memory" in outcome.reason and "--batch-size" in outcome.reason


def test_the_json_does_not_take_the_databases_place(scored, tmp_path):
    with pytest.raises(WiringError, match="are one file"):
        run(ScoreOptions(model="pixels", db=tmp_path / "x", json=tmp_path / "." / ".." / tmp_path.name / "x"))


def test_the_table_the_database_and_the_json_agree(scored, tmp_path, capsys):
    calls, outcomes = scored
    outcomes["Marques2020_Schiller1976-sf_selective"] = {"reason": "no network", "exit_code": 3}
    code = run(ScoreOptions(model="pixels", benchmarks=("Marques2020_Schiller*",), json=tmp_path / "x.json"))
    assert code == 3
    printed = capsys.readouterr()
    assert re.search(r"sf_bandwidth +0\.500 +0\.010 +0\.400 +0\.800", printed.out)
    assert "Marques2020_Schiller1976-sf_selective: no network" in printed.err
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["model"] == "pixels"
    assert [(item["benchmark"], item["score"]) for item in document["scores"]] == [
        ("Marques2020_Schiller1976-sf_bandwidth", 0.5), ("Marques2020_Schiller1976-sf_selective", None)]
    stored = sqlite3.connect(tmp_path / "data" / "scores_public.sqlite").execute(
        "SELECT benchmark, score, reason FROM raw_scores ORDER BY benchmark").fetchall()
    assert stored == [("Marques2020_Schiller1976-sf_bandwidth", 0.5, None),
                      ("Marques2020_Schiller1976-sf_selective", None, "no network")]


def test_public_and_other_benchmarks_go_to_their_own_files(scored, tmp_path, monkeypatch):
    monkeypatch.setattr(score_command, "storage_reachable", lambda: False)
    run(ScoreOptions(model="pixels", benchmarks=("MajajHong2015.IT-pls", "MajajHong2015public.IT-pls")))
    for file, benchmark in (("scores.sqlite", "MajajHong2015.IT-pls"), ("scores_public.sqlite", "MajajHong2015public.IT-pls")):
        assert sqlite3.connect(tmp_path / "data" / file).execute("SELECT benchmark FROM raw_scores").fetchall() == [(benchmark,)]


def test_an_error_in_the_program_itself_loses_nothing_that_was_scored(scored, tmp_path):
    calls, outcomes = scored
    outcomes["Marques2020_Schiller1976-sf_selective"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        run(ScoreOptions(model="pixels", benchmarks=("Marques2020_Schiller*",)))
    assert sqlite3.connect(tmp_path / "data" / "scores_public.sqlite").execute(
        "SELECT benchmark FROM raw_scores").fetchall() == [("Marques2020_Schiller1976-sf_bandwidth",)]


def command(*arguments, **environment):
    code = "import sys; from wiring_plugins.cli import main; sys.argv[0] = 'brainscore'; main()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, **environment})


def test_data_out_of_reach_are_said_in_a_sentence_with_exit_code_3(tmp_path):
    process = command("score", "--model", "pixels", "--benchmark", "MajajHong2015public.IT-pls", "--benchmark",
                      "MajajHong2015.IT-pls", "--offline", "--db", str(tmp_path / "s.sqlite"),
                      BRAINIO_HOME=str(tmp_path / "brainio"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "The data of MajajHong2015public.IT-pls are not on this machine" in err and "Traceback" not in err
    assert "MajajHong2015public.IT-pls asks the same of public data" in err


SLOW = """
import sys, time
from wiring_submission import scoring
from wiring_submission.scoring import BenchmarkScore
def slow(subject, benchmark, *, seed, online, progress):
    print("scoring", benchmark, file=sys.stderr, flush=True)
    if benchmark.endswith("sf_selective") and "--hang" in sys.argv:
        time.sleep(60)
    return BenchmarkScore(benchmark=benchmark, score=.5, seconds=.1)
scoring.score_benchmark = slow
from wiring_submission.score_command import ScoreOptions, run
from pathlib import Path
sys.exit(run(ScoreOptions(model="pixels", benchmarks=("Marques2020_Schiller*",), db=Path(sys.argv[1]))))
"""


def interrupt(number, *arguments, **environment) -> int:
    """Send the signal to a run in the middle of its second benchmark; its exit code."""
    process = subprocess.Popen([sys.executable, "-c", SLOW, *arguments, "--hang"], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **environment})
    for line in process.stderr:
        if "scoring Marques2020_Schiller1976-sf_selective" in line:
            break
    process.send_signal(number)
    return process.wait()


def test_a_killed_run_goes_on_with_the_next_call(tmp_path):
    database = str(tmp_path / "s.sqlite")
    assert interrupt(signal.SIGKILL, database) == -signal.SIGKILL
    again = subprocess.run([sys.executable, "-c", SLOW, database], capture_output=True, text=True)
    assert again.returncode == 0 and "scoring Marques2020_Schiller1976-sf_selective" in again.stderr
    assert "scoring Marques2020_Schiller1976-sf_bandwidth" not in again.stderr and "earlier" in again.stdout
    assert len(sqlite3.connect(database).execute("SELECT * FROM raw_scores").fetchall()) == 2


def test_a_terminated_run_keeps_its_scores_and_removes_its_temporary_files(tmp_path):
    database, temporary = str(tmp_path / "s.sqlite"), tmp_path / "tmp"
    temporary.mkdir()
    assert interrupt(signal.SIGTERM, database, TMPDIR=str(temporary)) == 130
    assert list(temporary.glob("wiring-score-*")) == []
    assert len(sqlite3.connect(database).execute("SELECT * FROM raw_scores").fetchall()) == 1


def test_a_run_that_is_terminated_before_it_scores_leaves_no_temporary_files(tmp_path):
    code = """
import os, signal, sys
class Terminated:
    def find_spec(self, name, *_):
        if name == "brainscore_vision.benchmark_helpers":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Terminated())
from wiring_submission.score_command import ScoreOptions, run
sys.exit(run(ScoreOptions(model="pixels")))
"""
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, text=True,
                           capture_output=True)
    assert ended.returncode == 130 and "Interrupted" in ended.stderr and list(tmp_path.glob("wiring-score-*")) == []


def test_scoring_on_a_python_without_the_platform_says_what_it_needs():
    hide = ("import sys; from wiring_submission import platform; platform.find_spec = lambda name: None\n"
            "from wiring_plugins.cli import main; sys.argv = ['brainscore', 'score', '--model', 'wiring-kaiming']; main()")
    result = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    assert result.returncode == 2 and "Python 3.11" in result.stderr and "Traceback" not in result.stderr
