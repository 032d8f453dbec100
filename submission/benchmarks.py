"""Which benchmarks there are: today's identifiers, those of the reference work, groups and wildcards."""
from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from wiring_plugins import UnknownName

from .offline import BENCHMARKS as OFFLINE
from .platform import registered

LEGACY = {
    "movshon.FreemanZiemba2013.V1-pls": "FreemanZiemba2013.V1-pls",
    "movshon.FreemanZiemba2013.V2-pls": "FreemanZiemba2013.V2-pls",
    "movshon.FreemanZiemba2013public.V1-pls": "FreemanZiemba2013public.V1-pls",
    "movshon.FreemanZiemba2013public.V2-pls": "FreemanZiemba2013public.V2-pls",
    **{f"dicarlo.{data}{public}.{region}-pls": f"MajajHong2015{public}.{region}-pls"
       for data in ("Majaj2015", "MajajHong2015") for public in ("", "public") for region in ("V4", "IT")},
    "dicarlo.Rajalingham2018-i2n": "Rajalingham2018-i2n",
    "dicarlo.Rajalingham2018public-i2n": "Rajalingham2018public-i2n",
    "fei-fei.Deng2009-top1": "ImageNet-top1",
}
"""Identifiers of the reference work (Geiger et al. 2022) -> today's."""

PUBLIC_COUNTERPARTS = {
    "FreemanZiemba2013.V1-pls": "FreemanZiemba2013public.V1-pls",
    "FreemanZiemba2013.V2-pls": "FreemanZiemba2013public.V2-pls",
    "MajajHong2015.V4-pls": "MajajHong2015public.V4-pls",
    "MajajHong2015.IT-pls": "MajajHong2015public.IT-pls",
    "Rajalingham2018-i2n": "Rajalingham2018public-i2n",
}
"""Private benchmarks -> those on public data that ask the same."""

PRIVATE = ("FreemanZiemba2013.*", "MajajHong2015.*", "Rajalingham2018-i2n", "Rajalingham2020*", "Sanghavi*", "Kar2019*",
           "Igustibagus2024*", "Bracci2019*", "Marques2020_FreemanZiemba2013-*")
"""Benchmarks whose data only brain-score.org has; those of all others can be downloaded."""

GROUPS = {
    "offline": OFFLINE,
    "public": (*OFFLINE, *PUBLIC_COUNTERPARTS.values()),
    "V1": (*OFFLINE, "FreemanZiemba2013public.V1-pls"),
    "V2": ("FreemanZiemba2013public.V2-pls",),
    "V4": ("MajajHong2015public.V4-pls",),
    "IT": ("MajajHong2015public.IT-pls",),
    "behavior": ("Rajalingham2018public-i2n",),
}
"""Names for several benchmarks at once: those that run without a download, and those on public data by region."""


def resolve(names: Iterable[str]) -> list[str]:
    """Today's identifiers of the benchmarks that `names` stand for, in order, each once; the offline ones if none.

    Raises:
        UnknownName: a name is no benchmark, no group, and no wildcard that matches one.
    """
    known = registered("benchmarks")
    chosen = [identifier for name in list(names) or ["offline"] for identifier in _expand(name, known)]
    return list(dict.fromkeys(chosen))


def is_public(identifier: str) -> bool:
    """Whether the benchmark's data are public, so that its scores go to the public database."""
    return not any(fnmatchcase(identifier, pattern) for pattern in PRIVATE)


def _expand(name: str, known: list[str]) -> Iterable[str]:
    if name in GROUPS:
        return GROUPS[name]
    matches = [identifier for identifier in known if fnmatchcase(identifier, name)]
    matches += [today for old, today in LEGACY.items() if fnmatchcase(old, name)]
    if not matches:
        raise UnknownName("benchmark", name, [*known, *LEGACY, *GROUPS], listed_by="wiring benchmarks")
    return matches
