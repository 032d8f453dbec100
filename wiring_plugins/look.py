"""`wiring models` and `wiring plugins`: what there is."""
from fnmatch import fnmatchcase
from typing import Annotated

from .columns import print_columns
from .errors import UnknownName
from .hookspecs import hookimpl


@hookimpl
def wiring_commands(app):
    import typer

    @app.command()
    def models(
        pattern: Annotated[str, typer.Argument(help="Only names that match, such as 'wiring-gabor*'.")] = "*",
    ) -> None:
        """List the models that can be built, trained and scored; those that differ by their seed alone in one line."""
        from .plugins import load_registry
        from .siblings import families
        registry = load_registry()
        chosen = [recipe for name, recipe in registry.recipes.items() if fnmatchcase(name, pattern)]
        if not chosen:
            raise UnknownName("model", pattern, registry.recipes, listed_by="wiring models")
        print_columns(("model", "also as", "architecture", "weights", "what it is"), [
            (first.name, ", ".join(recipe.name.removeprefix(first.name) for recipe in others), first.architecture,
             weights_in_words(first), " ".join(first.doc.split())) for first, *others in families(chosen)
        ], width=_terminal_width())

    @app.command()
    def plugins() -> None:
        """List the plugins: where each comes from, its hooks, and why any was left out."""
        from .plugins import load_host
        print_columns(("plugin", "distribution", "hooks", "left out because"), [
            (info.name, info.version, ", ".join(info.hooks), info.error or "") for info in load_host().plugins
        ], width=_terminal_width())


def weights_in_words(recipe) -> str:
    """`untrained` for weights that are generated, `trained` for weights that are read from a file."""
    return "untrained" if recipe.weights.kind == "generated" else "trained"


def _terminal_width() -> int:
    """Characters in a line: of the terminal, or wide enough for most where there is none."""
    import shutil
    import sys
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
