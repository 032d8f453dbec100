"""Wired, then trained: critical training of every wired birth ("WC+CT" is the paper's best), and full training."""
from __future__ import annotations

from dataclasses import replace

from ..hookspecs import hookimpl
from ..recipe import Recipe
from .critical import critically_trained
from .gabor_only import GABOR_ONLY
from .kaiming import KAIMING, in_seeds
from .kernel_normal import KERNEL_NORMAL
from .mixture import MIXTURE
from .no_gabor import NO_GABOR
from .weight_compression import WC

WC_STANDARD = replace(
    WC, name="wiring-wc-standard", trainable=KAIMING.trainable,
    doc=f"""{WC.doc}
    Then every synapse learns: what the wiring is worth as a start of standard training.""",
)


def _kaiming_where_all_learns(recipe: Recipe) -> Recipe:
    """An area that learns as a whole begins Kaiming normal, as in the reference work: its wiring would not last."""
    return replace(recipe, init={path: KAIMING.init[path] if path.split(".")[0] in recipe.trainable else init
                                 for path, init in recipe.init.items()})


@hookimpl
def wiring_recipes():
    recipes = [WC_STANDARD, *map(_kaiming_where_all_learns, critically_trained(WC))]
    for birth in (NO_GABOR, GABOR_ONLY, MIXTURE, KERNEL_NORMAL):
        recipes += critically_trained(birth, "ct")
    return [seeded for recipe in recipes for seeded in in_seeds(recipe)]
