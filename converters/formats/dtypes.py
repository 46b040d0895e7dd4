"""Element types that checkpoints hold, by NumPy's names."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from reporting.diagnostics import Diagnostic

_EXTENSIONS = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}

_NUMPY_NAMES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)

_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in _NUMPY_NAMES} | {
    name: np.dtype(kind) for name, kind in _EXTENSIONS.items()
}

NAMES = tuple(_DTYPES)
"""Names of all element types that sources and sinks take."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of a name in `NAMES`; raises KeyError for any other."""
    return _DTYPES[name]


def element_size(name: str) -> int:
    """Bytes of one element."""
    return int(_DTYPES[name].itemsize)


def unsupported(name: str, dtype: str, suggestion: str = "") -> Diagnostic:
    """What is wrong with an array whose type is not in `NAMES`."""
    reason = f"{name} has elements of type {dtype}"
    return Diagnostic("DTYPE_NOT_SUPPORTED", reason, suggestion=suggestion, subject=name)
