"""Whether one checkpoint is a right conversion of another: proved from both, not from what the run said of itself.

The second side's headers decide its layout and dtypes. Every region of it is then made again from the first side, by
the same moves as in a conversion, and compared with the bytes that are stored.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from converters.engine import comparison_plan, overflow, recompute, requantizing, values, verify
from converters.engine import residue as residue_lib
from converters.engine.binding import Sides, check_header, family_for, layout_for
from converters.engine.comparing import Difference, Differences
from converters.engine.gather import within
from converters.engine.pairing import Checkpoint, Subject
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.second_side import SecondSide
from converters.engine.values import AnyArray, ValuePath
from converters.formats.base import Region, TensorInfo
from mappings.language.layout import Layout
from reporting.diagnostics import Diagnostic, RecastError

_CONFIG = "config.json"
_SUGGESTION = (
    "`verify` proves one conversion. If several lie between the two, and one of them rounded, verify each of them, or "
    "see the differences with `recast diff`. If it was one, do not use the destination: convert again, and if this "
    "happens again, report it with the report.json that --report_directory=DIR writes."
)


@dataclasses.dataclass(frozen=True)
class Verification:
    """What is compared.

    Attributes:
        first: the source.
        second: the destination.
        sides: both layouts and the moves from the first to the second.
        plan: what the second side must hold, in its own dtypes.
        budget: bytes of buffers.
    """

    first: Checkpoint
    second: Checkpoint
    sides: Sides
    plan: Plan
    budget: int

    @property
    def rounded(self) -> Mapping[tuple[str, str], int]:
        """How many arrays hold values in a dtype that rounds them, by dtype of the source and of the values."""
        paths = [array.path for array in self.plan.arrays.values()]
        narrow = (p for p in paths if not (values.widens(p.source_dtype, p.logical_dtype) or p.source_ops))
        return Counter((path.source_dtype, path.logical_dtype) for path in narrow)


def prepare(first: Checkpoint, second: Checkpoint, sides: Sides, threads: int, budget: int) -> Verification:
    """Decides what the second side must hold.

    Raises:
        RecastError: what no conversion supports.
    """
    stored = second.opened.source.tensors
    usual = _usual(stored, sides)

    def path_of(array: ArrayPlan) -> ValuePath:
        name = array.info.name
        return _observed(array.path, stored.get(name, array.info), second.logical_dtypes.get(name, ""), usual)

    plan = comparison_plan.mapped(sides, first, second, path_of, usual, threads, budget)
    return Verification(first, second, sides, plan, budget)


def check_headers(verification: Verification) -> list[Diagnostic]:
    """Names, shapes, dtypes and completeness of the second side."""
    header = verification.second.opened.source.tensors
    target, plan = verification.sides.target, verification.plan
    found: list[Diagnostic] = []
    try:
        unmapped: Mapping[str, str] = check_header(target, header)
    except RecastError as error:
        return [_failed(d.reason, d.subject) for d in error.diagnostics]
    for name in header:
        if name not in plan.arrays and name not in unmapped:
            found.append(_failed(f"{name} is there, but nothing in the source makes it.", name))
    for name, array in plan.arrays.items():
        if name not in header:
            found.append(_failed(f"{name} is missing.", name))
            continue
        stored = (header[name].dtype, header[name].shape)
        if stored != (array.info.dtype, array.info.shape):
            shown = " ".join(str(part) for part in (array.info.dtype, list(array.info.shape)))
            found.append(_failed(f"{name} is stored as {stored[0]} {list(stored[1])}; it must be {shown}.", name))
    return found


def check_config(subject: Subject, second: Checkpoint, target: Layout) -> list[Diagnostic]:
    """Holds a config.json beside the second side against the arrays that it must describe."""
    from validators import hf_config

    if not (second.opened.root / _CONFIG).is_file() or second.format != "hf":
        return []
    try:
        family = family_for(subject.naming.family, hf_config.load(second.opened.root))
        described = layout_for(family, subject.naming.family, second.format, target.options).header()
    except RecastError as error:
        return [_failed(f"{_CONFIG} of the destination: {d.reason}", _CONFIG) for d in error.diagnostics]
    if described == target.header():
        return []
    return [_failed(f"{_CONFIG} of the destination describes a model of other sizes than the source.", _CONFIG)]


def not_compared(verification: Verification) -> list[str]:
    """What either side holds besides the arrays that are compared, in words."""
    plan = verification.plan
    read = {move.source for array in plan.arrays.values() for move in array.moves}
    read |= verification.sides.composition.consumed
    left = [name for name in verification.first.opened.source.tensors if name not in read]
    more = [name for name in verification.second.opened.source.tensors if name not in plan.arrays]
    return [
        f"{len(names)} arrays of {checkpoint.path} are no weights and are not compared, {names[0]} first"
        for checkpoint, names in ((verification.first, left), (verification.second, more))
        if names
    ]


def sample(verification: Verification, residue: residue_lib.Residue, seed: int) -> tuple[int, list[Diagnostic]]:
    """Compares elements at random coordinates, read by second readers of both sides.

    Returns:
        How many elements were compared, and every array with one that is wrong.
    """
    source = verification.first.opened.reader()
    target = verification.second.opened.reader()
    found: dict[str, Diagnostic] = {}
    count = 0
    nearest = requantizing.nearest_to(verification.first.opened, verification.second.opened)
    for array, points in verify.sample(verification.plan, verification.first.opened.source, seed):
        count += len(points.target_at)
        for diagnostic in verify.compare(array, points, source, target, residue, nearest.elements):
            found.setdefault(diagnostic.subject, _failed(diagnostic.reason, diagnostic.subject))
    return count, list(found.values())


def compare(verification: Verification, residue: residue_lib.Residue, progress: str) -> tuple[int, list[Diagnostic]]:
    """Makes every region of the second side again and compares it with what is stored.

    Args:
        verification: what is compared.
        residue: of the source.
        progress: how it is shown.

    Returns:
        How many bytes were compared, and every array that differs; and warnings of finite values that became infinite.

    Raises:
        RecastError: MEMORY_PLAN, OUT_OF_MEMORY, and what reading raises.
    """
    comparison_plan.check_memory(verification.plan, verification.budget)
    differences = Differences()
    second = SecondSide(verification.second.opened.source, verification.plan)
    nearest = requantizing.nearest_to(verification.first.opened, verification.second.opened)

    def visit(name: str, region: Region, expected: AnyArray) -> None:
        def take(part: Region, stored: AnyArray) -> None:
            wanted = nearest.region(name, part, within(expected, region, part))
            differences.compare(name, part, wanted, stored)

        second.each(name, region, take)

    source = verification.first.opened.source
    outcome = recompute.each_region(verification.plan, source, residue, verification.budget, visit, progress)
    wrong = [_differs(name, found) for name, found in sorted(differences.arrays.items())]
    return differences.bytes, [*wrong, *overflow.repeated(verification.plan, source, outcome)]


def _differs(name: str, difference: Difference) -> Diagnostic:
    reason = (
        f"{difference.count} elements of {name} are not what the source makes them; the first is "
        f"{list(difference.first)}: {difference.found} instead of {difference.expected}."
    )
    return _failed(reason, name)


def _failed(reason: str, subject: str) -> Diagnostic:
    return Diagnostic("VERIFICATION_FAILED", reason, suggestion=_SUGGESTION, subject=subject)


def _usual(stored: Mapping[str, TensorInfo], sides: Sides) -> str:
    """The dtype that most weights are stored in, those that a constant is folded into and training state left out."""
    names = {move.target for move in sides.composition.moves if not move.target_ops}
    weights = [stored[name] for name in stored if name in names and not sides.target.arrays[name].mirror]
    dtypes = Counter(info.dtype for info in weights if info.dtype in values.FLOAT_DTYPES)
    return dtypes.most_common(1)[0][0] if dtypes else "float32"


def _observed(path: ValuePath, stored: TensorInfo, recorded: str, usual: str) -> ValuePath:
    """The path that ends in the dtype that is stored.

    Before a constant is folded in, values are rounded to the run's dtype. Where no record says which that was: an
    array wider than most others was kept so to hold the product of a value of the usual dtype; any other is what the
    format's own tool makes of the source's values.
    """
    if not path.target_ops or path.source_ops:
        return path
    wider = values.itemsize(stored.dtype) > values.itemsize(usual)
    logical = recorded or (usual if wider else path.source_dtype)
    return dataclasses.replace(path, logical_dtype=logical, target_dtype=stored.dtype, residue=False)
