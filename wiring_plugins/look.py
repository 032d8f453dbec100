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
        """List the models that can be built and scored."""
        from .plugins import load_registry
        registry = load_registry()
        chosen = [recipe for name, recipe in sorted(registry.recipes.items()) if fnmatchcase(name, pattern)]
        if not chosen:
            raise UnknownName("model", pattern, registry.recipes, listed_by="wiring models")
        _print_table(("model", "architecture", "seed", "weights", "what it is"),
                     [(recipe.name, recipe.architecture, str(recipe.seed), weights_in_words(recipe),
                       " ".join(recipe.doc.split()).split(". ")[0]) for recipe in chosen])

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
    import sys

    from rich.console import Console
    from rich.table import Table
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.no_wrap = column is not table.columns[-1]
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
