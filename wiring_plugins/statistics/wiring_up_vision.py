"""The distribution parameters that the reference work published. They do not ship: they are imported or fetched."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..errors import CorruptFile, DataUnavailable, WiringError
from .files import sha256
from .pickles import read_plain_pickle
from .types import Clusters, GaborFits, LayerStatistics, Statistics, canonical

NAME = "wiring-up-vision"
URL = "https://raw.githubusercontent.com/franzigeiger/training_reductions/HEAD/pretrained/"
REFERENCE = "Geiger, Schrimpf, Marques & DiCarlo, ICLR 2022; github.com/franzigeiger/training_reductions (MIT)"

GABOR_FILE = "gm_gabor_V1.conv1.npy"
SHA256 = {
    "cluster_IT.conv1.pkl": "42e528403d3bf15e3b92129265b9c94b4276dcbf15d928ca407085fca7515ea7",
    "cluster_IT.conv2.pkl": "d10360a91916723fab3d27bd16ed3c1e6dc517aa52017c123f304707bd03f2ff",
    "cluster_IT.conv3.pkl": "fe02f04df0c1fc3625cbff131e7272865152244a84a0d833fbedae086d979992",
    "cluster_IT.conv_input.pkl": "63199a0af6326eac4c41b30250f6487d92bde08c7a033f767212d8b2903fde90",
    "cluster_IT.skip.pkl": "dc1d7e540dd0c0f5e6dd29ba659a9c32e873359e14a66704a0de1ea6dbac3f6c",
    "cluster_V1.conv1.pkl": "ff4ea1c1ce6245f17f19d3e836f71fbeb8b1065e73378153d97ef14fdc83f061",
    "cluster_V1.conv2.pkl": "783f343de3360f1a69354f8b89417da61c84ca8bfbf6ad3c0379a2be014f6ff8",
    "cluster_V2.conv1.pkl": "c7bc2a095b4fd943996c2ed51abed5552604b9fbfd9aee22c4aaae96603002aa",
    "cluster_V2.conv2.pkl": "e853cc92c4e550fe148602e5d72c003cfee0db7067606bee30c51563f89d17fc",
    "cluster_V2.conv3.pkl": "00b1a3eab53278bc03abf00da10303c64df86ed2d4a288258bf28440a1645105",
    "cluster_V2.conv_input.pkl": "ea488bbba5801f284d0d203622d4d965df9f05866ceb79b2bc8022c4a7575e5b",
    "cluster_V2.skip.pkl": "d06a360f46beda1d91bc4ca422545f2681c3e2a84477bd7dd2f8692289c1e17d",
    "cluster_V4.conv1.pkl": "ef76e2b0283229c7caee9eba79fae61f4225e967c758b0eaf0412916d26bb206",
    "cluster_V4.conv2.pkl": "847a6c42aa0a77a699407bf9f0d6221bd5a5922cef1dad84f47c2b7ed80415b4",
    "cluster_V4.conv3.pkl": "e6ed3dd16a6fdfc9fd38c57410a68e417b14b28b3922d15d31dad93070b7e8ca",
    "cluster_V4.conv_input.pkl": "3b988f9b7105e36e21121fc61bee9753b0716a9228f9614ada994ace13eff051",
    "cluster_V4.skip.pkl": "9955330e13344d7566661e41c131634e67fb8a9f62799a2b0346b375aed56a5d",
    GABOR_FILE: "e3bea2b9ec9f40360676bbcd04c6abd0a25dbd053791826267c5abb74d12ab5e",
}
"""The published files, pinned: what has another sum is refused, wherever it comes from."""

NORMAL_SPLIT = math.sqrt((1 - 2 / math.pi) / (2 / math.pi))
"""Standard deviation of each half of a normal distribution over that half's distance from the middle."""


