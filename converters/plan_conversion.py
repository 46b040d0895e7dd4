"""plan: what a conversion would do, from the headers of a checkpoint or from the manifest of a published model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from converters import convert_checkpoint
from converters.cli import conversion_flags, usage
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
_OWN = ("from", "plan_file", *settings.FLAGS)
# Of `convert`: a plan is all that is made here, in seconds.
_WITHOUT_EFFECT = ("plan_only", "plan_file", "progress")
_NEAR = 3


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
    for name in _WITHOUT_EFFECT:
        delattr(values, name)
    values["overwrite"].help = "With --kubernetes: let the Job replace a checkpoint that is already at the destination."
    flags.DEFINE_string(
        "plan_file", "", "Write the plan to this file as well, as JSON (proto/plan.proto).", flag_values=values
    )
    flags.DEFINE_enum(
        "from", "hf", _FORMATS, "Format of the source where it is a published model, not files.", flag_values=values
    )
    settings.define(values)


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> Planned:
    """What the flags ask for."""
    job = settings.read(values)
    if job is None:
        if values["overwrite"].present:
            reason = "--overwrite has a meaning with --kubernetes only: a plan writes no checkpoint."
            raise RecastError.of("INVALID_FLAG", reason, subject="--overwrite")
        return _planned(values, positional)
    if values.memory_budget == "auto":
        # Not what this machine has decides, but what the Job will ask for.
        values["memory_budget"].parse(_BUDGET_OF_A_JOB)
        values["memory_budget"].present = 1
    passed = settings.passed_on(values, (*_OWN, *usage.COMMON))
    return dataclasses.replace(_planned(values, positional), job=job, flags=tuple(passed))


def _planned(values: flags.FlagValues, positional: Sequence[str]) -> Planned:
    published = None
    if positional:
        raise_all(_not_a_source(positional[0], values))
        request = convert_checkpoint.prepare(values, (positional[0], _UNUSED), own=_OWN)
    else:
        published = catalog.find(values.model_name) if values.model_name else None
        raise_all([*([] if published else [_not_published(values.model_name)]), *_unfit_formats(values)])
        request = convert_checkpoint.request_for(values, str(values["from"].value), "", _UNUSED, own=_OWN)
    file = Path(values.plan_file) if values.plan_file else None
    return Planned(dataclasses.replace(request, plan_only=True, plan_file=file), published)


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


def _not_a_source(source: str, values: flags.FlagValues) -> list[Diagnostic]:
    """What is wrong with planning from SOURCE, before it is opened."""
    if values["from"].present:
        reason = "--from is for published models; the format of a SOURCE is read from its files."
        return [Diagnostic("INVALID_FLAG", reason, subject="--from")]
    if os.path.lexists(source):
        return []
    if catalog.find(source):
        suggestion = f"{source} is a published model: pass --model_name={source} in place of SOURCE."
    elif source in catalog.layout_names():
        suggestion = f"{_layout_name(source)} as --model_name."
    else:
        return []
    return [Diagnostic("SOURCE_NOT_FOUND", f"{source} does not exist.", suggestion=suggestion, subject=source)]


def _unfit_formats(values: flags.FlagValues) -> list[Diagnostic]:
    source, target = str(values["from"].value), values.to
    if target is None:
        reason = f"--to must be given; it takes {' or '.join(_FORMATS)}."
    elif target == source:
        other = next(format for format in _FORMATS if format != target)
        default = "" if values["from"].present else f" (--from is {source} when left out)"
        reason = f"--to={target} is also the format of the source; give --from={other}{default}."
    else:
        return []
    return [Diagnostic("INVALID_FLAG", reason, subject="--to")]


def _not_published(name: str) -> Diagnostic:
    if not name:
        reason = "Without SOURCE, --model_name must be given: a published name, as `recast families --models` lists it."
        return Diagnostic("INVALID_FLAG", reason, subject="--model_name")
    if name in catalog.layout_names():
        return Diagnostic("MODEL_NAME_UNKNOWN", f"{_layout_name(name)}.", subject="--model_name")
    near = [known for known in catalog.nearest(name, n=len(catalog.manifests())) if catalog.find(known)]
    reason = f"There is no published model named {name}, and no SOURCE with sizes was given."
    hint = f" Near names: {', '.join(near[:_NEAR])}." if near else ""
    return Diagnostic("MODEL_NAME_UNKNOWN", f"{reason}{hint}", subject="--model_name")


def _layout_name(name: str) -> str:
    """What a layout's name lacks for a plan."""
    sized = [manifest.name for manifest in catalog.manifests() if manifest.layout == name]
    return f"{name} is a layout name, which says no sizes: give a SOURCE with sizes, or one of {', '.join(sized)}"


PROGRAM = Program(
    name="plan",
    summary="Says what a conversion would do: units, bytes in and out, what is decoded more than once, memory, disk, "
    "and the exactness of every array. SOURCE is a checkpoint, of which only headers are read; without it, "
    "--model_name is a published model, and no files are needed. The flags are those of "
    "`convert`, but for those about writing.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("[source]",),
    # A Job goes to kubectl, which takes nothing but the Job.
    reports=lambda planned: planned.job is None,
    remarks=conversion_flags.remarks,
)

if __name__ == "__main__":
    main(PROGRAM)
