"""Wiring-plugins: models of the visual system whose weights are wired, that is sampled, rather than trained.

>>> import wiring_plugins
>>> model = wiring_plugins.build_model("wiring-gabor-frozen")
"""
from .errors import (CorruptFile, DataUnavailable, NotEnoughMemory, RegistrationError, UnknownName, WiringError)
from .hookspecs import hookimpl
from .recipe import (Architecture, BatchNorm, Commitment, FrozenMapping, Init, Initializer, Layer, LayerContext, Recipe,
                     StatisticsSource, WeightsRef, from_plain, to_plain)
from .registry import Registry

__version__ = "0.1.0"

_LAZY = {
    "architecture_of": "birth", "draw_weights": "birth", "wire_at_birth": "birth", "wire_uncalibrated": "birth",
    "build_delta": "build", "build_model": "build", "wire": "build",
    "calibrate": "calibration", "noise_images": "calibration",
    "fingerprint": "weights_io", "load_weights": "weights_io", "read_state": "weights_io",
    "count": "counting",
    "CHECKPOINTS": "delta", "DELTA_FORMAT": "delta", "Delta": "delta", "OPTIMIZER": "delta",
    "frozen_fingerprints": "delta", "is_delta": "delta", "newest_in": "delta", "read_delta": "delta",
    "read_metadata": "delta", "stored_names": "delta", "write_delta": "delta",
    "replacing": "files", "require_writable": "files",
    "layer_rng": "seeding",
    "memory_refusal": "memory",
    "BIRTH": "names", "resolve": "names", "families": "siblings",
    "first_answer": "plugins", "load_host": "plugins", "load_registry": "plugins", "tell": "plugins",
    "Statistics": "statistics.types", "encode_statistics": "statistics.files:encode",
    "decode_statistics": "statistics.files:decode",
}

__all__ = [
    "Architecture", "BatchNorm", "Commitment", "CorruptFile", "DataUnavailable", "FrozenMapping", "Init", "Initializer",
    "Layer", "LayerContext", "NotEnoughMemory", "Recipe", "RegistrationError", "Registry", "StatisticsSource",
    "UnknownName", "WeightsRef", "WiringError", "from_plain", "hookimpl", "to_plain", *_LAZY,
]


def __getattr__(name: str):
    """Import what needs numpy when it is first asked for: `import wiring_plugins` itself stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    module, _, original = _LAZY[name].partition(":")
    return getattr(import_module(f".{module}", __name__), original or name)
