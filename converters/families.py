"""families: the model families, their formats and the published names that --model_name takes."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from converters.cli.program import Program, main
from mappings import catalog
from mappings.language import loader
from reporting import tables
from reporting.report import Report


def define(_: flags.FlagValues) -> None:
    """The binary has no flags of its own."""


def prepare(_: flags.FlagValues, _positional: Sequence[str]) -> None:
    """There is nothing to check."""


def execute(_: None, report: Report) -> str:
    """Renders the table, from the mappings alone."""
    with report.step("families"):
        names: dict[str, list[str]] = {}
        for manifest in catalog.manifests():
            names.setdefault(manifest.family, []).append(manifest.name)
        layouts: dict[str, list[str]] = {}
        for layout, owners in catalog.layout_names().items():
            for family in owners:
                layouts.setdefault(family, []).append(layout)
        rows = [
            [
                family,
                ", ".join(loader.formats_of(family)),
                ", ".join(sorted(layouts.get(family, []))),
                ", ".join(sorted(names.get(family, []))),
            ]
            for family in loader.families()
        ]
    return tables.render(["family", "formats", "layout names", "published names"], rows)


PROGRAM = Program(
    name="families",
    summary="Lists the model families with their formats, layout names and published names.",
    define=define,
    prepare=prepare,
    execute=execute,
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
