"""CORnet-S: four areas named after the primate ventral stream; V2, V4 and IT are recurrent with shared weights.

Written from the description in Kubilius, Schrimpf et al. (NeurIPS 2019, arXiv 1909.06161). Keys and shapes of the state
dict are those of the published checkpoint, so that its weights load.
"""
from __future__ import annotations

from ..hookspecs import hookimpl
from ..recipe import Architecture, Commitment, Layer

AREAS = (("V2", 64, 128, 2), ("V4", 128, 256, 4), ("IT", 256, 512, 2))
"""Recurrent areas: name, input channels, output channels, time steps."""

EXPANSION = 4
CLASSES = 1000

COMMITMENT = Commitment(
    regions={area: f"{area}.output" for area in ("V1", "V2", "V4", "IT")},
    time_bins={
        "V1": ((50, 150),),
        "V2": ((70, 170), (170, 270)),
        "V4": ((90, 140), (140, 190), (190, 240), (240, 290)),
        "IT": ((100, 200), (200, 300)),
    },
    readout="decoder.avgpool",
    logits="decoder.linear",
)
"""The published commitment of CORnet-S: every area's output at each of its time steps; 8 degrees over 224 pixels."""


def _layers() -> tuple[Layer, ...]:
    def conv(path: str, inputs: int, outputs: int, size: int) -> Layer:
        return Layer(path=path, kind="conv", shape=(outputs, inputs, size, size))

    def norm(path: str, features: int, after: str) -> Layer:
        return Layer(path=path, kind="norm", shape=(features,), bias=True, after=after)

    table = [
        conv("V1.conv1", 3, 64, 7), norm("V1.norm1", 64, "V1.conv1"),
        conv("V1.conv2", 64, 64, 3), norm("V1.norm2", 64, "V1.conv2"),
    ]
    for area, inputs, outputs, steps in AREAS:
        wide = EXPANSION * outputs
        table += [
            conv(f"{area}.conv_input", inputs, outputs, 1),
            conv(f"{area}.skip", outputs, outputs, 1), norm(f"{area}.norm_skip", outputs, f"{area}.skip"),
            conv(f"{area}.conv1", outputs, wide, 1),
            conv(f"{area}.conv2", wide, wide, 3),
            conv(f"{area}.conv3", wide, outputs, 1),
        ]
        for step in range(steps):
            table += [norm(f"{area}.norm{i}_{step}", features, f"{area}.conv{i}")
                      for i, features in ((1, wide), (2, wide), (3, outputs))]
    table.append(Layer(path="decoder.linear", kind="linear", shape=(CLASSES, 512), bias=True))
    return tuple(table)


def build():
    """CORnet-S with PyTorch's default weights. Input (batch, 3, height, width), output (batch, 1000) logits."""
    import torch.nn.functional as F
    from torch import nn

    class RecurrentArea(nn.Module):
        """One area: a bottleneck that is applied `steps` times to its own output, halving the resolution at step 0.

        Convolutions are shared over time steps, normalisations are not. `output` is called once a step, so that a
        forward hook on it sees every time step's response.
        """

        def __init__(self, inputs: int, outputs: int, steps: int):
            super().__init__()
            wide = EXPANSION * outputs
            self.steps = steps
            self.conv_input = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.skip = nn.Conv2d(outputs, outputs, 1, stride=2, bias=False)
            self.norm_skip = nn.BatchNorm2d(outputs)
            self.conv1 = nn.Conv2d(outputs, wide, 1, bias=False)
            self.nonlin1 = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(wide, wide, 3, stride=2, padding=1, bias=False)
            self.nonlin2 = nn.ReLU(inplace=True)
            self.conv3 = nn.Conv2d(wide, outputs, 1, bias=False)
            self.nonlin3 = nn.ReLU(inplace=True)
            self.output = nn.Identity()
            for step in range(steps):
                setattr(self, f"norm1_{step}", nn.BatchNorm2d(wide))
                setattr(self, f"norm2_{step}", nn.BatchNorm2d(wide))
                setattr(self, f"norm3_{step}", nn.BatchNorm2d(outputs))

        def forward(self, x):
            x = self.conv_input(x)
            for step in range(self.steps):
                x = self.output(self.step(x, step))
            return x

        def step(self, x, step: int):
            first = step == 0
            shortcut = self.norm_skip(self.skip(x)) if first else x
            x = self.nonlin1(getattr(self, f"norm1_{step}")(self.conv1(x)))
            # the stride is an argument and not an attribute: a forward pass changes no module
            x = F.conv2d(x, self.conv2.weight, stride=2 if first else 1, padding=1)
            x = self.nonlin2(getattr(self, f"norm2_{step}")(x))
            x = getattr(self, f"norm3_{step}")(self.conv3(x))
            return self.nonlin3(x + shortcut)

    class CORnetS(nn.Module):
        """V1 -> V2 -> V4 -> IT -> decoder."""

        def __init__(self):
            super().__init__()
            self.V1 = nn.Sequential()
            for name, module in (
                ("conv1", nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)),
                ("norm1", nn.BatchNorm2d(64)),
                ("nonlin1", nn.ReLU(inplace=True)),
                ("pool", nn.MaxPool2d(3, stride=2, padding=1)),
                ("conv2", nn.Conv2d(64, 64, 3, padding=1, bias=False)),
                ("norm2", nn.BatchNorm2d(64)),
                ("nonlin2", nn.ReLU(inplace=True)),
                ("output", nn.Identity()),
            ):
                self.V1.add_module(name, module)
            for area, inputs, outputs, steps in AREAS:
                self.add_module(area, RecurrentArea(inputs, outputs, steps))
            self.decoder = nn.Sequential()
            for name, module in (
                ("avgpool", nn.AdaptiveAvgPool2d(1)),
                ("flatten", nn.Flatten()),
                ("linear", nn.Linear(512, CLASSES)),
                ("output", nn.Identity()),
            ):
                self.decoder.add_module(name, module)

        def forward(self, x):
            return self.decoder(self.IT(self.V4(self.V2(self.V1(x)))))

    return CORnetS()


CORNET_S = Architecture(
    name="cornet-s", build=build, layers=_layers(), commitment=COMMITMENT,
    doc="CORnet-S, 53,416,616 parameters in 17 convolutions, 29 batch normalisations and a linear decoder.",
    reference="Kubilius, Schrimpf et al., NeurIPS 2019, arXiv 1909.06161",
)


@hookimpl
def wiring_architectures():
    return [CORNET_S]
