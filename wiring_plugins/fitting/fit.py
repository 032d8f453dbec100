"""`wiring fit`: a small statistics file from a trained network's weights."""
import fnmatch
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np

from ..errors import CorruptFile, UnknownName, WiringError
from ..hookspecs import hookimpl
from ..statistics.types import (Distribution, KernelNormals, LayerStatistics, Normal, NormStatistics, Statistics)
from .threads import single_threaded

FAMILIES = ("norm", "laplace", "logistic", "hypsecant", "uniform", "gumbel_l", "gumbel_r", "t", "gennorm")
"""Distributions of `scipy.stats` that are tried for a layer; those that people have found weights to follow."""

MIXTURE_SAMPLE = 4000
"""Slices that a mixture over slices is fitted to."""

EIGENVALUE_SAMPLE = 100_000
"""Slices whose eigenvalues are computed."""

WHOLE_KERNELS = 256
"""Weights of the largest kernels that a mixture over whole kernels is fitted to."""


@single_threaded
def fit_statistics(path: Path, *, layers: tuple[str, ...] = (), k: Mapping[str, int] | None = None,
                   reference_k: bool = False, components: int | None = None, name: str | None = None,
                   pictures: dict | None = None,
                   progress: Callable[[str, float], None] = lambda what, share: None) -> Statistics:
    """Fit every chosen layer of the checkpoint at `path`.

    One thread does all arithmetic, and every random choice is seeded: the same file gives the same bits on one machine.
    Elsewhere other arithmetic units may round differently, and numbers agree to about 1e-3 of the weights' deviation.

    Args:
        layers: names or patterns, the network's own or CORnet-S's; if empty, those that stand for CORnet-S's areas, or
            else all.
        k: clusters for a layer, by its own or its CORnet-S name; chosen by the criterion where none is given.
        reference_k: in layers that stand for CORnet-S's and that `k` does not name, as many as in the reference work.
        components: of the Gabor prior; chosen by BIC if None.
        pictures: receives layer -> (filters, fits) of the layers that Gabors were fitted to.

    Raises:
        WiringError: see :mod:`.checkpoints`, :mod:`.clusters` and :mod:`.mixtures`; or `components` or `pictures` are
            asked for where no Gabors are fitted. UnknownName: no such layer.
    """
    from ..statistics.files import sha256
    from .checkpoints import CORNET, check_cornet, layer_weights, layout_of, read_arrays

    path = Path(path)
    arrays = read_arrays(path)
    layout = layout_of(arrays)
    if layout is CORNET and not layers:
        check_cornet(arrays, path)
    weights = layer_weights(arrays, layout)
    norms = {key.removesuffix(".running_mean") for key in arrays if key.endswith(".running_mean")}
    chosen = _choose(layers, [*weights, *sorted(norms)], layout, path)
    convolutions = [layer for layer in chosen if layer in weights and weights[layer].ndim == 4]
    clusters = _clusters_for(convolutions, k or {}, reference_k, layout, path)
    seeing = [layer for layer in chosen if layer in weights and _sees_images(weights[layer])]
    if (components or pictures is not None) and not seeing:
        raise WiringError("Gabors are fitted to layers with square kernels of 5x5 or more on up to 4 channels, and none "
                          f"of these layers of {path} is one. Leave --components and --picture out.")
    fitted = {}
    for done, layer in enumerate(chosen):
        progress(layer, done / len(chosen))
        if layer in norms:
            fitted[layer] = _fit_norm(layer, arrays, path)
            continue
        fitted[layer], drawn = _fit_layer(weights[layer], clusters.get(layer), components)
        if pictures is not None and drawn is not None:
            pictures[layer] = weights[layer], drawn
    progress("done", 1.0)
    areas = {area: layer for area, layer in layout.stand_ins.items() if layer in fitted}
    counts = ["reference"] * reference_k + [f"{named}={count}" for named, count in (k or {}).items()]
    options = {"--layers": layers, "-k": counts, "--components": [components] if components else [],
               "--name": [name] if name else []}
    return Statistics(fitted, areas=areas, provenance=_provenance(path, layout, sha256(path), fitted, name, options))


def _choose(patterns: tuple[str, ...], names: list[str], layout, path: Path) -> list[str]:
    if not names:
        raise CorruptFile(f"{path} holds no convolution, linear or normalisation layer. Its arrays need 4, 2 or 1 "
                          "dimensions, and names such as 'conv1.weight'.")
    if not patterns and layout.areas:
        if missing := [name for name in layout.areas.values() if name not in names]:
            raise CorruptFile(f"{path} looks like a {layout.name} but lacks {', '.join(missing[:3])}. Name the layers "
                              "to be fitted with --layers, or give a whole checkpoint.")
        return [*layout.areas.values(), *(name for name in dict.fromkeys(layout.norms.values()) if name in names)]
    chosen = []
    for pattern in patterns or ("*",):
        found = {layer for name, layer in (*zip(names, names), *layout.stand_ins.items())
                 if name == pattern or fnmatch.fnmatchcase(name, pattern)}.intersection(names)
        if not found:
            raise UnknownName("layer", pattern, [*names, *layout.stand_ins], owner=str(path))
        chosen += [name for name in names if name in found and name not in chosen]
    return chosen


