"""Training: any recipe under any amount of supervision, resumable, and counted.

>>> from wiring_training import Condition, train
>>> train(["wiring-ct"], data="imagenet/", out="run", condition=Condition(images=1000, image_size=64))  # doctest: +SKIP
"""
from .condition import Condition, Hardware

_LAZY = {"train": "loop", "open_data": "data", "export": "checkpoint"}

__all__ = ["Condition", "Hardware", *_LAZY]


def __getattr__(name: str):
    """Import what needs numpy and torch when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
