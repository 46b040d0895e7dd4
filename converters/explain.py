"""explain: where each tensor of a family lies in two formats, and what happens to it on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from converters.cli.program import Program, main
from converters.engine import binding
from mappings import catalog
from mappings.language import explain as explain_lib
from mappings.language import loader
from mappings.language.errors import MappingErrors
from mappings.language.explain import Row, Side
from reporting import tables
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report


@dataclasses.dataclass(frozen=True)
class Question:
    """A family, two of its formats, the config of a model, and options of both layouts."""

    family: str
    source: str
    target: str
    config: Path | None
    source_options: Mapping[str, str]
    target_options: Mapping[str, str]


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    flags.DEFINE_string(
        "config", None, "config.json, or its directory. Default: the family's first small example.", flag_values=values
    )
    flags.DEFINE_list("source_options", [], "Options of the source's layout: name=value,...", flag_values=values)
    flags.DEFINE_list(
        "target_options", [], "Options of the target's layout: scan=false,rope=interleaved", flag_values=values
    )


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> Question:
    """Checks that the family and both formats are known."""
    family, source, target = positional
    known = loader.families()
    if family not in known:
        reason = f"There is no family {family}{_named(family)}; known: {', '.join(known)}."
        raise RecastError.of("INVALID_FLAG", reason, subject="FAMILY")
    formats = loader.formats_of(family)
    raise_all(
        [
            Diagnostic("INVALID_FLAG", f"{family} has no layout {name}; known: {', '.join(formats)}.", subject=name)
            for name in (source, target)
            if name not in formats
        ]
    )
    config = Path(values.config) if values.config else None
    options = (_options(values.source_options), _options(values.target_options))
    return Question(family, source, target, config, *options)


def execute(question: Question, report: Report) -> str:
    """Renders the table."""
    with report.step("explain"):
        config = None
        if question.config is not None:
            from validators import hf_config

            config = hf_config.load(question.config)
        try:
            rows = explain_lib.explain_formats(
                question.family,
                question.source,
                question.target,
                config,
                question.source_options,
                question.target_options,
            )
        except MappingErrors as errors:
            raise RecastError([binding.diagnostic_of(issue) for issue in errors.issues]) from errors
    head = ["tensor", question.source, question.target, "values", "class", "rules"]
    return tables.render(head, [_cells(row) for row in rows])


def _named(name: str) -> str:
    """What a name is that is no family's: of a layout or of a published model."""
    layout = catalog.layout_names().get(name)
    if layout:
        return f": {name} is a layout name of the {'family' if len(layout) == 1 else 'families'} {' and '.join(layout)}"
    published = catalog.find(name)
    return f": {name} is a published model of the family {published.family}" if published else ""


def _cells(row: Row) -> list[str]:
    values = ", ".join(row.ops) or ("move" if row.source and row.target else row.note)
    kind = "INVERTIBLE in float32, else ROUNDING" if row.ops and row.exactness == "ROUNDING" else row.exactness
    rules = " -> ".join(side.location for side in (row.source, row.target) if side is not None)
    return [row.tensor, _place(row.source), _place(row.target), values, kind, rules]


def _place(side: Side | None) -> str:
    if side is None:
        return "-"
    count = f" x{side.arrays}" if side.arrays > 1 else ""
    stack = f" stacked {side.stack}" if side.stack else ""
    return f"{side.name}  [{side.axes}]{stack}  {'x'.join(map(str, side.shape))}{count}"


def _options(given: Sequence[str]) -> dict[str, str]:
    faulty = [text for text in given if "=" not in text]
    raise_all([Diagnostic("INVALID_FLAG", f"{text!r} is not name=value.", subject=text) for text in faulty])
    return {text.split("=", 1)[0]: text.split("=", 1)[1] for text in given}


PROGRAM = Program(
    name="explain",
    summary="Shows, for every tensor of a family, its name and axes in two formats, the shapes for a small example or "
    "a given config, the operation on its values, how exact the way is, and the lines that say so. Derived from the "
    "mappings alone.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("family", "source_format", "target_format"),
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
