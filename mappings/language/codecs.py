"""Codecs as layouts declare them: which physical arrays store a coded array, with their shapes and dtypes.

Decoding and encoding are not the language's: it only derives what must be in a checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class StoredArray:
    """An array as it lies in a checkpoint.

    Attributes:
        role: what it holds of its codec's array ("blocks", "scales", ...); "values" where there is no codec.
        name: its name, the part included as in the layout's names.
        shape: its shape.
        dtype: its dtype where the codec fixes it, else "".
    """

    role: str
    name: str
    shape: Shape
    dtype: str


@dataclasses.dataclass(frozen=True, slots=True)
class BoundCodec:
    """How the arrays of one rule are stored.

    Attributes:
        kind: the codec's name.
        block: sizes of its blocks.
        names: (role, name) of physical arrays whose names the layout gives; "{name}" in them is the rule's name.
    """

    kind: str
    block: tuple[int, ...]
    names: tuple[tuple[str, str], ...]

    def stored(self, name: str, shape: Shape) -> tuple[StoredArray, ...]:
        """The physical arrays of one array.

        Raises:
            ValueError: the shape cannot be coded in this way; the text says why.
        """
        given = dict(self.names)
        parts = _KINDS[self.kind].parts(shape, self.block)
        return tuple(
            StoredArray(role, given.get(role, default).replace("{name}", name), part_shape, dtype)
            for role, default, part_shape, dtype in parts
        )

    def check(self) -> None:
        """Checks what the layout says of the codec.

        Raises:
            ValueError: there is no such codec, or it has other roles or blocks.
        """
        kind = _KINDS.get(self.kind)
        if kind is None:
            raise ValueError(f"there is no codec '{self.kind}'; there are: {', '.join(sorted(_KINDS))}")
        if len(self.block) != kind.blocks or any(size < 1 for size in self.block):
            raise ValueError(f"codec '{self.kind}' takes {kind.blocks} block sizes, not {list(self.block)}")
        unknown = [role for role, _ in self.names if role not in kind.roles]
        if unknown:
            raise ValueError(f"codec '{self.kind}' has no role '{unknown[0]}'; it has: {', '.join(kind.roles)}")


_Parts = tuple[tuple[str, str, Shape, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """One codec: (role, default name, shape, dtype) of its physical arrays from shape and block sizes."""

    roles: tuple[str, ...]
    blocks: int
    parts: Callable[[Shape, tuple[int, ...]], _Parts]


def _mxfp4(shape: Shape, block: tuple[int, ...]) -> _Parts:
    """OCP MX with E2M1 elements: 32 values share an E8M0 scale, two values to a byte, along the last axis."""
    groups = _groups(shape, 32)
    return (
        ("blocks", "{name}_blocks", (*shape[:-1], groups, 16), "uint8"),
        ("scales", "{name}_scales", (*shape[:-1], groups), "uint8"),
    )


def _fp8_block(shape: Shape, block: tuple[int, ...]) -> _Parts:
    """E4M3 values and one float32 factor per block; blocks at the edges are cut."""
    if len(shape) != len(block):
        raise ValueError(f"blocks {list(block)} do not fit shape {list(shape)}")
    scales = tuple(-(-size // length) for size, length in zip(shape, block, strict=True))
    return (
        ("values", "{name}", shape, "float8_e4m3fn"),
        ("scales", "{name}_scale_inv", scales, "float32"),
    )


def _int8_channel(shape: Shape, block: tuple[int, ...]) -> _Parts:
    """int8 values and one factor for each position of all axes but the last."""
    _groups(shape, 1)
    return (("values", "{name}", shape, "int8"), ("scales", "{name}_scaler", shape[:-1], "bfloat16"))


def _int8_block(shape: Shape, block: tuple[int, ...]) -> _Parts:
    """(out, in) stored as int8 (in / block, block, out) with factors (in / block, out)."""
    if len(shape) != 2:
        raise ValueError(f"int8_block stores matrices, not shape {list(shape)}")
    groups = _groups(shape, block[0])
    return (
        ("values", "{name}", (groups, block[0], shape[0]), "int8"),
        ("scales", "{name}_scaler", (groups, shape[0]), "bfloat16"),
    )


def _groups(shape: Shape, length: int) -> int:
    if not shape or shape[-1] % length:
        raise ValueError(f"the last axis of shape {list(shape)} is not a multiple of {length}")
    return shape[-1] // length


_KINDS: Mapping[str, _Kind] = {
    "mxfp4": _Kind(("blocks", "scales"), 0, _mxfp4),
    "fp8_block": _Kind(("values", "scales"), 2, _fp8_block),
    "int8_channel": _Kind(("values", "scales"), 0, _int8_channel),
    "int8_block": _Kind(("values", "scales"), 1, _int8_block),
}
