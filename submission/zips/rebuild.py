"""The proof of a packed model: its files, loaded by their own code, give the network that was packed."""
from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from wiring_plugins import fingerprint

from .vendor import CannotCarry

PACKAGE = "wiring_submission_rebuilt"


def refuse_another(files: Mapping[str, bytes], known: str, name: str) -> None:
    """Raise :class:`CannotCarry` unless the plugin's own loader makes a network of the fingerprint `known`.

    Code that was copied by following its names may still read what was not copied.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        try:
            found = fingerprint(_rebuild(folder).state_dict())
        except Exception as error:  # a stranger's code may fail in any way
            raise CannotCarry(f"{name} cannot be wired from the copies that a submission holds "
                              f"({type(error).__name__}: {error}). Its code needs something that is not reached by "
                              "names and imports: write it so that each function refers to what it uses.") from error
    if found != known:
        raise CannotCarry(f"{name} wired from the copies that a submission holds is another model. Its code depends on "
                          "where it lies, or on what changes between two calls.")


def _rebuild(folder: str):
    """The `torch.nn.Module` that the plugin in `folder` builds. Its modules are forgotten again."""
    package = ModuleType(PACKAGE)  # without its __init__.py, which would register the model in this process
    package.__path__ = [folder]
    sys.modules[PACKAGE] = package
    try:
        return import_module(f"{PACKAGE}.model").build_network()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
