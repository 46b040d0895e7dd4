"""Scales must be numbers that a code can be multiplied by: not zero, not NaN, not infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from converters.formats.base import Region, Source
from converters.formats.regions import shape_of
from converters.quantized.arithmetic import E8M0_NAN
from converters.quantized.stored import AnyArray, Stored
from reporting.diagnostics import Diagnostic, RecastError

# Bytes of scales beyond which they are not looked through before a run: each is still looked at when it is used.
_FEW = 4 << 30
_SLAB = 8 << 20


def check(name: str, region: Region, values: AnyArray) -> None:
    """Looks at the scales of a region.

    Raises:
        RecastError: SCALE_INVALID for the first one that is bad.
    """
    found = _bad(name, region, values)
    if found is not None:
        raise RecastError([found])


def check_all(source: Source, stored: Iterable[Stored]) -> list[Diagnostic]:
    """Looks through all scales, where these are few: one diagnostic for each array with a bad one."""
    arrays = list(stored)
    sizes = sum(math.prod(one.scales_shape) * np.dtype(_width(one)).itemsize for one in arrays)
    if sizes > _FEW:
        return []
    found = []
    for one in arrays:
        for region in _slabs(one.scales_shape, np.dtype(_width(one)).itemsize):
            values = source.read(one.scales, region)
            bad = _bad(one.scales, region, values)
            source.release(one.scales, region)
            if bad is not None:
                found.append(bad)
                break
    return found


def _bad(name: str, region: Region, values: AnyArray) -> Diagnostic | None:
    if values.dtype == np.uint8:
        wrong = values == E8M0_NAN
    else:
        wide = values.astype(np.float32)
        wrong = ~np.isfinite(wide) | (wide == 0)
    if not wrong.any():
        return None
    where = np.unravel_index(int(np.argmax(wrong)), shape_of(region)) if region else ()
    place = [int(index) + start for index, (start, _) in zip(where, region, strict=True)]
    value = "NaN (exponent 255)" if values.dtype == np.uint8 else str(values[where])
    count = int(np.count_nonzero(wrong))
    more = f"; {count} scales in this part of it are bad" if count > 1 else ""
    return Diagnostic("SCALE_INVALID", f"Scale {place} of {name} is {value}{more}.", subject=name)


def _slabs(shape: tuple[int, ...], itemsize: int) -> Iterator[Region]:
    """A whole array in ranges of its first axis."""
    if not shape:
        yield ()
        return
    rest = tuple((0, size) for size in shape[1:])
    step = max(1, _SLAB // max(1, math.prod(shape[1:]) * itemsize))
    for low in range(0, shape[0], step):
        yield ((low, min(low + step, shape[0])), *rest)


def _width(one: Stored) -> str:
    return {"bfloat16": "uint16"}.get(one.scales_dtype, one.scales_dtype)
