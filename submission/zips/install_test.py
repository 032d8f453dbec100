"""`wiring check --install-test`: the platform's own tests of a submission, where only the platform is installed."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wiring_plugins import DataUnavailable, WiringError

from .archive import Submission
from .platform import PACKAGE

PYTHON = (3, 11)
DISTRIBUTION = "brainscore-vision[test]"
OURS = ("wiring_plugins", "wiring_submission", "wiring_training", "wiring_weights")
NEEDED_DISK = 8_000_000_000
NO_TESTS = 5
"""pytest's exit code where it finds no test, which the platform accepts of a plugin."""

LOAD = """
import json, resource, sys, time
import torch
from brainscore_vision import load_model, load_model_bibtex
from brainscore_vision.model_helpers import brain_transformation
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before, started = peak(), time.perf_counter()
model = load_model(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - started, "own": peak() - before, "all": peak(),
                  "bibtex": bool(load_model_bibtex(sys.argv[1]))}))
"""
"""What one load of the model takes, once the platform and PyTorch are imported."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part of the test. detail: what it measured. output: what the program printed, for a step that failed."""

    name: str
    passed: bool
    seconds: float
    detail: str = ""
    output: str = ""


def install_test(submission: Submission, *, prepared: Path | None = None,
                 say: Callable[[str], None] = print) -> list[Step]:
    """Unpack the submission into a scratch copy of the platform and run what the platform runs there.

    Every step is told to `say` as it ends, and the first that fails is the last. All is removed afterwards.

    prepared: a virtual environment that holds the platform and not this package; it is read and not changed. Without
        one, a fresh one is installed from the package index.

    Raises:
        DataUnavailable: the package index cannot be reached. WiringError: there is no Python 3.11, too little room on
            the disk, or `prepared` is no such environment.
    """
    with _scratch_folder() as folder:
        return _test(submission, _Scratch(folder), prepared, say)


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="wiring-install-test-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        reason = error.strerror or "files could not be copied"  # of which shutil names every one
        raise WiringError(f"The scratch environment cannot be made ({reason}). Set TMPDIR to a folder on a disk with "
                          "room.") from error


def _test(submission: Submission, scratch: _Scratch, prepared: Path | None, say: Callable[[str], None]) -> list[Step]:
    plugin, identifier = _only_plugin(submission)
    say("environment ...")
    started = time.perf_counter()
    scratch.make(prepared)
    say(f"environment: {scratch.describe()} ({time.perf_counter() - started:.0f} s)")
    target = scratch.platform() / "models" / plugin
    submission.unpack(plugin, target)
    steps: list[Step] = []
    for step in _run(scratch, target, identifier):
        say(f"{step.name}: {'passed' if step.passed else 'FAILED'}{', ' + step.detail if step.detail else ''} "
            f"({step.seconds:.0f} s)")
        steps.append(step)
        if not step.passed:
            break
    return steps


def _run(scratch: _Scratch, target: Path, identifier: str) -> Iterator[Step]:
    if (target / "setup.py").is_file():
        yield scratch.step("setup.py", ["-m", "pip", "install", "-q", target], home=Path.home())
    if (target / "requirements.txt").is_file():
        yield scratch.step("requirements", ["-m", "pip", "install", "-q", "-r", target / "requirements.txt"],
                           home=Path.home())
    loaded = scratch.step("loading", ["-c", LOAD, identifier])
    if loaded.passed:
        found = json.loads(loaded.output.splitlines()[-1])
        detail = (f"{found['seconds']:.1f} s, {found['own'] / 1e9:.2f} GB beyond the platform's own "
                  f"{(found['all'] - found['own']) / 1e9:.2f} GB{'' if found['bibtex'] else ', no get_bibtex'}")
        loaded = Step(name=loaded.name, passed=True, seconds=loaded.seconds, detail=detail)
    yield loaded
    helpers = scratch.platform() / "model_helpers"
    _substitute_images(helpers / "generic_plugin_tests_resources")
    pytest = ["-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", f"--rootdir={scratch.folder}", "-q", "-ra"]
    yield scratch.step("the platform's generic tests",
                       [*pytest, helpers / "generic_plugin_tests.py", "--plugin_directory", target])
    yield scratch.step("the plugin's test.py", [*pytest, target / "test.py"], accept=(0, NO_TESTS))


