"""The float8 number nearest to a value, found among all of them: for checking what was encoded in bulk."""

from __future__ import annotations

import functools
import math

import numpy as np

_CODES = 127


def float8(value: float, scale: float) -> np.float32:
    """What remains of a float32 value that is stored as a float8_e4m3fn code with a scale.

    The quotient is rounded to float32 first; of two codes that are equally near, the even one is taken.
    """
    with np.errstate(over="ignore", under="ignore"):
        quotient = float(np.float32(value) / np.float32(scale))
    size = abs(quotient)
    numbers = _numbers()
    code = min(range(_CODES), key=lambda code: (abs(numbers[code] - size), code % 2))
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(np.float32(math.copysign(numbers[code], quotient)) * np.float32(scale))


@functools.cache
def _numbers() -> list[float]:
    """The numbers of the codes without a sign, in ascending order, 448 last."""
    return [_number(code) for code in range(_CODES)]


def _number(code: int) -> float:
    exponent, mantissa = code >> 3, code & 7
    return mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
