"""Files that are whole or absent."""
from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import WiringError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well and is removed when it does not.

    Raises:
        WiringError: `path` is a folder or a device, its folder does not exist or is not writable, or the disk is full.
            `path` is as before.
    """
    path = Path(path)
    with _told(path):
        part = _beside(path)
        try:
            yield part
            os.replace(part, path)
        finally:
            with suppress(OSError):  # a read-only disk, of which the error has told already
                part.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """Raise what :func:`replacing` would raise for `path`, before the work whose result it is to hold."""
    path = Path(path)
    with _told(path):
        part = _beside(path)
        part.touch()
        part.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A path that cannot be written ends in a sentence."""
    try:
        if path.exists() and not path.is_file():
            raise WiringError(f"{path} is a {'folder' if path.is_dir() else 'device'}. Give the path of a file.")
        yield
    except OSError as error:
        raise WiringError(f"{path} cannot be written: {error.strerror or error}. {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room on the disk and run the command again; what was there before is untouched."
    return "Give a path in a folder that exists and that you may write to."