def convert(folder: Path) -> Statistics:
    """The published parameters in `folder` as statistics by CORnet-S's layer names.

    The files give the 1x1 layers' two clusters no spread, which leaves two distinct weights. Here such clusters get the
    spread that the halves of a normal distribution have (:data:`NORMAL_SPLIT` times half their distance);
    `Init("cluster", params={"faithful": True})` takes it away again. The Gabor table has lost its amplitudes (both
    sides of that fit were normalised), so an amplitude of it says nothing of the filter's contrast.

    Raises:
        WiringError: a file is missing. CorruptFile: a file has another checksum, or does not hold what it should.
    """
    folder = Path(folder)
    if missing := [name for name in SHA256 if not (folder / name).is_file()]:
        raise WiringError(f"{folder} lacks {', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''}. Give the "
                          "folder `pretrained` of github.com/franzigeiger/training_reductions.")
    for name, expected in SHA256.items():
        if (found := sha256(folder / name)) != expected:
            raise CorruptFile(f"{folder / name} has the SHA-256 sum {found[:12]}… where {expected[:12]}… was "
                              "published. It was altered or damaged; get it again. Nothing was imported.")
    layers = {}
    for name in SHA256:
        if name != GABOR_FILE:
            path = name.removeprefix("cluster_").removesuffix(".pkl")
            clusters = clusters_of(read_plain_pickle(folder / name), name)
            layers[path] = LayerStatistics(shape=_shape(path), clusters=clusters)
    first = layers["V1.conv1"]
    layers["V1.conv1"] = _with_gabors(first, np.load(folder / GABOR_FILE, allow_pickle=False))
    return Statistics(layers, provenance={
        "name": NAME, "doc": "CORnet-S as trained by the reference work: its published clusters and Gabor fits.",
        "reference": REFERENCE, "from": URL, "sha256": SHA256,
        "changed": "1x1 clusters get the spread of a halved normal distribution; Gabor mixture fitted here by BIC."})


def clusters_of(content: object, name: str) -> Clusters:
    """The published dict {mean, std, weight_stds, components, centers} of one layer.

    Raises:
        CorruptFile: it is no such dict.
    """
    try:
        centers = np.asarray(content["centers"], dtype=np.float32)[0]
        mean, std, spread = (np.asarray(content[key], dtype=np.float32) for key in ("mean", "std", "weight_stds"))
        inputs = round(float(mean.sum(dtype=np.float64)))
        if centers.shape[1:] == (1, 1) and len(centers) == 2 and not spread.any():
            spread = np.full(2, NORMAL_SPLIT * abs(float(centers[0, 0, 0]) - float(centers[1, 0, 0])) / 2, np.float32)
        return Clusters(centers=centers, count_mean=mean, count_std=std, spread=spread, inputs=inputs)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CorruptFile(f"{name} holds no cluster parameters ({type(error).__name__}: {error}).") from error


def _shape(path: str) -> tuple[int, ...]:
    from ..architectures.cornet_s import CORNET_S
    return CORNET_S.weight_layers()[path].shape


def _with_gabors(layer: LayerStatistics, published: np.ndarray) -> LayerStatistics:
    """Add the table of fits, without its ninth column (an error on slices scaled to 0..1), and the mixture of them."""
    from dataclasses import replace

    from ..fitting.mixtures import fit_gabor_prior
    table = canonical(published[:, :, :8])
    return replace(layer, gabors=GaborFits(table=table.astype(np.float32), size=7),
                   gabor_prior=fit_gabor_prior(table, 7))


def fetch(folder: Path, *, timeout: float = 30.0) -> None:
    """Download the published files into `folder`.

    Raises:
        DataUnavailable: the network or the repository cannot be reached.
    """
    from http.client import HTTPException
    from urllib.request import urlopen
    for name in SHA256:
        try:
            with urlopen(URL + name, timeout=timeout) as answer:
                content = answer.read(1 << 20)
        except (OSError, HTTPException) as error:
            raise DataUnavailable(
                f"{URL}{name} cannot be reached ({getattr(error, 'reason', error)}). Nothing was stored. Try again with "
                "a network, or copy the repository's folder `pretrained` here and type "
                "`wiring statistics import FOLDER`.") from error
        (Path(folder) / name).write_bytes(content)
