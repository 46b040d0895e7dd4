"""A plan for people and for programs: text, and the message of proto/plan.proto."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from google.protobuf import json_format

from converters.engine import resume
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.prepare import Prepared, disk_bytes
from converters.engine.request import ConversionRequest
from converters.formats.storage_errors import writing
from recast_proto import plan_pb2, report_pb2
from reporting import tables, version
from reporting.report import Report
from validators import preflight

_ROWS = 40


def document(request: ConversionRequest, prepared: Prepared, report: Report) -> plan_pb2.Plan:
    """The plan as a message."""
    plan = prepared.plan
    counted = Counter(array.path.exactness for array in plan.arrays.values())
    message = plan_pb2.Plan(
        version=version.VERSION,
        source=report.source,
        source_format=request.source_format,
        target_format=request.target_format,
        model_name=prepared.naming.model_name,
        options=report.options,
        units=sum(_units(array) for array in plan.arrays.values()),
        groups=_groups(plan),
        bytes_in=plan.bytes_in,
        bytes_decoded=plan.bytes_decoded,
        read_amplification=round(plan.amplification, 4),
        bytes_out=plan.bytes_out,
        disk_bytes=disk_bytes(plan),
        memory_budget=request.memory_budget,
        peak_buffer_bytes=plan.peak_bytes,
        peak_memory_bytes=plan.peak_bytes + preflight.START_UP_BYTES,
        threads=plan.threads,
        arrays_by_exactness=dict(counted),
        digest=resume.plan_digest(plan),
    )
    for array in plan.arrays.values():
        message.array.append(
            plan_pb2.ArrayPlan(
                name=array.info.name,
                dtype=array.info.dtype,
                shape=array.info.shape,
                unit_shape=array.chunk,
                units=_units(array),
                bytes=array.bytes,
                exactness=array.path.exactness,
                source_dtype=array.path.source_dtype,
                source=sorted({move.source for move in array.moves}),
            )
        )
    return message


def render(message: plan_pb2.Plan) -> str:
    """The plan as text: its sums, and its largest arrays."""
    arrays = sorted(message.array, key=lambda array: -array.bytes)
    rows = [
        (
            array.name,
            array.dtype,
            " x ".join(map(str, array.shape)),
            " x ".join(map(str, array.unit_shape)),
            str(array.units),
            str(array.bytes),
            report_pb2.Exactness.Name(array.exactness),
        )
        for array in arrays[:_ROWS]
    ]
    more = len(arrays) - len(rows)
    classes = ", ".join(f"{count} {name}" for name, count in sorted(message.arrays_by_exactness.items()))
    lines = [
        f"PLAN: {message.source_format} to {message.target_format}, model {message.model_name or '(any)'}",
        f"  arrays           {len(arrays)}: {classes}",
        f"  units            {message.units}, made in {message.groups} groups by {message.threads} threads",
        f"  bytes in         {message.bytes_in}",
        f"  bytes decoded    {message.bytes_decoded} (amplification {message.read_amplification:.2f})",
        f"  bytes out        {message.bytes_out}",
        f"  disk             {message.disk_bytes} free at the destination",
        f"  memory           {message.peak_buffer_bytes} of buffers, {message.peak_memory_bytes} altogether",
        "",
        tables.render(("array", "dtype", "shape", "unit", "units", "bytes", "exactness"), rows),
    ]
    if more > 0:
        lines.append(f"and {more} smaller arrays (--plan_file lists all)")
    return "\n".join(lines) + "\n"


def write(message: plan_pb2.Plan, path: Path) -> None:
    """Writes the plan as JSON, in a directory that is made if it is not there.

    Raises:
        RecastError: what the storage said.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_format.MessageToJson(message, preserving_proto_field_name=True) + "\n", "utf-8")


def _units(array: ArrayPlan) -> int:
    return math.prod(-(-size // step) for size, step in zip(array.info.shape, array.chunk, strict=True))


def _groups(plan: Plan) -> int:
    together = sum(len(group.units) - 1 for group in plan.shared)
    return sum(_units(array) for array in plan.arrays.values()) - together
