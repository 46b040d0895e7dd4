"""What published files hold, as public reports on them list it: 100,000 names, shapes and dtypes in few lines.

A line is a name, a shape and a dtype. A part of a name like `3-61` stands for each of these numbers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

_RANGE = re.compile(r"\b(\d+)-(\d+)\b")
_LINE = re.compile(r"(\S+) \[([\d, ]+)\] (\w+)")
_QUANTISED = "float8_e4m3fn"
_BLOCK = 128


@dataclasses.dataclass(frozen=True)
class Published:
    """Tensors of published files by name.

    Attributes:
        shapes: of all tensors but the scales of FP8 weights.
        dtypes: of the same tensors.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    @property
    def tensors(self) -> int:
        """How many there are, one scale for each FP8 weight included."""
        return len(self.shapes) + sum(dtype == _QUANTISED for dtype in self.dtypes.values())

    @property
    def elements(self) -> int:
        """How many numbers they hold, a scale for each block of 128 x 128 FP8 numbers included."""
        scales = (
            math.prod(-(-size // _BLOCK) for size in shape)
            for name, shape in self.shapes.items()
            if self.dtypes[name] == _QUANTISED
        )
        return sum(math.prod(shape) for shape in self.shapes.values()) + sum(scales)


def parse(text: str) -> Published:
    """The tensors that the lines of a text stand for."""
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for line in text.strip().splitlines():
        match = _LINE.fullmatch(line.strip())
        assert match is not None, line
        shape = tuple(int(size) for size in match[2].split(","))
        for name in _names(match[1]):
            assert name not in shapes, name
            shapes[name], dtypes[name] = shape, match[3]
    return Published(shapes, dtypes)


def _names(pattern: str) -> list[str]:
    template = _RANGE.sub("{}", pattern)
    ranges = [range(int(first), int(last) + 1) for first, last in _RANGE.findall(pattern)]
    return [template.format(*numbers) for numbers in itertools.product(*ranges)]
