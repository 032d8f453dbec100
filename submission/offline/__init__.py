"""The seven Marques2020 V1 benchmarks whose reference data are published histograms, without any download.

The platform's own benchmark classes run unmodified; this package gives them the stimuli, which it renders, and the
reference distributions, which it builds from the published counts.
"""
from .providers import BENCHMARKS, serve_locally

__all__ = ["BENCHMARKS", "serve_locally"]
