"""A submission zip as its rules see it, opened without trusting it: nothing is unpacked before it is found harmless."""
from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from wiring_plugins import WiringError

MAX_UNPACKED = 1 << 29
"""Bytes a submission may unpack to: ten times the site's limit for the zip itself."""

MAX_RATIO, MAX_UNPACKED_AT_ANY_RATIO = 100, 50 << 20
"""A zip that unpacks to more than so many times its size, and to more than so many bytes, is taken for a bomb."""

MAX_ENTRIES = 10_000
MAX_NAME, MAX_PATH = 255, 1000
"""Bytes in a file's name, and in its whole path, that every file system takes."""

UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError,
              UnicodeDecodeError)
"""What Python raises at damaged zips, and at kinds of zip that it does not know."""

MACOS = "__MACOSX/"


class Refused(WiringError):
    """A zip that is not opened at all: it is none, it is locked or damaged, or unpacking it would do harm."""


@dataclass(frozen=True)
class Submission:
    """An open zip that :func:`open_submission` found harmless. `names` are its entries' paths, folders with a slash."""

    path: Path
    size: int
    zip: zipfile.ZipFile

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All entries but macOS's shadow copies, which the site skips."""
        return tuple(name for name in self.zip.namelist() if not name.startswith(MACOS))

    @cached_property
    def files(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if not name.endswith("/"))

    @cached_property
    def root(self) -> str:
        """The first entry's top folder: the only one, unless a rule is broken."""
        return next((name.split("/")[0] for name in self.names if "/" in name), "")

    @cached_property
    def plugins(self) -> tuple[str, ...]:
        """The folders in `root/models/`, as their names alone, whether or not they have an entry of their own."""
        found = {parts[2]: None for name in self.names
                 if len(parts := name.split("/")) > 3 and parts[:2] == [self.root, "models"]}
        return tuple(found)

    def plugin_files(self, plugin: str) -> tuple[str, ...]:
        """Paths of the plugin's files, relative to its folder."""
        return self._files_by_plugin.get(plugin, ())

    @cached_property
    def _files_by_plugin(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name in self.files:
            root, *rest = name.split("/", 3)
            if root == self.root and len(rest) == 3 and rest[0] == "models":
                found.setdefault(rest[1], []).append(rest[2])
        return {plugin: tuple(files) for plugin, files in found.items()}

    def read(self, plugin: str, file: str) -> bytes:
        return self.zip.read(f"{self.root}/models/{plugin}/{file}")

    def text(self, plugin: str, file: str) -> str:
        """A plugin's text file; empty if there is none. Bytes that are not UTF-8 are replaced: a rule reports them."""
        return self.read(plugin, file).decode(errors="replace") if file in self.plugin_files(plugin) else ""

    def unpack(self, plugin: str, target: Path) -> None:
        """Write the plugin's files below the folder `target`."""
        for file in self.plugin_files(plugin):
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(plugin, file))


@contextmanager
def open_submission(path: str | Path) -> Iterator[Submission]:
    """The zip at `path`, once it is known that reading and unpacking it harms nobody.

    Raises:
        Refused: there is no such file, it is no zip, is damaged or encrypted, holds links, absolute paths, `..`, one
            path twice or one that cannot be unpacked, has more than `MAX_ENTRIES` entries, or may be a bomb.
    """
    path = Path(path)
    if not path.is_file():
        raise Refused(f"There is no file {path}. Give the path of a zip, such as one that `wiring pack` made.")
    try:
        zip_file = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise Refused(f"{path} is no readable zip ({error}). It may be truncated, or another format under the name "
                      "of a zip; make it again.") from error
    with zip_file:
        _refuse_harm(path, zip_file)
        yield Submission(path, path.stat().st_size, zip_file)


def _refuse_harm(path: Path, zip_file: zipfile.ZipFile) -> None:
    entries = zip_file.infolist()
    if len(entries) > MAX_ENTRIES:
        raise Refused(f"{path} holds {len(entries):,} entries; a submission has at most {MAX_ENTRIES:,}. "
                      "Leave data and caches out.")
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > MAX_UNPACKED or unpacked > max(MAX_RATIO * size, MAX_UNPACKED_AT_ANY_RATIO):
        raise Refused(f"{path} says it unpacks from {size / 1e6:.1f} MB to {unpacked / 1e6:,.0f} MB: that may be a zip "
                      f"bomb. A submission unpacks to at most {MAX_UNPACKED / 1e6:,.0f} MB and to at most {MAX_RATIO} "
                      "times its size.")
    seen = {}
    for entry in entries:
        _refuse_entry(path, entry)
        folded = entry.filename.rstrip("/").casefold()
        if folded in seen:
            raise Refused(f"{path} holds {entry.filename!r} twice (the other is {seen[folded]!r}), and which one would "
                          "win depends on the machine. Make the zip again from a clean folder.")
        seen[folded] = entry.filename
    _refuse_file_as_folder(path, zip_file.namelist())
    for entry in entries:
        _refuse_damage(path, zip_file, entry)


def _refuse_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    if entry.flag_bits & 0x1:
        raise Refused(f"{path} is encrypted ({name!r}). The platform has no password; zip it without one.")
    if name.startswith(("/", "\\")) or "\\" in name or name[1:2] == ":" or "\0" in name:
        raise Refused(f"{path} holds the absolute or foreign path {name!r}, which could be written anywhere. "
                      "Entries are relative paths with forward slashes, such as 'my_model/models/my_model/model.py'.")
    if ".." in PurePosixPath(name).parts:
        raise Refused(f"{path} holds the path {name!r}, which climbs out of its folder with '..'. "
                      "Zip the folder itself: `zip -r x.zip my_model`.")
    if len(name.encode()) > MAX_PATH or any(len(part.encode()) > MAX_NAME for part in name.split("/")):
        raise Refused(f"{path} holds the path {name[:40]!r}..., which is too long for many file systems: a name has at "
                      f"most {MAX_NAME} bytes, and a path {MAX_PATH}. Shorten it.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "link" if kind == stat.S_IFLNK else "device or pipe"
        raise Refused(f"{path} holds the {what} {name!r}. Put a copy of the file in its place: zip without "
                      "`--symlinks`.")


def _refuse_file_as_folder(path: Path, names: list[str]) -> None:
    files = {name for name in names if not name.endswith("/")}
    for name in names:
        for parent in PurePosixPath(name).parents:
            if str(parent) in files:
                raise Refused(f"{path} holds {str(parent)!r} both as a file and as a folder, and can hardly be "
                              "unpacked. Rename one.")


def _refuse_damage(path: Path, zip_file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read the entry to its end in blocks: a checksum that fails, or more bytes than it says, is an error here."""
    try:
        with zip_file.open(entry) as stream:
            while stream.read(1 << 20):
                pass
    except UNREADABLE as error:
        raise Refused(f"{path} is damaged at {entry.filename!r}, or compressed in a way that Python cannot read "
                      f"({error}). Make it again.") from error
