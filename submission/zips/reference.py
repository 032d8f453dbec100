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
    """One entry: the first work in the recipe's reference that is known here, or else one of the model itself.

    The platform shows no reference for an entry without a url, and asks for exactly one entry.
    """
    cited = [work.strip() for work in recipe.reference.split(";")]
    known = next((WORKS[work] for work in cited if work in WORKS), None)
    return known or (f"@misc{{{recipe.name},\n  title = {{{recipe.name}}},\n"
                     f"  note = {{Wired by wiring-plugins. {recipe.reference}}}\n}}\n")
