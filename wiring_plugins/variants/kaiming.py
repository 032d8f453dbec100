"""CORnet-S with Kaiming-normal weights everywhere: the baseline that has no structure, only a scale."""
from __future__ import annotations

from dataclasses import replace

from ..architectures.cornet_s import CORNET_S
from ..hookspecs import hookimpl
from ..recipe import Init, Recipe

SEEDS = (42, 94)
"""The seeds of the reference work, beside 0."""

INIT = {path: Init("kaiming" if layer.kind == "conv" else "uniform-fan-in")
        for path, layer in CORNET_S.weight_layers().items()}

KAIMING = Recipe(
    name="wiring-kaiming", architecture="cornet-s", init=INIT, trainable=("V1", "V2", "V4", "IT", "decoder"),
    doc="""CORnet-S at birth with independent normal weights in every convolution ("KN" in the reference work).
    BatchNorm is calibrated without labels, on generated 1/f noise.""",
    reference="He et al., ICCV 2015; Geiger et al., ICLR 2022",
)


def in_seeds(recipe: Recipe) -> list[Recipe]:
    """The recipe and its copies under the reference work's other seeds, named `NAME-seed42` and `NAME-seed94`."""
    return [recipe, *(replace(recipe, name=f"{recipe.name}-seed{seed}", seed=seed) for seed in SEEDS)]


@hookimpl
def wiring_recipes():
    return in_seeds(KAIMING)
