"""BibTeX for the platform, which links a model to one publication."""
from __future__ import annotations

from wiring_plugins import Recipe

WORKS = {
    "Geiger et al., ICLR 2022": """@inproceedings{geiger2022wiring,
  title = {Wiring Up Vision: Minimizing Supervised Synaptic Updates Needed to Produce a Primate Ventral Stream},
  author = {Geiger, Franziska and Schrimpf, Martin and Marques, Tiago and DiCarlo, James J.},
  booktitle = {International Conference on Learning Representations},
  year = {2022},
  url = {https://openreview.net/forum?id=g1SzIRLQXMM}
}
""",
}
"""Publications as recipes cite them -> BibTeX with what the platform reads: author, year and url."""


def bibtex(recipe: Recipe) -> str:
    """One entry: the first work in the recipe's reference that is known here; empty if none is.

    The platform links a model to exactly one entry, and to none that lacks author, year or url.
    """
    return next((entry for work, entry in WORKS.items() if work in recipe.reference), "")
