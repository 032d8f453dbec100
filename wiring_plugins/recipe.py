"""What a model is, as plain data: a recipe, an architecture, and their parts. Imports neither torch nor numpy."""
from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy
    import torch


class FrozenMapping(Mapping):
    """A hashable mapping that cannot be changed. `{**mapping, "V1.conv1": ...}` makes a changed copy."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping | None = None):
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenMapping({key: _freeze(item) for key, item in value.items()})
    return tuple(map(_freeze, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Init:
    """How one layer's weights begin: the initialiser `kind`, the statistics `source` it draws from, its parameters.

    `layer` names the layer of the source whose statistics are used; the target layer's own path if None.
    `base` draws the weights that a perturbation, such as 'permute', alters.
    """

    kind: str
    _: KW_ONLY
    source: str | None = None
    layer: str | None = None
    params: Mapping[str, Any] = FrozenMapping()
    base: Init | None = None

    def __post_init__(self):
        object.__setattr__(self, "params", _freeze(self.params))

    def steps(self) -> tuple[Init, ...]:
        """This and all that it alters, the innermost first."""
        return (*(self.base.steps() if self.base else ()), self)


@dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """Where the normalisation layers' numbers come from at birth.

    statistics: `unit` is mean 0 and variance 1. `calibrated` measures every channel's mean and variance on
        `images` generated 1/f noise images, without labels (:func:`wiring_plugins.calibration.calibrate`). `borrowed`
        copies the running mean and variance of the trained network behind `source`; they count as borrowed numbers.
    affine: `unit` is γ = 1, β = 0. `sampled` draws every channel's γ and β from the normal distributions of `source`.
    source: a statistics source that holds normalisation layers, for `borrowed` and `sampled`.
    training: what normalisation layers that do not learn do while others learn. `batch`: they normalise by the batch
        and adapt their running statistics, as in the reference work. `frozen`: they keep their statistics of birth.
    """

    statistics: Literal["unit", "calibrated", "borrowed"] = "calibrated"
    affine: Literal["unit", "sampled"] = "unit"
    source: str | None = None
    images: int = 16
    training: Literal["batch", "frozen"] = "batch"

    @property
    def draws(self) -> bool:
        """Whether it needs a source."""
        return self.statistics == "borrowed" or self.affine == "sampled"


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """Which parts of the model stand for which parts of the ventral stream, and how the model sees the screen.

    regions: region -> path of the module whose output is recorded.
    time_bins: region -> (start, end) in ms after stimulus onset of each of that module's time steps.
        A region without time bins answers for any time.
    readout: module whose output behavioural read-outs use. logits: module that gives the class scores.
    visual_degrees: width of the visual field that the `image_size` pixels of an input cover.
    mean, std: per-channel normalisation of inputs in 0..1.
    """

    regions: Mapping[str, str]
    time_bins: Mapping[str, tuple[tuple[int, int], ...]] = FrozenMapping()
    readout: str
    logits: str
    visual_degrees: int = 8
    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        object.__setattr__(self, "regions", FrozenMapping(self.regions))
        object.__setattr__(self, "time_bins", _freeze(self.time_bins))

    @property
    def pixels_per_degree(self) -> float:
        return self.image_size / self.visual_degrees


@dataclass(frozen=True, kw_only=True)
class WeightsRef:
    """Where the weights come from.

    kind: `generated` from recipe and seed; `delta`, generated but for what a delta weights file holds; `full`, all
        read from a checkpoint (.safetensors or .pth). sha256: of the file, compared when it is given.
    url: where people get the file; nothing is downloaded.
    """

    kind: Literal["generated", "delta", "full"] = "generated"
    file: str | None = None
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model: an architecture, how each of its layers is wired, and which of them learn.

    init: exact path of every convolution and linear layer -> :class:`Init`. Biases begin at zero.
    trainable: exact module paths; a path stands for the module and all below it.
    commitment: the architecture's own if None.
    classes: outputs of the layer that gives the class scores; the architecture's own number if None.
    doc, reference: one paragraph for people, and the publication it rests on.
    """

    name: str
    architecture: str
    init: Mapping[str, Init]
    trainable: tuple[str, ...] = ()
    batch_norm: BatchNorm = BatchNorm()
    commitment: Commitment | None = None
    weights: WeightsRef = WeightsRef()
    classes: int | None = None
    seed: int = 0
    doc: str = ""
    reference: str = ""

    def __post_init__(self):
        object.__setattr__(self, "init", FrozenMapping(self.init))
        object.__setattr__(self, "trainable", tuple(self.trainable))
        object.__setattr__(self, "doc", inspect.cleandoc(self.doc or ""))

    def learns(self, path: str) -> bool:
        """Whether the layer at that path is, or lies below, one of `trainable`."""
        return any(path == trained or path.startswith(f"{trained}.") for trained in self.trainable)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module that holds weights. shape: (out, in, height, width), (out, in) or (features,); bias: has one too.

    after: for a normalisation layer, the path of the layer whose output it normalises.
    """

    path: str
    kind: Literal["conv", "linear", "norm"]
    shape: tuple[int, ...]
    bias: bool = False
    after: str | None = None


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to make a bare `torch.nn.Module` (`build`, no arguments), the table of its layers, and its commitment.

    build: is also called on PyTorch's `meta` device, where tensors have no values.
    layers: every parameter of the module is the weight or the bias of one of them, in the order of the forward pass.
        Constants belong into buffers.
    """

    name: str
    build: Callable[[], torch.nn.Module]
    layers: tuple[Layer, ...]
    commitment: Commitment
    doc: str = ""
    reference: str = ""

    def weight_layers(self) -> dict[str, Layer]:
        """The convolutions and linear layers: those that a recipe's `init` has to name."""
        return {layer.path: layer for layer in self.layers if layer.kind != "norm"}

    def module_paths(self) -> set[str]:
        """Every path that `trainable` may name: the layers and the modules that contain them."""
        parts = [layer.path.split(".") for layer in self.layers]
        return {".".join(path[:end]) for path in parts for end in range(1, len(path) + 1)}


