"""The submission package's commands."""
from wiring_plugins import hookimpl


@hookimpl
def wiring_commands(app, bench):
    pass
