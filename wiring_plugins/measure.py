"""`wiring bench init` and `wiring bench gabor-fit`: wiring and fitting, side by side with the plain way."""
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np

from .errors import WiringError
from .hookspecs import hookimpl


@hookimpl
def wiring_commands(bench):
    import typer

    @bench.command()
    def init(
        name: Annotated[str, typer.Argument(help="A model whose convolutions are wired from clusters.")] = "wiring-wc",
        repeats: Annotated[int, typer.Option(min=1, help="Times that our way runs; the best counts.")] = 5,
        share: Annotated[float, typer.Option(min=0.001, max=1.0, help="Share of each layer's kernels that the plain "
                                             "loop draws; its time is scaled up.")] = 1.0,
    ) -> None:
        """Wire a model, and time it against one loop over kernels and channels."""
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        from .names import resolve
        from .plugins import load_registry
        if not any(how.kind == "cluster" for how in resolve(name, load_registry()).init.values()):
            raise WiringError(f"No layer of {name!r} is wired from clusters, so the plain loop has nothing to do. Name a "
                              "model of which some are, such as wiring-wc.")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            first, best, peak, weights = fresh.submit(_ours, name, repeats).result()
            plain = fresh.submit(_plain, name, share).result() / share
        print(f"{name}: {weights:,} weights of convolutions and linear layers, on {_cores()} cores")
        print(f"  ours           best {best:6.2f} s of {repeats}, first {first:.2f} s, peak memory {peak:.0f} MB")
        scaled = f" (scaled from {share:.1%} of the kernels)" if share < 1 else ""
        print(f"  plain loop          {plain:6.2f} s{scaled}")
        print(f"  ratio               {plain / best:6.1f}")

    @bench.command("gabor-fit")
    def gabor_fit(
        checkpoint: Annotated[Path, typer.Argument(help="Trained weights whose first convolution is fitted.")],
        plain: Annotated[int, typer.Option(min=1, help="Slices that the plain way fits; its time is scaled up.")] = 4,
    ) -> None:
        """Fit Gabors to a first convolution and to random filters, and time it against scipy, slice by slice."""
        from .fitting.checkpoints import layer_weights, layout_of, read_arrays
        arrays = read_arrays(checkpoint)
        weights = layer_weights(arrays, layout_of(arrays))
        filters = next((array for array in weights.values() if array.ndim == 4 and array.shape[1] == 3), None)
        if filters is None:
            raise WiringError(f"{checkpoint} holds no convolution of three colours. Give that of a network of images.")
        seconds, r2 = _fit(filters)
        _, chance = _fit(np.random.RandomState(0).standard_normal(filters.shape))
        slices = filters.reshape(-1, *filters.shape[2:])
        start = time.perf_counter()
        by_scipy = [_fit_by_scipy(one) for one in slices[:: max(1, len(slices) // plain)][:plain]]
        slow = (time.perf_counter() - start) / len(by_scipy) * len(slices)
        print(f"{len(slices)} slices of {checkpoint.name}")
        print(f"  ours, all at once   {seconds:7.1f} s, median R² {r2:.3f}; random filters {chance:.3f}")
        print(f"  scipy, one by one   {slow:7.1f} s, median R² {np.median(by_scipy):.3f}, scaled from {len(by_scipy)}")
        print(f"  ratio               {slow / seconds:7.1f}")


def _ours(name: str, repeats: int) -> tuple[float, float, float, int]:
    """Seconds of the first and the best drawing of all weights, peak memory of this process in MB, and their number."""
    from .birth import draw_weights
    from .names import resolve
    from .plugins import load_registry
    registry = load_registry()
    recipe, seconds, weights = resolve(name, registry), [], None
    for _ in range(repeats):
        weights = None
        start = time.perf_counter()
        weights = draw_weights(recipe, registry)
        seconds.append(time.perf_counter() - start)
    return seconds[0], min(seconds), _peak(), sum(array.size for array in weights.values())


def _plain(name: str, share: float) -> float:
    """Seconds that a loop over output kernels and input channels takes for the layers that clusters wire."""
    from .names import resolve
    from .plugins import load_registry
    registry = load_registry()
    recipe = resolve(name, registry)
    layers, rng, seconds = registry.architecture(recipe.architecture).weight_layers(), np.random.RandomState(0), 0.0
    for path, how in recipe.init.items():
        if how.kind != "cluster":
            continue
        clusters = registry.load_source(how.source).layer(how.layer or path).clusters
        outputs, inputs, *size = layers[path].shape
        weights = np.zeros((max(1, round(outputs * share)), inputs, *size), dtype=np.float32)
        start = time.perf_counter()
        for kernel in weights:
            counts = rng.normal(clusters.count_mean, clusters.count_std) * inputs / clusters.inputs
            labels = [j for j, count in enumerate(counts) for _ in range(max(0, round(count)))][:inputs]
            labels += [len(counts) - 1] * (inputs - len(labels))
            rng.shuffle(labels)
            for channel, label in enumerate(labels):
                kernel[channel] = clusters.centers[label] + rng.normal(0, clusters.spread[label], size)
        seconds += time.perf_counter() - start
    return seconds


def _peak() -> float:
    import resource
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _cores() -> int:
    import os
    return os.cpu_count() or 1


def _fit(filters: np.ndarray) -> tuple[float, float]:
    from .fitting.gabor_fit import fit_gabors
    start = time.perf_counter()
    fits, _ = fit_gabors(filters)
    return time.perf_counter() - start, float(np.median(fits.r2))


def _fit_by_scipy(target: np.ndarray, starts: int = 10) -> float:
    """R² of the best of several fits of one slice, from random starts inside the bounds that ours has."""
    from scipy.optimize import least_squares

    from .fitting.gabor_fit import Bounds
    from .gabors import GaborParameters, render
    size, rng = len(target), np.random.RandomState(0)
    target = target / target.std()
    bounds = Bounds.of(size)
    low, high = (np.where(np.isfinite(edge), edge, sign * np.pi) for edge, sign in ((bounds.low, -1), (bounds.high, 1)))
    low, high = np.r_[low, -np.pi, 0, -10], np.r_[high, np.pi, 1000, 10]

    def residual(p: np.ndarray) -> np.ndarray:
        f, theta, sigma_x, sigma_y, x, y, phase, scale, offset = p
        one = dict(frequency=f, orientation=theta, sigma_x=sigma_x, sigma_y=sigma_y, x=x, y=y, phase=phase, scale=scale)
        gabor = GaborParameters(**{name: np.full((1, 1), value) for name, value in one.items()})
        return (render(gabor, size, size)[0, 0] + offset - target).ravel()

    begin = (np.r_[rng.uniform(low, high)[:7], 10, 0] for _ in range(starts))
    errors = [2 * least_squares(residual, start, bounds=(low, high), x_scale="jac").cost for start in begin]
    return 1 - min(errors) / target.size / target.var()
