"""`wiring pack` makes submission zips; `wiring check` says what the platform would refuse in one."""
from pathlib import Path
from typing import Annotated

from wiring_plugins import WiringError, hookimpl

from ..termination import terminated_like_interrupted


@hookimpl
def wiring_commands(app):
    import typer

    @app.command()
    def check(
        file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Any submission zip, made here or not.")],
        install_test: Annotated[bool, typer.Option("--install-test", help="Also run the platform's plugin tests and "
                                "the zip's test.py in a scratch environment (some 3 minutes and 7 GB).")] = False,
        python_env: Annotated[Path | None, typer.Option(metavar="DIR", help="For --install-test: a virtual environment "
                              "with brainscore-vision[test], read and left unchanged, instead of a fresh one.")] = None,
    ) -> None:
        """Tell what brain-score.org and its plugin tests would refuse in a submission zip, why, and how to mend it."""
        from . import rules
        from .archive import open_submission
        from .report import report
        if python_env and not install_test:
            raise WiringError("--python-env says where --install-test runs. Give both.")
        with open_submission(file) as submission:
            findings = rules.check(submission)
            typer.echo(report(file, findings))
            if any(not finding.rule.advice for finding in findings):
                raise typer.Exit(2)
            if install_test:
                _install_test(submission, python_env)

    def _install_test(submission, python_env: Path | None) -> None:
        from . import install_test
        with terminated_like_interrupted():
            steps = install_test.install_test(submission, prepared=python_env, say=typer.echo)
        if not steps[-1].passed:
            typer.echo(steps[-1].output)
            typer.echo(f"The install test failed at {steps[-1].name}; its output is above.", err=True)
            raise typer.Exit(2)
        typer.echo("The install test passed.")

    @app.command()
    def pack(
        name: Annotated[str | None, typer.Argument(help="A model, as `wiring models` lists them.")] = None,
        output: Annotated[Path | None, typer.Option("-o", "--output", help="The zip; with --all, the folder for the "
                                                    "zips. IDENTIFIER.zip in the current folder if left out.")] = None,
        all_: Annotated[bool, typer.Option("--all", help="One zip for each model.")] = False,
        identifier: Annotated[str | None, typer.Option(metavar="ID", help="What the platform is to call the model, "
                              "such as a new version; made from its name if left out.")] = None,
        weights: Annotated[Path | None, typer.Option(metavar="FILE.safetensors", help="Write the trained weights to a "
                           "file for the site's large-file upload, and no zip.")] = None,
        hosted: Annotated[str | None, typer.Option(metavar="URL", help="Where the site put that file; the zip then "
                                                   "holds its checksum in its place.")] = None,
    ) -> None:
        """Make the zip that brain-score.org takes: one model, with all that it needs inside."""
        if (name is None) != all_:
            raise WiringError("Give the name of one model, or --all for every model. `wiring models` lists them.")
        if weights and (all_ or hosted or output or identifier):
            raise WiringError("--weights writes one model's weights file and no zip. Give it with a name alone.")
        if all_ and (hosted or identifier):
            raise WiringError("--hosted and --identifier are about one model. Give them with a name.")
        with terminated_like_interrupted():
            if weights:
                _write_weights(name, weights)
            elif all_:
                _pack_all(output or Path())
            else:
                _pack_one(name, output, identifier=identifier, hosted=hosted)

    def _pack_one(name: str, output: Path | None, **options) -> None:
        from .pack import pack
        from shlex import quote
        packed = pack(name, output, **options)
        typer.echo(f"{packed.path}: {packed.name} as {packed.identifier}, {packed.size / 1e6:.2f} MB, {packed.tensors} "
                   "tensors stored and the rest drawn again when it is loaded. "
                   f"Next: `wiring check {quote(str(packed.path))} --install-test`.")

    def _pack_all(folder: Path) -> None:
        from wiring_plugins import load_registry
        from .pack import identify
        if not folder.is_dir():
            raise WiringError(f"There is no folder {folder}. With --all, -o names the folder that the zips go to.")
        registry, failed = load_registry(), []
        for name, recipe in sorted(registry.recipes.items()):
            try:
                _pack_one(name, folder / f"{identify(recipe)}.zip", registry=registry)
            except WiringError as error:
                typer.echo(f"{name}: {error}", err=True)
                failed.append(name)
        if failed:
            raise WiringError(f"{len(failed)} of {len(registry.recipes)} models were not packed: {', '.join(failed)}.")

    def _write_weights(name: str, path: Path) -> None:
        from shlex import quote
        from .pack import stored_weights
        sha256 = stored_weights(name, path)
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256}. Upload it on the site as a large "
                   f"file, then: `wiring pack {quote(name)} --hosted URL`.")
