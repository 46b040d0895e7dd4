"""Which plain arrays the arrays of a quantised checkpoint make, from its scheme and its headers together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

from converters.formats.base import TensorInfo
from converters.quantized.stored import Sizes, Stored, packed_columns, shapes_of_scales
from reporting.diagnostics import Diagnostic, RecastError
from validators.quantization import FLOAT8, INT8, MXFP4, PACKED, Scheme, Weights

SizesOf = Callable[[str], Sizes]
"""Reads a small array of integers, which some formats keep shapes in."""

_SCALE_DTYPES = ("float32", "bfloat16", "float16")
_CODE_DTYPES = (FLOAT8, INT8)
_OCTETS = 16
_RUNTIME = "a scale for activations or the key-value cache, which plain weights have no use for"
# What stands after the name of a module or attention, and scales no weight.
_RUNTIME_NAMES = frozenset(
    f"{prefix}_{kind}"
    for prefix in ("act", "activation", "input", "output", "k", "v", "kv", "q", "key", "value")
    for kind in ("scale", "zero_point", "global_scale")
) | {"activation_scale_inv", "input_scale_inv"}


@dataclasses.dataclass(frozen=True)
class Recognition:
    """What the headers of a quantised checkpoint mean.

    Attributes:
        stored: the arrays that are decoded, by plain name.
        plain: the arrays that are stored plainly.
        left: arrays that are not converted, with the reason.
        found: what is wrong.
    """

    stored: Mapping[str, Stored]
    plain: Mapping[str, TensorInfo]
    left: Mapping[str, str]
    found: tuple[Diagnostic, ...]


@dataclasses.dataclass(frozen=True)
class _Names:
    """How a method names what belongs to a plain array: by what it adds to the name."""

    codes: tuple[str, ...]
    scales: str
    zero_points: str = ""
    shape: str = ""


_NAMES = {
    "fp8": _Names(("",), "_scale_inv"),
    "compressed-tensors": _Names(("", "_packed"), "_scale", "_zero_point", "_shape"),
    "mxfp4": _Names(("_blocks",), "_scales"),
}
# What vLLM reads and AutoFP8 wrote has the method's name too, but one scale for each tensor, under another name.
_AUTOFP8 = _Names(("",), "_scale")
_AUTOFP8_WEIGHTS = Weights(FLOAT8, 8, (0, 0))


def recognise(scheme: Scheme, tensors: Mapping[str, TensorInfo], sizes_of: SizesOf) -> Recognition:
    """Groups stored arrays into plain ones.

    Args:
        scheme: what the config announces.
        tensors: the headers.
        sizes_of: reads an array of sizes.
    """
    return _Recogniser(scheme, tensors, sizes_of).run()


class _Recogniser:
    def __init__(self, scheme: Scheme, tensors: Mapping[str, TensorInfo], sizes_of: SizesOf):
        self._scheme = scheme
        self._tensors = tensors
        self._sizes_of = sizes_of
        self._names = _NAMES[scheme.method]
        if scheme.method == "fp8" and _is_autofp8(tensors):
            self._names = _AUTOFP8
            self._scheme = dataclasses.replace(scheme, weights=(_AUTOFP8_WEIGHTS,))
        ending = self._names.zero_points
        self._zero_points = {_numberless(name) for name in tensors if ending and name.endswith(ending)}
        self._found: list[Diagnostic] = []

    def run(self) -> Recognition:
        left = {name: _RUNTIME for name in self._tensors if name.rpartition(".")[2] in _RUNTIME_NAMES}
        rest = {name: info for name, info in self._tensors.items() if name not in left}
        codes = dict(self._codes(rest))
        taken = {name for names in codes.values() for name in names}
        stored: dict[str, Stored] = {}
        for plain, names in codes.items():
            taken.update(self._partners(plain, rest))
            self._check_claims(plain, names)
            try:
                stored[plain] = self._stored(plain, names[0])
            except RecastError as error:
                self._found.extend(error.diagnostics)
        plain_arrays = {}
        for name, info in rest.items():
            if name in taken:
                continue
            owner = self._owner(name)
            if owner is None:
                plain_arrays[name] = info
            else:
                self._found.append(self._without_codes(name, owner))
        return Recognition(stored, plain_arrays, left, tuple(self._found))

    def _codes(self, rest: Mapping[str, TensorInfo]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Plain names, each with the arrays that claim to be its codes."""
        claims: dict[str, list[str]] = {}
        for name, info in rest.items():
            for end in self._names.codes:
                if not end and info.dtype in _CODE_DTYPES and not self._is_partner(name):
                    claims.setdefault(name, []).append(name)
                elif end and name.endswith(end):
                    claims.setdefault(name.removesuffix(end), []).append(name)
        for plain, names in claims.items():
            # A plain array of the same name claims the place too.
            more = [plain] if plain in rest and plain not in names else []
            yield plain, (*names, *more)

    def _is_partner(self, name: str) -> bool:
        ends = (self._names.scales, self._names.zero_points, self._names.shape)
        return any(end and name.endswith(end) for end in ends)

    def _partners(self, plain: str, rest: Mapping[str, TensorInfo]) -> Iterator[str]:
        for end in (self._names.scales, self._names.zero_points, self._names.shape):
            if end and plain + end in rest:
                yield plain + end

    def _owner(self, name: str) -> str | None:
        """The plain array that an array which nothing claims would scale, or None if it is plain itself."""
        for end in (self._names.scales, self._names.zero_points, self._names.shape):
            plain = name.removesuffix(end)
            if plain == name:
                continue
            # `_scale` and `_shape` are common words: what stands before them must be a weight.
            sure = self._names.scales != "_scale" or plain.rpartition(".")[2] == "weight"
            if sure or plain in self._tensors:
                return plain
        return None

    def _check_claims(self, plain: str, names: tuple[str, ...]) -> None:
        if len(names) > 1:
            reason = f"{' and '.join(names)} both are {plain}, once it is decoded."
            suggestion = "Take the files of one checkpoint only; remove the array that does not belong to it."
            self._found.append(Diagnostic("DUPLICATE_TENSOR", reason, suggestion=suggestion, subject=plain))

    def _without_codes(self, name: str, plain: str) -> Diagnostic:
        if plain in self._tensors:
            kept = self._tensors[plain].dtype
            reason = f"{name} would scale codes, but {plain} is stored plainly, as {kept}."
            return Diagnostic("UNKNOWN_TENSOR", reason, subject=name)
        codes = " or ".join(plain + end for end in self._names.codes)
        return Diagnostic("MISSING_TENSOR", f"{codes} is missing; {name} is there to scale it.", subject=plain)

    def _stored(self, plain: str, codes: str) -> Stored:
        """The plain array that codes make.

        Raises:
            RecastError: what is wrong with it.
        """
        info = self._tensors[codes]
        kind = {"_packed": PACKED, "_blocks": MXFP4}.get(codes.removeprefix(plain), info.dtype)
        ways = [weights for weights in self._scheme.weights if weights.codes == kind]
        if not ways:
            announced = "; ".join(str(weights) for weights in self._scheme.weights)
            reason = f"{codes} holds codes of {info.dtype}; quantization_config announces: {announced or 'none'}."
            raise _fault("CONFIG_CONTRADICTS_TENSORS", reason, codes)
        scales = plain + self._names.scales
        if scales not in self._tensors:
            raise _fault("MISSING_TENSOR", f"{scales} is missing; {codes} cannot be decoded without it.", scales)
        wanted = {PACKED: "int32", MXFP4: "uint8"}.get(kind, kind)
        if info.dtype != wanted:
            raise _fault("TENSOR_DTYPE", f"{codes} is of type {info.dtype}; such codes are {wanted}.", codes)
        known = ("uint8",) if kind == MXFP4 else _SCALE_DTYPES
        given = self._tensors[scales]
        if given.dtype not in known:
            reason = f"{scales} is of type {given.dtype}; scales are {', '.join(known)}."
            raise _fault("TENSOR_DTYPE", reason, scales)
        if kind == MXFP4:
            return self._mxfp4(plain, info, given, ways[0])
        fitting = []
        for weights in ways:
            shape = self._plain_shape(plain, info, weights)
            if shape is not None and given.shape in shapes_of_scales(shape, weights) and not _is_cut(shape, weights):
                fitting.append((shape, weights))
        if not fitting:
            raise self._misfit(plain, info, given, ways)
        return self._with_zero_points(plain, info, given, fitting)

    def _with_zero_points(
        self, plain: str, info: TensorInfo, scales: TensorInfo, fitting: list[tuple[Sizes, Weights]]
    ) -> Stored:
        zeros = plain + self._names.zero_points if self._names.zero_points else ""
        if zeros not in self._tensors and _numberless(zeros) in self._zero_points:
            # Its like in other layers have them: they were lost, and the array is not one of a symmetric group.
            fitting = [way for way in fitting if not way[1].symmetric] or fitting
        # Of ways with and without zero points, an array has the one that it has the arrays of.
        likely = [way for way in fitting if way[1].symmetric != (zeros in self._tensors)] or fitting
        made = [
            Stored(
                plain, shape, weights, info.name, scales.name, scales.shape, scales.dtype, rounded=self._rounded(scales)
            )
            for shape, weights in likely
        ]
        if len({_meaning(one) for one in made}) > 1:
            ways = "; ".join(str(one.weights) for one in made)
            reason = f"{scales.name} fits several ways of storing {info.name}: {ways}."
            raise _fault("CONFIG_CONTRADICTS_TENSORS", reason, plain)
        chosen = made[0]
        if zeros not in self._tensors:
            if not chosen.weights.symmetric:
                raise _fault("MISSING_TENSOR", f"{zeros} is missing; {info.name} is not symmetric.", zeros)
            return chosen
        there = self._tensors[zeros]
        if chosen.weights.codes == PACKED:
            reason = f"{zeros} gives zero points, but quantization_config says that {plain} is symmetric."
            raise _fault("CONFIG_CONTRADICTS_TENSORS", reason, zeros)
        if there.shape != scales.shape:
            reason = f"{zeros} has the shape {list(there.shape)}; its scales have {list(scales.shape)}."
            raise _fault("TENSOR_SHAPE", reason, zeros)
        if there.dtype not in (INT8, FLOAT8, *_SCALE_DTYPES):
            raise _fault("TENSOR_DTYPE", f"{zeros} is of type {there.dtype}, not {INT8}.", zeros)
        return dataclasses.replace(chosen, zero_points=zeros)

    def _rounded(self, scales: TensorInfo) -> str:
        """compressed-tensors computes in the dtype of its scales; the other methods in float32."""
        own = self._scheme.method == "compressed-tensors" and scales.dtype != "float32"
        return scales.dtype if own else ""

    def _plain_shape(self, plain: str, codes: TensorInfo, weights: Weights) -> Sizes | None:
        if weights.codes != PACKED:
            return codes.shape if len(codes.shape) > 1 else None
        name = plain + self._names.shape
        if name not in self._tensors or self._tensors[name].shape != (len(codes.shape),):
            return None
        shape = self._sizes_of(name)
        fits = len(shape) > 1 and all(size > 0 for size in shape)
        fits = fits and codes.shape == (*shape[:-1], packed_columns(shape[-1], weights.bits))
        return shape if fits else None

    def _mxfp4(self, plain: str, codes: TensorInfo, scales: TensorInfo, weights: Weights) -> Stored:
        *lead, rows, groups, octets = codes.shape if len(codes.shape) > 2 else (0, 0, 0)
        if octets != _OCTETS:
            reason = (
                f"{codes.name} has the shape {list(codes.shape)}; codes are kept as [..., rows, groups, {_OCTETS}]."
            )
            raise _fault("TENSOR_SHAPE", reason, codes.name)
        if scales.shape != codes.shape[:-1]:
            reason = f"{scales.name} has the shape {list(scales.shape)}; {codes.name} needs {list(codes.shape[:-1])}."
            raise _fault("TENSOR_SHAPE", reason, scales.name)
        shape = (*lead, groups * 2 * octets, rows)
        return Stored(plain, shape, weights, codes.name, scales.name, scales.shape, scales.dtype)

    def _misfit(self, plain: str, codes: TensorInfo, scales: TensorInfo, ways: list[Weights]) -> RecastError:
        """Says which array it is that has the wrong shape."""
        shapes = {weights: self._plain_shape(plain, codes, weights) for weights in ways}
        if all(shape is None for shape in shapes.values()):
            return self._misfit_of_codes(plain, codes, ways)
        for weights, shape in shapes.items():
            if shape and scales.shape in shapes_of_scales(shape, weights):
                groups = f"{shape[-1]} columns are no whole groups of {weights.block[1]}"
                return _fault("TENSOR_SHAPE", f"{codes.name} has the shape {list(codes.shape)}; {groups}.", codes.name)
        wanted = "; ".join(
            f"{list(shapes_of_scales(shape, weights)[0])} ({weights})" for weights, shape in shapes.items() if shape
        )
        reason = f"{scales.name} has the shape {list(scales.shape)}; {codes.name} {list(codes.shape)} needs {wanted}."
        return _fault("TENSOR_SHAPE", reason, scales.name)

    def _misfit_of_codes(self, plain: str, codes: TensorInfo, ways: list[Weights]) -> RecastError:
        if ways[0].codes != PACKED:
            return _fault("TENSOR_SHAPE", f"{codes.name} has the shape {list(codes.shape)}: no matrix.", codes.name)
        name = plain + self._names.shape
        if name not in self._tensors:
            return _fault("MISSING_TENSOR", f"{name} is missing; {codes.name} does not say its columns.", name)
        there = self._tensors[name]
        said = list(self._sizes_of(name)) if there.shape == (len(codes.shape),) else f"of shape {list(there.shape)}"
        bits = ", ".join(str(weights.bits) for weights in ways)
        reason = f"{name} is {said}, which {codes.name} {list(codes.shape)} cannot hold in words of {bits}-bit codes."
        return _fault("TENSOR_SHAPE", reason, name)


def _fault(id: str, reason: str, subject: str) -> RecastError:
    again = "Take the checkpoint from its publisher again; its headers or its config were changed."
    return RecastError.of(id, reason, subject=subject, **({"suggestion": again} if id == "TENSOR_DTYPE" else {}))


def _numberless(name: str) -> str:
    """What the names of one module of all layers, and of all experts, have in common."""
    return re.sub(r"\d+", "#", name)


def _is_autofp8(tensors: Mapping[str, TensorInfo]) -> bool:
    return any(name.endswith(".weight_scale") for name in tensors) and not any(
        name.endswith(_NAMES["fp8"].scales) for name in tensors
    )


def _is_cut(shape: Sizes, weights: Weights) -> bool:
    """Whether a group of columns ends early, where none may."""
    return weights.whole_groups and shape[-1] % weights.block[1] != 0


def _meaning(one: Stored) -> tuple[object, ...]:
    """What decides the values: two ways with equal ones decode alike, as where a block holds the whole matrix."""
    block = tuple(min(size, whole) for size, whole in zip(one.block, one.matrix, strict=True))
    return one.shape, block, one.weights.bits
