"""What a pair of layouts does to each tensor, as data: names, axes, shapes, operations and how exact the way is."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from mappings.language import loader, templates
from mappings.language.arrays import BoundOp
from mappings.language.errors import MappingErrors
from mappings.language.family import Family, IndexValue, bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.nodes import Op
from mappings.language.options import text_of
from mappings.language.places import Place


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """Where one layout keeps a tensor.

    Attributes:
        name: the name template; options are filled in, indices stand in braces.
        axes: the rule's axis expression.
        stack: digits that are stacked, and at which axes of the shape: "l at 1"; "" if none are.
        shape: the shape of one array.
        arrays: number of arrays.
        location: "file:line" of the rule.
    """

    name: str
    axes: str
    stack: str
    shape: tuple[int, ...]
    arrays: int
    location: str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One tensor on its way.

    Attributes:
        tensor: its id.
        source: where it comes from; None if the source does not keep it.
        target: where it goes; None if the target does not keep it.
        ops: what is done to its values, in words; () if bytes move.
        exactness: "EXACT" or "ROUNDING" for plain values in one dtype, "LOSSY" if the target codes it;
            "" where it is on one side only.
        note: why it is on one side only.
    """

    tensor: str
    source: Side | None
    target: Side | None
    ops: tuple[str, ...]
    exactness: str
    note: str


def explain_formats(
    family: str,
    source: str,
    target: str,
    config: Mapping[str, object] | None = None,
    source_options: Mapping[str, object] | None = None,
    target_options: Mapping[str, object] | None = None,
    root: Path | None = None,
) -> tuple[Row, ...]:
    """Rows for a pair of formats.

    Args:
        family: the family's name.
        source: the format to convert from.
        target: the format to convert to.
        config: config.json; the family's first example without it.
        source_options: options of the source layout.
        target_options: options of the target layout.
        root: the folder that holds the families.

    Raises:
        MappingErrors: something does not exist, or does not bind.
    """
    content = loader.load_family(family, root)
    if config is None:
        if not content.node.example:
            raise MappingErrors.of(content.location, f"family '{family}' has no example", "unknown")
        config = json.loads(content.node.example[0].config)
    bound: Family = bind_family(content, config or {})
    return explain(
        bind_layout(bound, loader.load_layout(family, source, root), source_options),
        bind_layout(bound, loader.load_layout(family, target, root), target_options),
    )


def explain(source: Layout, target: Layout) -> tuple[Row, ...]:
    """A row for each tensor and each pair of rules that it moves between, in the family's order."""
    return tuple(row for id in source.family.tensors for row in _rows(id, source, target))


def _rows(id: str, source: Layout, target: Layout) -> Iterator[Row]:
    origins = source.places.get(("", id), ())
    goals = target.places.get(("", id), ())
    tied_to = source.family.ties.get(id)
    if not origins and tied_to and goals:
        origins = source.places.get(("", tied_to), ())
    matched: set[Place] = set()
    for goal in goals:
        for origin in origins:
            if goal.ranks.keys() & origin.ranks.keys():
                matched.update((goal, origin))
                yield Row(
                    tensor=id,
                    source=_side(origin, source),
                    target=_side(goal, target),
                    ops=_described(origin, goal),
                    exactness=_exactness(origin, goal),
                    note=f"from '{tied_to}'" if origin.tensor.id != id else "",
                )
    for origin in origins:
        if origin not in matched and origin.tensor.id == id:
            yield Row(id, _side(origin, source), None, (), "", _why_not(id, origin, target, tied_to))
    for goal in goals:
        if goal not in matched:
            yield Row(id, None, _side(goal, target), (), "", _why_not(id, goal, source, None))


def _why_not(id: str, place: Place, other: Layout, tied_to: str | None) -> str:
    value: IndexValue = next(iter(place.ranks), ())
    absence = other.absence(id, value)
    if absence is not None:
        return f"{absence.reason}; kept beside it" if absence.keep else absence.reason
    return f"tied to '{tied_to}'" if tied_to else f"'{other.format}' has no place for it"


def _side(place: Place, layout: Layout) -> Side:
    form = place.form
    stack = ""
    if form.site.stack:
        axes = ", ".join(map(str, form.stack_axes))
        stack = f"{' '.join(form.site.stack)} at {axes}"
    return Side(
        name=_template(place, layout),
        axes=form.rule.axes,
        stack=stack,
        shape=form.shape,
        arrays=len(set(place.names)),
        location=place.location,
    )


def _template(place: Place, layout: Layout) -> str:
    node = layout.source.node
    part = f"{node.part}|" if node.part else ""
    text = part + (place.form.rule.root or node.root) + place.form.site.node.name + place.form.rule.name
    shown: list[str] = []
    for piece in templates.parse(text):
        if isinstance(piece, str):
            shown.append(piece)
        elif isinstance(piece, templates.Symbol):
            value = layout.symbols.lookup(piece.name)
            shown.append(text_of(value))
        else:
            shown.append("{" + piece.text + "}")
    return "".join(shown)


# ---- operations


def _described(origin: Place, goal: Place) -> tuple[str, ...]:
    undone: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    if origin.form.ops != goal.form.ops:
        undone = tuple(reversed(tuple(_words(origin, inverse=True))))
        done = tuple(_words(goal, inverse=False))
    decoded = (f"decode {origin.form.codec.kind}",) if origin.form.codec else ()
    encoded = (f"encode {goal.form.codec.kind}",) if goal.form.codec else ()
    return (*decoded, *undone, *done, *encoded)


def _words(place: Place, *, inverse: bool) -> Iterator[str]:
    nodes = [op for op in place.form.rule.op if op.scale is not None or op.add is not None]
    for bound, node in zip(place.form.ops, _applied(nodes, len(place.form.ops)), strict=True):
        yield _word(bound, node, inverse=inverse)


def _applied(nodes: list[Op], count: int) -> list[Op | None]:
    """The source of each operation; unknown where conditions left some out."""
    return list(nodes) if len(nodes) == count else [None] * count


def _word(bound: BoundOp, node: Op | None, *, inverse: bool) -> str:
    if bound.kind == "add":
        return f"{'minus' if inverse else 'plus'} {bound.value:g}"
    verb = "divided by" if inverse else "times"
    rounded = f" in {bound.factor_dtype}" if bound.factor_dtype else ""
    if node is None or node.scale is None:
        return f"{verb} {bound.value:.6g}{rounded}"
    powers = node.scale.half_powers
    power = f"{powers // 2}" if powers % 2 == 0 else f"({powers}/2)"
    return f"{verb} {node.scale.of}^{power}{rounded}"


def _exactness(origin: Place, goal: Place) -> str:
    if goal.form.codec is not None and goal.form.codec != origin.form.codec:
        return "LOSSY"
    ops = () if origin.form.ops == goal.form.ops else (*origin.form.ops, *goal.form.ops)
    decoded = origin.form.codec is not None and origin.form.codec != goal.form.codec
    return "ROUNDING" if decoded or not all(map(is_exact, ops)) else "EXACT"


def is_exact(op: BoundOp) -> bool:
    """Whether an operation and its inverse keep every bit, apart from overflow: powers of two do."""
    return op.kind == "scale" and abs(math.frexp(op.value)[0]) == 0.5
