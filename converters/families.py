"""families: which conversions of which published models the mappings give, and every name that a model goes by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from absl import flags

from converters.cli.program import Program, main
from mappings import catalog, coverage
from mappings.coverage import Coverage, Direction
from mappings.language import loader
from mappings.language.nodes import Option
from reporting import tables
from reporting.report import Report


@dataclasses.dataclass(frozen=True)
class Question:
    """What is to be shown: the models one by one, or the families; as text, or as JSON."""

    models: bool
    as_json: bool


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    flags.DEFINE_bool(
        "models", False, "List every published model with its hub id and all its names.", flag_values=values
    )
    flags.DEFINE_bool("json", False, "Print JSON.", flag_values=values)


def prepare(values: flags.FlagValues, _: Sequence[str]) -> Question:
    """What the flags ask for."""
    return Question(bool(values.models), bool(values.json))


def execute(question: Question, report: Report) -> str:
    """Renders the tables, from the mappings alone."""
    with report.step("families"):
        if question.models:
            return _json(models()) if question.as_json else _models_text()
        rows = coverage.table()
        return _json({"rows": _described(rows), "families": families()}) if question.as_json else _text(rows)


def families() -> list[dict[str, Any]]:
    """Of each family its formats, its layout names, and the options of its layouts."""
    layouts: dict[str, list[str]] = {}
    for layout, owners in catalog.layout_names().items():
        for family in owners:
            layouts.setdefault(family, []).append(layout)
    return [
        {
            "family": family,
            "formats": list(loader.formats_of(family)),
            "layout_names": sorted(layouts.get(family, [])),
            "options": {
                format: [_option(option) for option in loader.load_layout(family, format).node.option]
                for format in loader.formats_of(family)
            },
        }
        for family in loader.families()
    ]


def models() -> list[dict[str, Any]]:
    """Of each published model the name that --model_name takes, its family, and all other names."""
    return [
        {
            "name": manifest.name,
            "family": manifest.family,
            "hub_id": manifest.hub_id,
            "aliases": list(manifest.aliases),
            "hub_ids": {name: list(catalog.hub_ids_of(name)) for name in (manifest.name, *manifest.aliases)},
        }
        for manifest in catalog.manifests()
    ]


def _described(rows: Sequence[Coverage]) -> list[dict[str, Any]]:
    return [
        {
            "family": row.family,
            "sizes": dict(row.models),
            "in_maxtexts_table": row.in_peer_table,
            "converted": {direction.value: row.covers(direction) for direction in Direction},
            "remark": row.remark,
            "reasons": list(coverage.missing([row])),
        }
        for row in rows
    ]


def _text(rows: Sequence[Coverage]) -> str:
    head = ["family", "sizes", *(direction.value for direction in Direction)]
    remarks = list(dict.fromkeys(row.remark for row in rows if row.remark))
    parts = []
    for asked, title in (
        (True, "The rows of MaxText's guide to checkpoint conversion:"),
        (False, "Further published models:"),
    ):
        cells = [_cells(row, remarks) for row in rows if row.in_peer_table is asked]
        parts.append(f"{title}\n\n{tables.render(head, cells)}")
    parts[0] += "".join(f"\n[{number}] {remark}" for number, remark in enumerate(remarks, 1))
    missing = coverage.missing(rows)
    if missing:
        parts.append("\n".join(["What is missing:", *(f"  {reason}" for reason in missing)]))
    described = [
        [
            entry["family"],
            ", ".join(entry["formats"]),
            ", ".join(entry["layout_names"]),
            "; ".join(
                f"{format}: {', '.join(shown)}"
                for format, options in entry["options"].items()
                if (shown := [text for option in options if (text := _option_text(option))])
            ),
        ]
        for entry in families()
    ]
    head = ["mapping", "formats", "layout names", "what tells layouts apart"]
    parts.append("The mappings behind them:\n\n" + tables.render(head, described))
    parts.append("recast families --models lists every name that --model_name takes.")
    return "\n\n".join(parts)


def _cells(row: Coverage, remarks: Sequence[str]) -> list[str]:
    mark = f" [{remarks.index(row.remark) + 1}]" if row.remark else ""
    covered = ("yes" if row.covers(direction) else "no" for direction in Direction)
    return [row.family, ", ".join(row.models) + mark, *covered]


def _models_text() -> str:
    rows = [
        [
            entry["name"],
            entry["family"],
            entry["hub_id"],
            ", ".join(_other_name(entry, name) for name in entry["aliases"]),
        ]
        for entry in models()
    ]
    return tables.render(["model_name", "mapping", "hub id", "other names [and the hub ids they stand for]"], rows)


def _other_name(entry: dict[str, Any], name: str) -> str:
    hub_ids = entry["hub_ids"][name]
    return name if hub_ids in ([name], [entry["hub_id"]]) else f"{name} [{' or '.join(hub_ids)}]"


def _option(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "values": list(option.value),
        "by_the_models_name": "model_name" in option.default,
        "doc": option.doc,
    }


def _option_text(option: dict[str, Any]) -> str:
    if not option["values"]:
        return ""
    by = " (by the model's name)" if option["by_the_models_name"] else ""
    return f"{option['name']}={'|'.join(option['values'])}{by}"


def _json(content: object) -> str:
    return json.dumps(content, indent=2)


PROGRAM = Program(
    name="families",
    summary="Prints which conversions of which published models are covered, derived from the mappings: every model is "
    "bound and composed in each direction, and a cell says yes only if all of its sizes are. Then the families behind "
    "them, with their formats and layout names.",
    define=define,
    prepare=prepare,
    execute=execute,
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
