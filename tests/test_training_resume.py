"""A run that is killed and resumed ends bit for bit as one that is not, and several processes learn what one learns."""
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("training_worker.py")
CONDITION = {"images": 150, "image_size": 32, "batch_size": 16, "epochs": 6, "validation_images": 40}
KILLS = 10


@pytest.fixture
def server():
    process = subprocess.Popen([sys.executable, str(WORKER), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    yield process
    process.stdin.close()
    process.wait(30)


def ask(server, out: Path, *, resume: bool, kill_after: float | None = None) -> int:
    """Train in a child of `server`; kill it after so many seconds. Returns its wait status."""
    order = {"recipes": ["tiny-all", "tiny-it"], "data": "synthetic:200:4", "out": str(out), "condition": CONDITION,
             "hardware": {"checkpoint_seconds": 0.02, "device": "cpu"}, "resume": resume}
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    pid = int(server.stdout.readline().split()[1])
    if kill_after is not None:
        time.sleep(kill_after)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return int(server.stdout.readline().split()[2])


def outcome(run: Path) -> tuple[dict, dict, list]:
    """Final tensors (weights, statistics, optimiser), ledger without its cost, and the epochs in the log."""
    last = sorted((run / "checkpoints").glob("*.safetensors"))[-1]
    ledger = json.loads((run / "ledger.json").read_text())
    ledger.pop("cost")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [{key: value for key, value in event.items() if key != "time"} for event in log if event["event"] == "epoch"]
    return load_file(last), ledger, epochs


def test_killed_at_ten_random_moments(server, tmp_path):
    begun = time.monotonic()
    assert ask(server, tmp_path / "whole", resume=False) == 0
    whole = time.monotonic() - begun
    birth = tmp_path / "killed" / "tiny-all" / "checkpoints" / "step-00000000.safetensors"
    moments, killed, births = random.Random(), 0, set()
    seed = moments.randrange(10 ** 6)
    moments.seed(seed)
    print("random seed", seed)
    for _ in range(100):
        status = ask(server, tmp_path / "killed", resume=True, kill_after=moments.uniform(0.02, 0.6 * whole))
        killed += status == signal.SIGKILL
        births |= {birth.stat().st_mtime_ns} if birth.exists() else set()
        if killed == KILLS:
            break
        if status == 0:  # it was through before it was killed: once more from the start
            (tmp_path / "killed").rename(tmp_path / f"killed-{killed}-{time.monotonic_ns()}")
    assert killed == KILLS
    assert ask(server, tmp_path / "killed", resume=True) == 0
    assert len(births | {birth.stat().st_mtime_ns}) == 1 + len([*tmp_path.glob("killed-*")])  # a birth is written once
    runs = [*tmp_path.glob("killed*")]
    for name in ("tiny-all", "tiny-it"):
        tensors, ledger, epochs = outcome(tmp_path / "whole" / name)
        for run in runs:
            again, ledger_again, epochs_again = outcome(run / name)
            assert again.keys() == tensors.keys()
            assert all(torch.equal(again[key], tensors[key]) for key in tensors), f"{run} {seed}"
            assert ledger_again == ledger and epochs_again == epochs


def test_two_processes_learn_what_one_learns(tmp_path):
    # 33 images to validate on: of the last batch, which is one image, one process has none
    order = {"recipes": ["tiny-it"], "data": "synthetic:200:4",
             "condition": {**CONDITION, "epochs": 2, "validation_images": 33},
             "hardware": {"device": "cpu", "hold": "no"}}
    launch = {1: [sys.executable], 2: [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                                       "--master-port", str(random.randrange(20000, 40000))]}
    for count, command in launch.items():
        arguments = json.dumps({**order, "out": str(tmp_path / str(count))})
        subprocess.run([*command, str(WORKER), arguments], check=True, timeout=120,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})
    (one, ledger_one, epochs_one), (two, ledger_two, epochs_two) = (outcome(tmp_path / str(count)) for count in launch)
    assert ledger_one == ledger_two
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-4, msg=key)
    assert [epoch["top1"] for epoch in epochs_one] == pytest.approx([epoch["top1"] for epoch in epochs_two], abs=0.02)
