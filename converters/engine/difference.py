"""What differs between two checkpoints of one model: tensors that one side lacks, shapes, dtypes, values.

Where both sides name their tensors alike, each is compared with its namesake, whatever the model. Otherwise the
family's mapping says which belong together, and values are compared as they are between the operations of the formats.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from converters.engine import comparing, comparison_plan, pairing, recompute, values
from converters.engine.binding import Sides
from converters.engine.comparing import Difference, Differences
from converters.engine.gather import within
from converters.engine.pairing import Checkpoint, Question
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.residue import EMPTY, Residue
from converters.engine.second_side import SecondSide
from converters.engine.values import AnyArray, Operation, ValuePath
from converters.formats.base import Region, TensorInfo
from mappings.language.keeping import is_kept
from mappings.language.regions import Move
from reporting.diagnostics import Diagnostic, RecastError

_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the values of a stored array become those that are compared.

    Attributes:
        ops: operations to undo.
        dtype: of the values.
        narrow: dtype of the values wherever one of it has the stored bits; the others show what differs. Or empty.
    """

    ops: tuple[Operation, ...]
    dtype: str
    narrow: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared, and what is known to differ from headers alone.

    Attributes:
        first: one side.
        second: the other.
        plan: reads the values of the first side, region by region.
        readings: how those of the second are read.
        found: what headers say.
        mapped: whether names of the two sides are matched by the family's mapping.
    """

    first: Checkpoint
    second: Checkpoint
    plan: Plan
    readings: Mapping[str, Reading]
    found: Sequence[Diagnostic]
    mapped: bool


def prepare(
    first: Checkpoint, second: Checkpoint, question: Question, *, ignore_dtype: bool, threads: int, budget: int
) -> Comparison:
    """Matches the tensors of two checkpoints by their headers.

    Raises:
        RecastError: the two have different formats or names and cannot be matched by a family's mapping.
    """
    ours, theirs = first.opened.source.tensors, second.opened.source.tensors
    alike = first.format == second.format
    if alike and set(ours) == set(theirs):
        return _by_name(first, second, ignore_dtype, threads, budget)
    try:
        first, second = pairing.plain(first, second)
        return _mapped(first, second, question, ignore_dtype, threads, budget)
    except RecastError:
        # Without a known model, the names of one format are still comparable.
        if alike and set(ours) & set(theirs):
            return _by_name(*pairing.alike(first, second), ignore_dtype, threads, budget)
        raise


def compare(comparison: Comparison, budget: int, progress: str) -> tuple[int, list[Diagnostic]]:
    """Compares all values.

    Args:
        comparison: what is compared.
        budget: bytes of buffers.
        progress: how it is shown.

    Returns:
        How many bytes of the second side were compared, and each tensor that differs.

    Raises:
        RecastError: MEMORY_PLAN, OUT_OF_MEMORY, and what reading raises.
    """
    comparison_plan.check_memory(comparison.plan, budget)
    first, second = comparison.first, comparison.second
    ours, theirs = (pairing.residue_of(side) if comparison.mapped else Residue(EMPTY) for side in (first, second))
    stored_side = SecondSide(second.opened.source, comparison.plan)
    differences = Differences()

    def visit(name: str, region: Region, expected: AnyArray) -> None:
        reading = comparison.readings[name]

        def take(part: Region, stored: AnyArray) -> None:
            # In blocks where values are computed: those of a whole chunk would take memory that no plan counts.
            for box in comparing.blocks(part) if reading.ops else (part,):
                held = within(stored, part, box)
                found = _logical(name, box, held, reading, theirs)
                differences.compare(name, box, within(expected, region, box), found, held.nbytes)

        stored_side.each(name, region, take)

    recompute.each_region(comparison.plan, first.opened.source, ours, budget, visit, progress)
    found = sorted(differences.arrays.items())
    return differences.bytes, [_differs(comparison, name, difference) for name, difference in found]


def _logical(name: str, region: Region, stored: AnyArray, reading: Reading, residue: Residue) -> AnyArray:
    if not reading.ops:
        return stored
    stored = np.ascontiguousarray(stored)
    out = values.decode(stored, reading.ops, reading.dtype, reading.narrow)
    if name in residue.arrays():
        residue.peek(name, region, stored, out)
    return out


def _by_name(first: Checkpoint, second: Checkpoint, ignore_dtype: bool, threads: int, budget: int) -> Comparison:
    ours, theirs = first.opened.source.tensors, second.opened.source.tensors
    found = [_one_sided(name, first) for name in ours if name not in theirs]
    found += [_one_sided(name, second) for name in theirs if name not in ours]
    both = [name for name in ours if name in theirs]
    found += [_shape(name, ours[name], theirs[name]) for name in both if ours[name].shape != theirs[name].shape]
    comparable = [name for name in both if ours[name].shape == theirs[name].shape]
    if not ignore_dtype:
        found += [_dtype(name, ours[name], theirs[name]) for name in comparable if _of_other_type(ours, theirs, name)]
    plan = comparison_plan.identical(comparable, first.opened.source, second.opened.source, threads, budget)
    readings = {name: Reading((), theirs[name].dtype) for name in comparable}
    return Comparison(first, second, plan, readings, found, mapped=False)


def _of_other_type(ours: Mapping[str, TensorInfo], theirs: Mapping[str, TensorInfo], name: str) -> bool:
    return ours[name].dtype != theirs[name].dtype


def _mapped(
    first: Checkpoint, second: Checkpoint, question: Question, ignore_dtype: bool, threads: int, budget: int
) -> Comparison:
    subject = pairing.subject_of(first, second, question)
    source, target = pairing.layouts_of(subject, first, second, question, lenient=True)
    sides = pairing.compose(subject, first, second, source, target)
    first, second = pairing.alike(first, second, sides.composition.moves)
    ours, theirs = first.opened.source.tensors, second.opened.source.tensors
    feeds: dict[str, list[Move]] = defaultdict(list)
    for move in sides.composition.moves:
        feeds[move.target].append(move)
    found = [*_unmatched(sides, first, second), *_of_state(first, second)]
    comparable = []
    for name in sides.composition.produced:
        fault = _faulty(name, feeds[name], sides, first, second)
        if fault is None:
            comparable.append(name)
        else:
            found.append(fault)
    readings: dict[str, Reading] = {}

    def path_of(array: ArrayPlan) -> ValuePath:
        name = array.info.name
        paths = _readings(array, theirs[name], first, second)
        readings[name] = paths[1]
        return dataclasses.replace(
            array.path,
            logical_dtype=paths[0].dtype,
            target_dtype=paths[0].dtype,
            source_ops=paths[0].ops,
            target_ops=(),
            residue=False,
            recorded_dtype=paths[0].narrow,
        )

    plan = comparison_plan.mapped(_only(sides, comparable), first, second, path_of, "float32", threads, budget)
    if not ignore_dtype:
        found += [
            _dtype(name, ours[array.moves[0].source], theirs[name])
            for name, array in plan.arrays.items()
            if array.moves and not _has_ops(array.moves[0]) and array.path.source_dtype != theirs[name].dtype
        ]
    return Comparison(first, second, plan, readings, found, mapped=True)


def _readings(array: ArrayPlan, stored: TensorInfo, first: Checkpoint, second: Checkpoint) -> tuple[Reading, Reading]:
    """How both sides are read; where a format folds a constant in, values are what they were before that.

    What they were before is what the record says, or else of the dtype of the side that holds them plainly.
    """
    move = array.moves[0] if array.moves else None
    if move is None:
        return Reading((), array.path.target_dtype), Reading((), stored.dtype)
    ours, theirs = array.path.source_dtype, stored.dtype
    plain = ours if not move.source_ops else theirs if not move.target_ops else ""
    left, right = Reading((), ours), Reading((), theirs)
    if move.source_ops:
        left = _undoing(move.source_ops, first.logical_dtypes.get(move.source, ""), plain)
    if move.target_ops:
        right = _undoing(move.target_ops, second.logical_dtypes.get(move.target, ""), plain)
    return left, right


def _undoing(ops: tuple[Operation, ...], recorded: str, plain: str) -> Reading:
    """How an array with operations is read.

    Args:
        ops: to undo.
        recorded: dtype of the values before them, where recorded.
        plain: dtype of the other side, where that has no operations; else empty.
    """
    before = recorded or plain or "float32"
    if not values.is_narrow(before):
        return Reading(ops, before)
    # A quotient in float32 may be a value of a narrower dtype though it was changed; in float64 it is none.
    return Reading(ops, "float64" if plain and values.is_narrow(plain) else "float32", before)


def _has_ops(move: Move) -> bool:
    return bool(move.source_ops or move.target_ops)


def _only(sides: Sides, names: Sequence[str]) -> Sides:
    """The sides with the moves into these arrays alone."""
    kept = set(names)
    composition = dataclasses.replace(
        sides.composition,
        moves=tuple(move for move in sides.composition.moves if move.target in kept),
        produced=tuple(names),
    )
    return dataclasses.replace(sides, composition=composition)


def _faulty(name: str, moves: Sequence[Move], sides: Sides, first: Checkpoint, second: Checkpoint) -> Diagnostic | None:
    """Why an array of the second side cannot be compared, if it cannot."""
    ours, theirs = first.opened.source.tensors, second.opened.source.tensors
    sources = sorted({move.source for move in moves})
    there = [source for source in sources if source in ours]
    if name not in theirs:
        if not there and sources:
            return _found(f"Both sides lack {name}.", name)
        shown = f" as {there[0]}" if there and there[0] != name else ""
        return _found(f"{name} is only in {first.path}{shown}.", name)
    if len(there) < len(sources):
        lacking = next(source for source in sources if source not in ours)
        return _found(f"{name} is in {second.path}, but {first.path} lacks {lacking}.", name)
    for source in sources:
        wanted = next(move.source_shape for move in moves if move.source == source)
        if ours[source].shape != wanted:
            return _found(f"{source} has the shape {list(ours[source].shape)}, not {list(wanted)}.", source)
    if theirs[name].shape != sides.target.arrays[name].shape:
        wanted = sides.target.arrays[name].shape
        return _found(f"{name} has the shape {list(theirs[name].shape)}, not {list(wanted)}.", name)
    return None


def _unmatched(sides: Sides, first: Checkpoint, second: Checkpoint) -> list[Diagnostic]:
    """Tensors that the mapping says nothing of, or that only the second side has."""
    found = []
    produced = set(sides.composition.produced)
    for name in first.opened.source.tensors:
        if name not in sides.source.arrays and _belongs(sides.source.source.node.root, name):
            found.append(_one_sided(name, first))
    moved = {move.source for move in sides.composition.moves}
    found += [_one_sided(name, first) for name in first.opened.source.tensors if is_kept(name) and name not in moved]
    for name in second.opened.source.tensors:
        array = sides.target.arrays.get(name)
        unknown = array is None and _belongs(sides.target.source.node.root, name)
        if unknown or (array is not None and not array.mirror and name not in produced):
            found.append(_one_sided(name, second))
    return found


def _of_state(first: Checkpoint, second: Checkpoint) -> list[Diagnostic]:
    """Training state that only one of two MaxText checkpoints has."""
    if first.format != second.format or pairing.has_state(first) == pairing.has_state(second):
        return []
    only = first if pairing.has_state(first) else second
    return [_found(f"Only {only.path} holds training state.", "opt_state")]


def _belongs(root: str, name: str) -> bool:
    return not root or name.split(".")[0] == root.split(".")[0]


def _differs(comparison: Comparison, name: str, difference: Difference) -> Diagnostic:
    array = comparison.plan.arrays[name]
    size = math.prod(array.info.shape)
    sources = sorted({move.source for move in array.moves})
    others = [source for source in sources if source != name]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    said = f" (in {comparison.first.path} as {', '.join(others[:_NAMED])}{more})" if others else ""
    by = f"by at most {difference.largest:.6g}" if difference.largest else "in signs of zero, NaN or infinities"
    return _found(
        f"{difference.count} of {size} elements of {name}{said} differ, {by}; the first is {list(difference.first)}: "
        f"{difference.expected} and {difference.found}.",
        name,
    )


def _one_sided(name: str, side: Checkpoint) -> Diagnostic:
    return _found(f"{name} is only in {side.path}.", name)


def _shape(name: str, ours: TensorInfo, theirs: TensorInfo) -> Diagnostic:
    return _found(f"{name} has the shapes {list(ours.shape)} and {list(theirs.shape)}.", name)


def _dtype(name: str, ours: TensorInfo, theirs: TensorInfo) -> Diagnostic:
    return _found(f"{name} is of the dtypes {ours.dtype} and {theirs.dtype}.", name)


def _found(reason: str, subject: str) -> Diagnostic:
    return Diagnostic("CHECKPOINTS_DIFFER", reason, subject=subject)
