"""What every rule of the embedded catalogue says, where it holds and where it does not.

`python -m tests.golden.serving_rules > tests/golden/serving_rules.json` writes it anew.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from mappings.serving import catalog as serving
from recast_proto import compatibility_pb2, model_manifest_pb2, serving_catalog_pb2
from reporting import console
from validators.compatibility import testing
from validators.compatibility.evaluation import evaluate
from validators.compatibility.facts import CheckpointFacts, TensorInfo, TokenizerFacts

FILE = Path(__file__).with_name("serving_rules.json")

# Models that have every attribute between them, the first that has one is taken.
_MODELS = (
    "llama3-1b",
    "mistral-7b-v0.1",
    "gemma2-2b",
    "gemma3-4b",
    "gemma4-26b",
    "gpt-oss-20b",
    "qwen3-30b-a3b",
    "qwen3-vl-2b",
    "qwen3-next-80b-a3b",
    "qwen3.5-35b-a3b",
    "deepseek2-16b",
    "deepseek3.2-671b",
    "llama4-17b-16e",
    "gemma3-1b",
    "deepseek3-671b",
)
_NORM = "model.norm.weight"


def texts() -> dict[str, Any]:
    """By rule, what it says of a published checkpoint and of one with what it looks at changed."""
    return {rule.id: _said(rule) for rule in serving.embedded().rule}


def _said(rule: compatibility_pb2.CompatibilityRule) -> dict[str, Any]:
    for name in _MODELS:
        model = serving.find(serving.embedded(), name)
        assert model is not None
        facts = testing.published(model, tensors=rule.WhichOneof("subject") == "tensors")
        changed = _changed(rule, model, facts)
        if changed is not None:
            return {
                "model": name,
                "published": _sentences(rule, model, facts),
                "changed": _sentences(rule, model, changed),
            }
    raise AssertionError(f"none of these models has what {rule.id} looks at")


def _sentences(
    rule: compatibility_pb2.CompatibilityRule, model: model_manifest_pb2.ModelManifest, facts: CheckpointFacts
) -> list[Any]:
    findings = evaluate(serving_catalog_pb2.ServingCatalog(rule=[rule]), model, facts)
    return [
        [
            {"id": d.id, "subject": d.subject, "reason": d.reason, "suggestion": d.suggestion}
            for d in finding.diagnostics
        ]
        or finding.why
        for finding in findings
    ]


def _changed(
    rule: compatibility_pb2.CompatibilityRule, model: model_manifest_pb2.ModelManifest, facts: CheckpointFacts
) -> CheckpointFacts | None:
    subject = rule.WhichOneof("subject")
    if subject == "config_field":
        if not serving.expects_of_model(rule):
            return testing.with_config(facts, rule.config_field.source[0].path, "another")
        return testing.perturbed(rule, model, facts)
    if subject == "tensors":
        tensors = {name: info for name, info in facts.tensors.items() if name != _NORM}
        tensors["lora_A.weight"] = TensorInfo((8, 8), "BF16")
        for name in tensors:
            if name.endswith("up_proj.weight"):
                tensors[name] = TensorInfo((1, 2), "BF16")
            if name.endswith("down_proj.weight"):
                tensors[name] = TensorInfo(tensors[name].shape, "I8")
        return dataclasses.replace(facts, tensors=tensors)
    if subject == "files":
        wanted = rule.relation == compatibility_pb2.PRESENT
        files = [] if wanted else [name.replace("*", "model") for name in rule.files.name]
        return dataclasses.replace(facts, files=dict.fromkeys(files, 1))
    if subject == "tokenizer":
        return dataclasses.replace(facts, tokenizer=TokenizerFacts(vocabulary_size=10**9))
    return facts


if __name__ == "__main__":
    console.show(json.dumps(texts(), indent=2))
