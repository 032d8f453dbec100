"""Reference distributions of neuronal properties in macaque V1, built from published histograms."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """A published histogram: cells per bin. `logarithmic` bins are halved at their geometric mean.

    Cells of the sample for which the property is undefined (not suppressed, not band-pass) are left to `total`.
    """

    counts: tuple[int, ...]
    edges: tuple[float, ...]
    logarithmic: bool = False

    def values(self, total: int) -> np.ndarray:
        """`total` values: NaN where undefined, then each cell at the middle of its bin.

        The benchmarks' metric counts the values into these same bins again, so a cell's place inside its bin cannot
        matter; the middle makes the reference deterministic.
        """
        edges = np.asarray(self.edges)
        middles = np.sqrt(edges[:-1] * edges[1:]) if self.logarithmic else (edges[:-1] + edges[1:]) / 2
        defined = np.repeat(middles, self.counts)
        return np.concatenate([np.full(total - defined.size, np.nan), defined])


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One study's cells: their number, its histograms by property, and the stimulus set that measures them in a model."""

    cells: int
    stimulus_set: str
    properties: dict[str, Counts]


_OCTAVES = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_HALVES = (0.0, 0.5, 1.0)

REFERENCES = {
    # De Valois, Yund & Hepler 1982, Vision Research 22:531
    "DeValois1982a": Reference(cells=385, stimulus_set="Marques2020_orientation", properties={
        "preferred_orientation": Counts((110, 83, 100, 92), (-22.5, 22.5, 67.5, 112.5, 157.5)),
    }),
    # De Valois, Albrecht & Thorell 1982, Vision Research 22:545: simple and complex, foveal and parafoveal
    "DeValois1982b": Reference(cells=363, stimulus_set="Marques2020_spatial_frequency", properties={
        "peak_spatial_frequency": Counts((3, 10, 15, 31, 57, 62, 67, 63, 31, 15, 5, 4), (
            0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.2, 16.0, 22.4), logarithmic=True),
    }),
    # Schiller, Finlay & Volman 1976, J Neurophysiology 39:1334: simple and complex cells
    "Schiller1976c": Reference(cells=87, stimulus_set="Marques2020_spatial_frequency", properties={
        "spatial_frequency_selective": Counts((14, 73), _HALVES),
        "spatial_frequency_bandwidth": Counts((0, 3, 4, 16, 22, 16, 9, 3, 0, 0), tuple(range(0, 101, 10))),
    }),
    # Cavanaugh, Bair & Movshon 2002, J Neurophysiology 88:2530
    "Cavanaugh2002a": Reference(cells=190, stimulus_set="Marques2020_size", properties={
        "surround_suppression_index": Counts((66, 44, 38, 23, 16, 3, 0, 0, 0, 0), tuple(np.linspace(0, 2, 11).tolist())),
        "strongly_suppressed": Counts((42, 148), _HALVES),
        "grating_summation_field": Counts((0, 9, 30, 55, 42, 10, 2, 0), _OCTAVES, logarithmic=True),
        "surround_diameter": Counts((0, 0, 2, 20, 33, 49, 40, 4), _OCTAVES, logarithmic=True),
        "surround_grating_summation_field_ratio": Counts((69, 38, 31, 10, 0), (1, 2, 4, 8, 16, 32), logarithmic=True),
    }),
}

NUMBER_OF_TRIALS = 20


def load(identifier: str, stimulus_set):
    """The reference as a platform `PropertyAssembly` (cells x properties). identifier: a key of :data:`REFERENCES`."""
    from brainscore_core.supported_data_standards.brainio.assemblies import PropertyAssembly

    reference = REFERENCES[identifier]
    values = np.stack([counts.values(reference.cells) for counts in reference.properties.values()], axis=1)
    assembly = PropertyAssembly(values, dims=["neuroid", "neuronal_property"], coords={
        "neuroid_id": ("neuroid", np.arange(reference.cells)),
        "region": ("neuroid", ["V1"] * reference.cells),
        "neuronal_property": list(reference.properties),
    })
    assembly.attrs.update(
        number_of_trials=NUMBER_OF_TRIALS, stimulus_set=stimulus_set, stimulus_set_identifier=stimulus_set.identifier,
        identifier=identifier,
        **{f"{name}_bins": np.asarray(counts.edges) for name, counts in reference.properties.items()})
    return assembly
