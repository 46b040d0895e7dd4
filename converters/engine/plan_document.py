"""A plan for people and for programs: text, and the message of proto/plan.proto."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import json_format

from converters.engine import resume
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.prepare import Prepared, disk_bytes
from converters.engine.request import ConversionRequest
from converters.formats.storage_errors import writing
from recast_proto import plan_pb2
from reporting import tables, version
from reporting.report import Report
from validators import preflight

_ROWS = 40
_NUMBER = re.compile(r"(\d+)")
_NO_DIGITS = str.maketrans("", "", "0123456789")


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan and what it adds up to.

    Attributes:
        summary: the message without its arrays and without a digest.
        plan: the plan.
    """

    summary: plan_pb2.Plan
    plan: Plan

    def identified(self) -> plan_pb2.Plan:
        """The summary with the digest of the plan, which takes as long as the rest of a large plan."""
        message = plan_pb2.Plan()
        message.CopyFrom(self.summary)
        message.digest = resume.plan_digest(self.plan)
        return message


def document(request: ConversionRequest, prepared: Prepared, report: Report) -> plan_pb2.Plan:
    """The plan as a message, with all arrays."""
    message = summary(request, prepared, report)
    message.digest = resume.plan_digest(prepared.plan)
    for array in prepared.plan.arrays.values():
        message.array.append(
            plan_pb2.ArrayPlan(
                name=array.info.name,
                dtype=array.info.dtype,
                shape=array.info.shape,
                unit_shape=array.chunk,
                units=array.unit_count,
                bytes=array.bytes,
                exactness=array.path.exactness,
                source_dtype=array.path.source_dtype,
                source=sorted({move.source for move in array.moves}),
            )
        )
    return message


def summary(request: ConversionRequest, prepared: Prepared, report: Report) -> plan_pb2.Plan:
    """The plan's sums as a message: without its arrays, and without the digest that is taken of them."""
    plan = prepared.plan
    units = sum(array.unit_count for array in plan.arrays.values())
    return plan_pb2.Plan(
        version=version.VERSION,
        source=report.source,
        source_format=request.source_format,
        target_format=request.target_format,
        model_name=prepared.naming.model_name,
        options=report.options,
        units=units,
        groups=units - sum(len(group.units) - 1 for group in plan.shared),
        bytes_in=plan.bytes_in,
        bytes_decoded=plan.bytes_decoded,
        read_amplification=round(plan.amplification, 4),
        bytes_out=plan.bytes_out,
        disk_bytes=disk_bytes(plan),
        memory_budget=request.memory_budget,
        peak_buffer_bytes=plan.peak_bytes,
        peak_memory_bytes=plan.peak_bytes + preflight.START_UP_BYTES,
        threads=plan.threads,
        arrays_by_exactness=Counter(array.path.exactness for array in plan.arrays.values()),
    )


def render(planned: Planned) -> str:
    """The plan as text: its sums, and its arrays, those that differ in nothing but numbers in their names together."""
    message, plan = planned.summary, planned.plan
    alike: dict[tuple[object, ...], list[ArrayPlan]] = defaultdict(list)
    for array in plan.arrays.values():
        info, path = array.info, array.path
        name = info.name.translate(_NO_DIGITS)
        alike[name, info.dtype, info.shape, array.chunk, path.source_dtype, path.exactness].append(array)
    groups = sorted(alike.values(), key=lambda arrays: -len(arrays) * arrays[0].bytes)
    classes = ", ".join(f"{count} {name}" for name, count in sorted(message.arrays_by_exactness.items()))
    lines = [
        f"PLAN: {message.source_format} to {message.target_format}, model {message.model_name or '(any)'}",
        f"  arrays           {len(plan.arrays)}: {classes}",
        f"  units            {message.units}, made in {message.groups} groups by {message.threads} threads",
        f"  bytes in         {message.bytes_in}{_shown(message.bytes_in)}",
        f"  bytes decoded    {message.bytes_decoded} (amplification {message.read_amplification:.2f})",
        f"  bytes out        {message.bytes_out}{_shown(message.bytes_out)}",
        f"  disk             {message.disk_bytes}{_shown(message.disk_bytes)} must be free at the destination",
        f"  memory           {message.peak_buffer_bytes} of buffers, {message.peak_memory_bytes} altogether",
        "",
        tables.render(
            ("arrays", "count", "dtype", "shape", "unit", "units", "bytes", "exactness"),
            [_row(arrays) for arrays in groups[:_ROWS]],
        ),
    ]
    more = sum(len(arrays) for arrays in groups[_ROWS:])
    if more:
        lines.append(f"and {more} smaller arrays (--plan_file lists all)")
    return "\n".join(lines) + "\n"


def write(message: plan_pb2.Plan, path: Path) -> None:
    """Writes the plan as JSON, in a directory that is made if it is not there.

    An earlier plan is replaced as a whole or not at all, and a link by the plan: where it leads stays as it is.

    Raises:
        RecastError: what the storage said.
    """
    text = json_format.MessageToJson(message, preserving_proto_field_name=True) + "\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(text)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _row(arrays: Sequence[ArrayPlan]) -> tuple[str, ...]:
    """What arrays have in common that differ in the numbers in their names."""
    first, count = arrays[0], len(arrays)
    return (
        _common_name(first.info.name, arrays[-1].info.name),
        str(count),
        first.info.dtype,
        " x ".join(map(str, first.info.shape)),
        " x ".join(map(str, first.chunk)),
        str(count * first.unit_count),
        str(count * first.bytes),
        first.path.exactness,
    )


def _common_name(first: str, last: str) -> str:
    """`layers.[0-60].w` for the first and the last of names that differ in their numbers."""
    pairs = zip(_NUMBER.split(first), _NUMBER.split(last), strict=True)
    return "".join(one if one == other else f"[{one}-{other}]" for one, other in pairs)


def _shown(size: int) -> str:
    return f" ({size / 1e9:.1f} GB)" if size >= 1e9 else ""
