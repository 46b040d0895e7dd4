"""plan: what a conversion would do, from the headers of a checkpoint or from the manifest of a published model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from absl import flags

from converters import convert_checkpoint
from converters.cli.program import Program, main
from converters.engine.request import ConversionRequest
from mappings import catalog
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report

_FORMATS = ("hf", "maxtext")
# A plan looks at no destination; the flags of a conversion want one.
_UNUSED = "plan-only"


@dataclasses.dataclass(frozen=True)
class Planned:
    """What is to be planned.

    Attributes:
        request: the conversion.
        published: the model whose headers stand for a checkpoint; None where there is one.
    """

    request: ConversionRequest
    published: catalog.Manifest | None


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    convert_checkpoint.define(values)
    flags.DEFINE_enum(
        "from", "hf", _FORMATS, "Format of the source where it is a published model, not files.", flag_values=values
    )


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> Planned:
    """What the flags ask for."""
    values["plan_only"].parse("true")
    if positional:
        if values["from"].present:
            reason = "--from is for published models; the format of a SOURCE is read from its files."
            raise RecastError.of("INVALID_FLAG", reason, subject="--from")
        return Planned(convert_checkpoint.prepare(values, (positional[0], _UNUSED), own=("from",)), None)
    format = str(values["from"].value)
    published = catalog.find(values.model_name) if values.model_name else None
    found = [] if published else [_not_published(values.model_name)]
    if values.to is None or values.to == format:
        reason = "--to must be given, and be another format than --from."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--to"))
    raise_all(found)
    return Planned(convert_checkpoint.request_for(values, format, "", _UNUSED, own=("from",)), published)


def execute(planned: Planned, report: Report) -> str:
    """Plans."""
    from converters.engine import convert, declared_source

    request = planned.request
    if planned.published is None:
        return convert.run(request, report)
    with report.step("open_source") as step:
        stacked = {"scan": "true"} if request.source_format == "maxtext" else {}
        opened, subject = declared_source.open_with_model(
            planned.published, request.source_format, {**stacked, **request.source_options}
        )
        step.lines.append(opened.description)
    report.source = planned.published.name
    return convert.plan(request, opened, report, subject)


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
)

if __name__ == "__main__":
    main(PROGRAM)
