"""Trains tiny recipes in a process of its own, for tests that kill it or that need several.

`python training_worker.py serve`: imports torch once; then, for every JSON line on standard input, forks a child that
trains with these arguments, and answers `pid N` when it starts and `done N STATUS` when it ended.
`python training_worker.py JSON`: trains once.
"""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tiny  # noqa: E402
import torch  # noqa: E402

from wiring_plugins import load_host, load_registry  # noqa: E402
from wiring_training import Condition, Hardware, train  # noqa: E402


def work(recipes, condition, hardware, **order) -> None:
    torch.set_num_threads(1)
    host = load_host()
    host.manager.register(tiny)
    results = train(recipes, condition=Condition(**condition), hardware=Hardware(**hardware), host=host,
                    registry=load_registry(host), **order)
    if not all(result.reason for result in results):
        sys.exit(3)


def serve() -> None:
    from wiring_training import features, learner, loop  # noqa: F401  imported here once, not in every child
    load_registry(load_host())
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                work(**json.loads(line))
            except SystemExit as end:
                os._exit(end.code)
            except BaseException as error:
                print(type(error).__name__, error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print("pid", pid, flush=True)
        print("done", pid, os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        work(**json.loads(sys.argv[1]))
        sys.stdout.flush()
        os._exit(0)  # what was learned is tested; PyTorch's own threads may abort an interpreter that is shutting down
