"""Reading strangers' pickles without letting them do anything."""
from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np

from ..errors import CorruptFile

LARGEST = 64 << 20
"""Bytes of the largest pickle that is read."""


ARRAY_TYPE = "numpy.ndarray"
"""Stands for the class in a pickle; a string cannot be called."""


def _empty_array(subtype, shape, typecode) -> np.ndarray:
    """What a pickled array begins as, before its state is set."""
    if subtype is not ARRAY_TYPE:
        raise pickle.UnpicklingError(f"an array of type {subtype!r}")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _plain_dtype(name, *flags) -> np.dtype:
    """A numeric dtype, for object arrays would hold further pickled things; a copy, as the pickle may alter it."""
    dtype = np.dtype(name, False, True)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"the data type {dtype}")
    return dtype


def _plain_scalar(dtype, data) -> np.generic:
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"a scalar of type {dtype!r}")
    return np.frombuffer(data, dtype=dtype, count=1)[0]


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): ARRAY_TYPE,
    ("numpy", "dtype"): _plain_dtype,
    **{(f"numpy.{core}.multiarray", name): function for core in ("core", "_core")
       for name, function in (("_reconstruct", _empty_array), ("scalar", _plain_scalar))},
}
"""All that a pickle may name. Everything else, and so every function call, is refused."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, identifier):
        raise pickle.UnpicklingError("it asks for an object from outside")


def read_plain_pickle(path: Path):
    """The lists, dicts, numbers and numeric arrays in a pickle file.

    Raises:
        CorruptFile: the file is truncated or too large, or would make anything else.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST:
        raise CorruptFile(f"{path} has {path.stat().st_size >> 20} MiB; {LARGEST >> 20} MiB is the most that is read.")
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except pickle.UnpicklingError as error:
        raise CorruptFile(f"{path} is refused: {error}. Only numbers, arrays, lists and dicts are read from a "
                          "pickle; nothing in it was executed.") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise CorruptFile(f"{path} cannot be read as a pickle ({type(error).__name__}: {error}). It may be truncated; "
                          "get it again.") from error
