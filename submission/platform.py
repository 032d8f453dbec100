"""The Brain-Score platform as this package uses it: imported with safe settings, its caches kept to one run."""
from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from wiring_plugins import WiringError

STORAGE_HOST = "brainscore-storage.s3.amazonaws.com"


class NetworkRefused(OSError):
    """A connection that this run does not make."""


def require_platform() -> None:
    """Raise :class:`WiringError` unless brainscore-vision is installed."""
    if find_spec("brainscore_vision") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise WiringError("Scoring needs the package brainscore-vision, which runs on Python 3.11 only (this is Python "
                          f"{version}): make a Python 3.11 environment and install this package there, as README shows.")


@contextmanager
def platform_session() -> Iterator[Path]:
    """Import the platform, with caches of this session's own, which are removed at the end. Yields their folder.

    The platform keys its caches by names, so one that outlived a session could answer for a model that has changed since.
    The store of activations is off altogether: it copies them several times.
    """
    require_platform()
    folder = Path(tempfile.mkdtemp(prefix="wiring-score-"))
    os.environ["BS_INSTALL_DEPENDENCIES"] = "no"  # it would pip-install into this environment
    os.environ["RESULTCACHING_DISABLE"] = "brainscore_vision.model_helpers.activations.core."
    hide_progress_bars()
    logging.getLogger("brainscore_vision").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    try:
        with _results_cached_in(str(folder / "results")):
            from brainscore_vision.benchmark_helpers import screen
            screen.root_path = folder / "stimuli_on_screen"  # if shared, a run beside this one would empty it
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hide_progress_bars() -> None:
    """Switch off the platform's progress bars, which would break ours. Before PyTorch imports tqdm: it is read once."""
    os.environ.setdefault("TQDM_DISABLE", "1")


@contextmanager
def _results_cached_in(folder: str) -> Iterator[None]:
    """Every result cache of the platform uses `folder`, whatever it read from the environment when it was imported."""
    from result_caching import _DiskStorage

    class Redirected:
        def __get__(self, storage, kind=None) -> str:
            return folder

        def __set__(self, storage, own_folder: str) -> None:
            storage.__dict__["_storage_directory"] = own_folder

    _DiskStorage._storage_directory = Redirected()
    try:
        yield
    finally:
        del _DiskStorage._storage_directory


def registered(kind: str) -> list[str]:
    """Identifiers of the platform's `benchmarks` or `models`: those it can load, found in its plugins' text."""
    require_platform()
    root = Path(find_spec("brainscore_vision").origin).parent / kind
    pattern = re.compile(rf"""^\s*{kind.rstrip("s")}_registry\[['"]([^'"]+)['"]\]""", re.MULTILINE)
    found = (pattern.findall(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*/__init__.py")))
    return sorted({identifier for identifiers in found for identifier in identifiers})


def storage_reachable(timeout: float = 6.0) -> bool:
    """Whether the platform's data storage, or the proxy to it, answers in `timeout` seconds, name look-up included."""
    answers = []

    def connect() -> None:
        try:
            socket.create_connection(_way_to(STORAGE_HOST), timeout=timeout).close()
            answers.append(True)
        except (OSError, ValueError):  # no answer; a proxy whose address is none
            pass

    attempt = threading.Thread(target=connect, daemon=True)  # a name look-up has no time limit of its own
    attempt.start()
    attempt.join(timeout)
    return bool(answers)


def _way_to(host: str) -> tuple[str, int]:
    """Host and port that a download from `host` connects to: its own, or those of the environment's proxy."""
    proxy = None if proxy_bypass(host) else getproxies().get("https")
    if not proxy:
        return host, 443
    place = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return place.hostname, place.port or (443 if place.scheme == "https" else 80)


@contextmanager
def no_network() -> Iterator[None]:
    """Within this context every new connection fails at once, so that only what is on this machine can be loaded."""
    def refuse(*_, **__):
        raise NetworkRefused("the network is not used in this run")

    look_up, attempts = socket.getaddrinfo, os.environ.get("AWS_MAX_ATTEMPTS")
    socket.getaddrinfo = refuse
    os.environ["AWS_MAX_ATTEMPTS"] = "1"
    try:
        yield
    finally:
        socket.getaddrinfo = look_up
        if attempts is None:
            del os.environ["AWS_MAX_ATTEMPTS"]
        else:
            os.environ["AWS_MAX_ATTEMPTS"] = attempts
