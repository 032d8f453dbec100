"""The commands of scoring."""
from pathlib import Path
from typing import Annotated

from wiring_plugins import hookimpl


@hookimpl
def wiring_commands(app, bench):
    import typer

    @app.command()
    def score(
        model: Annotated[str, typer.Option(help="A name that `wiring models` lists, or any model of the platform.")],
        benchmark: Annotated[list[str], typer.Option(
            help="An identifier, a group (offline, public, V1, V2, V4, IT, behavior) or a wildcard; may be repeated. "
                 "Default: the seven V1 benchmarks that need no download.")] = [],
        device: Annotated[str, typer.Option(help="auto, cpu or cuda. Models of the platform choose for "
                                                    "themselves.")] = "auto",
        batch_size: Annotated[int, typer.Option(help="Images per forward pass, of this project's models.")] = 32,
        seed: Annotated[int | None, typer.Option(
            help="Seed of the weights and of the benchmarks' bootstrap; the recipe's own by default.")] = None,
        db: Annotated[Path | None, typer.Option(help="SQLite file for the scores; by default two files in the user's "
                                                     "data folder, for public and for other benchmarks.")] = None,
        json: Annotated[Path | None, typer.Option(help="Write the scores to this file, too.")] = None,
        offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    ) -> None:
        """Score a model on benchmarks of Brain-Score."""
        from .score_command import ScoreOptions, run
        raise typer.Exit(run(ScoreOptions(model=model, benchmarks=tuple(benchmark), device=device, batch_size=batch_size,
                                          seed=seed, db=db, json=json, offline=offline)))

    @app.command()
    def scores(
        model: Annotated[str, typer.Argument(help="Only models that match, such as 'wiring-gabor*'.")] = "*",
        db: Annotated[Path | None, typer.Option(help="SQLite file; by default those of `score`.")] = None,
    ) -> None:
        """Show stored scores: of each model and benchmark the newest."""
        from .stored import show
        show(model, db)

    @app.command()
    def compare(
        models: Annotated[list[str], typer.Argument(help="Models that were scored in several seeds; the first is the "
                                                         "one that the others are compared with.")],
        db: Annotated[Path | None, typer.Option(help="SQLite file; by default that of `score`.")] = None,
    ) -> None:
        """Compare models on the offline benchmarks: mean and spread over seeds, as a Markdown table."""
        from .compare import run
        run(models, db)

    @app.command()
    def benchmarks(
        pattern: Annotated[str, typer.Argument(help="Only those that `score --benchmark` would take this for: an "
                                                    "identifier, a group or a wildcard such as 'Marques2020*'.")] = "*",
    ) -> None:
        """List the benchmarks, which of them run without a download or have private data, and the groups."""
        from .stored import list_benchmarks
        list_benchmarks(pattern)

    @app.command()
    def platform_models(
        pattern: Annotated[str, typer.Argument(help="Only names that match, such as 'resnet*'.")] = "*",
    ) -> None:
        """List the platform's own models, which `score` takes as well."""
        from .stored import list_models
        list_models(pattern)

    @bench.command("score")
    def bench_score(
        model: Annotated[str, typer.Option(help="The model to time.")] = "wiring-gabor-frozen",
        images: Annotated[int, typer.Option(help="Images to show each way.")] = 128,
    ) -> None:
        """Time the V1 recording and its memory, side by side with the platform's own full forward pass."""
        from .bench import run
        run(model, images)
