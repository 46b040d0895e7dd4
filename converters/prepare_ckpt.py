"""prepare-ckpt: a Hugging Face checkpoint, validated against a serving platform's model and written in its form."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from converters.cli import error_prefix, run_flags, serving_flags
from converters.cli.program import Program, main
from converters.prepare.request import PrepareRequest
from reporting.diagnostics import Diagnostic, raise_all
from reporting.report import Report
from validators import transformers_version

if TYPE_CHECKING:
    from converters.prepare.looking import Looked
    from recast_proto import model_manifest_pb2, serving_catalog_pb2

_LARGEST_AUTO_BUDGET = 2 << 30
_LONGEST_SHOWN = 60
_ABOUT_OUTPUT = ("destination_uri", "legacy_bundle", "overwrite")


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    flags.DEFINE_string(
        "model",
        None,
        "The platform's model to prepare for (llama3-70b): `recast models` lists them.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "original_checkpoint_path",
        None,
        "Directory of the checkpoint: config.json, safetensors or .bin files, tokenizer.",
        flag_values=values,
    )
    flags.DEFINE_string("output_checkpoint_path", None, "Directory for the prepared checkpoint.", flag_values=values)
    flags.DEFINE_string(
        "transformers_version",
        None,
        "The version of transformers of the deployment (4.45.1): a checkpoint that a newer one saved is refused. "
        "Nothing is compared when left out.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "ignore_transformers_version",
        False,
        f"Compare no versions of transformers, and prepare for the platform's own ({transformers_version.BACKEND}).",
        flag_values=values,
    )
    serving_flags.define(values)
    flags.DEFINE_bool("dry_run", False, "Validate only; write nothing.", flag_values=values)
    flags.DEFINE_bool("explain", False, "Say of each rule why it holds.", flag_values=values)
    flags.DEFINE_string(
        "destination_uri",
        None,
        "Where the prepared checkpoint will be uploaded (gs://bucket/folder): the output then has the resources that "
        "deploy it from there, Model and ModelBundle, as YAML in recast/deployment.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "legacy_bundle",
        False,
        "With --destination_uri: a Bundle too, for platforms that do not know ModelBundle.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace a checkpoint that is already at the output path.", flag_values=values
    )
    run_flags.define_budget(values, _LARGEST_AUTO_BUDGET)
    run_flags.define_progress(values)
    error_prefix.define(values)


def prepare(values: flags.FlagValues, _: Sequence[str]) -> PrepareRequest:
    """What the flags ask for."""
    raise_all([*_missing(values), *_wrong(values)])
    output = values.output_checkpoint_path
    return PrepareRequest(
        model=values.model,
        source=Path(values.original_checkpoint_path),
        destination=Path(output) if output else None,
        transformers_version=values.transformers_version or "",
        ignore_transformers_version=values.ignore_transformers_version,
        server=values.server,
        cache_location=serving_flags.cache_location(values),
        dry_run=values.dry_run,
        explain=values.explain,
        destination_uri=values.destination_uri or "",
        legacy_bundle=values.legacy_bundle,
        overwrite=values.overwrite,
        memory_budget=run_flags.budget(values, _LARGEST_AUTO_BUDGET),
        progress=values.progress,
    )


def execute(request: PrepareRequest, report: Report) -> str:
    """Validates, converts and verifies."""
    from converters.engine import convert
    from converters.prepare import legalizing, looking
    from converters.prepare.validation import Validation

    report.source = str(request.source)
    report.parts, report.quiet = legalizing.PARTS, frozenset((legalizing.STEP,))
    catalog, base = _load(request, report)
    report.model_name = base.name
    with looking.looked_at(request.source) as looked:
        conversion = None
        if request.destination is not None:
            conversion = legalizing.conversion(request, base, looked.config or {}, _resources(request, base, looked))
        Validation(request, conversion, catalog, base, looked).run(report)
    if request.dry_run or conversion is None:
        return ""
    return convert.run(conversion, report)


def _resources(request: PrepareRequest, base: model_manifest_pb2.ModelManifest, looked: Looked) -> Mapping[str, str]:
    """The files that deploy the output."""
    from converters.prepare import deployment

    if not request.destination_uri or request.destination is None or looked.config is None:
        return {}
    name = os.path.basename(os.path.realpath(request.destination))
    deployed = deployment.Deployed(request.destination_uri, name, base, looked.config, looked.tokenizer)
    return deployment.files(deployed, legacy_bundle=request.legacy_bundle)


def _load(
    request: PrepareRequest, report: Report
) -> tuple[serving_catalog_pb2.ServingCatalog, model_manifest_pb2.ModelManifest]:
    """The platform's catalogue and its model."""
    from converters.prepare import legalizing, metadata
    from converters.serving import cache

    with report.step("load_serving_metadata") as step:
        beside = [path for path in (request.source, request.destination) if path is not None]
        loaded = cache.opened(request.server, request.cache_location, beside)
        step.lines.extend(loaded.lines)
        base = metadata.model_of(loaded.catalog, request.model)
        if not request.dry_run:
            legalizing.check_form(base)
        return loaded.catalog, base


def _missing(values: flags.FlagValues) -> list[Diagnostic]:
    needed = ["model", "original_checkpoint_path", *(() if values.dry_run else ("output_checkpoint_path",))]
    return [
        Diagnostic("INVALID_FLAG", f"--{name} was not given.", subject=f"--{name}")
        for name in needed
        if not values[name].value
    ]


def _wrong(values: flags.FlagValues) -> list[Diagnostic]:
    found = []
    version = values.transformers_version
    if version and transformers_version.parsed(version) is None:
        shown = repr(version if len(version) <= _LONGEST_SHOWN else f"{version[:_LONGEST_SHOWN]}...")
        reason = f"--transformers_version is {shown}, which is no version by PEP 440, such as 4.45.1."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--transformers_version"))
    if values.destination_uri:
        from converters.prepare import deployment

        found.extend(deployment.check_uri(values.destination_uri))
    elif values.legacy_bundle and not _without_output(values):
        reason = "--legacy_bundle is about the resources that --destination_uri asks for, and that was not given."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--legacy_bundle"))
    if _without_output(values):
        reason = "is about the output, and --dry_run without --output_checkpoint_path makes none."
        found += [
            Diagnostic("INVALID_FLAG", f"--{name} {reason}", subject=f"--{name}")
            for name in _ABOUT_OUTPUT
            if values[name].value
        ]
    return found + run_flags.problems(values)


def _without_output(values: flags.FlagValues) -> bool:
    return bool(values.dry_run and not values.output_checkpoint_path)


PROGRAM = Program(
    name="prepare-ckpt",
    summary="Validates a Hugging Face checkpoint against a model of a serving platform, and writes it in the form that "
    "the platform runs: numbered safetensors files with an index, embeddings and dtype as the platform has them, "
    "config for its version of transformers, the other files, and DONE when all of it was read back. Every "
    "incompatibility is reported at once, before the first byte is written.",
    define=define,
    prepare=prepare,
    execute=execute,
    supervised=True,
)

if __name__ == "__main__":
    main(PROGRAM)
