"""The validation steps: all of them run, whatever an earlier one found, and nothing is written before they hold."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator

from converters.engine import manifest, model
from converters.engine.destination import is_vacant
from converters.engine.prepare import occupied
from converters.engine.request import ConversionRequest
from converters.engine.staging import Staging
from converters.prepare import legalizing
from converters.prepare.looking import Looked
from converters.prepare.request import PrepareRequest
from mappings import catalog
from recast_proto import model_manifest_pb2, serving_catalog_pb2
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report, StepFailed, StepRecord
from validators import checkpoint_files, hf_config, preflight, transformers_version
from validators.compatibility.evaluation import Finding, evaluate
from validators.compatibility.legalised import before_legalising

# What is there instead of a model explains everything that is missing of one.
_EXPLAINS = ("ADAPTER_NOT_MERGED", "FORMAT_NOT_ACCEPTED")
_EXPLAINED = ("CHECKPOINT_FILE_MISSING", "CHECKPOINT_FILE_ADVISED", "CONFIG_MISSING")

Check = Callable[[StepRecord], Iterable[Diagnostic]]


class Validation:
    """The validation of one checkpoint against one model of a catalogue."""

    def __init__(
        self,
        request: PrepareRequest,
        conversion: ConversionRequest | None,
        known: serving_catalog_pb2.ServingCatalog,
        base: model_manifest_pb2.ModelManifest,
        looked: Looked,
    ):
        """Args: `conversion` is what would be done, None where nothing will; the rest is what it is judged by."""
        self._request = request
        self._conversion = conversion
        self._catalog = known
        self._base = base
        self._looked = looked
        self._facts = before_legalising(looked.facts, base)
        self._named: frozenset[str] = frozenset()
        self._subjects = {rule.id: rule.WhichOneof("subject") for rule in known.rule}

    def run(self, report: Report) -> None:
        """Runs all steps.

        Raises:
            StepFailed: at least one failed; what each found is in the report.
        """
        checks: dict[str, Check] = {
            "validate_files": self._files,
            "validate_transformer": self._transformer,
            "validate_compatibility": self._compatibility,
            "validate_tokenizer": self._tokenizer,
        }
        failed = [name for name, check in checks.items() if not _holds(report, name, check)]
        if failed:
            raise StepFailed(failed[0])

    def _files(self, step: StepRecord) -> Iterator[Diagnostic]:
        looked = self._looked
        found = [*looked.file_faults]
        if looked.files:
            found += self._findings("validate_files", step)
        if all(d.warning for d in found):
            found += looked.no_weights
        if any(d.id in _EXPLAINS for d in found):
            found = [d for d in found if d.id not in _EXPLAINED]
        self._named = frozenset(d.field for d in found)
        yield from found
        yield from self._destination()
        step.lines.extend(_listing(looked))

    def _destination(self) -> Iterator[Diagnostic]:
        conversion = self._conversion
        if conversion is None:
            return
        if not self._request.dry_run:
            Staging(conversion.destination).settle()
        faults = preflight.check_destination(conversion.destination, conversion.source)
        yield from faults
        if not faults and not is_vacant(conversion.destination) and not self._is_done(conversion):
            yield from occupied(conversion)

    def _is_done(self, conversion: ConversionRequest) -> bool:
        """Whether the output of just this request is already there."""
        opened = self._looked.opened
        if opened is None:
            return False
        digest = conversion.digest(opened.fingerprint + model.fingerprint(conversion, opened))
        return manifest.is_complete(conversion.destination, digest)

    def _transformer(self, step: StepRecord) -> Iterator[Diagnostic]:
        request, config = self._request, self._looked.config
        if request.ignore_transformers_version:
            version = legalizing.deployment_version(request, self._base)
            step.lines.append(f"not compared: --ignore_transformers_version; the checkpoint is prepared for {version}")
        elif not request.transformers_version:
            step.lines.append("not compared: --transformers_version was not given")
        elif config is None:
            step.lines.append("not compared: config.json cannot be read")
        else:
            judged = transformers_version.check(config, request.transformers_version)
            yield from judged.diagnostics
            # The platform's own tool has nothing but the error in this step, and scripts read it.
            if request.explain or not judged.diagnostics:
                step.lines.extend(judged.why)
            if not request.explain and any(not d.warning for d in judged.diagnostics):
                return
        step.lines.extend(self._newer_fields())

    def _newer_fields(self) -> list[str]:
        """What is done about the keys of config.json that are newer than the deployment; of a sound config alone."""
        config = self._looked.config
        if config is None or any(not d.warning for d in hf_config.check_config(config)):
            return []
        # Which keys are written does not depend on the dtype.
        written = hf_config.carried_config(config, dtype="bfloat16", quantized=True)
        return transformers_version.newer_fields(
            config, legalizing.deployment_version(self._request, self._base), written
        )

    def _compatibility(self, step: StepRecord) -> Iterator[Diagnostic]:
        looked = self._looked
        if looked.config is None:
            step.lines.append("not looked at: config.json cannot be read")
            return
        without = () if looked.tensors is not None else ("tensors",)
        if without:
            step.lines.append("tensors were not looked at: their headers cannot be read")
        if self._facts.config != looked.config:
            step.lines.append("the output head is written out already: tie_word_embeddings counts as true")
        found = self._findings("validate_compatibility", step, without)
        yield from found
        if catalog.family_of(looked.config) != self._base.family:
            return  # what another family's fields must be, says nothing of this checkpoint
        named = self._named | {d.field for d in found}
        yield from (d for d in hf_config.check_config(looked.config) if d.field not in named)

    def _tokenizer(self, step: StepRecord) -> Iterator[Diagnostic]:
        looked = self._looked
        yield from looked.tokenizer_faults
        if looked.tokenizer_faults or not looked.files:
            return
        yield from self._findings("validate_tokenizer", step)

    def _findings(self, name: str, step: StepRecord, without: Iterable[str] = ()) -> list[Diagnostic]:
        """What the rules of a step find; `without` names kinds of subjects that cannot be looked at."""
        skipped = {*without}
        findings = [
            finding
            for finding in evaluate(self._catalog, self._base, self._facts, steps=(name,))
            if self._subjects.get(finding.rule_id) not in skipped
        ]
        if self._request.explain:
            step.lines.extend(_explained(finding) for finding in findings)
        return [diagnostic for finding in findings for diagnostic in finding.diagnostics]


def _holds(report: Report, name: str, check: Check) -> bool:
    """Runs one step; whether it succeeded. What is no finding, such as a signal, ends the run."""
    try:
        with report.step(name) as step:
            found = list(check(step))
            step.diagnostics.extend(d for d in found if d.warning)
            raise_all([d for d in found if not d.warning])
    except StepFailed as failure:
        if not isinstance(failure.__cause__, RecastError):
            raise
        return False
    return True


def _explained(finding: Finding) -> str:
    mark = "holds" if finding.passed else "does not hold"
    return f"{finding.rule_id} {mark}: {finding.why}"


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") or fnmatch.fnmatchcase(name, "pytorch_model*.bin")


def _listing(looked: Looked) -> Iterator[str]:
    sizes = dict(looked.files)
    if looked.carried:
        yield f"copied: {checkpoint_files.listed(looked.carried, sizes)}"
    known = {*looked.carried, "model.safetensors.index.json", "pytorch_model.bin.index.json"}
    left = [name for name in sizes if name not in known and not _is_weights(name) and not name.startswith(".")]
    if left:
        yield f"left behind: {checkpoint_files.listed(left, sizes)}"
    if looked.closed:
        yield f"left behind, as it cannot be read: {', '.join(looked.closed)}"
