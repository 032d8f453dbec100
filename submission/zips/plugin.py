"""`wiring check`: what the platform would say of a submission zip, before it is uploaded."""
from pathlib import Path
from typing import Annotated

from wiring_plugins import hookimpl


@hookimpl
def wiring_commands(app):
    import typer

    @app.command()
    def check(
        file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Any submission zip, made here or not.")],
    ) -> None:
        """Tell what brain-score.org and its plugin tests would refuse in a submission zip, why, and how to mend it."""
        from . import rules
        from .archive import open_submission
        from .report import report
        with open_submission(file) as submission:
            findings = rules.check(submission)
        typer.echo(report(file, findings))
        if any(not finding.rule.advice for finding in findings):
            raise typer.Exit(2)
