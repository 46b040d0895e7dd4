"""The step in which a quantised source becomes one of plain arrays, and in which its scales are looked at."""

from __future__ import annotations

from converters.engine import drivers
from converters.engine.drivers import Opened
from converters.engine.model import Model
from converters.engine.request import ConversionRequest
from converters.quantized import scales
from converters.quantized.source import DecodingSource
from reporting.diagnostics import raise_all
from reporting.report import NoteLine, Report
from validators import quantization


def decoded(request: ConversionRequest, opened: Opened, subject: Model, report: Report) -> Opened:
    """The source as plain arrays, and a step of the report, where the config says that it is quantised.

    Raises:
        StepFailed: codes, scales or their shapes are wrong; all of them are in the report.
    """
    if quantization.announced(subject.config) is None:
        return opened
    with report.step("decode") as step:
        found = drivers.decoded(opened, subject.config, request.dtype)
        if not request.plan_only and isinstance(found.source, DecodingSource):
            raise_all(scales.check_all(found.source.source, found.source.stored.values()))
        step.lines.extend(found.decoded)
        report.notes.extend(NoteLine("NOT_CONVERTED", name, reason) for name, reason in found.left.items())
    return found
