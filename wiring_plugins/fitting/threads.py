"""One thread for fits: their problems are small, and sums that are split among threads round differently each time."""
from __future__ import annotations

import functools


def single_threaded(function):
    """The function, with the thread pools of linear algebra held to one thread while it runs."""
    @functools.wraps(function)
    def limited(*args, **kwargs):
        import sklearn.mixture  # noqa: F401  only thread pools of libraries that are loaded already are held
        from threadpoolctl import threadpool_limits
        with threadpool_limits(limits=1):
            return function(*args, **kwargs)
    return limited
