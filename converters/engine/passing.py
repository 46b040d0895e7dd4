"""What is seen of the values that pass: their largest magnitude, and whether a finite value becomes infinite.

All that happens to a value on its way is monotone: casts, and scaling or adding a constant. So the least and the
greatest finite value of what a unit takes tell whether any of its values overflows, without a look at the result.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Container

import numpy as np

from converters.engine import values
from converters.engine.plan import Box, Unit
from converters.engine.values import AnyArray, ValuePath
from mappings.language.keeping import is_kept


@dataclasses.dataclass(frozen=True)
class Seen:
    """Values of one array of the source that one unit takes.

    Attributes:
        largest: the largest magnitude as a bit pattern, and the pattern of infinity; an infinity that decoding made is
            left out.
        low: the least finite value, or 0; `high` the greatest, or 0.
        overflowed: whether decoding made a value infinite.
    """

    largest: tuple[int, int]
    low: float
    high: float
    overflowed: bool = False

    def and_also(self, other: Seen) -> Seen:
        """Both."""
        return Seen(
            higher(self.largest, other.largest),
            min(self.low, other.low),
            max(self.high, other.high),
            self.overflowed or other.overflowed,
        )


class Passing:
    """Keeps what is seen of the units of a group until it is asked for. Not thread-safe."""

    def __init__(self, decoded: Container[str]):
        """Args: names of the source's arrays that are decoded as they are read."""
        self._decoded = decoded
        self._units: dict[tuple[str, Box], dict[str, Seen]] = {}

    def note(self, unit: Unit, name: str, array: AnyArray) -> None:
        """Looks at values of an array of the source, before any operation, that a unit takes."""
        if str(array.dtype) not in values.FLOAT_DTYPES:
            return
        held = self._units.setdefault((unit.array.info.name, unit.box), {})
        found = seen(array, name in self._decoded)
        held[name] = found if name not in held else held[name].and_also(found)

    def taken(self, unit: Unit) -> tuple[dict[str, tuple[int, int]], dict[str, float]]:
        """What was seen of a unit, by array of the source; it is forgotten.

        Returns:
            The largest magnitude of each as bit patterns; and for those of which a finite value became infinite, the
            largest finite magnitude, infinity where decoding made it so.
        """
        held = self._units.pop((unit.array.info.name, unit.box), {})
        overflowed = {
            name: math.inf if found.overflowed else max(found.high, -found.low)
            for name, found in held.items()
            if found.overflowed or overflows(_path_of(unit, name), found.low, found.high)
        }
        return {name: found.largest for name, found in held.items()}, overflowed


def seen(array: AnyArray, decoded: bool) -> Seen:
    """What there is to see of floating-point values.

    Args:
        array: the values.
        decoded: whether they were decoded: codes mean finite values or NaN, so an infinity is a value that overflowed.
    """
    positive, negative, infinity = values.largest_bits(array)
    if max(positive, negative) < infinity:
        low, high = -_number(negative, array.dtype), _number(positive, array.dtype)
        return Seen((max(positive, negative), infinity), low, high)
    low, high, not_a_number = values.finite_range(array)
    if not decoded:
        return Seen((max(positive, negative), infinity), low, high)
    finite = max(_bits(high, array.dtype), _bits(-low, array.dtype))
    largest = infinity + 1 if not_a_number else finite
    return Seen((largest, infinity), low, high, values.has_infinity(array))


def overflows(path: ValuePath, low: float, high: float) -> bool:
    """Whether a finite value becomes infinite on a path; `low` and `high` are the least and the greatest."""
    if max(high, -low) <= _always_finite(path):
        return False
    with np.errstate(all="ignore"):
        stored = np.array([low, high]).astype(values.dtype_of(path.source_dtype))
    logical = values.decode(stored, path.source_ops, path.logical_dtype, path.recorded_dtype)
    return values.has_infinity(values.encode(logical, path.target_ops, path.target_dtype))


def higher(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    """The larger of two magnitudes, each a bit pattern and that of infinity; their dtypes may differ."""
    return max(first, second, key=lambda one: (one[0] >= one[1], one[0] / one[1]))


def largest_of(dtype: str) -> float:
    """The largest finite value of a dtype."""
    infinity = values.dtype_of(dtype).type(math.inf)
    bits = np.dtype(f"u{infinity.dtype.itemsize}")
    return _number(int(np.array(infinity).view(bits)) - 1, infinity.dtype)


def _path_of(unit: Unit, name: str) -> ValuePath:
    """What happens to values of an array of the source; what was kept beside a source has no operations to undo."""
    path = unit.array.path
    return dataclasses.replace(path, source_ops=()) if path.source_ops and is_kept(name) else path


@functools.lru_cache(maxsize=256)
def _always_finite(path: ValuePath) -> float:
    """Magnitudes up to this one stay finite on a path; those above it are tried."""
    if path.source_ops or path.target_ops:
        return -1.0
    return min(largest_of(dtype) for dtype in (path.source_dtype, path.logical_dtype, path.target_dtype))


def _number(bits: int, dtype: np.dtype[np.generic]) -> float:
    return float(np.array([bits], f"u{dtype.itemsize}").view(dtype)[0])


def _bits(number: float, dtype: np.dtype[np.generic]) -> int:
    return int(np.array([number]).astype(dtype).view(f"u{dtype.itemsize}")[0])
