"""plan: what a conversion would do, from the headers of a checkpoint or from the manifest of a published model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from absl import flags

from converters import convert_checkpoint
from converters.cli import usage
from converters.cli.program import Program, main
from converters.engine.request import ConversionRequest
from converters.kubernetes import settings
from mappings import catalog
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report

_FORMATS = ("hf", "maxtext")
# A plan looks at no destination; the flags of a conversion want one.
_UNUSED = "plan-only"
_BUDGET_OF_A_JOB = "2GiB"
_OWN = ("from", *settings.FLAGS)


@dataclasses.dataclass(frozen=True)
class Planned:
    """What is to be planned.

    Attributes:
        request: the conversion.
        published: the model whose headers stand for a checkpoint; None where there is one.
        job: where the Job of the conversion would run; None where only the plan is asked for.
        flags: of the conversion, for the Job.
    """

    request: ConversionRequest
    published: catalog.Manifest | None
    job: settings.Settings | None = None
    flags: tuple[str, ...] = ()


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    convert_checkpoint.define(values)
    flags.DEFINE_enum(
        "from", "hf", _FORMATS, "Format of the source where it is a published model, not files.", flag_values=values
    )
    settings.define(values)


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> Planned:
    """What the flags ask for."""
    job = settings.read(values)
    values["plan_only"].parse("true")
    if job is None:
        return _planned(values, positional)
    if values.memory_budget == "auto":
        # Not what this machine has decides, but what the Job will ask for.
        values["memory_budget"].parse(_BUDGET_OF_A_JOB)
        values["memory_budget"].present = 1
    passed = settings.passed_on(values, (*_OWN, *usage.COMMON))
    return dataclasses.replace(_planned(values, positional), job=job, flags=tuple(passed))


def _planned(values: flags.FlagValues, positional: Sequence[str]) -> Planned:
    if positional:
        if values["from"].present:
            reason = "--from is for published models; the format of a SOURCE is read from its files."
            raise RecastError.of("INVALID_FLAG", reason, subject="--from")
        return Planned(convert_checkpoint.prepare(values, (positional[0], _UNUSED), own=_OWN), None)
    format = str(values["from"].value)
    published = catalog.find(values.model_name) if values.model_name else None
    found = [] if published else [_not_published(values.model_name)]
    if values.to is None or values.to == format:
        reason = "--to must be given, and be another format than --from."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--to"))
    raise_all(found)
    return Planned(convert_checkpoint.request_for(values, format, "", _UNUSED, own=_OWN), published)


def execute(planned: Planned, report: Report) -> str:
    """Plans."""
    from converters.engine import convert, declared_source, plan_document
    from converters.kubernetes import job

    request = planned.request
    if planned.published is None:
        opened, subject = convert.open_source(request, report), None
    else:
        with report.step("open_source") as step:
            stacked = {"scan": "true"} if request.source_format == "maxtext" else {}
            opened, subject = declared_source.open_with_model(
                planned.published, request.source_format, {**stacked, **request.source_options}
            )
            step.lines.append(opened.description)
        report.source = planned.published.name
    try:
        made = convert.plan(request, opened, report, subject)
    finally:
        opened.source.close()
    if planned.job is not None:
        return job.text(planned.job, made.identified(), planned.flags)
    return plan_document.render(made)


def _not_published(name: str) -> Diagnostic:
    if not name:
        reason = "Without SOURCE, --model_name must be given: a published name, as `recast families` lists them."
        return Diagnostic("INVALID_FLAG", reason, subject="--model_name")
    near = ", ".join(catalog.nearest(name)) or "none"
    reason = f"There is no published model named {name}, and no SOURCE with sizes was given. Near names: {near}."
    return Diagnostic("MODEL_NAME_UNKNOWN", reason, subject="--model_name")


PROGRAM = Program(
    name="plan",
    summary="Says what a conversion would do: units, bytes in and out, what is decoded more than once, memory, disk, "
    "and the exactness of every array. SOURCE is a checkpoint, of which only headers are read; without it, "
    "--model_name is a published model, and no files are needed. The flags are those of `convert`.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("[source]",),
    # A Job goes to kubectl, which takes nothing but the Job.
    reports=lambda planned: planned.job is None,
)

if __name__ == "__main__":
    main(PROGRAM)
