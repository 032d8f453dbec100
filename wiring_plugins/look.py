"""`wiring models` and `wiring plugins`: what there is."""
from fnmatch import fnmatchcase
from typing import Annotated

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
        from .siblings import families
        from .plugins import load_registry
        registry = load_registry()
        chosen = [recipe for name, recipe in registry.recipes.items() if fnmatchcase(name, pattern)]
        if not chosen:
            raise UnknownName("model", pattern, registry.recipes, listed_by="wiring models")
        _print_table(("model", "also as", "architecture", "weights", "what it is"),
                     [(first.name, ", ".join(recipe.name.removeprefix(first.name) for recipe in others), first.architecture,
                       weights_in_words(first), " ".join(first.doc.split()))
                      for first, *others in families(chosen)])

    @app.command()
    def plugins() -> None:
        """List the plugins: where each comes from, its hooks, and why any was left out."""
        from .plugins import load_host
        _print_table(("plugin", "distribution", "hooks", "left out because"),
                     [(info.name, info.version, ", ".join(info.hooks), info.error or "") for info in
                      load_host().plugins])


def weights_in_words(recipe) -> str:
    """`untrained` for weights that are generated, `trained` for weights that are read from a file."""
    return "untrained" if recipe.weights.kind == "generated" else "trained"


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Rows in columns, one line each: only the last column is cut to the width of the terminal."""
    import shutil
    import sys

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    widths = [max(map(len, column)) for column in zip(columns, *rows)]
    for row in (columns, *rows):
        line = "  ".join(text.ljust(size) for text, size in zip(row, widths)).rstrip()
        print(line if len(line) <= width else f"{line[:width - 1]}…")
