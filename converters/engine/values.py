"""What happens to values on the way: casts, folded constants and their inverse, and how exact each path is.

Arithmetic is float32 with one rounding at the end, as in mapping_language section 8. A constant that the target
folds into a weight is applied to the value as rounded to the run's dtype, and its result is kept in float32 where
the run's dtype would round it: then the way back returns every bit, but for single elements (subnormals, NaN
payloads, float32 sources) that are found here by doing the way back at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

AnyArray = np.ndarray[Any, np.dtype[Any]]

# Elements handled at a time, so that temporaries stay in the cache whatever the size of the array.
_BLOCK = 1 << 18

FLOAT_DTYPES = ("float64", "float32", "float16", "bfloat16")
_RANK = {"EXACT": 0, "INVERTIBLE": 1, "ROUNDING": 2, "LOSSY": 3}


class Operation(Protocol):
    """A value operation of a bound rule: `scale` multiplies by `value`, `add` adds it."""

    @property
    def kind(self) -> str:
        """scale or add."""

    @property
    def value(self) -> float:
        """The factor or the addend."""

    @property
    def factor_dtype(self) -> str:
        """The dtype that the factor is rounded to first, or empty."""


@functools.lru_cache(maxsize=64)
def dtype_of(name: str) -> np.dtype[Any]:
    """NumPy's dtype for a name; bfloat16 and the float8 kinds come from ml_dtypes."""
    import ml_dtypes

    extra = getattr(ml_dtypes, name, None)
    return np.dtype(extra) if extra is not None else np.dtype(name)


def itemsize(name: str) -> int:
    """Bytes of one element."""
    return int(dtype_of(name).itemsize)


def is_narrow(name: str) -> bool:
    """Whether a dtype has fewer bytes than float32, in which values are computed."""
    return itemsize(name) < itemsize("float32")


def widens(source: str, target: str) -> bool:
    """Whether every value of `source` is a value of `target`."""
    if source == target:
        return True
    ranges = {
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float16", "float64"),
        ("bfloat16", "float64"),
        ("float32", "float64"),
    }
    return (source, target) in ranges


def common(names: Iterable[str]) -> str:
    """The narrowest dtype that holds the values of all."""
    found = sorted(set(names), key=FLOAT_DTYPES.index)
    if len(found) == 1:
        return found[0]
    return "float64" if "float64" in found else "float32"


@dataclasses.dataclass(frozen=True)
class ValuePath:
    """How the values of one array travel.

    Attributes:
        source_dtype: as stored in the source.
        logical_dtype: between the source's and the target's operations.
        target_dtype: as stored in the target.
        source_ops: the source format's operations; undone first, last to first.
        target_ops: the target format's operations; applied first to last.
        exactness: EXACT, INVERTIBLE, ROUNDING or LOSSY.
        residue: whether single elements that do not come back are looked for.
        recorded_dtype: of the values before the source's operations, as recorded; empty where nothing says. Later
            changes may have left values of a wider dtype, so each element is looked at: see `decode`.
    """

    source_dtype: str
    logical_dtype: str
    target_dtype: str
    source_ops: tuple[Operation, ...] = ()
    target_ops: tuple[Operation, ...] = ()
    exactness: str = "EXACT"
    residue: bool = False
    recorded_dtype: str = ""

    @property
    def moves_bytes(self) -> bool:
        """Whether values are untouched."""
        return not self.source_ops and not self.target_ops and self.source_dtype == self.target_dtype


def factor_of(op: Operation) -> np.float32:
    """The constant of an operation as float32, rounded to its factor_dtype first where that is given."""
    value: Any = np.float32(op.value)
    if op.factor_dtype:
        name = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}.get(op.factor_dtype, op.factor_dtype)
        value = dtype_of(name).type(op.value)
    return np.float32(value)


def is_power_of_two(op: Operation) -> bool:
    """Whether scaling by the operation's factor changes only exponents."""
    return op.kind == "scale" and math.frexp(abs(float(factor_of(op))))[0] == 0.5


def worse(*classes: str) -> str:
    """The worst of several exactness classes."""
    return max(classes, key=lambda name: _RANK[name])


def decode(stored: AnyArray, ops: Sequence[Operation], logical_dtype: str, recorded_dtype: str = "") -> AnyArray:
    """Undoes operations: a new C-contiguous array of logical values, or the input where nothing changes.

    Args:
        stored: the values after the operations.
        ops: undone last to first.
        logical_dtype: of the result.
        recorded_dtype: dtype that the values may have had before the operations; empty where nothing says. If it is
            narrower than the logical one, each element is rounded to it where the operations then give its stored bits
            again, and is the quotient or difference itself where they do not: something changed it since. That is of
            float32, or of float64 where the logical dtype is.
    """
    goal = dtype_of(logical_dtype)
    if not ops and stored.dtype == goal:
        return stored
    out = np.empty(stored.shape, goal)
    narrow = _narrower(recorded_dtype, logical_dtype)
    with np.errstate(all="ignore"):
        for source, target in _blocks(np.ascontiguousarray(stored), out):
            if not ops:
                target[...] = source.astype(goal)
            elif narrow is None:
                target[...] = _undone(source, ops, np.float32).astype(goal)
            else:
                _undo_each(source, target, ops, narrow)
    return out


