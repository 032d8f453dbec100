"""What a submission asks of the environment that the platform makes for it: environment.yml and requirements.txt."""
from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from .archive import Submission

PLATFORM_NEEDS = {
    "numpy": "<2", "pandas": "<3", "scikit-learn": "<1.6", "xarray": "<2022.6", "importlib-metadata": "<5",
    "torch": ">=2.6", "torchvision": ">=0.21", "pyyaml": ">=6.0.3,<7",
}
"""Versions of packages that brainscore-vision 2.4 and brainscore-core 2.5 ask for."""

PLATFORM_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "platform_system": "Linux",
                   "sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"}
"""What the markers of a requirement say of the platform's machines."""


def named_environments(zip_: Submission) -> Iterator[str]:
    for plugin in zip_.plugins:
        yield from (f"models/{plugin}/environment.yml: {line.strip()}"
                    for line in _environment(zip_, plugin) if "name" in line)


def other_pythons(zip_: Submission) -> Iterator[str]:
    for plugin in zip_.plugins:
        pins = [line.split("python=")[1].strip() for line in _environment(zip_, plugin) if "python=" in line]
        if len(pins) > 1 or not all(pin.startswith("3.11") for pin in pins):
            yield f"models/{plugin}/environment.yml: {' and '.join('python=' + pin for pin in pins)}"


def _environment(zip_: Submission, plugin: str) -> list[str]:
    return [re.split(r"(?:^|\s)#", line)[0] for line in zip_.text(plugin, "environment.yml").splitlines()]


def impossible_requirements(zip_: Submission) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement
    for plugin in zip_.plugins:
        wanted: dict[str, list] = {}
        for text in _requirement_lines(zip_, plugin):
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                yield f"{text!r}, which pip cannot read"
                continue
            if requirement.marker is None or requirement.marker.evaluate(PLATFORM_PYTHON):
                wanted.setdefault(re.sub(r"[-_.]+", "-", requirement.name).lower(), []).append(requirement)
        for name, requirements in wanted.items():
            if not _some_version(*(item.specifier for item in requirements), PLATFORM_NEEDS.get(name, "")):
                yield " and ".join(repr(str(item)) for item in requirements)


def _requirement_lines(zip_: Submission, plugin: str) -> Iterator[str]:
    """The requirements that have a name: without comments, options, and what pip fetches from a path or an address."""
    raw = zip_.read(plugin, "requirements.txt") if "requirements.txt" in zip_.plugin_files(plugin) else b""
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    for line in raw.decode(encoding, errors="replace").replace("\r\n", "\n").replace("\\\n", " ").split("\n"):
        text = re.split(r"(?:^|\s)#|\s--", line)[0].strip()
        if text and not text.startswith(("-", ".", "/")) and not re.match(r"[\w+.-]+:", text):
            yield text


def _some_version(*specifiers) -> bool:
    """Whether a version keeps them all. If one does, so does a version that they name, one just above it, or 0."""
    from packaging.specifiers import SpecifierSet
    every = SpecifierSet(",".join(filter(None, map(str, specifiers))))
    named = [item.version.removesuffix(".*") for item in every]
    versions = ["0", *named, *(f"{version.partition('+')[0]}.0.0.1" for version in named)]
    return any(every.contains(version, prereleases=True) for version in versions)