def _clusters_for(convolutions: list[str], k: Mapping[str, int], reference: bool, layout,
                  path: Path) -> dict[str, int]:
    """Layer -> clusters, for those of the convolutions whose number is given."""
    from ..architectures.cornet_s import CORNET_S
    from .clusters import REFERENCE_K
    named = {layer: layer for layer in convolutions} | {
        area: layer for area, layer in layout.areas.items() if layer in convolutions}
    wanted = {named[area]: REFERENCE_K.get(area, 2) for area in CORNET_S.weight_layers() if area in named and reference}
    if reference and not wanted:
        raise WiringError(f"No layer of {path} that is fitted stands for one of CORnet-S's, so '-k reference' says "
                          "nothing. Write LAYER=NUMBER.")
    for name, count in k.items():
        if name not in named:
            raise UnknownName("convolution", name, named, owner=f"what is fitted of {path}, for which -k asks")
        wanted[named[name]] = count
    return wanted


def _sees_images(weights: np.ndarray) -> bool:
    """Whether Gabors are fitted to a layer of these weights."""
    return weights.ndim == 4 and weights.shape[1] <= 4 and weights.shape[2] == weights.shape[3] >= 5


def _fit_layer(weights: np.ndarray, k: int | None,
               components: int | None) -> tuple[LayerStatistics, np.ndarray | None]:
    """All that is fitted to one layer, and its Gabor fits as pictures, if there are any."""
    from .clusters import fit_clusters
    from .gabor_fit import fit_gabors
    from .mixtures import fit_gabor_prior, fit_mixture

    flat, pictures = weights.reshape(len(weights), -1).astype(np.float64), None
    mean, std = flat.mean(axis=1).astype(np.float32), flat.std(axis=1).astype(np.float32)
    parts = dict(normal=_normal(flat), distribution=fit_distribution(flat), kernels=KernelNormals(mean=mean, std=std))
    if weights.ndim == 4:
        outputs, inputs, height, width = weights.shape
        parts["clusters"] = fit_clusters(weights, k=k)
        slices = _sampled(weights.reshape(-1, height * width), MIXTURE_SAMPLE)
        if len(slices) > 1:
            parts["slices"] = fit_mixture(slices, starts=1, diagonal=height * width > 25)
        if outputs > 1 and flat.shape[1] <= WHOLE_KERNELS:
            parts["whole_kernels"] = fit_mixture(flat, diagonal=True)
        if height == width > 1:
            parts["eigenvalue"] = _normal(largest_eigenvalues(
                _sampled(weights.reshape(-1, height, width), EIGENVALUE_SAMPLE)))
        if _sees_images(weights):
            fits, pictures = fit_gabors(weights)
            parts["gabors"] = fits
            alive = fits.r2.max(axis=1) > 0
            if alive.sum() > 1 or components:
                parts["gabor_prior"] = fit_gabor_prior(fits.table[alive], height, components=components)
    return LayerStatistics(shape=weights.shape, **parts), pictures


def _sampled(items: np.ndarray, most: int) -> np.ndarray:
    """All items, or `most` of them, the same for the same number of items, in their order."""
    if len(items) <= most:
        return items
    return items[np.sort(np.random.RandomState(0).choice(len(items), most, replace=False))]


def largest_eigenvalues(slices: np.ndarray) -> np.ndarray:
    """The real part of each square slice's eigenvalue of largest absolute value: (n, k, k) -> (n,)."""
    values = np.linalg.eigvals(slices.astype(np.float64))
    return np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)[:, 0].real


def fit_distribution(kernels: np.ndarray) -> Distribution:
    """The likeliest family for a layer's weights (kernels, weights), and each kernel's location and scale.

    Every family is fitted to 5,000 weights that are standardised by kernel; a kernel's location and scale then follow
    from its mean and standard deviation.
    """
    from scipy import stats

    mean, std = kernels.mean(axis=1), kernels.std(axis=1)
    standard = kernels - mean[:, None]
    standard /= np.where(std > 0, std, 1)[:, None]  # in place, as layers can be large
    standard = standard.reshape(-1)
    standard.sort()
    standard = standard[np.linspace(0, standard.size - 1, min(standard.size, 5000)).astype(int)]
    best, most = ("norm", (), 0.0, 1.0), -math.inf
    for family in FAMILIES if standard.std() > 0 else ():
        *shape, location, scale = getattr(stats, family).fit(standard)
        likelihood = getattr(stats, family).logpdf(standard, *shape, loc=location, scale=scale).sum()
        if np.isfinite(likelihood) and likelihood - len(shape) > most:
            best, most = (family, tuple(shape), location, scale), likelihood - len(shape)
    family, shape, location, scale = best
    whole_mean, whole_std = kernels.mean(), kernels.std()
    return Distribution(
        family=family, shape=np.array(shape, dtype=np.float32),
        layer=np.array([whole_mean + location * whole_std, scale * whole_std], dtype=np.float32),
        kernels=np.stack([mean + location * std, scale * std], axis=1).astype(np.float32))


