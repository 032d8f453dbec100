"""What the installed Brain-Score platform already holds, read as text: nothing of it is imported."""
from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "brainscore_vision"
BARRED = frozenset({"resnet50_tutorial"})
"""Identifiers that the site refuses by name: everybody's copy of its tutorial."""

REGISTRATION = re.compile(r"""model_registry\[\s*['"]([^'"]+)['"]\s*\]""")


def platform_folder() -> Path | None:
    """Where the platform is installed for this Python; None if it is not."""
    spec = find_spec(PACKAGE)
    return Path(spec.origin).parent if spec and spec.origin else None


@lru_cache(maxsize=1)
def taken_names() -> frozenset[str]:
    """Folders of the platform's models and the identifiers that they register, in lower case; empty without a platform.

    Identifiers that a model registers in a loop cannot be read from its text and are missed.
    """
    folder = platform_folder()
    if folder is None:
        return BARRED
    taken = set(BARRED)
    for model in (folder / "models").iterdir():
        if model.is_dir() and not model.name.startswith(("_", ".")):
            taken.add(model.name.lower())
            init = model / "__init__.py"
            if init.is_file():
                taken.update(name.lower() for name in REGISTRATION.findall(init.read_text("utf-8", "replace")))
    return frozenset(taken)
