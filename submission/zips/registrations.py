"""How the site and the platform read a plugin's `__init__.py`: as text, each in its own way."""
from __future__ import annotations

import re

from .archive import Submission
from .platform import REGISTRATION

SITE_ID = re.compile(r"model_registry\['(.+?)'\]")


def with_init(zip_: Submission) -> list[str]:
    return [plugin for plugin in zip_.plugins if "__init__.py" in zip_.plugin_files(plugin)]


def init_code(zip_: Submission, plugin: str) -> str:
    """The plugin's `__init__.py` as the site reads it: without what follows a `#`."""
    return "\n".join(line.split("#")[0] for line in zip_.text(plugin, "__init__.py").splitlines())


def site_ids(zip_: Submission, plugin: str) -> list[str]:
    return list(dict.fromkeys(SITE_ID.findall(init_code(zip_, plugin))))


def all_ids(zip_: Submission) -> list[str]:
    return list(dict.fromkeys(name for plugin in with_init(zip_) for name in site_ids(zip_, plugin)))


def registrations(zip_: Submission, plugin: str) -> list[tuple[int, str]]:
    """The numbered lines that the platform takes for registrations."""
    lines = re.split(r"\r\n|\r|\n", zip_.text(plugin, "__init__.py"))  # those of Python: a form feed ends none
    return [(number, line) for number, line in enumerate(lines, 1) if "model_registry[" in line]


def unusable_lines(zip_: Submission, plugin: str) -> list[str]:
    """Live registrations whose identifier is not a literal."""
    return [line.strip() for line in init_code(zip_, plugin).splitlines()
            if "model_registry[" in line and not REGISTRATION.search(line)]
