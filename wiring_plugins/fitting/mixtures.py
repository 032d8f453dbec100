"""Mixtures of normal distributions, chosen by the Bayesian information criterion."""
from __future__ import annotations

import numpy as np

from ..errors import WiringError
from ..statistics.types import GaborMixture, Mixture, to_vectors
from .threads import single_threaded

MOST_COMPONENTS = 14
"""The largest mixture that is tried, as in the reference work."""

RIDGE = 1e-3
"""Added to every variance, in units of the variance of the data: mixtures of few points stay proper distributions."""

GABOR_RIDGE = 1e-6
"""The same for Gabor priors, as in the reference work: with more, 64 filters lose what holds their colours together."""


@single_threaded
def fit_mixture(points: np.ndarray, *, components: int | None = None, diagonal: bool = False, starts: int = 3,
                ridge: float = RIDGE, seed: int = 0) -> Mixture:
    """Fit normal mixtures to points (n, D) by expectation maximisation and keep that of the least BIC.

    Dimensions are standardised for the fit, so that the ridge means the same in each; one without variance gets none. A
    component needs two points.

    Args:
        components: this many, instead of the choice by BIC among 1..14.

    Raises:
        WiringError: fewer points than two per component.
    """
    from sklearn.mixture import GaussianMixture

    n = len(points)
    most = n // 2
    if most < 1:
        raise WiringError(f"A mixture needs two points at least, and there is {n}. Fit a layer with more filters.")
    if components is not None and not 1 <= components <= most:
        raise WiringError(f"A mixture of {components} components cannot be fitted to {n} points: each needs two. "
                          f"Ask for 1 to {most} components, or leave the choice to the BIC.")
    points = np.asarray(points, dtype=np.float64)
    middle, width = points.mean(axis=0), points.std(axis=0)
    width = np.where(width > 1e-6 * np.abs(points).max(axis=0), width, 0.0)  # a constant stays what it is
    standard = (points - middle) / np.where(width > 0, width, 1.0)
    enough = max(1, len(np.unique(standard, axis=0)) // 2)
    best, least = None, np.inf
    for count in [components] if components else range(1, min(most, enough, MOST_COMPONENTS) + 1):
        model = GaussianMixture(count, covariance_type="diag" if diagonal else "full", reg_covar=ridge, n_init=starts,
                                max_iter=500, random_state=np.random.RandomState(seed)).fit(standard)
        bic = model.bic(standard)
        if bic < least:
            best, least = model, bic
    factors = np.sqrt(best.covariances_) * width if diagonal else np.linalg.cholesky(best.covariances_) * width[:, None]
    return Mixture(weights=best.weights_.astype(np.float32), means=(best.means_ * width + middle).astype(np.float32),
                   cholesky=factors.astype(np.float32))


def fit_gabor_prior(table: np.ndarray, size: int, *, components: int | None = None) -> GaborMixture:
    """The mixture over whole colour filters of fitted Gabors, table (filters, colours, 8), kernels of `size` pixels."""
    table = np.asarray(table, dtype=np.float64)
    vectors = to_vectors(table).reshape(len(table), -1)
    return GaborMixture(mixture=fit_mixture(vectors, components=components, ridge=GABOR_RIDGE), size=size,
                        low=table.min(axis=0).astype(np.float32), high=table.max(axis=0).astype(np.float32))
