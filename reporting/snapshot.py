"""A report as it stands, in shared memory: what a process that is killed has said so far outlives it."""

from __future__ import annotations

import dataclasses
import json
import mmap
import struct
import zlib
from typing import Any

from reporting.diagnostics import Diagnostic
from reporting.report import Report, StepRecord

_FIELDS = ("source", "destination", "model_name", "options", "detail")
_SLOT = 4 << 20
_HEADER = struct.Struct("=QQI")
_CODE = struct.Struct("=q")
_UNKNOWN = 1 << 32
# Of each step, where a report with all of its diagnostics has no room.
_FIRST = 100


class SharedReport:
    """Memory that a process and its later children share; a child writes, the parent reads.

    There are two slots, written in turn, each with a checksum: a write that is cut off leaves the one before. Pages
    that were never written take no memory.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * _SLOT + _CODE.size)
        self._written = 0
        self.concluded = None

    @property
    def concluded(self) -> int | None:
        """The exit code of a process that has printed its report itself."""
        (code,) = _CODE.unpack(self._memory[2 * _SLOT :])
        return None if code == _UNKNOWN else code

    @concluded.setter
    def concluded(self, code: int | None) -> None:
        self._memory[2 * _SLOT :] = _CODE.pack(_UNKNOWN if code is None else code)

    def write(self, report: Report) -> None:
        """Keeps a report as it is now."""
        content = _encoded(report, None)
        if len(content) > _SLOT - _HEADER.size:
            content = _encoded(report, _FIRST)
        if len(content) > _SLOT - _HEADER.size:
            return
        self._written += 1
        start = self._written % 2 * _SLOT
        self._memory[start : start + _HEADER.size] = bytes(_HEADER.size)
        self._memory[start + _HEADER.size : start + _HEADER.size + len(content)] = content
        self._memory[start : start + _HEADER.size] = _HEADER.pack(self._written, len(content), zlib.crc32(content))

    def restore(self, report: Report) -> None:
        """Puts what was kept last into a report; leaves it as it is where nothing was."""
        newest, kept = 0, b""
        for start in (0, _SLOT):
            number, length, check = _HEADER.unpack(self._memory[start : start + _HEADER.size])
            content = self._memory[start + _HEADER.size : start + _HEADER.size + length]
            if number > newest and zlib.crc32(content) == check:
                newest, kept = number, content
        if not newest:
            return
        said = json.loads(kept)
        report.steps = [_step(step) for step in said.pop("steps")]
        for name, value in said.items():
            setattr(report, name, value)


def _encoded(report: Report, first: int | None) -> bytes:
    steps = [
        dataclasses.asdict(dataclasses.replace(step, diagnostics=step.diagnostics[:first], lines=step.lines[:first]))
        for step in report.steps
    ]
    return json.dumps({"steps": steps, **{name: getattr(report, name) for name in _FIELDS}}).encode()


def _step(said: dict[str, Any]) -> StepRecord:
    diagnostics = [Diagnostic(**one | {"stack": tuple(one["stack"])}) for one in said.pop("diagnostics")]
    return StepRecord(diagnostics=diagnostics, **said)
