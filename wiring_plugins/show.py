"""`wiring show`: a model in words, its counts, and its first filters as a picture."""
from pathlib import Path
from typing import Annotated

from .columns import print_columns
from .errors import WiringError
from .hookspecs import hookimpl
from .recipe import Init, Recipe


@hookimpl
def wiring_commands(app):
    import typer

    @app.command()
    def show(
        name: Annotated[str, typer.Argument(help="A model that `wiring models` lists, or NAME@SOURCE.")],
        filters: Annotated[Path, typer.Option(help="Draw the kernels of the first convolution into this .png.")] = None,
        compare: Annotated[str, typer.Option(help="Another model, shown side by side.")] = "",
    ) -> None:
        """Show how a model is wired, what it costs in numbers, and what learns."""
        from .counting import count
        from .names import resolve
        from .plugins import load_registry
        registry = load_registry()
        recipes = [resolve(each, registry) for each in filter(None, (name, compare))]
        for recipe, counted in [(recipe, count(recipe, registry)) for recipe in recipes]:
            describe(recipe, counted)
        if len(recipes) == 2:
            print_differences(*recipes)
        if filters:
            from .pictures import beside, draw_grid, save
            pictures = [draw_grid(first_kernels(recipe, registry)) for recipe in recipes]
            save(beside(*pictures) if len(pictures) == 2 else pictures[0], filters)
            print(f"Kernels of the first convolution: {filters}")


def describe(recipe: Recipe, counted) -> None:
    """Print the recipe in words, a line for each layer, and the totals of its :class:`.counting.Count`."""
    from .counting import BITS
    read = recipe.weights.kind == "full"
    print(f"{recipe.name}: {recipe.doc}\n")
    print_columns(("layer", "shape", "synapses", "initialiser", "source", "numbers", "learns"), [
        (row.layer.path, "x".join(map(str, row.layer.shape)), f"{row.synapses:,}",
         *(("-", "file", "-") if read else
           (in_words(row.init), sources_in_words(row.init) or "-", f"{row.numbers:,}")),
         "yes" if row.learns else "no") for row in counted.layers])
    learning = {path.split(".")[0] for path in recipe.trainable}
    fixed = [top for top in dict.fromkeys(row.layer.path.split(".")[0] for row in counted.layers)
             if top not in learning]
    origin = (f"Wired from {counted.numbers:,} numbers ({counted.numbers * BITS:,} bits at {BITS} bits each); "
              f"{counted.borrowed:,} of them are borrowed from a trained network.")
    if recipe.weights.kind == "delta":
        origin += f"\nTrained: what learned is read from {recipe.weights.file}."
    if read:
        origin = f"Not wired: all {counted.parameters:,} parameters are read from {recipe.weights.file}."
    print(f"""
Learns: {', '.join(recipe.trainable) or 'nothing'}. Stays as born: {', '.join(fixed) or 'nothing as a whole'}.
Batch normalisation: {policy_in_words(recipe)}.
Synapses: {counted.synapses:,}, of which {counted.trained_synapses:,} \
({share(counted.trained_synapses, counted.synapses)}) may learn.
Parameters with biases and normalisation: {counted.parameters:,}, of which {counted.trained_parameters:,} \
({share(counted.trained_parameters, counted.parameters)}) may learn.
{origin}
Seed: {recipe.seed}. Reference: {recipe.reference or 'none'}.
""")


def in_words(init: Init) -> str:
    """Kind, parameters and base of an Init, such as `permute(within=kernel) of cluster`."""
    params = ", ".join(f"{name}={value}" for name, value in init.params.items())
    return f"{init.kind}{f'({params})' if params else ''}{f' of {in_words(init.base)}' if init.base else ''}"


def sources_in_words(init: Init) -> str:
    """What an Init and its base draw from, with the source's layer where the Init names one: `googlenet V2.conv2`."""
    return " + ".join(f"{step.source} {step.layer or ''}".strip() for step in init.steps() if step.source)


def policy_in_words(recipe: Recipe) -> str:
    """What the recipe's normalisation layers begin with, as a phrase."""
    if recipe.weights.kind == "full":
        return "as in the file"
    policy = recipe.batch_norm
    statistics = {
        "unit": "mean 0 and variance 1",
        "calibrated": f"measured without labels on {policy.images} generated 1/f noise images",
        "borrowed": f"running statistics borrowed from {policy.source}",
    }[policy.statistics]
    return statistics + (f"; γ and β drawn from {policy.source}" if policy.affine == "sampled" else "; γ = 1 and β = 0")


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %"


def print_differences(first: Recipe, second: Recipe) -> None:
    """Print what of two models begins differently: layers, normalisation, and where learned weights are read from."""
    begins = [_beginnings(recipe) for recipe in (first, second)]
    rows = [(part, *(each.get(part, "-") for each in begins))
            for part in begins[0] | begins[1] if begins[0].get(part) != begins[1].get(part)]
    if rows:
        print_columns(("part", first.name, second.name), rows)
    else:
        seeds = "" if first.seed == second.seed else f", under the seeds {first.seed} and {second.seed}"
        print(f"{first.name} and {second.name} are wired alike{seeds}.")


def _beginnings(recipe: Recipe) -> dict[str, str]:
    """Part of a model -> what it begins with, in words."""
    file = f"read from {recipe.weights.file}"
    if recipe.weights.kind == "full":
        return {"all weights": file}
    layers = {path: f"{in_words(init)} from {sources_in_words(init) or 'no source'}"
              for path, init in recipe.init.items()}
    learned = {"learned weights": file} if recipe.weights.kind == "delta" else {}
    return layers | {"batch normalisation": policy_in_words(recipe)} | learned


def first_kernels(recipe: Recipe, registry):
    """Weights of the architecture's first convolution at birth, or as trained where the recipe's weights are."""
    from .birth import draw_weights
    from .build import wire
    layers = registry.architecture(recipe.architecture).layers
    path = next((layer.path for layer in layers if layer.kind == "conv"), None)
    if path is None:
        raise WiringError(f"{recipe.name!r} has no convolution whose kernels could be drawn. Leave --filters out.")
    if recipe.weights.kind == "generated":
        return draw_weights(recipe, registry)[path]
    return wire(recipe, registry).state_dict()[f"{path}.weight"].numpy()
