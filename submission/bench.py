"""`wiring bench score`: the V1 recording of a benchmark, our way and the platform's, on the same model and images."""
from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from wiring_plugins import Commitment, WiringError, load_registry, wire

from .memory import peak_memory
from .platform import platform_session

STIMULI = "Marques2020_orientation"
REGION, TIME_BINS = "V1", [(70, 170)]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One way's cost. seconds: of the look alone, after a warm-up on other images. peak: bytes of the whole process."""

    seconds: float
    peak: int
    units: int


def run(model: str, images: int) -> None:
    """Print a table of both ways and their ratio. Each runs in a fresh process, so that its peak memory is its own."""
    import torch
    from rich.console import Console
    from rich.table import Table

    if not 1 <= images <= 1000:
        raise WiringError(f"--images is {images}, and has to be between 1 and 1000.")
    ways = {"platform's wrapper, full forward pass": _plain, "stop after V1, all units": _fast,
            "stop after V1, units the benchmark can use": _windowed}
    context = multiprocessing.get_context("spawn")
    measured = {}
    for name, way in ways.items():
        with ProcessPoolExecutor(1, mp_context=context) as process:
            measured[name] = process.submit(_measure, way, model, images).result()
    plain = next(iter(measured.values()))
    table = Table("V1 recording", "ms per image", "ratio", "units", "peak GB", box=None, header_style="bold",
                  pad_edge=False)
    for name, result in measured.items():
        table.add_row(name, f"{1000 * result.seconds / images:.1f}", f"{plain.seconds / result.seconds:.1f}",
                      f"{result.units:,}", f"{result.peak / 1e9:.2f}")
    console = Console(width=120)
    console.print(f"{model}, {images} images of {STIMULI}, CPU, {torch.get_num_threads()} threads, torch "
                  f"{torch.__version__}", highlight=False)
    console.print(table)


def _measure(way, model_name: str, images: int) -> Measurement:
    with platform_session():
        from .offline import stimuli
        from .subjects import load_subject

        subject = load_subject(model_name)
        if subject.recipe is None:
            raise WiringError(f"{model_name!r} is a model of the platform. `wiring bench score` compares ways to run one of "
                              "this project's models; `wiring models` lists them.")
        _require_plain_way(model_name, subject.commitment)
        chosen = stimuli.load(STIMULI, subject.commitment.visual_degrees)
        first, rest = _part(chosen, 0, 32, "warm-up"), _part(chosen, 32, 32 + images, "timed")
        brain = way(subject)
        brain.start_recording(REGION, TIME_BINS)
        brain.look_at(first)
        started = time.perf_counter()
        recorded = brain.look_at(rest)
        return Measurement(seconds=time.perf_counter() - started, peak=peak_memory(), units=recorded.sizes["neuroid"])


def _require_plain_way(model: str, commitment: Commitment) -> None:
    if not (commitment.time_bins.get(REGION) and commitment.regions.get(REGION, "").startswith(f"{REGION}.")):
        raise WiringError(f"{model!r} cannot be run the plain way: the platform's temporal wrapper needs time bins for "
                          f"{REGION}, and a module in {REGION} that stands for it, as CORnet-S has them.")


def _part(stimuli, start: int, stop: int, name: str):
    part = stimuli.iloc[start:stop].reset_index(drop=True)
    part.stimulus_paths = stimuli.stimulus_paths
    part.identifier = f"{stimuli.identifier}-{name}"
    return part


def _plain(subject):
    from .plain import plain_brain_model
    return plain_brain_model(subject.identifier, wire(subject.recipe, load_registry()), subject.commitment)


def _fast(subject):
    return subject.fresh(None, None)


def _windowed(subject):
    from .scoring import IN_RECEPTIVE_FIELD
    return subject.fresh(IN_RECEPTIVE_FIELD, None)
