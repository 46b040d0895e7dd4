"""Evaluating what a rule says of values and storage: operations, codec, optional."""

from __future__ import annotations

import dataclasses

from mappings.language.arrays import BoundOp
from mappings.language.codecs import BoundCodec
from mappings.language.errors import MappingErrors
from mappings.language.nodes import Codec, Op, Rule, Scale
from mappings.language.scopes import Symbols


@dataclasses.dataclass(frozen=True, slots=True)
class RuleForm:
    """A rule's evaluated parts that do not depend on where it is applied."""

    ops: tuple[BoundOp, ...]
    codec: BoundCodec | None
    optional: bool


def bind_form(rule: Rule, symbols: Symbols) -> RuleForm:
    """Evaluates a rule's operations, codec and condition of being optional.

    Raises:
        MappingErrors: an expression has no value, or a codec does not exist.
    """
    ops = tuple(_op(op, symbols) for op in rule.op if symbols.holds(op.when, op.location))
    optional = bool(rule.optional) and symbols.holds(rule.optional, rule.location)
    codec = None
    if rule.codec is not None and symbols.holds(rule.codec.when, rule.codec.location):
        codec = _codec(rule.codec, symbols)
    return RuleForm(ops, codec, optional)


def _op(op: Op, symbols: Symbols) -> BoundOp:
    if op.scale is not None:
        return BoundOp("scale", _factor(op.scale, symbols), op.scale.factor_dtype)
    if op.add is not None:
        return BoundOp("add", float(symbols.integer(op.add.value, op.add.location)))
    raise MappingErrors.of(op.location, "an op is either scale or add", "syntax")


def _factor(scale: Scale, symbols: Symbols) -> float:
    of = symbols.integer(scale.of, scale.location)
    if of < 1 or scale.half_powers == 0:
        raise MappingErrors.of(scale.location, f"scale by {of} ** ({scale.half_powers} / 2)", "value")
    return float(of ** (scale.half_powers / 2))


def _codec(codec: Codec, symbols: Symbols) -> BoundCodec:
    block = tuple(symbols.integer(size, codec.location) for size in codec.block)
    bound = BoundCodec(codec.kind, block, tuple((array.role, array.name) for array in codec.array))
    try:
        bound.check()
    except ValueError as error:
        raise MappingErrors.of(codec.location, str(error), "value") from None
    return bound