def _fit_norm(layer: str, arrays: Mapping[str, np.ndarray], path: Path) -> LayerStatistics:
    try:
        gamma, beta, mean, var = (arrays[f"{layer}.{part}"].astype(np.float32)
                                  for part in ("weight", "bias", "running_mean", "running_var"))
    except KeyError as error:
        raise CorruptFile(f"{path} lacks {error.args[0]}, which its normalisation {layer} needs. Name the layers to be "
                          "fitted with --layers, without this one.") from None
    if not gamma.shape == beta.shape == mean.shape == var.shape:
        raise CorruptFile(f"{path}: the parts of normalisation {layer} have different shapes.")
    return LayerStatistics(shape=gamma.shape, norm=NormStatistics(
        gamma=_normal(gamma), beta=_normal(beta), running_mean=mean, running_var=var))


def _normal(values: np.ndarray) -> Normal:
    mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    return Normal(mean=float(np.float32(mean)), std=float(np.float32(std)))


def _provenance(path: Path, layout, checksum: str, fitted: Mapping, name: str | None, options: Mapping) -> dict:
    """Plain JSON. options: option of the command -> each value that it was given."""
    from .. import __version__
    command = ["wiring", "fit", path.name, *(str(part) for option, values in options.items() for value in values
                                             for part in (option, value)), "-o", "FILE"]
    return {"name": name or path.stem.lower(), "from": path.name, "sha256": checksum, "family": layout.name,
            "program": f"wiring-plugins {__version__}",
            "command": shlex.join(command),
            "numbers": sum(part.numbers() for layer in fitted.values() for part in layer.parts().values())}


def _clusters_wanted(options: list[str]) -> dict[str, int]:
    """Layer -> number, from `LAYER=NUMBER`."""
    wanted = {}
    for option in options:
        layer, equals, count = option.partition("=")
        if not equals or not count.isdecimal() or int(count) < 1:
            raise WiringError(f"{option!r} is no number of clusters. Write LAYER=NUMBER, such as V1.conv2=7, or "
                              "'reference' for those of the reference work.")
        wanted[layer] = int(count)
    return wanted


@hookimpl
def wiring_commands(app):
    import typer

    @app.command()
    def fit(
        checkpoint: Annotated[Path, typer.Argument(help="Trained weights: .safetensors, .pth, .npz or .npy.")],
        output: Annotated[Path, typer.Option("--output", "-o", help="The statistics file to write (.json).")],
        layers: Annotated[list[str], typer.Option(help="Only layers of this name or pattern; may be repeated.")] = [],
        clusters: Annotated[list[str], typer.Option("--clusters", "-k", help="LAYER=NUMBER of clusters, or 'reference' "
                                                    "for the reference work's; may be repeated.")] = [],
        components: Annotated[int, typer.Option(help="Components of the Gabor prior; 0 for the choice by BIC.")] = 0,
        name: Annotated[str, typer.Option(help="Name of the source; that of the checkpoint if left out.")] = "",
        picture: Annotated[Path, typer.Option(help="Also draw the first fitted layer's filters beside their "
                                                      "Gabor fits into this .png.")] = None,
    ) -> None:
        """Fit small distributions to a trained network's weights, for others to be sampled from."""
        from rich.console import Console
        from rich.progress import Progress

        from ..statistics.files import write
        for target in filter(None, (output, picture)):
            if target.is_dir():
                raise WiringError(f"{target} is a folder. Give the path of the file to write.")
            if not target.parent.is_dir():
                raise WiringError(f"There is no folder {target.parent} to write {target.name} into. Make it first.")
        if picture and picture.suffix.lower() != ".png":
            raise WiringError(f"{picture} is no .png. Pictures are written as .png files.")
        paths = [path.resolve() for path in (checkpoint, output, picture) if path]
        if len(set(paths)) < len(paths):
            raise WiringError("Checkpoint, --output and --picture have to be different files: one would replace "
                              "another.")
        pictures = {} if picture else None
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("reading", total=1.0)
            statistics = fit_statistics(
                checkpoint, layers=tuple(layers), components=components or None, name=name or None, pictures=pictures,
                k=_clusters_wanted([option for option in clusters if option != "reference"]),
                reference_k="reference" in clusters,
                progress=lambda what, share: bar.update(task, description=what, completed=share))
        write(statistics, output)
        for layer, found in statistics.layers.items():
            line = ", ".join(f"{part} {value.numbers()}" for part, value in found.parts().items())
            print(f"{layer}: {line}")
            if found.gabors is not None:
                r2 = found.gabors.r2[found.gabors.r2 > 0]
                print(f"  Gabor fit: median R² {np.median(r2) if r2.size else 0:.3f}, least {r2.min(initial=1):.3f}, "
                      f"of {found.gabors.r2.size} slices, {int((found.gabors.r2 == 0).sum())} of them dead")
        print(f"{statistics.provenance['numbers']} numbers in {output}")
        if picture:
            from ..pictures import draw_pairs
            draw_pairs(*next(iter(pictures.values())), picture)
