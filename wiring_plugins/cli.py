"""The command line: one app under two names, `wiring` and `brainscore`. Plugins add the sub-commands."""
from __future__ import annotations

import os
import sys
import warnings
from functools import cache

from .errors import WiringError


def main() -> None:
    """Entry point of the console scripts. Errors that a user can mend are one sentence and an exit code."""
    warnings.showwarning = _show_warning
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # None if closed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a γ that a terminal cannot show ends no command
    debug = bool(os.environ.get("WIRING_DEBUG"))
    try:
        app = make_app()
        app(standalone_mode=True)
    except WiringError as error:
        if debug:
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug or error.filename is None:
            raise
        print(f"Error: {error.filename} cannot be used: {error.strerror}. Name another, or mend its permissions; "
              "WIRING_DEBUG=1 shows where it failed.", file=sys.stderr)
        sys.exit(WiringError.exit_code)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def make_app():
    """The Typer app with every plugin's sub-commands."""
    import typer

    from .plugins import add_commands, load_host

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                      help="Models of the visual system that are wired instead of trained.")
    bench = typer.Typer(no_args_is_help=True, help="Measure speed and memory, side by side with the plain way.")
    add_commands(load_host(), app, bench)
    app.add_typer(bench, name="bench")
    return app


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    from .plugins import PluginWarning
    if issubclass(category, PluginWarning):
        _print_warning(str(message))


@cache  # plugins are loaded for the commands and again for the registry
def _print_warning(text: str) -> None:
    print(f"Warning: {text}", file=sys.stderr)
