"""`wiring pack`: a model as a submission zip that needs nothing of this package."""
from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np

from wiring_plugins import (BatchNorm, Recipe, Registry, Statistics, WeightsRef, WiringError, __version__,
                            decode_statistics, encode_statistics, fingerprint, load_registry, replacing, resolve,
                            to_plain, wire)

from . import rules
from .archive import open_submission
from .platform import platform_folder, taken_names
from .reference import bibtex
from .vendor import EVERYTHING, CannotCarry, Carried, vendor

CARRIED = "wiring_submission.zips.carried"
OWN = ("wiring_plugins", "wiring_submission")
NEVER_REACHED = ("wiring_plugins.delta", "wiring_plugins.weights_io", "wiring_plugins.plugins")
"""What wiring a model imports for trained weights, which a submission keeps in its own file, and for plugins."""

PLATFORM_PROVIDES = frozenset({"numpy", "torch", "torchvision", "scipy", "sklearn", "pandas", "xarray", "PIL", "psutil",
                               "cv2", "h5py", "tqdm", "yaml", "brainscore_vision", "brainscore_core"})
"""Top-level packages that come with brainscore-vision, so that requirements.txt need not name them."""

UNITS = 16
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every entry: a zip that differs from another only in its date should not differ."""

HOSTED_ABOVE = 45 << 20
"""Bytes of weights above which they cannot go into the zip, of which the site takes 50 MiB in all."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One packed model. size: of the zip, in bytes. tensors: how many are stored; the others are drawn again."""

    name: str
    identifier: str
    path: Path
    size: int
    tensors: int


def pack(name: str, path: str | Path | None = None, *, registry: Registry | None = None, identifier: str | None = None,
         hosted: str | None = None) -> Packed:
    """Write the submission zip of the recipe `name` to `path` (`IDENTIFIER.zip` here if None).

    Equal models give equal bytes. The zip is checked against every rule before it takes its place.

    identifier: what the platform is to call the model; made from its name if None.
    hosted: URL at which the file that :func:`stored_weights` writes lies in the platform's storage; then the zip holds
        its checksum instead of the file.

    Raises:
        UnknownName: there is no such recipe. WiringError: the model cannot be packed, or the zip not be written.
    """
    if platform_folder() is None:
        raise WiringError("Packing records the model with the package brainscore-vision, which is not installed for "
                          "this Python. It runs on Python 3.11: `pip install wiring-plugins` in such an environment.")
    registry = registry or load_registry()
    recipe = resolve(name, registry)
    identifier = identify(recipe, identifier)
    path = Path(path or f"{identifier}.zip")
    with _early(path) as part:
        model = _Model.build(recipe, registry)
        files = _plugin_files(model, identifier, hosted)
        write_zip(part, identifier, files)
        _refuse_broken(part, name)
    return Packed(name=name, identifier=identifier, path=path, size=path.stat().st_size, tensors=len(model.stored))


def stored_weights(name: str, path: str | Path, *, registry: Registry | None = None) -> str:
    """Write the tensors of recipe `name` that wiring alone does not give to a file, and return its SHA-256 (hex)."""
    registry = registry or load_registry()
    with _early(Path(path)) as part:
        content = _Model.build(resolve(name, registry), registry).weights_file()
        part.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def identify(recipe: Recipe, wanted: str | None = None) -> str:
    """The identifier `wanted`, or the recipe's name in a-z, 0-9 and _; unlike any that the platform holds.

    Raises:
        WiringError: the platform holds it already, or it has other letters.
    """
    identifier = wanted or re.sub(r"[^a-z0-9]+", "_", recipe.name.lower()).strip("_")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", identifier):
        raise WiringError(f"{identifier!r} is no identifier that the platform takes. Use a-z, 0-9 and _, such as "
                          "'wiring_gabor_frozen_v2'.")
    if identifier in taken_names():
        raise WiringError(f"The platform already holds a model or folder {identifier!r}, and its site keeps no "
                          f"revisions. Name another, such as `--identifier {identifier}_v2`.")
    return identifier


