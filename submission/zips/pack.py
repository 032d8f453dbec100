"""`wiring pack`: a model as a submission zip that needs nothing of this package."""
from __future__ import annotations

import hashlib
import json
import re
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np

from wiring_plugins import (BatchNorm, Recipe, Registry, Statistics, WeightsRef, WiringError, __version__,
                            decode_statistics, encode_statistics, fingerprint, load_registry, replacing,
                            require_writable, resolve, to_plain, wire)

from . import rules
from .archive import open_submission
from .platform import platform_folder, taken_names
from .rebuild import refuse_another
from .reference import bibtex
from .vendor import EVERYTHING, CannotCarry, Carried, Name, vendor

CARRIED = "wiring_submission.zips.carried"
OWN = ("wiring_plugins", "wiring_submission")

PLATFORM_PROVIDES = frozenset({"numpy", "torch", "torchvision", "scipy", "sklearn", "pandas", "xarray", "PIL", "psutil",
                               "cv2", "h5py", "tqdm", "yaml", "brainscore_vision", "brainscore_core"})
"""Top-level packages that come with brainscore-vision, so that requirements.txt need not name them."""

UNITS = 16
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every entry: a zip that differs from another only in its date should not differ."""

LONGEST = 100
"""Letters of an identifier. It names a folder twice, files and a database's entry, and grows a suffix in each."""

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
                          "this Python. It runs on Python 3.11: install this package for that.")
    registry = registry or load_registry()
    recipe = resolve(name, registry)
    identifier = identify(recipe, identifier)
    path = Path(path or f"{identifier}.zip")
    place = _storage_place(hosted) if hosted else None
    require_writable(path)
    model = _Model.build(recipe, registry)
    files = _plugin_files(model, identifier)
    refuse_another(files, fingerprint(model.network.state_dict()), name)
    if place:
        weights = files.pop("weights.safetensors")
        files["hosted.json"] = _json({**place, "sha1": hashlib.sha1(weights).hexdigest()})
    elif len(files["weights.safetensors"]) > HOSTED_ABOVE:
        raise _too_large(name, files["weights.safetensors"])
    with replacing(path) as part:
        write_zip(part, identifier, files)
        _refuse_broken(part, name)
    return Packed(name=name, identifier=identifier, path=path, size=path.stat().st_size, tensors=len(model.stored))


def stored_weights(name: str, path: str | Path, *, registry: Registry | None = None) -> str:
    """Write the tensors of recipe `name` that wiring alone does not give to a file, and return its SHA-256 (hex)."""
    registry = registry or load_registry()
    recipe = resolve(name, registry)
    require_writable(path)
    content = _Model.build(recipe, registry).weights_file()
    with replacing(path) as part:
        part.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def identify(recipe: Recipe, wanted: str | None = None) -> str:
    """The identifier `wanted`, or the recipe's name in a-z, 0-9 and _; unlike any that the platform holds.

    Raises:
        WiringError: the platform holds it already, or it has other letters.
    """
    name = recipe.name.removesuffix(".safetensors").lower()
    identifier = wanted or re.sub(r"[^a-z0-9]+", "_", name).strip("_")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", identifier) or len(identifier) > LONGEST:
        raise WiringError(f"{identifier!r} is no identifier that the platform takes. Give another with --identifier: "
                          f"at most {LONGEST} of a-z, 0-9 and _, such as 'wiring_gabor_frozen_v2'.")
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
                  if tensor.numpy().tobytes() != born[name].numpy().tobytes()}  # -0 is another number than 0
        return cls(recipe, registry, network, stored)

    def weights_file(self) -> bytes:
        from safetensors.numpy import save
        return save({name: np.array(values, order="C") for name, values in self.stored.items()})


def _at_birth(recipe: Recipe) -> Recipe:
    """The recipe with nothing measured, borrowed or learned in its normalisations: their numbers are stored."""
    return replace(recipe, weights=WeightsRef(), batch_norm=BatchNorm(statistics="unit"))


