"""The training package's commands, and the image sets that it can open."""
from wiring_plugins import hookimpl


@hookimpl
def wiring_open_data(spec, split):
    from .data import open_built_in
    return open_built_in(spec, split)


@hookimpl
def wiring_commands(app, bench):
    from . import commands
    from .bench import train as bench_train
    app.command()(commands.train)
    app.command()(commands.export)
    commands.add_data_commands(app)
    bench.command("train")(bench_train)