@dataclass(frozen=True)
class _Model:
    """A model beside what its recipe alone gives at birth. stored: the tensors in which the two differ."""

    recipe: Recipe
    registry: Registry
    network: object
    stored: Mapping[str, np.ndarray]

    @classmethod
    def build(cls, recipe: Recipe, registry: Registry) -> _Model:
        network = wire(recipe, registry)
        born = wire(_at_birth(recipe), registry).state_dict()
        stored = {name: tensor.numpy() for name, tensor in network.state_dict().items()
                  if not np.array_equal(tensor.numpy(), born[name].numpy())}
        return cls(recipe, registry, network, stored)

    def weights_file(self) -> bytes:
        from safetensors.numpy import save
        return save({name: np.array(values, order="C") for name, values in self.stored.items()})


def _at_birth(recipe: Recipe) -> Recipe:
    """The recipe with nothing measured, borrowed or learned in its normalisations: their numbers are stored."""
    return replace(recipe, weights=WeightsRef(), batch_norm=BatchNorm(statistics="unit"))


def _plugin_files(model: _Model, identifier: str, hosted: str | None) -> dict[str, bytes]:
    """Path in the plugin's folder -> content."""
    recipe, registry = model.recipe, model.registry
    weights = model.weights_file()
    if hosted is None and len(weights) > HOSTED_ABOVE:
        raise WiringError(
            f"{recipe.name} has {len(weights) / 2**20:.0f} MiB of weights that wiring does not give, and the site "
            f"takes zips of 50 MiB. `wiring pack {recipe.name} --weights FILE.safetensors` writes them to a file for "
            "the site's large-file upload; then pack with `--hosted URL`. docs/submitting.md shows the steps.")
    parts, carried, statistics = _parts(recipe, registry)
    commitment = registry.commitment(recipe)
    described = {
        "identifier": identifier,
        "recipe": to_plain(_at_birth(recipe)),
        "commitment": to_plain(commitment),
        "parts": parts,
        "fingerprint": fingerprint(model.network.state_dict()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "hosted": None if hosted is None else _storage_place(hosted, weights),
    }
    files = {path: text.encode() for path, text in {**carried.files, **statistics}.items()}
    files["wiring_plugins/__init__.py"] = f'"""What this model needs of wiring-plugins {__version__}."""\n'.encode()
    files |= {
        "__init__.py": _INIT.format(identifier=identifier, name=recipe.name).encode(),
        "test.py": Path(__file__).with_name("carried").joinpath("test.py").read_bytes(),
        "requirements.txt": _requirements(carried.foreign).encode(),
        "recipe.json": _json(described),
        "expected.json": _json(_expectations(model, identifier)),
        "reference.bib": bibtex(recipe).encode(),
        f"region_layer_map/{identifier}.json": _json(dict(commitment.regions)),
    }
    return files if hosted else {**files, "weights.safetensors": weights}


_INIT = '''"""{name}, made by wiring-plugins: its weights are drawn from a recipe when the model is loaded."""
from brainscore_vision import model_registry

from .model import build

model_registry['{identifier}'] = build
'''


def _parts(recipe: Recipe, registry: Registry) -> tuple[dict, Carried, dict[str, str]]:
    """What the recipe names, as references `module:name`; the sources that hold it; and statistics files, as text."""
    architecture = registry.architecture(recipe.architecture)
    steps = {step for init in recipe.init.values() for step in init.steps()}
    kinds = [registry.initializer(kind) for kind in sorted({step.kind for step in steps})]
    sources = sorted({step.source for step in steps} - {None})
    build = _reference(architecture.build, f"the architecture {architecture.name!r}")
    samples = {kind.name: {"sample": _reference(kind.sample, f"the initialiser {kind.name!r}"),
                           "needs": sorted(kind.needs)} for kind in kinds}
    loads, texts = {}, {}
    for name in sources:
        loaded, file = registry.source(name).load, None
        if isinstance(statistics := loaded(), Statistics):
            loaded, file = decode_statistics, f"statistics/{name}.json"
            texts[file] = encode_statistics(statistics)
        loads[name] = {"load": _reference(loaded, f"the statistics {name!r}"), "file": file}
    parts = {
        "architecture": {"name": architecture.name, "build": build, "layers": to_plain(architecture.layers)},
        "initializers": samples,
        "statistics": loads,
    }
    references = [tuple(reference.split(":")) for reference in
                  (build, *(item["sample"] for item in samples.values()), *(item["load"] for item in loads.values()))]
    own = {*OWN, *(module.split(".")[0] for module, _ in references)}
    place = {f"{CARRIED}.{module}": module for module in ("model", "tensors", "gratings")}
    roots = [(f"{CARRIED}.model", EVERYTHING), (f"{CARRIED}.gratings", EVERYTHING), *references]
    return parts, vendor(roots, own=own, place=place, leave=NEVER_REACHED), texts


def _reference(definition, owner: str) -> str:
    """`module:name` of a function or class at the top level of its module."""
    module, name = getattr(definition, "__module__", None), getattr(definition, "__qualname__", "")
    if module is None or not name.isidentifier():
        raise CannotCarry(f"{owner.capitalize()} is made by {definition!r}, which has no name in a module's text, so "
                          "its source cannot be copied into a submission. Define it with `def` or `class` at top "
                          "level.")
    return f"{module}:{name}"


def _requirements(foreign: frozenset[str]) -> str:
    from importlib.metadata import packages_distributions
    wanted = sorted(foreign - PLATFORM_PROVIDES)
    distributions = packages_distributions() if wanted else {}
    names = sorted({distributions.get(package, [package])[0] for package in wanted})
    return "\n".join(["# brainscore-vision brings all else that this model needs", *names]) + "\n"


def _expectations(model: _Model, identifier: str) -> dict:
    """What `test.py` compares: for each region the sizes, and a few activations on its image."""
    from .expectations import expectations
    commitment = model.registry.commitment(model.recipe)
    return {"identifier": identifier, "regions": expectations(identifier, model.network, commitment, units=UNITS)}


def _storage_place(url: str, weights: bytes) -> dict[str, str]:
    """The arguments of the platform's `load_weight_file` for the URL that its large-file upload gives."""
    parsed = urlparse(url)
    bucket, separator, _ = (parsed.hostname or "").partition(".s3")
    folder, _, file = parsed.path.strip("/").rpartition("/")
    version = parse_qs(parsed.query).get("versionId", [""])[0]
    if not (separator and bucket and folder and file and version):
        raise WiringError(f"{url!r} is no address of the platform's storage. Give the one that the site shows after "
                          "the upload: https://BUCKET.s3.amazonaws.com/FOLDER/FILE?versionId=VERSION.")
    return {"bucket": bucket, "folder_name": folder, "relative_path": file, "version_id": version,
            "sha1": hashlib.sha1(weights).hexdigest()}


def _json(value) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_zip(path: Path, identifier: str, files: Mapping[str, bytes]) -> None:
    """The files as a plugin in a submission: folders with entries of their own, sorted, undated and uncompressed.

    Uncompressed, because compression differs between versions of zlib, and most of the bytes are random numbers.
    """
    top = f"{identifier}/models/{identifier}"
    entries = {f"{top}/{file}": content for file, content in files.items()}
    folders = {f"{parent.as_posix()}/" for entry in entries for parent in Path(entry).parents if parent.parts}
    entries |= dict.fromkeys(folders, b"")
    with zipfile.ZipFile(path, "w") as target:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3  # Unix, on every machine
            info.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
            target.writestr(info, entries[name])


def _refuse_broken(path: Path, name: str) -> None:
    """Hold our own zip to the rules that anybody's has to keep."""
    with open_submission(path) as submission:
        broken = [finding for finding in rules.check(submission) if not finding.rule.advice]
    if broken:
        finding = broken[0]
        raise WiringError(f"{name} cannot be submitted as it is (rule {finding.rule.number}, {finding.found[0]}): "
                          f"{finding.rule.reason} {finding.rule.fix}")


@contextmanager
def _early(path: Path) -> Iterator[Path]:
    """:func:`wiring_plugins.files.replacing`, which tries at once, not after the work, whether it can write."""
    if path.is_dir():
        raise WiringError(f"{path} is a folder. Give the path of a file, such as {path / 'model.zip'}.")
    with replacing(path) as part:
        part.touch()
        yield part
