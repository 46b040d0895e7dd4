"""Every static attribute of every family, changed one at a time, is refused with its name; nothing else is."""

from __future__ import annotations

import dataclasses
import functools
import re

import pytest

from mappings.language import loader
from mappings.serving import catalog as serving
from recast_proto import compatibility_pb2, model_manifest_pb2
from validators.compatibility import testing
from validators.compatibility.evaluation import Finding, evaluate
from validators.compatibility.facts import CheckpointFacts, TensorInfo

CATALOG = serving.embedded()
OVER_CONFIG = testing.only(CATALOG, "config_field")
OVER_TENSORS = testing.only(CATALOG, "tensors")
FAMILIES = loader.families()
# What the platform's documents list, and what makes the graph besides: each family states all of these.
EVERYWHERE = {
    "architectures",
    "attention_bias",
    "attention_dropout",
    "hidden_act",
    "hidden_size",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_theta",
    "rope_type",
    "tie_word_embeddings",
    "vocab_size",
}


@functools.cache
def smallest(family: str) -> model_manifest_pb2.ModelManifest:
    """The smallest published model of a family."""
    models = [model for model in CATALOG.model if model.family == family]
    return min(models, key=lambda model: sum(_elements(info) for info in testing.header_of(model).values()))


def _elements(info: TensorInfo) -> int:
    elements = 1
    for size in info.shape:
        elements *= size
    return elements


def _stated(family: str) -> list[compatibility_pb2.CompatibilityRule]:
    facts = testing.published(smallest(family), tensors=False)
    rules = [rule for rule in OVER_CONFIG.rule if serving.expects_of_model(rule)]
    return [rule for rule in rules if testing.perturbed(rule, smallest(family), facts) is not None]


def _violations(model: model_manifest_pb2.ModelManifest, facts: CheckpointFacts) -> list[Finding]:
    return [finding for finding in evaluate(OVER_CONFIG, model, facts) if not finding.passed]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_static_attribute_that_is_changed_is_refused_with_its_name(family: str) -> None:
    model = smallest(family)
    facts = testing.published(model, tensors=False)
    unseen = []
    for rule in _stated(family):
        changed = testing.perturbed(rule, model, facts)
        assert changed is not None
        found = [finding for finding in _violations(model, changed) if finding.rule_id == rule.id]
        named = [d for finding in found for d in finding.diagnostics if d.subject == rule.config_field.attribute]
        if [d.id for d in named] != [rule.error_id] or rule.config_field.attribute not in named[0].reason:
            unseen.append((rule.id, [finding.why for finding in found]))
    assert unseen == []


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_the_attributes_that_every_graph_has(family: str) -> None:
    attributes = {rule.config_field.attribute for rule in _stated(family)}
    assert attributes >= EVERYWHERE
    assert "head_dim" in attributes or "qk_nope_head_dim" in attributes
    assert "intermediate_size" in attributes or "moe_intermediate_size" in attributes


@pytest.mark.parametrize("family", FAMILIES)
def test_attributes_that_are_changed_together_are_all_named(family: str) -> None:
    model = smallest(family)
    facts = testing.published(model, tensors=False)
    names = []
    for rule in _stated(family):
        # One of these implies others, which then agree by accident, or hides them.
        if rule.config_field.attribute not in ("num_attention_heads", "hidden_size", "rope_local_type"):
            facts = testing.perturbed(rule, model, facts) or facts
            names.append(rule.config_field.attribute)
    found = {d.subject for finding in _violations(model, facts) for d in finding.diagnostics}
    assert set(names) - found == set()


@pytest.mark.parametrize("name", [model.name for model in CATALOG.model])
def test_a_checkpoint_as_it_is_published_is_accepted(name: str) -> None:
    model = serving.find(CATALOG, name)
    assert model is not None
    findings = evaluate(CATALOG, model, testing.published(model))
    assert [finding.why for finding in findings if not finding.passed] == []
    assert len(findings) > len(EVERYWHERE)


@pytest.mark.parametrize("family", FAMILIES)
def test_headers_that_are_changed_are_refused_with_the_tensors_name(family: str) -> None:
    model = smallest(family)
    facts = testing.published(model)
    name = next(name for name, info in facts.tensors.items() if re.search(r"\.1\..*weight$", name) and info.shape)
    info = facts.tensors[name]
    without = {other: kept for other, kept in facts.tensors.items() if other != name}
    larger = TensorInfo((info.shape[0] + 1, *info.shape[1:]), info.dtype)
    expected = {
        "added": ({**facts.tensors, "lora_A": info}, {("UNKNOWN_TENSOR", "lora_A")}),
        "removed": (without, {("MISSING_TENSOR", name)}),
        "renamed": ({**without, f"{name}_": info}, {("MISSING_TENSOR", name), ("UNKNOWN_TENSOR", f"{name}_")}),
        "reshaped": ({**without, name: larger}, {("TENSOR_SHAPE", name)}),
        "retyped": ({**without, name: TensorInfo(info.shape, "I8")}, {("TENSOR_DTYPE", name)}),
    }
    found = {what: _tensor_faults(model, facts, tensors) for what, (tensors, _) in expected.items()}
    assert found == {what: faults for what, (_, faults) in expected.items()}


def _tensor_faults(
    model: model_manifest_pb2.ModelManifest, facts: CheckpointFacts, tensors: dict[str, TensorInfo]
) -> set[tuple[str, str]]:
    findings = evaluate(OVER_TENSORS, model, dataclasses.replace(facts, tensors=tensors))
    return {(d.id, d.subject) for finding in findings for d in finding.diagnostics}


def test_the_optimizer_is_reported_as_not_applicable() -> None:
    model = smallest("llama")
    findings = evaluate(CATALOG, model, testing.published(model))
    (said,) = [finding for finding in findings if finding.rule_id == "static.optimizer_type"]
    assert said.passed
    assert said.why.startswith("optimizer type is not applicable: a Hugging Face checkpoint states no optimizer")
