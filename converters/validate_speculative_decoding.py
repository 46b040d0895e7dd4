"""validate-speculative-decoding: whether a draft checkpoint can propose tokens for a target, from headers alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from converters.cli import error_prefix, serving_flags
from converters.cli.program import Program, main
from recast_proto import model_manifest_pb2, serving_catalog_pb2
from reporting import tables
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Comparison, Report, StepFailed, StepRecord
from validators.speculative import pair, reading
from validators.speculative.deployments import Models
from validators.speculative.rows import Outcome, Row, diagnostics
from validators.speculative.sides import Kind, Side, kind_of

_SIDES = ("target", "draft")
_COLUMNS = ["check", "outcome", "target", "draft", "reason"]
_LONGEST_CELL = 40


@dataclasses.dataclass(frozen=True)
class PairRequest:
    """A pair to validate.

    Attributes:
        target: directory of the target's checkpoint.
        draft: directory of the draft's checkpoint.
        target_model: name of the target's model in the catalogue; "" to compare with no model.
        draft_model: as target_model, of the draft.
        server: where the catalogue comes from: `embedded`, a path or a URL.
        cache_location: where it is kept; None for nowhere.
        speculated: tokens that the draft proposes at a time; None if that is left open.
    """

    target: Path
    draft: Path
    target_model: str = ""
    draft_model: str = ""
    server: str = "embedded"
    cache_location: Path | None = None
    speculated: int | None = None


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    for side, does in zip(_SIDES, ("whose tokens count", "that proposes tokens"), strict=True):
        flags.DEFINE_string(
            f"{side}_checkpoint_path",
            "",
            f"Directory of the checkpoint {does}: config.json, safetensors or .bin files, tokenizer. Required.",
            flag_values=values,
        )
        flags.DEFINE_string(
            f"{side}_model",
            "",
            f"Name of the {side}'s base model in the catalogue, as `recast models` lists it: the checkpoint must fit "
            "it, and its sequence lengths and batch sizes are compared.",
            flag_values=values,
        )
    serving_flags.define(values)
    flags.DEFINE_integer(
        "num_speculative_tokens",
        None,
        "Tokens that the draft is to propose at a time; it must be able to.",
        flag_values=values,
    )
    error_prefix.define(values)


def prepare(values: flags.FlagValues, _: Sequence[str]) -> PairRequest:
    """What the flags ask for; raises RecastError for everything that is wrong with them."""
    found: list[Diagnostic] = []
    for side in _SIDES:
        flag = f"{side}_checkpoint_path"
        if not values[flag].value:
            found.append(Diagnostic("INVALID_FLAG", f"--{flag} was not given.", subject=f"--{flag}"))
    raise_all(found)
    return PairRequest(
        target=Path(values.target_checkpoint_path),
        draft=Path(values.draft_checkpoint_path),
        target_model=values.target_model,
        draft_model=values.draft_model,
        server=values.server,
        cache_location=serving_flags.cache_location(values),
        speculated=values.num_speculative_tokens,
    )


def execute(request: PairRequest, report: Report) -> str:
    """Validates; all steps that can be done are, whatever an earlier one found."""
    report.source, report.model_name = str(request.target), request.target_model
    report.options["draft_checkpoint_path"] = str(request.draft)
    with report.step("load_serving_metadata") as step:
        catalog, models = _load(request, step)
    sides = [
        _validated(report, name, path, catalog, model)
        for name, path, model in zip(
            _SIDES, (request.target, request.draft), (models.target, models.draft), strict=True
        )
    ]
    target, draft = (side for side, _ in sides)
    failed = [name for name, (_, holds) in zip(_SIDES, sides, strict=True) if not holds]
    if target is not None and draft is not None:
        with report.step("validate_pair") as step:
            rows = pair.compare(target, draft, models, request.speculated)
            _show(rows, report, step)
            _raise(diagnostics(rows), step)
    if failed:
        raise StepFailed(f"validate_{failed[0]}")
    return ""


def _load(request: PairRequest, step: StepRecord) -> tuple[serving_catalog_pb2.ServingCatalog, Models]:
    """The catalogue, and its models of the given names.

    Raises:
        RecastError: as the cache does, or UNSUPPORTED_MODEL for each name that it does not hold.
    """
    from converters.serving import cache
    from mappings.serving import catalog as catalogs

    loaded = cache.opened(request.server, request.cache_location, (request.target, request.draft))
    step.lines.extend(loaded.lines)
    found: dict[str, model_manifest_pb2.ModelManifest] = {}
    missing = []
    for side, name in zip(_SIDES, (request.target_model, request.draft_model), strict=True):
        model = catalogs.find(loaded.catalog, name) if name else None
        if model is not None:
            found[side] = model
        elif name:
            near = ", ".join(catalogs.nearest(loaded.catalog, name))
            reason = f"The catalogue has no model named {name}.{f' Near names are: {near}.' if near else ''}"
            missing.append(Diagnostic("UNSUPPORTED_MODEL", reason, subject=f"--{side}_model"))
    raise_all(missing)
    return loaded.catalog, Models(found.get("target"), found.get("draft"))


def _validated(
    report: Report,
    name: str,
    folder: Path,
    catalog: serving_catalog_pb2.ServingCatalog,
    model: model_manifest_pb2.ModelManifest | None,
) -> tuple[Side | None, bool]:
    """Does the step of one side.

    Returns:
        What the checkpoint states, None if its config cannot be read; and whether nothing is wrong with it.
    """
    side: Side | None = None
    try:
        with report.step(f"validate_{name}") as step:
            found = reading.check_links(folder) if folder.is_dir() else []
            if not found:
                side, found = _read(name, folder, catalog, model, step)
            _raise(found, step)
    except StepFailed as failure:
        if not isinstance(failure.__cause__, RecastError):
            raise
        return side, False
    return side, True


def _read(
    name: str,
    folder: Path,
    catalog: serving_catalog_pb2.ServingCatalog,
    model: model_manifest_pb2.ModelManifest | None,
    step: StepRecord,
) -> tuple[Side | None, list[Diagnostic]]:
    """One side, and everything that is wrong with it by itself."""
    from converters.prepare.looking import looked_at
    from validators.compatibility.evaluation import evaluate
    from validators.compatibility.legalised import before_legalising

    with looked_at(folder) as looked:
        found = [*looked.file_faults, *looked.no_weights, *looked.tokenizer_faults]
        if looked.config is None:
            return None, found or [_without_config(folder)]
        generation, faults = reading.read_generation(folder)
        vocabulary, more = reading.read_vocabulary(folder, looked.tokenizer)
        found += [fault for fault in (*faults, *more) if fault.subject not in {d.subject for d in found}]
        side = Side(looked.config, generation, looked.tensors, vocabulary)
        kind, shown = kind_of(side) if name == "draft" else (Kind.MODEL, "")
        step.lines.extend(_described(side, kind, shown))
        if model is not None and kind is Kind.MODEL and looked.tensors is not None:
            facts = before_legalising(looked.facts, model)
            findings = evaluate(catalog, model, facts, steps=("validate_compatibility",))
            found += [diagnostic for finding in findings for diagnostic in finding.diagnostics]
    named = {d.field for d in found}
    without_row = _without_row(catalog, side, model)
    found += [d for d in pair.check_side(side, kind, without_row) if d.field not in named]
    return side, found


def _without_row(
    catalog: serving_catalog_pb2.ServingCatalog, side: Side, model: model_manifest_pb2.ModelManifest | None
) -> set[str]:
    """Tokens that the model is published with and has no row for; without a name, the models of the side's size."""
    size = side.vocabulary_size
    alike = (one for one in catalog.model if (one.family, one.tokenizer.vocabulary_size) == (side.family, size))
    return {token for one in ([model] if model else alike) for token in one.tokenizer.token_without_row}


