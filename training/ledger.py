"""The ledger of a run: what was learned from how much."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Ledger:
    """Exact counts of one run, and what the run cost.

    images: labelled images seen, each pass counted. steps: optimiser steps. trained: numbers that learn, by kind of
    layer; `norm` are the gains and offsets of normalisation layers. pruned: weights that were removed at birth, and are
    not among them. adapted: normalisation statistics that follow the
    images, without labels. borrowed: where numbers come from that others' training gave: statistics sources fitted to
    trained networks, and weights that the run was continued from.
    skipped: images that could not be read. cost: what depends on the machine, and differs between runs.
    """

    images: int = 0
    steps: int = 0
    trained: dict[str, int] = field(default_factory=dict)
    pruned: int = 0
    adapted: int = 0
    borrowed: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def synapses(self) -> int:
        return sum(self.trained.values())

    @property
    def updates(self) -> int:
        """Supervised synaptic updates: images seen times numbers trained."""
        return self.images * self.synapses

    def to_plain(self) -> dict[str, Any]:
        return {**asdict(self), "synapses": self.synapses, "updates": self.updates}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Ledger:
        return cls(**{key: value for key, value in plain.items() if key not in ("synapses", "updates")})

    def lines(self) -> list[tuple[str, str]]:
        """What to show at the end."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.trained.items() if count)
        rows = [("images seen", f"{self.images:,}"), ("optimiser steps", f"{self.steps:,}"),
                ("trained synapses", f"{self.synapses:,} ({kinds})"),
                ("supervised synaptic updates", f"{self.updates:.4g}"),
                ("normalisation statistics adapted", f"{self.adapted:,}")]
        rows += [("pruned at birth", f"{self.pruned:,}")] if self.pruned else []
        rows += [("borrowed", f"{count:,} numbers, {source}") for source, count in self.borrowed.items()]
        rows += [("skipped image", name) for name in self.skipped]
        seconds = self.cost.get("seconds", 0.0)
        rows.append(("time", f"{seconds:,.1f} s on {self.cost.get('device', '?')}"))
        if self.cost.get("joules") is not None:
            rows.append(("energy", f"{self.cost['joules'] / 3.6e6:.3f} kWh"))
        return rows


def count_trained(model, trained: set[str], masks: Mapping[str, Any]) -> dict[str, int]:
    """Numbers that learn, by kind of layer: conv, linear, norm. masks: which weights are kept, where not all are."""
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    counts = {"conv": 0, "linear": 0, "norm": 0}
    for path, module in model.named_modules():
        kind = "norm" if isinstance(module, _BatchNorm) else "linear" if isinstance(module, nn.Linear) else "conv"
        for name, parameter in module.named_parameters(recurse=False):
            if f"{path}.{name}" in trained:
                mask = masks.get(f"{path}.{name}")
                counts[kind] += parameter.numel() if mask is None else int(mask.sum())
    return counts
