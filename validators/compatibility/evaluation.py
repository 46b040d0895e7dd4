"""The engine of the rules: evaluates each rule of a catalogue over the facts of one checkpoint.

Nothing stops at a violation: every rule has its say, and what it found is said for passed rules too.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mappings.serving import attributes
from mappings.serving import catalog as serving
from recast_proto import compatibility_pb2, error_pb2, model_manifest_pb2, serving_catalog_pb2
from reporting.diagnostics import Diagnostic
from validators.compatibility import headers, relations, wording
from validators.compatibility.facts import CheckpointFacts, TokenizerFacts

STEPS = ("validate_files", "validate_compatibility", "validate_tokenizer")
"""The steps that rules may belong to."""

_Rule = compatibility_pb2.CompatibilityRule


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found.

    Attributes:
        rule_id: the rule.
        step: the step of the report that it belongs to.
        passed: whether it holds; a rule that has nothing to look at does.
        why: one sentence with the values that were compared.
        diagnostics: the violations; those of a rule of severity WARNING are warnings. None if it passed.
    """

    rule_id: str
    step: str
    passed: bool
    why: str
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it is a violation that ends a run."""
        return any(not diagnostic.warning for diagnostic in self.diagnostics)


class _FaultyRuleError(Exception):
    """A rule that cannot be evaluated."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Subjects:
    """What rules may look at."""

    model: model_manifest_pb2.ModelManifest
    checkpoint: CheckpointFacts
    published: Mapping[str, Any]
    stated: Mapping[str, Any]


def evaluate(
    catalog: serving_catalog_pb2.ServingCatalog,
    model: model_manifest_pb2.ModelManifest,
    checkpoint: CheckpointFacts,
    steps: Collection[str] = (),
) -> list[Finding]:
    """What every rule of a catalogue finds in a checkpoint of one of its models.

    Args:
        catalog: with the rules.
        model: the model that the checkpoint is to run as; see `mappings.serving.catalog.find`.
        checkpoint: its facts.
        steps: the steps whose rules are looked at; empty for all.

    Returns:
        In the catalogue's order: a finding for each rule that applies to the model's family, but for rules over
        attributes that neither side has. A rule that cannot be evaluated is a finding with RULE_INVALID, and never
        passes.
    """
    try:
        published = serving.config_of(model)
    except ValueError as error:
        diagnostic = Diagnostic("RULE_INVALID", f"The catalogue's model cannot be used: {error}.", subject=model.name)
        return [Finding("catalogue", STEPS[0], False, diagnostic.reason, (diagnostic,))]
    stated = {entry.name: entry.value_json for entry in model.static_attribute}
    subjects = _Subjects(model, checkpoint, published, stated)
    found = []
    comparison = _Comparison(model, checkpoint)
    for rule in catalog.rule:
        if (steps and _step(rule) not in steps) or not serving.applies_to(rule, model.family):
            continue
        try:
            finding = _evaluate(rule, subjects, comparison)
        except (_FaultyRuleError, LookupError, ValueError, RecursionError) as error:
            finding = _faulty(rule, error)
        if finding is not None:
            found.append(finding)
    return found


class _Comparison:
    """The headers beside the model's; compared once, when the first rule asks for it."""

    def __init__(self, model: model_manifest_pb2.ModelManifest, checkpoint: CheckpointFacts):
        self._model = model
        self._checkpoint = checkpoint
        self._made: headers.Comparison | None = None

    def get(self) -> headers.Comparison:
        if self._made is None:
            self._made = headers.compare(self._model, self._checkpoint.tensors)
        return self._made


def _step(rule: _Rule) -> str:
    """The step that a rule is looked at in. None is left out: a rule of a step that there is not is faulty."""
    return rule.step if rule.step in STEPS else "validate_compatibility"


