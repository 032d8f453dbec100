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
    if path.exists() and not path.is_file():
        raise WiringError(f"{path} is a {'folder' if path.is_dir() else 'device'}. Give the path of a file.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise WiringError(f"{path} cannot be written: {error.strerror or error}. {_advice(error)}") from error
    finally:
        with suppress(OSError):  # a read-only disk, of which the error above has told already
            part.unlink(missing_ok=True)


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room on the disk and run the command again; what was there before is untouched."
    return "Give a path in a folder that exists and that you may write to."
