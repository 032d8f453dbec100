"""Trained weights of many makers as arrays by layer."""
from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..architectures.cornet_s import AREAS
from ..errors import CorruptFile, WiringError
from ..recipe import FrozenMapping

LARGEST = 4 << 30
"""Bytes that a checkpoint's arrays may unpack to, in the file's own type and as float32."""

INCEPTIONS = {"V2": ("3a", "3b"), "V4": ("4a", "4e"), "IT": ("5a", "5b")}
"""First and last inception module of each of GoogLeNet's resolutions, which stand for CORnet-S's recurrent areas."""

GOOGLENET_AREAS = {"V1.conv1": "conv1/7x7_s2", "V1.conv2": "conv2/3x3"} | {
    f"{area}.{ours}": f"inception_{module}/{theirs}"
    for area, (first, last) in INCEPTIONS.items() for ours, module, theirs in (
        ("conv_input", first, "3x3_reduce"),  # what enters the area
        ("skip", first, "pool_proj"),  # the way around the 3x3 layer
        ("conv1", last, "3x3_reduce"), ("conv2", last, "3x3"),
        ("conv3", last, "1x1"))}

RESNET_AREAS = {"V1.conv1": "conv1", "V1.conv2": "layer1.0.conv2"} | {
    f"{area}.{ours}": f"{stage}.{theirs}"
    for area, stage in (("V2", "layer2"), ("V4", "layer3"), ("IT", "layer4")) for ours, theirs in (
        ("conv_input", "0.conv1"), ("skip", "0.downsample.0"), ("conv1", "1.conv1"), ("conv2", "1.conv2"),
        ("conv3", "1.conv3"))}

RESNET_NORMS = {"V1.norm1": "bn1", "V1.norm2": "layer1.0.bn2"} | {
    f"{area}.{ours}": f"{stage}.{theirs}"
    for (area, _, _, steps), stage in zip(AREAS, ("layer2", "layer3", "layer4")) for ours, theirs in (
        ("norm_skip", "0.downsample.1"),
        *((f"norm{i}_{step}", f"1.bn{i}") for i in (1, 2, 3) for step in range(steps)))}  # one for all time steps


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a known family of networks names its layers and takes its images.

    areas: CORnet-S layer -> layer of this network that stands for it; only these are fitted if no others are asked for.
    norms: the same for normalisations, which are fitted too where the network has them.
    bgr: the first layer's channels are blue, green, red.
    scale: per channel (red, green, blue), how much one unit of CORnet-S's normalised input is in this network's.
    """

    name: str
    areas: Mapping[str, str] = FrozenMapping()
    norms: Mapping[str, str] = FrozenMapping()
    bgr: bool = False
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def stand_ins(self) -> dict[str, str]:
        """CORnet-S layer of any kind -> layer of this network that stands for it."""
        return {**self.areas, **self.norms}


PLAIN = Layout(name="plain")
CORNET = Layout(name="CORnet-S")
RESNET = Layout(name="torchvision ResNet with bottlenecks", areas=RESNET_AREAS, norms=RESNET_NORMS)
GOOGLENET = Layout(name="BVLC GoogLeNet", areas=GOOGLENET_AREAS, bgr=True, scale=(58.395, 57.12, 57.375))


def layout_of(arrays: Mapping[str, np.ndarray]) -> Layout:
    """The family that names its layers like this."""
    marks = {"conv1/7x7_s2.weight": GOOGLENET, "V1.conv1.weight": CORNET, "layer4.1.conv3.weight": RESNET}
    for mark, known in marks.items():
        if mark in arrays:
            return known
    return PLAIN


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a `.safetensors`, `.pth`, `.npz` or `.npy` file by name, float32; nothing in it is executed.

    Raises:
        WiringError: there is no such file. CorruptFile: it cannot be read, or holds or unpacks to what weights are not.
    """
    path = Path(path)
    if not path.is_file():
        raise WiringError(f"There is no checkpoint {path}. Give a .safetensors, .pth, .npz or .npy file.")
    arrays = _of_numpy(path) if path.suffix.lower() in (".npz", ".npy") else _of_torch(path)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise CorruptFile(f"{path}: {name} has the type {array.dtype}, where weights are numbers.")
        with np.errstate(over="ignore"):
            arrays[name] = array.astype(np.float32, copy=False)
        if not np.isfinite(arrays[name]).all():
            raise CorruptFile(f"{path}: {name} holds NaN or infinity, as float32. Fit a checkpoint from before the "
                              "training broke.")
    return arrays


