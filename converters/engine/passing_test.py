import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.engine import passing, values
from converters.engine.values import ValuePath


@dataclasses.dataclass(frozen=True)
class Op:
    kind: str
    value: float
    factor_dtype: str = ""


DTYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
# The first values that are rounded to infinity, the last that are not, and others.
EDGES = (0.0, 1.0, 65503.0, 65504.0, 65519.99, 65520.0, 7e4, 1e30, 3.3895e38, 3.3961e38, 3.3962e38, 3.4e38)


def _path(source: str, logical: str, target: str, undone: float = 0, done: float = 0, kind: str = "scale") -> ValuePath:
    before, after = ((Op(kind, value),) if value else () for value in (undone, done))
    return ValuePath(source, logical, target, before, after)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_an_overflow_is_seen_where_a_cast_makes_a_finite_value_infinite(source: str, target: str, sign: int) -> None:
    with np.errstate(over="ignore"):
        stored = [DTYPES[source](sign * edge) for edge in EDGES]
    for value in stored:
        if not np.isfinite(value):
            continue
        with np.errstate(over="ignore"):
            expected = bool(np.isinf(DTYPES[target](value)))
        found = passing.seen(np.array([0.5, value, -0.25], DTYPES[source]), decoded=False)
        assert passing.overflows(_path(source, target, target), found.low, found.high) == expected, value


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (_path("float32", "float16", "float32", done=0.25), 70000.0, True),
        (_path("float32", "float16", "float16", done=4.0), 16379.0, False),
        (_path("float32", "float16", "float16", done=4.0), 16380.0, True),
        (_path("float32", "float16", "float16", undone=0.25), 16379.0, False),
        (_path("float32", "float16", "float16", undone=0.25), -16380.0, True),
        (_path("float32", "float16", "float16", done=32.0, kind="add"), 65500.0, True),
        (_path("float32", "float16", "float16", done=32.0, kind="add"), -65519.0, False),
        (_path("bfloat16", "bfloat16", "float32", done=4.0), 3e38, True),
        (_path("bfloat16", "bfloat16", "bfloat16", done=0.5), 3e38, False),
    ],
)
def test_a_constant_may_cause_or_prevent_an_overflow(path: ValuePath, value: float, expected: bool) -> None:
    found = passing.seen(np.array([value], values.dtype_of(path.source_dtype)), decoded=False)
    assert passing.overflows(path, found.low, found.high) == expected


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("array", "low", "high"),
    [
        ([], 0.0, 0.0),
        ([-0.0, 0.0], 0.0, 0.0),
        ([2.0, 8.0], 0.0, 8.0),
        ([-2.0, -8.0], -8.0, 0.0),
        ([1.0, math.nan, -4.0], -4.0, 1.0),
        ([math.inf, 3.0], 0.0, 3.0),
        ([-math.inf, math.nan, -math.inf], 0.0, 0.0),
    ],
)
def test_the_range_is_that_of_finite_values(dtype: Any, array: list[float], low: float, high: float) -> None:
    found = passing.seen(np.array(array, dtype), decoded=False)
    assert (found.low, found.high) == (low, high)
    assert (found.largest[0] >= found.largest[1]) == any(not math.isfinite(value) for value in array)
    assert (found.largest[0] == 0) == all(value == 0 for value in array)


@pytest.mark.parametrize(
    ("array", "overflowed", "not_finite"),
    [
        ([1.0, -5.0], False, False),
        ([1.0, math.inf, -5.0], True, False),
        ([1.0, math.nan], False, True),
        ([-math.inf, math.nan], True, True),
    ],
)
def test_an_infinity_that_was_decoded_is_an_overflow(array: list[float], overflowed: bool, not_finite: bool) -> None:
    found = passing.seen(np.array(array, np.float16), decoded=True)
    assert found.overflowed == overflowed
    assert (found.largest[0] >= found.largest[1]) == not_finite


def test_magnitudes_of_different_dtypes_compare_by_what_they_say() -> None:
    wide, narrow = (passing.seen(np.array([1.0], dtype), decoded=False).largest for dtype in (np.float32, np.float16))
    infinite = passing.seen(np.array([np.inf], np.float16), decoded=False).largest
    zero = passing.seen(np.zeros(1, np.float32), decoded=False).largest
    bits, infinity = passing.higher(wide, narrow)
    assert 0 < bits < infinity
    assert passing.higher(wide, infinite) == passing.higher(infinite, wide) == infinite
    assert passing.higher(zero, narrow) == narrow