def _evaluate(rule: _Rule, subjects: _Subjects, comparison: _Comparison) -> Finding | None:
    if rule.step not in STEPS:
        raise _FaultyRuleError(f"there is no step '{rule.step}'")
    kind = rule.WhichOneof("subject")
    if kind == "not_applicable":
        return _passed(rule, f"{rule.not_applicable.attribute} is not applicable: {rule.not_applicable.reason}")
    _check(rule)
    if kind == "config_field":
        return _config_field(rule, subjects)
    if kind == "tensors":
        return _tensors(rule, comparison.get())
    if kind == "files":
        return _files(rule, subjects.checkpoint)
    if kind == "tokenizer":
        return _tokenizer(rule, subjects)
    raise _FaultyRuleError("it has no subject")


def _check(rule: _Rule) -> None:
    """Refuses a rule whose violation could not be told."""
    id = error_pb2.RecastErrorId.DESCRIPTOR.values_by_name.get(rule.error_id)
    if id is None or not id.number:
        raise _FaultyRuleError(f"there is no error id '{rule.error_id}'")
    warns = Diagnostic(rule.error_id, "").warning
    if rule.severity not in (compatibility_pb2.ERROR, compatibility_pb2.WARNING):
        raise _FaultyRuleError("it has no severity")
    if warns != (rule.severity == compatibility_pb2.WARNING):
        raise _FaultyRuleError(f"{rule.error_id} is {'a warning' if warns else 'an error'}, and its severity is not")


def _faulty(rule: _Rule, error: Exception) -> Finding:
    said = error.args[0] if error.args else type(error).__name__
    reason = f"The catalogue's rule {rule.id or '(without id)'} cannot be evaluated: {said}."
    return Finding(rule.id, _step(rule), False, reason, (Diagnostic("RULE_INVALID", reason, subject=rule.id),))


def _passed(rule: _Rule, why: str) -> Finding:
    return Finding(rule.id, rule.step, True, f"{why}.")


def _failed(rule: _Rule, *faults: tuple[str, str]) -> Finding:
    """A violated rule, with reason and subject of each violation."""
    diagnostics = tuple(
        Diagnostic(rule.error_id, reason, suggestion=rule.suggestion, subject=subject) for reason, subject in faults
    )
    return Finding(rule.id, rule.step, False, " ".join(reason for reason, _ in faults), diagnostics)


# ---- config.json


def _config_field(rule: _Rule, subjects: _Subjects) -> Finding | None:
    field, model = rule.config_field, subjects.model
    found, where = attributes.stated(field, subjects.checkpoint.config, model.family)
    if rule.relation in (compatibility_pb2.PRESENT, compatibility_pb2.ABSENT):
        return _presence(rule, field.attribute, found, "config.json", model.name)
    expected = _expected(rule, subjects, field.attribute)
    place = f"config.json ({where})" if where else "config.json"
    return _related(rule, field.attribute, found, expected, place, model.name)


def _expected(rule: _Rule, subjects: _Subjects, attribute: str) -> Any:
    kind = rule.expected.WhichOneof("from")
    if kind == "literal_json":
        return json.loads(rule.expected.literal_json)
    if kind == "manifest_fact":
        return _fact(subjects.model, rule.expected.manifest_fact)
    if subjects.stated:
        value = subjects.stated.get(attribute)
        return None if value is None else json.loads(value)
    return attributes.value_of(rule.config_field, subjects.published, subjects.model.family)


def _fact(model: model_manifest_pb2.ModelManifest, path: str) -> Any:
    """A field of a model by its path: a text, a number, or a list or object of these."""
    value: Any = model
    for name in path.split("."):
        if not hasattr(value, "DESCRIPTOR") or name not in value.DESCRIPTOR.fields_by_name:
            raise _FaultyRuleError(f"a model of a catalogue has no {path}")
        value = getattr(value, name)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "DESCRIPTOR") or any(hasattr(entry, "DESCRIPTOR") for entry in value):
        raise _FaultyRuleError(f"{path} of a model is no value")
    return list(value)


def _related(rule: _Rule, attribute: str, found: Any, expected: Any, place: str, model: str) -> Finding | None:
    """What a relation between two values says; None if there is neither."""
    relation = relations.relation_of(rule)
    if found is None and expected is None:
        return None
    if (found is None or expected is None) and (rule.applies.where_both or not serving.expects_of_model(rule)):
        without = place if found is None else model
        return _passed(rule, f"{attribute} is not stated in {without}, and nothing is compared")
    if found is not None and expected is not None and relation.holds(found, expected):
        return _passed(rule, wording.agreement(attribute, found, expected, relation, place, model))
    said = wording.filled(rule.message, attribute, found, expected, model)
    reason = said or wording.difference(attribute, found, expected, relation, place, model)
    return _failed(rule, (reason, attribute))