class _Scratch:
    """A virtual environment in a temporary folder, with the platform inside."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._env = folder / "env"
        self._python = self._env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._home = folder / "home"
        self._home.mkdir()

    def make(self, prepared: Path | None) -> None:
        if prepared is None:
            self._install()
        else:
            self._stand_on(prepared)
        if found := [name for name in OURS if self._locate(name)]:
            raise WiringError(f"The environment {prepared} holds {', '.join(found)}, which the platform's machines do "
                              "not. Make one with `python3.11 -m venv DIR` and `DIR/bin/pip install "
                              f"'{DISTRIBUTION}'`.")

    def platform(self) -> Path:
        return self._packages() / PACKAGE

    def describe(self) -> str:
        code = ("import platform; from importlib.metadata import version; "
                "print(*(f'{name} {version(name)}' for name in ('brainscore-vision', 'torch', 'numpy')), "
                "'Python ' + platform.python_version(), sep=', ')")
        return self._call(["-c", code]).stdout.strip()

    def step(self, name: str, arguments: Sequence, *, home: Path | None = None, accept: Sequence[int] = (0,)) -> Step:
        started = time.perf_counter()
        done = self._call(arguments, home=home)
        output = done.stdout + (done.stderr if done.returncode not in accept else "")
        detail = _last_line(done.stdout) if "pytest" in arguments else ""
        return Step(name=name, passed=done.returncode in accept, seconds=time.perf_counter() - started, detail=detail,
                    output=output)

    def _install(self) -> None:
        if shutil.disk_usage(self.folder).free < NEEDED_DISK:
            raise WiringError(f"A fresh environment needs {NEEDED_DISK / 1e9:.0f} GB in {self.folder.parent}, and "
                              f"{shutil.disk_usage(self.folder).free / 1e9:.1f} GB are free. Make room, set TMPDIR to "
                              "a folder on another disk, or name a prepared environment with --python-env.")
        _require(subprocess.run([_python_311(), "-m", "venv", self._env], capture_output=True, text=True),
                 "A virtual environment could not be made.")
        done = self._call(["-m", "pip", "install", "-q", "--disable-pip-version-check", DISTRIBUTION], home=Path.home())
        if done.returncode:
            raise DataUnavailable(f"`pip install {DISTRIBUTION}` failed in a fresh environment. {_tail(done.stderr)}\n"
                                  "Connect to a package index, or name a prepared environment with --python-env.")

    def _stand_on(self, prepared: Path) -> None:
        """An environment that sees the prepared one's packages, but has a copy of the platform to itself."""
        theirs = prepared / self._python.relative_to(self._env)
        code = (f"import sysconfig; from importlib.util import find_spec; spec = find_spec('{PACKAGE}'); "
                "print(sysconfig.get_paths()['purelib']); "
                "print(spec.origin if spec and find_spec('pytest_check') else '')")
        alone = [theirs, "-IB", "-c", code]  # without the current folder and PYTHONPATH, and writing no caches
        found = subprocess.run(alone, capture_output=True, text=True) if os.access(theirs, os.X_OK) else None
        packages, origin = found.stdout.splitlines() if found and not found.returncode else ("", "")
        if not origin:
            raise WiringError(f"{prepared} is no virtual environment with {DISTRIBUTION} in it. Make one with "
                              f"`python3.11 -m venv DIR` and `DIR/bin/pip install '{DISTRIBUTION}'`.")
        _require(subprocess.run([theirs, "-m", "venv", "--without-pip", self._env], capture_output=True, text=True),
                 "A virtual environment could not be made.")
        source = Path(origin).parent
        (self._packages() / "prepared.pth").write_text(f"{packages}\n{source.parent}\n")
        shutil.copytree(source, self.platform())

    def _packages(self) -> Path:
        code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
        return Path(self._call(["-c", code]).stdout.strip())

    def _locate(self, package: str) -> bool:
        code = f"import importlib.util; print(importlib.util.find_spec('{package}') is not None)"
        return self._call(["-c", code]).stdout.strip() == "True"

    def _call(self, arguments: Sequence, *, home: Path | None = None) -> subprocess.CompletedProcess:
        """Run the scratch Python: nothing but its environment can be imported, and caches go to the scratch folder."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {
            "HOME": str(home or self._home), "TMPDIR": str(self._home), "PYTHONNOUSERSITE": "1",
            "BS_INSTALL_DEPENDENCIES": "no", "PYTHONDONTWRITEBYTECODE": "1",  # some would go to the prepared environment
            **{name: str(self._home / name.lower()) for name in
               ("RESULTCACHING_HOME", "BRAINSCORE_HOME", "BRAINIO_HOME", "TORCH_HOME", "MPLCONFIGDIR")},
        }
        return subprocess.run([self._python, *map(str, arguments)], capture_output=True, text=True, cwd=self.folder,
                              env=environment)


def _only_plugin(submission: Submission) -> tuple[str, str]:
    """Folder and identifier of the one model in a zip that breaks no rule."""
    from .registrations import site_ids
    plugin, = submission.plugins
    identifier, = site_ids(submission, plugin)
    return plugin, identifier


def _substitute_images(folder: Path) -> None:
    """Images in place of those that the generic tests use and the platform's distribution leaves out."""
    from PIL import Image
    folder.mkdir(exist_ok=True)
    rng = np.random.RandomState(0)
    for name in ("rgb1.jpg", "rgb2.jpg", "rgb3.png"):
        if not (folder / name).exists():
            Image.fromarray(rng.randint(0, 256, (256, 256, 3), dtype=np.uint8)).save(folder / name)


def _python_311() -> str:
    """An interpreter of the version that the platform runs on."""
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    found = shutil.which("python3.11")
    if found is None:
        raise WiringError("The platform runs on Python 3.11, which is not on this machine's PATH. Install it, or leave "
                          "--install-test out.")
    return found


def _require(done: subprocess.CompletedProcess, sentence: str) -> None:
    if done.returncode:
        raise WiringError(f"{sentence} {_tail(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    """pytest's summary, such as `5 passed`."""
    return text.strip().rpartition("\n")[2].strip("= ").rpartition(" in ")[0]


def _tail(text: str, lines: int = 5) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