def _described(side: Side, kind: Kind, shown: str) -> Iterator[str]:
    if kind is not Kind.MODEL:
        yield f"{kind.value}, by {shown}"
    elif side.family:
        yield f"family {side.family}"
    if side.parameters is not None:
        yield f"{side.parameters} parameters in {len(side.tensors or {})} tensors"


def _without_config(folder: Path) -> Diagnostic:
    return Diagnostic("CONFIG_MISSING", f"{folder} has no config.json.", subject=str(folder))


def _raise(found: Sequence[Diagnostic], step: StepRecord) -> None:
    """Keeps the warnings, and raises all others."""
    step.diagnostics.extend(d for d in found if d.warning)
    raise_all([d for d in found if not d.warning])


def _show(rows: Sequence[Row], report: Report, step: StepRecord) -> None:
    """Puts the table into the report, as text and as data."""
    report.comparisons = [Comparison(row.check, row.outcome.value, row.target, row.draft, row.reason) for row in rows]
    cells = [[row.check, row.outcome.value, _cell(row.target), _cell(row.draft), row.reason] for row in rows]
    step.lines.extend(tables.render(_COLUMNS, cells).split("\n"))
    counts = {outcome: sum(row.outcome is outcome for row in rows) for outcome in Outcome}
    step.lines.append(", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count))


def _cell(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 3]}..."


PROGRAM = Program(
    name="validate-speculative-decoding",
    summary="Says whether a draft checkpoint can propose tokens for a target: vocabulary, token ids, special ids, "
    "positions, dtypes, sizes and, where the models are named, the sequence lengths and batch sizes of the platform's "
    "catalogue. Reads headers and small files alone. Every check is a row of a table with its reason; every violation "
    "is one error.",
    define=define,
    prepare=prepare,
    execute=execute,
)

if __name__ == "__main__":
    main(PROGRAM)
