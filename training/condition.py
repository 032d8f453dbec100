"""How much supervision a recipe gets and by which rule (`Condition`), and on what machine (`Hardware`)."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wiring_plugins import WiringError

MAX_EPOCHS = 45
"""Where the reference work stops a training that has not converged."""

KEPT_EPOCHS = (0.0, 1.0, 3.0, 5.0, 6.0, 10.0, 20.0)
"""Moments whose weights the reference work scores, in epochs."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a trained model depends on beside its recipe and the images. The defaults are those of the reference work.

    images: how many training images, chosen by `seed`; None for all. subset: `uniform` draws them at random, `balanced`
        takes equally many of each class. A larger number contains the smaller one's images.
    epochs: passes over these images; None until convergence, that is until the learning rate falls below `min_lr`, or
        45 passes.
    first_epoch: one pass, of which every tenth is kept.
    patience_policy: what the learning rate waits for. `paper`: the loss of an epoch's last batch, as in the reference
        work. `validation`: the validation loss. After more than `patience` epochs without progress it falls tenfold.
    image_size: side of the square that the model sees, in pixels. source_size: side of the square that an image is
        stored as before it is cropped; by default twice the image size, at most 256.
    validation_images: how many, drawn at random; by default as many as there are training images.
    label_smoothing: 0 in the reference work.
    ema: validate, save and score an exponential moving average with this decay a step in place of the weights; 0 for
        these themselves, as in the reference work.
    progressive: (first size, epochs): the crops begin smaller and reach `image_size`, in three equal stages, after that
        many epochs; None in the reference work.
    prune, density: `synflow` keeps that fraction of the weights of convolutions and linear layers that learn, chosen at
        birth; the others are zero for ever. `none` keeps all.
    cached_views: for a recipe in which a single linear layer learns: compute the features of that many random crops of
        each image once, with the normalisation statistics of birth, and train on them. 0: train on fresh crops.
    """

    images: int | None = None
    subset: Literal["uniform", "balanced"] = "uniform"
    epochs: int | None = None
    first_epoch: bool = False
    patience_policy: Literal["paper", "validation"] = "paper"
    patience: int = 3
    min_lr: float = 1e-4
    optimizer: Literal["sgd", "adam", "adagrad"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 256
    image_size: int = 224
    source_size: int = 0
    validation_images: int | None = None
    label_smoothing: float = 0.0
    ema: float = 0.0
    progressive: tuple[int, int] | None = None
    prune: Literal["none", "synflow"] = "none"
    density: float = 1.0
    cached_views: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.first_epoch:
            if self.epochs not in (None, 1):
                raise WiringError(f"--first-epoch is one pass, and --epochs {self.epochs} another number; give one of them.")
            object.__setattr__(self, "epochs", 1)
        if not self.source_size:
            object.__setattr__(self, "source_size", max(self.image_size, min(256, 2 * self.image_size)))
        for name, least in (("images", 1), ("epochs", 0), ("batch_size", 2), ("image_size", 16), ("patience", 0),
                            ("validation_images", 0), ("cached_views", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise WiringError(f"{_flag(name)} has to be at least {least}; it was {value}.")
        for name in ("lr", "min_lr"):
            if not 0 < getattr(self, name) < 1e38:  # the largest number of single precision
                raise WiringError(f"{_flag(name)} has to be above 0 and finite; it was {getattr(self, name)}.")
        for name in ("weight_decay", "momentum", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise WiringError(f"{_flag(name)} has to be at least 0 and below 1; it was {getattr(self, name)}.")
        for name, legal in (("subset", ("uniform", "balanced")), ("optimizer", ("sgd", "adam", "adagrad")),
                            ("patience_policy", ("paper", "validation")), ("prune", ("none", "synflow"))):
            _one_of(name, getattr(self, name), legal)
        if not 0 < self.density <= 1 or (self.density < 1) != (self.prune != "none"):
            raise WiringError("--prune synflow and a --density above 0 and below 1 belong together; "
                              f"they were {self.prune} and {self.density}.")
        if self.source_size < self.image_size:
            raise WiringError(f"--source-size {self.source_size} is below --image-size {self.image_size}: "
                              "images would be blown up. Give at least the image size.")
        if self.progressive:
            self._check_progressive(*self.progressive)

    def _check_progressive(self, first: int, epochs: int) -> None:
        if not 16 <= first < self.image_size or epochs < 1:
            raise WiringError(f"--progressive SIZE:EPOCHS begins with a size from 16 to below --image-size "
                              f"{self.image_size}, for 1 epoch or more; it was {first}:{epochs}.")
        if self.cached_views:
            raise WiringError("--progressive changes the crops from epoch to epoch and --cached-views keeps them; "
                              "give one of them.")

    def crop_size(self, epoch: int) -> int:
        """Side of the training crops of an epoch, in pixels: all but the last size are multiples of 16.

        >>> [Condition(image_size=224, progressive=(112, 6)).crop_size(epoch) for epoch in range(7)]
        [112, 112, 144, 144, 176, 176, 224]
        """
        first, epochs = self.progressive or (self.image_size, 0)
        if epoch >= epochs:
            return self.image_size
        grown = first + (self.image_size - first) * (3 * epoch // epochs) / 3
        return max(16, int(grown) // 16 * 16)

    @property
    def max_epochs(self) -> int:
        return MAX_EPOCHS if self.epochs is None else self.epochs

    def kept_steps(self, steps_per_epoch: int) -> set[int]:
        """Steps whose weights are kept for ever; 0 is the birth."""
        moments = [tenth / 10 for tenth in range(11)] if self.first_epoch else KEPT_EPOCHS
        return {round(moment * steps_per_epoch) for moment in moments}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where and how the arithmetic runs. It changes speed and rounding, not what is learned from what.

    device: `auto`, `cpu`, `cuda`, `cuda:1`. precision: `auto` is bf16 on CUDA and fp32 elsewhere.
    compile: `auto` compiles on CUDA when the training is long enough to pay for it.
    deterministic: on CUDA too, the same bits each time.
    hold: keep the decoded images in the device's memory; `auto` when they take at most a third of what is free.
    local_batch_norm: with several processes, normalise by each one's share of the batch, not by the whole batch. This
        is faster, and the only one of these fields that changes the model that is trained; a run records it.
    """

    device: str = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: Literal["auto", "yes", "no"] = "auto"
    deterministic: bool = False
    hold: Literal["auto", "yes", "no"] = "auto"
    workers: int = 0
    max_corrupt: int = 10
    checkpoint_seconds: float = 600.0
    local_batch_norm: bool = False

    def __post_init__(self):
        _one_of("precision", self.precision, ("auto", "bf16", "fp32"))
        _one_of("compile", self.compile, ("auto", "yes", "no"))
        _one_of("hold", self.hold, ("auto", "yes", "no"))
        for name in ("workers", "max_corrupt", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise WiringError(f"{_flag(name)} has to be at least 0; it was {getattr(self, name)}.")


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """`path: old -> new` for every value in which two nested mappings differ.

    >>> differences({"condition": {"lr": 0.1}}, {"condition": {"lr": 1.0}})
    ['condition.lr: 0.1 -> 1.0']
    """
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
    return [line for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _one_of(name: str, value: str, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise WiringError(f"{_flag(name)} is one of {', '.join(legal)}; it was {value!r}.")
