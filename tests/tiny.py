"""A tiny architecture for tests of training: two convolutions with normalisation, and a decoder; and short trainings."""
from __future__ import annotations

from wiring_plugins import Architecture, BatchNorm, Commitment, Init, Layer, Recipe, hookimpl
from wiring_training import Condition, Hardware

SHORT = Condition(images=60, image_size=32, batch_size=16, epochs=2)
CPU = Hardware(device="cpu")


def build():
    from collections import OrderedDict

    from torch import nn

    def area(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(OrderedDict(conv=nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                                         norm=nn.BatchNorm2d(outputs), nonlin=nn.ReLU()))

    decoder = nn.Sequential(OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=nn.Linear(12, 1000)))
    return nn.Sequential(OrderedDict(V1=area(3, 8), IT=area(8, 12), decoder=decoder))


TINY = Architecture(
    name="tiny", build=build,
    layers=(Layer(path="V1.conv", kind="conv", shape=(8, 3, 3, 3)),
            Layer(path="V1.norm", kind="norm", shape=(8,), bias=True, after="V1.conv"),
            Layer(path="IT.conv", kind="conv", shape=(12, 8, 3, 3)),
            Layer(path="IT.norm", kind="norm", shape=(12,), bias=True, after="IT.conv"),
            Layer(path="decoder.linear", kind="linear", shape=(1000, 12), bias=True)),
    commitment=Commitment(regions={"V1": "V1", "IT": "IT"}, readout="decoder.avgpool", logits="decoder.linear",
                          image_size=32),
)

INIT = {"V1.conv": Init("kaiming"), "IT.conv": Init("kaiming"), "decoder.linear": Init("uniform-fan-in")}


def recipe(name: str, *trainable: str, policy: str = "batch") -> Recipe:
    return Recipe(name=name, architecture="tiny", init=INIT, trainable=trainable, batch_norm=BatchNorm(training=policy))


@hookimpl
def wiring_architectures():
    return [TINY]


@hookimpl
def wiring_recipes():
    return [recipe("tiny-all", "V1", "IT", "decoder"), recipe("tiny-it", "IT.conv", "decoder"),
            recipe("tiny-decoder", "decoder", policy="frozen")]


def weights_hash(result) -> str:
    """Fingerprint of what a training's newest checkpoint holds."""
    from wiring_plugins import fingerprint
    from wiring_training.checkpoint import Run
    return fingerprint(Run(result.run).newest().delta.tensors)
