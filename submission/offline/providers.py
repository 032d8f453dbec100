"""Puts the local stimuli and references where the platform's benchmarks look for them."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from . import references, stimuli

BENCHMARKS = (
    "Marques2020_Cavanaugh2002-grating_summation_field",
    "Marques2020_Cavanaugh2002-surround_diameter",
    "Marques2020_Cavanaugh2002-surround_suppression_index",
    "Marques2020_DeValois1982-pref_or",
    "Marques2020_DeValois1982-peak_sf",
    "Marques2020_Schiller1976-sf_selective",
    "Marques2020_Schiller1976-sf_bandwidth",
)
"""The platform's benchmarks that need nothing but what is provided here."""


@contextmanager
def serve_locally(degrees: int = stimuli.NATIVE_DEGREES, *, progress=None) -> Iterator[None]:
    """Within this context the platform loads the local stimulus sets and references in place of its downloads.

    degrees: width of the screen that the images show (see :func:`.stimuli.load`). The platform's registries are as before
    afterwards.
    """
    import brainscore_vision
    import brainscore_vision.data.marques2020  # noqa: F401  it fills the registries, once, and must not do so later

    load_set = {name: partial(stimuli.load, name, degrees, progress=progress) for name in stimuli.STIMULUS_SETS}
    load_data = {name: partial(_reference, name, load_set[reference.stimulus_set])
                 for name, reference in references.REFERENCES.items()}
    registries = ((brainscore_vision.stimulus_set_registry, load_set), (brainscore_vision.data_registry, load_data))
    before = [{name: registry[name] for name in ours} for registry, ours in registries]
    for registry, ours in registries:
        registry.update(ours)
    try:
        yield
    finally:
        for (registry, _), theirs in zip(registries, before):
            registry.update(theirs)


def _reference(identifier: str, load_stimuli):
    return references.load(identifier, load_stimuli())
