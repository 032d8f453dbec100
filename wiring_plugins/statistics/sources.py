"""The sources that ship or were imported, and `wiring statistics`: list, show, import and fetch."""
import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Annotated

from ..errors import DataUnavailable, WiringError
from ..hookspecs import hookimpl
from ..recipe import StatisticsSource
from . import wiring_up_vision
from .files import FOLDER, read, user_folder, write

SHIPPED = {"googlenet": "our own fit to BVLC GoogLeNet (trained on ImageNet): Gabor prior of its 7x7 layer, clusters, "
                        "mixtures and normals of the layers that stand for CORnet-S's areas"}
"""Sources in the package's own folder, by name: what they are."""

TAKEN = {*SHIPPED, "v1-physiology", wiring_up_vision.NAME}
"""Names that no file in the user's folder registers."""


@hookimpl
def wiring_statistics():
    folder = Path(__file__).parent
    sources = [StatisticsSource(name=name, load=_loader(folder / f"{name}.json"), trained=True, doc=doc,
                                reference="Szegedy et al., CVPR 2015; fitted by `wiring fit`")
               for name, doc in SHIPPED.items()]
    sources.append(StatisticsSource(
        name=wiring_up_vision.NAME, load=_published, trained=True,
        doc="The reference work's own published clusters and Gabor fits; after `wiring statistics fetch` or `import`.",
        reference=wiring_up_vision.REFERENCE))
    return sources + [StatisticsSource(name=name, load=_loader(path), trained=True, doc=f"Imported: {path}")
                      for name, path in _imported().items()]


def _imported() -> dict[str, Path]:
    """The statistics files in the user's folder, by the names of their sources."""
    return {path.stem: path for path in sorted(user_folder().glob("*.json")) if path.stem not in TAKEN}


def _loader(path: Path):
    return functools.partial(_read_once, path)


def _published():
    path = user_folder() / f"{wiring_up_vision.NAME}.json"
    if not path.is_file():
        raise DataUnavailable(f"The statistics {wiring_up_vision.NAME!r} are not on this machine. Type "
                              f"`wiring statistics fetch {wiring_up_vision.NAME}`, or `wiring statistics import FOLDER` with a "
                              "copy of the folder `pretrained` of the reference repository.")
    return _read_once(path)


def _read_once(path: Path):
    return _read_cached(path, path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=8)
def _read_cached(path: Path, changed: int):
    return read(path)


@hookimpl
def wiring_commands(app):
    import typer

    statistics = typer.Typer(no_args_is_help=True, help="The small distributions that weights are sampled from.")
    app.add_typer(statistics, name="statistics")

    @statistics.command("list")
    def list_() -> None:
        """List the sources, and whether each is on this machine."""
        from ..columns import print_columns
        from ..plugins import load_registry
        rows, registry = [], load_registry()
        for name, source in sorted(registry.statistics.items()):
            try:
                registry.load_source(name)
                state = "present"
            except DataUnavailable:
                state = "not fetched"
            except WiringError:
                state = "damaged"
            rows.append((name, state, "trained network" if source.trained else "recordings", source.doc))
        print_columns(("source", "state", "taken from", "what it is"), rows)

    @statistics.command()
    def show(source: Annotated[str, typer.Argument(help="A source by name, or a statistics file.")]) -> None:
        """Show what a source holds for each layer, how many numbers that is, and where they come from."""
        from ..columns import print_columns
        from ..plugins import load_registry
        from .types import Statistics
        registered = None
        if Path(source).suffix == ".json" or Path(source).is_file():
            loaded = read(Path(source))
        else:
            registry = load_registry()
            registered, loaded = registry.source(source), registry.load_source(source)
        if not isinstance(loaded, Statistics):
            numbers = {name: part.numbers() for name, part in vars(loaded).items() if hasattr(part, "numbers")}
            print("\n".join(f"{name}: {count} numbers, for any layer" for name, count in numbers.items()))
            print(f"doc: {registered.doc}\nreference: {registered.reference or 'none'}")
            return
        names: dict[str, list[str]] = {}
        for area, fitted in loaded.areas.items():
            names.setdefault(fitted, []).append(area)
        print_columns(("layer", "stands for", "shape", "holds (numbers)"), [
            (path, ", ".join(names.get(path, [path])), "x".join(map(str, layer.shape)),
             ", ".join(f"{name} {part.numbers()}" for name, part in layer.parts().items()))
            for path, layer in loaded.layers.items()])
        for key, value in loaded.provenance.items():
            if not isinstance(value, dict):
                print(f"{key}: {value}")

    @statistics.command("import")
    def import_(
        path: Annotated[Path, typer.Argument(help="The reference work's folder `pretrained`, or a file made by "
                                                  "`wiring fit`.")],
        name: Annotated[str, typer.Option(help="Name of the new source, for a file; that which `wiring fit` gave it "
                                         "if left out.")] = "",
    ) -> None:
        """Keep a copy of foreign statistics, so that recipes can name them as their source."""
        if path.is_dir():
            if name not in ("", wiring_up_vision.NAME):
                raise WiringError(f"A folder is imported as {wiring_up_vision.NAME!r}. Leave --name out.")
            _store(wiring_up_vision.convert(path), wiring_up_vision.NAME)
        elif path.exists():
            statistics = read(path)
            _store(statistics, name or statistics.name)
        else:
            raise WiringError(f"There is no file or folder {path}. Give the reference work's folder `pretrained`, or a "
                              "file made by `wiring fit`.")

    @statistics.command()
    def fetch(source: Annotated[str, typer.Argument(help=f"{wiring_up_vision.NAME!r}.")]) -> None:
        """Download a source that does not ship, check it against its pinned checksums, and keep it."""
        if source != wiring_up_vision.NAME:
            raise WiringError(f"{source!r} is nothing to fetch. Legal: {wiring_up_vision.NAME!r}. "
                              "`wiring statistics list` says which sources are present.")
        with tempfile.TemporaryDirectory() as folder:
            wiring_up_vision.fetch(Path(folder))
            _store(wiring_up_vision.convert(Path(folder)), source)


def _store(statistics, name: str) -> None:
    from ..names import BIRTH
    from ..plugins import load_registry
    from ..registry import NAME
    if not NAME.fullmatch(name):
        raise WiringError(f"{name!r} is no legal name of a source. A name is lower-case words and numbers joined by "
                          "single hyphens; give one with --name.")
    if name == BIRTH:
        raise WiringError(f"NAME@{BIRTH} is a model without its training, so no source is called {BIRTH!r}. Give "
                          "another --name.")
    if name != wiring_up_vision.NAME and name in load_registry().statistics.keys() - _imported().keys():
        raise WiringError(f"The source {name!r} ships with the program or a plugin and is not replaced. Give another "
                          "--name.")
    if name == wiring_up_vision.NAME and statistics.provenance.get("sha256") != wiring_up_vision.SHA256:
        raise WiringError(f"The source {name!r} is the reference work's own, and this is another. Give another --name.")
    folder = user_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WiringError(f"The folder {folder} cannot be made: {error.strerror}. Name another in ${FOLDER}.") from error
    write(dataclasses.replace(statistics, provenance={**statistics.provenance, "name": name}), folder / f"{name}.json")
    print(f"{name}: {len(statistics.layers)} layers, kept in {folder / f'{name}.json'}.")