def _plugin_files(model: _Model, identifier: str) -> dict[str, bytes]:
    """Path in the plugin's folder -> content."""
    recipe, registry = model.recipe, model.registry
    weights = model.weights_file()
    parts, carried, statistics = _parts(recipe, registry)
    commitment = registry.commitment(recipe)
    described = {
        "identifier": identifier,
        "recipe": to_plain(_at_birth(recipe)),
        "commitment": to_plain(commitment),
        "parts": parts,
        "fingerprint": fingerprint(model.network.state_dict()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    files = {path: text.encode() for path, text in {**carried.files, **statistics}.items()}
    files["wiring_plugins/__init__.py"] = _COPIES.format(version=__version__).encode()
    return files | {
        "__init__.py": _INIT.format(identifier=identifier, name=recipe.name.partition("@")[0]).encode(),
        "test.py": Path(__file__).with_name("carried").joinpath("test.py").read_bytes(),
        "requirements.txt": _requirements(carried.foreign).encode(),
        "recipe.json": _json(described),
        "expected.json": _json(_expectations(model, identifier)),
        "reference.bib": bibtex(recipe).encode(),
        f"region_layer_map/{identifier}.json": _json(dict(commitment.regions)),
        "weights.safetensors": weights,
    }


_COPIES = '''"""What this model needs of wiring-plugins {version}.

MIT licence, copyright (c) 2026 The wiring-plugins developers: whoever passes these files on passes on this notice.
"""
'''

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
    build = _definition(architecture.build, f"the architecture {architecture.name!r}")
    samples = {kind.name: _definition(kind.sample, f"the initialiser {kind.name!r}") for kind in kinds}
    loads, texts = {}, {}
    for name in sources:
        loaded, file = registry.source(name).load, None
        if isinstance(statistics := loaded(), Statistics):
            loaded, file = decode_statistics, f"statistics/{name}.json"
            texts[file] = encode_statistics(statistics)
        loads[name] = _definition(loaded, f"the statistics {name!r}"), file
    parts = {
        "architecture": {"name": architecture.name, "build": _reference(build),
                         "layers": to_plain(architecture.layers)},
        "initializers": {kind.name: {"sample": _reference(samples[kind.name]), "needs": sorted(kind.needs)}
                         for kind in kinds},
        "statistics": {name: {"load": _reference(load), "file": file} for name, (load, file) in loads.items()},
    }
    named = [name for name in (build, *samples.values(), *(load for load, _ in loads.values())) if _is_copied(name)]
    own = {*OWN, *(module.split(".")[0] for module, _ in named)}
    place = {f"{CARRIED}.{module}": module for module in ("model", "tensors", "gratings")}
    roots = [(f"{CARRIED}.model", EVERYTHING), (f"{CARRIED}.gratings", EVERYTHING), *named]
    return parts, vendor(roots, own=own, place=place), texts


def _definition(found, owner: str) -> Name:
    """The module of a function or class and its name there."""
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
    if module is None or not name.isidentifier():
        raise CannotCarry(f"{owner.capitalize()} is made by {found!r}, which has no name in a module's text, so "
                          "its source cannot be copied into a submission. Define it with `def` or `class` at top "
                          "level.")
    return module, name


def _is_copied(definition: Name) -> bool:
    """Whether the submission needs a copy: the platform brings its own packages, such as torchvision."""
    return definition[0].split(".")[0] not in PLATFORM_PROVIDES


def _reference(definition: Name) -> str:
    """`module:name` as the submission imports it: copies relatively, with a dot before them."""
    return f"{'.' if _is_copied(definition) else ''}{':'.join(definition)}"


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


def _too_large(name: str, weights: bytes) -> WiringError:
    return WiringError(
        f"{name} has {len(weights) / 2**20:.0f} MiB of weights that wiring does not give, and the site takes zips of "
        f"50 MiB. `wiring pack {shlex.quote(name)} --weights FILE.safetensors` writes them to a file for the site's "
        "large-file upload; then pack with `--hosted URL`. docs/submitting.md shows the steps.")


def _storage_place(url: str) -> dict[str, str]:
    """Where the URL that the site's large-file upload gives is, as the platform's `load_weight_file` takes it."""
    parsed = urlparse(url)
    bucket, separator, _ = (parsed.hostname or "").partition(".s3")
    folder, _, file = unquote(parsed.path).strip("/").rpartition("/")
    version = parse_qs(parsed.query).get("versionId", [""])[0]
    if not (separator and bucket and folder and file and version):
        raise WiringError(f"{url!r} is no address of the platform's storage. Give the one that the site shows after "
                          "the upload: https://BUCKET.s3.amazonaws.com/FOLDER/FILE?versionId=VERSION.")
    return {"bucket": bucket, "folder_name": folder, "relative_path": file, "version_id": version}


def _json(value) -> bytes:
    try:
        return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    except TypeError as error:
        raise CannotCarry(f"{error}, and a submission keeps its recipe as JSON. Give params as plain numbers, texts "
                          "and lists.") from error


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
