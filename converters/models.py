"""models: what a serving platform's catalogue holds, and of which models it takes checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from converters.cli import error_prefix, serving_flags
from converters.cli.program import Program, main
from reporting import tables
from reporting.report import Report

if TYPE_CHECKING:
    from recast_proto.model_manifest_pb2 import ModelManifest
    from recast_proto.serving_catalog_pb2 import ServingCatalog

_COLUMNS = ("model", "base model", "family", "import checkpoint", "transformers")


@dataclasses.dataclass(frozen=True)
class Request:
    """Whose catalogue is shown, and how."""

    server: str
    cache_location: Path | None
    as_json: bool


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    serving_flags.define(values)
    flags.DEFINE_bool("json", False, "Print JSON.", flag_values=values)
    error_prefix.define(values)


def prepare(values: flags.FlagValues, _: Sequence[str]) -> Request:
    """Checks the server's name.

    Raises:
        RecastError: INVALID_FLAG.
    """
    from converters.serving import servers

    servers.parse(values.server)
    return Request(values.server, serving_flags.cache_location(values), bool(values.json))


def execute(request: Request, report: Report) -> str:
    """Reads the catalogue and renders it."""
    from converters.serving import cache

    with report.step("load_serving_metadata") as step:
        loaded = cache.opened(request.server, request.cache_location)
        step.lines.extend(loaded.lines)
    return _json(loaded.catalog) if request.as_json else _text(loaded.catalog, loaded.lines)


def _json(catalog: ServingCatalog) -> str:
    content = {
        "version": catalog.version,
        "digest": catalog.digest,
        "source": catalog.provenance.source,
        "models": [_described(model) for model in catalog.model],
    }
    return json.dumps(content, indent=2)


def _described(model: ModelManifest) -> dict[str, Any]:
    return {
        "name": model.name,
        "aliases": list(model.alias),
        "base_model": model.hub_id,
        "published_name": model.published_name,
        "family": model.family,
        "import_checkpoint": model.import_checkpoint,
        "transformers": {"supported": model.transformers.supported, "deployment": model.transformers.deployment},
        "deployments": [
            {
                "sequence_length": deployment.sequence_length,
                "batch_sizes": list(deployment.batch_size),
                "speculative_decoding": deployment.speculative_decoding,
            }
            for deployment in model.deployment
        ],
        "static_attributes": {entry.name: json.loads(entry.value_json) for entry in model.static_attribute},
    }


def _text(catalog: ServingCatalog, lines: Sequence[str]) -> str:
    rows = [
        [
            model.name,
            model.hub_id,
            model.family,
            "yes" if model.import_checkpoint else "no",
            model.transformers.supported or "any",
        ]
        for model in catalog.model
    ]
    table = tables.render(_COLUMNS, rows)
    remark = "recast models --json lists aliases too, lengths with batch sizes, and what a checkpoint must share."
    return "\n\n".join(["\n".join(lines), table, remark])


PROGRAM = Program(
    name="models",
    summary="Prints the models of a serving platform's catalogue: their names, the base models that they stand for, "
    "whether the platform takes checkpoints of them (import checkpoint), and which versions of transformers may have "
    "saved these.",
    define=define,
    prepare=prepare,
    execute=execute,
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