def _narrower(recorded: str, logical: str) -> np.dtype[Any] | None:
    """The recorded dtype, where values are rounded more by it than by arithmetic and by the logical dtype."""
    if not recorded or recorded == logical or not is_narrow(recorded):
        return None
    return dtype_of(recorded)


def _undo_each(source: AnyArray, target: AnyArray, ops: Sequence[Operation], narrow: np.dtype[Any]) -> None:
    """Fills `target` with what `source` was before the operations: a narrow value wherever one gives its bits."""
    bits = f"u{source.dtype.itemsize}"
    inverse = _undone(source, ops, np.float32)
    before = inverse.astype(narrow).astype(np.float32)
    target[...] = before
    other = _applied(before, ops).astype(source.dtype, copy=False).view(bits) != source.view(bits)
    if not other.any():
        return
    if target.dtype == np.float64:
        target[other] = _undone(source[other], ops, np.float64)
    else:
        np.copyto(target, inverse, where=other)


def _undone(source: AnyArray, ops: Sequence[Operation], dtype: type[np.floating[Any]]) -> AnyArray:
    work = source.astype(dtype)
    for op in reversed(ops):
        (np.divide if op.kind == "scale" else np.subtract)(work, factor_of(op), out=work)
    return work


def _applied(work: AnyArray, ops: Sequence[Operation]) -> AnyArray:
    """The values after the operations, in place of those before them."""
    for op in ops:
        (np.multiply if op.kind == "scale" else np.add)(work, factor_of(op), out=work)
    return work


def encode(logical: AnyArray, ops: Sequence[Operation], stored_dtype: str) -> AnyArray:
    """Applies operations: a new C-contiguous array as stored, or the input where nothing changes."""
    goal = dtype_of(stored_dtype)
    if not ops and logical.dtype == goal:
        return logical
    out = np.empty(logical.shape, goal)
    with np.errstate(all="ignore"):
        for source, target in _blocks(np.ascontiguousarray(logical), out):
            if not ops:
                target[...] = source.astype(goal)
                continue
            target[...] = _applied(source.astype(np.float32), ops).astype(goal)
    return out


def lost_elements(logical: AnyArray, stored: AnyArray, ops: Sequence[Operation]) -> AnyArray:
    """Flat indices of the elements whose stored form does not give back the logical bits."""
    bits = np.dtype(f"u{logical.dtype.itemsize}")
    name = str(logical.dtype)
    found: list[AnyArray] = []
    start = 0
    for source, kept in _blocks(np.ascontiguousarray(logical), np.ascontiguousarray(stored)):
        back = decode(kept, ops, name)
        found.append(np.flatnonzero(back.view(bits) != source.view(bits)) + start)
        start += source.size
    return np.concatenate(found) if found else np.empty(0, np.int64)


def largest_bits(values: AnyArray) -> tuple[int, int, int]:
    """The largest bit patterns without the sign of positive and of negative values, and the pattern of infinity.

    A pattern of 0 means that there are no such values but zeros; one of infinity's that there are infinite ones, and a
    larger one that there is NaN.
    """
    dtype = values.dtype
    bits = np.dtype(f"u{dtype.itemsize}")
    infinity = int(np.array(np.inf, dtype).view(bits)) if str(dtype) in FLOAT_DTYPES else 1 << 62
    flat = np.ascontiguousarray(values).reshape(-1).view(bits)
    if not flat.size:
        return 0, 0, infinity
    # As signed integers positive values come out on top, as unsigned ones negative values do: no temporary is needed.
    positive = max(0, int(flat.view(f"i{dtype.itemsize}").max()))
    mask = (1 << (8 * dtype.itemsize - 1)) - 1
    top = int(flat.max())
    return positive, top & mask if top > mask else 0, infinity


def finite_range(values: AnyArray) -> tuple[float, float, bool]:
    """The least and the greatest finite value, zero counted; and whether there is NaN."""
    low = high = 0.0
    not_a_number = False
    for block in _parts(np.ascontiguousarray(values)):
        with np.errstate(invalid="ignore"):  # of NaN that signals
            wide = block.astype(np.float64)
        finite = np.isfinite(wide)
        low = min(low, float(wide.min(where=finite, initial=0.0)))
        high = max(high, float(wide.max(where=finite, initial=0.0)))
        not_a_number = not_a_number or bool(np.isnan(wide).any())
    return low, high, not_a_number


def has_infinity(values: AnyArray) -> bool:
    """Whether any value is infinite."""
    return any(bool(np.isinf(block).any()) for block in _parts(np.ascontiguousarray(values)))


def _blocks(first: AnyArray, second: AnyArray) -> Iterator[tuple[AnyArray, AnyArray]]:
    return zip(_parts(first), _parts(second), strict=True)


def _parts(array: AnyArray) -> Iterator[AnyArray]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]
