"""The user's cache folder, and how whole folders get into it: written beside, renamed at once, verified before reuse."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from wiring_plugins import WiringError

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """`$WIRING_CACHE`, or the operating system's cache folder for this package."""
    from platformdirs import user_cache_dir
    return Path(os.environ.get("WIRING_CACHE") or user_cache_dir("wiring-plugins", appauthor=False))


def verified_folder(folder: Path, names: Iterable[str], fill: Callable[[Path], None]) -> Path:
    """`folder`, holding exactly the files `names` with the contents that `fill` once wrote.

    Every file's SHA-256 is compared with the folder's manifest. If anything is missing, altered or truncated, the folder
    is made again: `fill(temporary folder)` writes the files, and the temporary folder takes the old one's place.

    Raises:
        WiringError: the folder cannot be made.
    """
    names = list(names)
    if not _intact(folder, names):
        try:
            _make(folder, names, fill)
        except OSError as error:
            raise WiringError(f"The cache folder {folder} cannot be written: {error.strerror or error}. Make room, or "
                              "set WIRING_CACHE to a folder that you may write to.") from error
    return folder


def _make(folder: Path, names: list[str], fill: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(fresh)
        sums = {name: _sha256(fresh / name) for name in names}
        (fresh / MANIFEST).write_text(json.dumps(sums))
        _replace(folder, fresh, names)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _intact(folder: Path, names: list[str]) -> bool:
    try:
        sums = json.loads((folder / MANIFEST).read_text())
        return sums.keys() == set(names) and all(_sha256(folder / name) == sums[name] for name in names)
    except (OSError, ValueError, AttributeError):
        return False


def _replace(folder: Path, fresh: Path, names: list[str]) -> None:
    """Move `fresh` to `folder`. Another process may have put an intact one there meanwhile: then that one stays."""
    try:
        os.rename(fresh, folder)
    except OSError:
        if not _intact(folder, names):
            shutil.rmtree(folder)
            os.rename(fresh, folder)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