@dataclass(frozen=True, kw_only=True)
class LayerContext:
    """What an initialiser may know of the layer that it fills, beside the layer's shape.

    statistics: what the recipe's source holds for this layer; None if the recipe names no source.
    pixels_per_degree: pixels of the layer's *input* per degree of visual angle at the model's entrance.
    previous: weights of the weighted layer before this one in the architecture's table, for initialisers that need it.
    template: weights that the Init's `base` drew for this layer, for initialisers that alter them.
    """

    layer: str
    statistics: Any = None
    pixels_per_degree: float = 28.0
    previous: numpy.ndarray | None = None
    template: numpy.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Initializer:
    """A named way to draw weights.

    sample: pure function `(rng: numpy.random.RandomState, shape, context: LayerContext, **params)` -> float32 array
        of that shape. Its docstring gives formula, source and units. It uses no random state but `rng`.
    numbers: `(shape, context, **params)` -> how many numbers of the source it needs; None if it needs none.
    needs: what it needs of its context beside the source: `previous`, `template`.
    """

    name: str
    sample: Callable[..., numpy.ndarray]
    numbers: Callable[..., int] | None = None
    needs: tuple[str, ...] = ()
    reference: str = ""

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.sample) or ""


@dataclass(frozen=True, kw_only=True)
class StatisticsSource:
    """A named set of small distributions that initialisers sample from.

    load: no arguments -> an object whose `layer(path)` returns the statistics of one layer, or raises UnknownName.
    trained: whether they were fitted to a trained network, so that a model wired from them borrows from training.
    """

    name: str
    load: Callable[[], Any]
    trained: bool
    doc: str = ""
    reference: str = ""


def to_plain(value: Any) -> Any:
    """A dataclass of this module as JSON-ready dicts, lists and scalars; :func:`from_plain` is the inverse."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type, plain: Any) -> Any:
    """Rebuild a dataclass of this module from what :func:`to_plain` gave.

    >>> from_plain(Init, {"kind": "gabor", "source": "v1-physiology"})
    Init(kind='gabor', source='v1-physiology', layer=None, params={})
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        return None if plain is None else from_plain(options[0], plain)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], item) for name, item in plain.items()})
    if origin is tuple:
        return tuple(from_plain(arguments[0], item) for item in plain)
    if isinstance(plain, dict):
        item_kind = arguments[1] if len(arguments) == 2 else Any
        return FrozenMapping({key: from_plain(item_kind, item) for key, item in plain.items()})
    return plain
