"""A control for critical training: only the gains and offsets of batch normalisation, and the decoder, learn."""
from __future__ import annotations

from dataclasses import replace

from ..architectures.cornet_s import CORNET_S
from ..hookspecs import hookimpl
from .kaiming import KAIMING, in_seeds

WHOLE = {"bn": ("decoder",), "bn-v4": ("IT", "decoder"), "bn-v2": ("V4", "IT", "decoder")}
"""Ending of the name -> parts that learn as a whole, beside the normalisations of all areas before them."""


def _norms_outside(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(layer.path for layer in CORNET_S.layers
                 if layer.kind == "norm" and layer.path.split(".")[0] not in parts)


@hookimpl
def wiring_recipes():
    return [seeded for ending, parts in WHOLE.items() for seeded in in_seeds(replace(
        KAIMING, name=f"wiring-{ending}", trainable=(*_norms_outside(parts), *parts),
        doc=f"CORnet-S with independent normal weights at birth, of which {', '.join(parts)} and all batch "
            "normalisation (gains and offsets) learn."))]