def _presence(rule: _Rule, attribute: str, found: Any, place: str, model: str) -> Finding:
    wanted = rule.relation == compatibility_pb2.PRESENT
    if (found is not None) == wanted:
        return _passed(rule, f"{attribute} is {'there' if wanted else 'not there'} in {place}")
    said = wording.filled(rule.message, attribute, found, None, model)
    return _failed(rule, (said or f"{attribute} is {'missing' if wanted else 'there'} in {place}.", attribute))


# ---- headers

_KINDS = {
    compatibility_pb2.TENSOR_MISSING: "missing",
    compatibility_pb2.TENSOR_UNEXPECTED: "unexpected",
    compatibility_pb2.TENSOR_SHAPES: "shape",
    compatibility_pb2.TENSOR_DTYPES: "dtype",
}


def _tensors(rule: _Rule, comparison: headers.Comparison) -> Finding:
    kind = _KINDS.get(rule.tensors.aspect)
    if kind is None:
        raise _FaultyRuleError("it names no aspect of tensors")
    pattern = rule.tensors.name_pattern or "*"
    found = [deviation for deviation in comparison.of(kind) if fnmatch.fnmatchcase(deviation.name, pattern)]
    if not found:
        return _passed(rule, wording.tensors_agree(kind, comparison.tensors))
    return _failed(rule, *wording.tensors_differ(found))


# ---- files


def _files(rule: _Rule, checkpoint: CheckpointFacts) -> Finding:
    if rule.relation not in (compatibility_pb2.PRESENT, compatibility_pb2.ABSENT):
        raise _FaultyRuleError("files can be PRESENT or ABSENT")
    excused = next(iter(_matching(checkpoint, rule.files.unless)), None)
    faults, reasons = [], []
    for pattern in rule.files.name:
        there = next(iter(_matching(checkpoint, [pattern])), None)
        if (there is not None) == (rule.relation == compatibility_pb2.PRESENT):
            reasons.append(f"{there} is there" if there else f"there is no {pattern}")
        elif excused is not None:
            reasons.append(f"{excused} is there")
        else:
            said = wording.filled(rule.message, "", there or "no file", pattern, "")
            faults.append((said or wording.file(pattern, there), there or pattern))
    return _failed(rule, *faults) if faults else _passed(rule, ", ".join(dict.fromkeys(reasons)))


def _matching(checkpoint: CheckpointFacts, patterns: Collection[str]) -> Iterator[str]:
    return (name for name in sorted(checkpoint.files) for pattern in patterns if fnmatch.fnmatchcase(name, pattern))


# ---- tokenizer


def _tokenizer(rule: _Rule, subjects: _Subjects) -> Finding | None:
    fact, model = rule.tokenizer.fact, subjects.model
    found = _tokenizer_fact(rule, subjects)
    if rule.relation in (compatibility_pb2.PRESENT, compatibility_pb2.ABSENT):
        return _presence(rule, fact, found, "the tokenizer", model.name)
    if serving.expects_of_model(rule):
        raise _FaultyRuleError("a rule over the tokenizer says what it expects")
    return _related(rule, fact, found, _expected(rule, subjects, fact), "the tokenizer", model.name)


def _tokenizer_fact(rule: _Rule, subjects: _Subjects) -> Any:
    fact, tokenizer = rule.tokenizer.fact, subjects.checkpoint.tokenizer
    if fact not in (field.name for field in dataclasses.fields(TokenizerFacts)):
        raise _FaultyRuleError(f"a tokenizer has no fact '{fact}'")
    if tokenizer is not None and fact == "vocabulary_size":
        return tokenizer.size_without(subjects.model.tokenizer.token_without_row)
    return None if tokenizer is None else getattr(tokenizer, fact)
