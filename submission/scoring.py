"""Scores a model on benchmarks, one fresh brain model for each."""
from __future__ import annotations

import hashlib
import math
import os
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.error import URLError

import numpy as np

from wiring_plugins import DataUnavailable, NotEnoughMemory, WiringError, memory_refusal

from .benchmarks import PUBLIC_COUNTERPARTS, is_public
from .memory import BASE_MEMORY, peak_memory, require_memory
from .offline import BENCHMARKS as OFFLINE
from .offline import serve_locally
from .platform import NetworkRefused, no_network
from .view import ScreenWindow

if TYPE_CHECKING:
    from .subjects import Subject

IN_RECEPTIVE_FIELD = ScreenWindow(y=0.5, x=0.5, half_width=0.15 + 1 / 6 + 0.1)
"""The only part of the screen that the units which a Marques2020 benchmark uses can see.

The benchmark keeps units whose receptive-field centre, the centroid of their responses to patches of radius 1/6 degree,
lies within .15 degrees of (.5, .5). A unit that nothing within .15 + 1/6 degrees of that point can change responds to
patches on one side of the point alone, so its centroid lies further out; .1 degrees are added for safety.
"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkScore:
    """The outcome of one benchmark. score: ceiled, or None with the `reason` why there is none.

    error: standard deviation that the benchmark reports, of the raw score. raw, ceiling: before division, and the divisor.
    """

    benchmark: str
    score: float | None = None
    error: float | None = None
    raw: float | None = None
    ceiling: float | None = None
    seconds: float
    version: str | None = None
    peak_memory: int | None = None
    reason: str | None = None
    exit_code: int = 0


def score_benchmark(subject: Subject, benchmark: str, *, seed: int, online: bool,
                    progress: Callable[[int], None] | None = None) -> BenchmarkScore:
    """Score on one benchmark (today's identifier). Call it within :func:`.platform.platform_session`.

    The result depends on nothing but the model, the benchmark and the seed: not on what was scored before. What fails is
    an outcome with a reason; with `WIRING_DEBUG` set, its traceback goes to standard error.
    """
    started = time.perf_counter()

    def outcome(**values) -> BenchmarkScore:
        return BenchmarkScore(benchmark=benchmark, seconds=time.perf_counter() - started, peak_memory=peak_memory(),
                              **values)

    try:
        require_memory(BASE_MEMORY, f"Scoring {subject.name}")
        with ExitStack() as stack:
            if not online:
                stack.enter_context(no_network())
            return outcome(**_score(subject, benchmark, seed, progress, stack))
    except WiringError as error:
        if os.environ.get("WIRING_DEBUG"):
            traceback.print_exc()
        return outcome(reason=str(error), exit_code=error.exit_code)
    except MemoryError as error:
        return outcome(reason=f"{benchmark} does not fit into memory: {error}. Close other programs, take a smaller "
                              "--batch-size, or use a machine with more memory.", exit_code=NotEnoughMemory.exit_code)


def _score(subject: Subject, benchmark: str, seed: int, progress, stack: ExitStack) -> dict:
    import brainscore_vision

    offline = benchmark in OFFLINE
    candidate = _load("weights", subject.name, lambda: subject.fresh(IN_RECEPTIVE_FIELD if offline else None, progress))
    if offline:
        stack.enter_context(serve_locally(_screen_degrees(candidate.visual_degrees())))
    loaded = _load("data", benchmark, lambda: brainscore_vision.load_benchmark(benchmark))
    np.random.seed(_bootstrap_seed(seed, benchmark))  # the platform's metrics draw from numpy's global stream
    score = _load("data", benchmark, lambda: loaded(candidate))
    return {**_numbers(score), "version": str(getattr(loaded, "version", None))}


def _screen_degrees(visual_degrees: int) -> int:
    """Width of the local stimuli: ready for a model that sees less than all of them, else whole, to be placed on screen."""
    return visual_degrees if visual_degrees <= 12 else 12


def _load(what: str, name: str, load: Callable):
    """`load()`; whatever the platform raises because a download is out of reach becomes :class:`DataUnavailable`, and
    what PyTorch raises for want of memory a `MemoryError`.

    what, name: what may have to be downloaded, and for which benchmark or model.
    """
    try:
        return load()
    except (WiringError, MemoryError):
        raise
    except Exception as error:
        if refusal := memory_refusal(error):
            raise MemoryError(refusal) from error
        if not _is_download_error(error):
            raise WiringError(f"{name} failed: {type(error).__name__}: {error}. Set WIRING_DEBUG=1 to see where.") from error
        advice = f"Connect to the network and run the same command again; the {what} are then kept for later runs."
        if what == "data" and not is_public(name):
            instead = PUBLIC_COUNTERPARTS.get(name)
            advice = f"Only brain-score.org has them{f'; {instead} asks the same of public data' if instead else ''}."
        raise DataUnavailable(f"The {what} of {name} are not on this machine and cannot be downloaded. {advice}") from error


def _is_download_error(error: BaseException) -> bool:
    """Whether a failed connection or refused download is among the error, its causes, and the errors that it lists."""
    from botocore.exceptions import BotoCoreError, ClientError
    failures = (BotoCoreError, ClientError, ConnectionError, TimeoutError, socket.gaierror, URLError, NetworkRefused)
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if current is None or current in seen:
            continue
        seen.append(current)
        if isinstance(current, failures):
            return True
        listed = [item for argument in current.args for item in (argument if isinstance(argument, list) else [argument])]
        waiting += [current.__cause__, current.__context__, *(item for item in listed if isinstance(item, Exception))]
    return False


def _numbers(score) -> dict:
    """Ceiled score, error, raw score and ceiling as floats.

    Raises:
        WiringError: the score is not a number, or the benchmark replaced an undefined one by 0.
    """
    raw, ceiling = score.attrs.get("raw"), score.attrs.get("ceiling")
    samples = getattr(raw, "attrs", {}).get("raw")
    if samples is not None and np.ndim(samples) == 1 and np.isnan(np.asarray(samples, float)).mean() > 0.1:
        raise WiringError("The score is undefined: the model has no units for which this benchmark's property exists.")
    value = _float(score)
    if value is None:
        raise WiringError("The score is undefined: the benchmark returned NaN.")
    return {"score": value, "error": _float(score.attrs.get("error")), "raw": _float(raw), "ceiling": _float(ceiling)}


def _float(value) -> float | None:
    if value is None or np.size(value) != 1:
        return None
    number = float(np.asarray(value).reshape(()))
    return number if math.isfinite(number) else None


def _bootstrap_seed(seed: int, benchmark: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{benchmark}".encode()).digest()[:4], "little")