def _of_torch(path: Path) -> dict[str, np.ndarray]:
    import torch

    from ..weights_io import read_state
    _refuse_bombs(path)
    state = read_state(path)
    _refuse_size(sum(4 * tensor.numel() for tensor in state.values()), path)  # a tensor may repeat what is stored once
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise CorruptFile(f"{path}: {name} is sparse, quantised or complex. Save plain, real numbers.")
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}


def _of_numpy(path: Path) -> dict[str, np.ndarray]:
    _refuse_bombs(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            loaded = contextlib.nullcontext({path.stem: loaded})
        with loaded as members:
            arrays = dict(members)
    except Exception as error:  # numpy and zipfile raise many things over a damaged file
        raise CorruptFile(f"{path} cannot be read as arrays ({type(error).__name__}: {error}). It may be truncated, or "
                          "hold Python objects, which are refused; get it again, or save arrays alone.") from error
    _refuse_size(sum(4 * array.size for array in arrays.values()), path)  # a file's bytes may become four each
    return arrays


def _refuse_bombs(path: Path) -> None:
    """Raises CorruptFile if the file, or what its zip archive says that it unpacks to, is too large."""
    size = path.stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(member.file_size for member in archive.infolist()))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise CorruptFile(f"{path} cannot be read as an archive ({error}). It may be damaged; get it again.") from error
    _refuse_size(size, path)


def _refuse_size(size: int, path: Path) -> None:
    if size > LARGEST:
        raise CorruptFile(f"{path} would unpack to {size / 2 ** 30:.1f} GiB; {LARGEST >> 30} GiB is the most.")


def layer_weights(arrays: Mapping[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """Weights of convolutions and linear layers; the first layer in red, green, blue and CORnet-S's input unit."""
    weights = {name.removesuffix(".weight"): array for name, array in arrays.items()
               if array.ndim in (2, 4) and not name.endswith(".bias")}
    for name, array in weights.items():
        if array.size == 0:
            raise CorruptFile(f"Layer {name} of shape {array.shape} holds no weights.")
    if layout.bgr:
        first = layout.areas["V1.conv1"]
        if weights[first].shape[1] != 3:
            raise CorruptFile(f"Layer {first} of a {layout.name} has 3 input channels, not {weights[first].shape[1]}.")
        weights[first] = weights[first][:, ::-1] * np.reshape(layout.scale, (1, 3, 1, 1)).astype(np.float32)
    return weights


def check_cornet(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raises CorruptFile unless every layer of CORnet-S is there, nothing else is, and all have their shapes."""
    from ..architectures.cornet_s import CORNET_S
    expected = {layer.path: layer.shape for layer in CORNET_S.layers}
    given = {name.removesuffix(".weight"): array.shape for name, array in arrays.items() if name.endswith(".weight")}
    misshapen = {name for name in expected.keys() & given.keys() if expected[name] != given[name]}
    for problem, names in (("lacks", expected.keys() - given.keys()),
                           ("has the unexpected", given.keys() - expected.keys()),
                           ("has the wrong shape of", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CorruptFile(f"{path} is no whole CORnet-S: it {problem} {', '.join(sorted(names)[:3])}{more}. Name "
                              "the layers to be fitted with --layers, or give a whole checkpoint.")
