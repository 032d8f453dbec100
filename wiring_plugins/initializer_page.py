"""`wiring initializers`: every initialiser with formula, source and numbers needed; also docs/initialisers.md."""
import inspect
import re
from typing import Annotated

from .hookspecs import hookimpl
from .recipe import Initializer

HEAD = """# Initialisers

Made from the plugins' docstrings by `wiring initializers --markdown > docs/initialisers.md`; a test compares the two.

An initialiser draws the weights of one layer: `Init("cluster", source="googlenet")` in a recipe's `init`. All are pure
functions of a random stream, the layer's shape and the source's statistics, and work for any kernel size and channel
count. *Numbers needed* are those that have to be known of a source; `wiring show NAME` adds them up for a model.
"""

TAIL = """
## Left out, or done another way, of the reference work

| there | here | why |
|---|---|---|
| poisson | left out | weights are no counts |
| channel normal | left out | two numbers for every slice: more than a 1x1 layer has weights; its code does not run |
| more kernels than the layer has ("overflow") | left out | a layer of this architecture holds no more |
| BatchNorm from a batch of images; running averages set by hand | policy `calibrated` | there a loop over nothing; and a \
call that fails |
| incremental normals | left out | the mean is kept where the deviation belongs |
| uncut Gabor samples | clipped to the range of the fits | an envelope of negative width is none; `gabor` |
| amplitudes of Gabor fits | fitted; the reference's are lost | both sides of its fit were normalised |
| no spread in 1x1 clusters | measured; for the published files, that of a halved normal distribution | two distinct \
weights in a whole layer are an artefact; `faithful=True` brings it back |
| counts of clusters in order, the rest cut | scaled to add up | the last clusters were too rare; `faithful=True` |
| full covariance of whole kernels | diagonal, of layers with up to 256 weights a kernel | no layer has kernels enough |
| best distribution by histogram, refitted per kernel | by likelihood per layer, location and scale per kernel | fewer \
numbers, no choice of bins |
| mutual information by nearest neighbours, square layers | of normal variables, any shape | minutes for a small \
layer, and never finite for a kernel with itself |
| eigenvalue of a template's slice | drawn from the fitted normal | a template is the trained network itself |
| γ drawn below 0 | 0 | it would turn a channel's response upside down; BatchNorm policy `sampled` |
| running statistics of the trained network, unsaid | BatchNorm policy `borrowed`, counted | they were trained |
"""


@hookimpl
def wiring_commands(app):
    import typer

    @app.command()
    def initializers(
        markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/initialisers.md.")] = False,
    ) -> None:
        """List the initialisers: what each does, and how many numbers it needs."""
        from .plugins import load_registry
        from .columns import print_columns
        known = load_registry().initializers
        if markdown:
            print(page(known.values()), end="")
        else:
            print_columns(("initialiser", "what it is"), [(name, parts(known[name])[0]) for name in sorted(known)])


def page(initializers) -> str:
    """The whole page, in the order of names."""
    initializers = sorted(initializers, key=lambda initializer: initializer.name)
    rows = [f"| [`{each.name}`](#{each.name}) | {parts(each)[0]} | {parts(each)[1]} |" for each in initializers]
    sections = "\n".join(section(each) for each in initializers)
    head = [HEAD, "| initialiser | what it is | numbers needed |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", sections, TAIL.lstrip()])


def parts(initializer: Initializer) -> tuple[str, str]:
    """First sentence of the docstring, and what it says of the numbers needed."""
    text = " ".join(initializer.doc.split())
    numbers = re.search(r"Numbers needed: (.*?)\.?$", text)
    return re.split(r"(?<=[.:]) ", text)[0].rstrip(".:"), numbers[1] if numbers else "not said"


def section(initializer: Initializer) -> str:
    """Name, parameters with their defaults, and the docstring."""
    parameters = list(inspect.signature(initializer.sample).parameters.values())[3:]
    given = ", ".join(f"`{each.name}={each.default!r}`" for each in parameters) or "none"
    needs = {"previous": "the weights of the layer before", "template": "a `base` that draws the weights to alter"}
    wants = [needs[each] for each in initializer.needs] + (["a source"] if initializer.numbers else [])
    return "\n".join([f"## {initializer.name}", "", initializer.doc, "", f"Parameters: {given}. "
                      f"Needs: {' and '.join(wants) or 'nothing'}. Reference: {initializer.reference or 'none'}.", ""])
