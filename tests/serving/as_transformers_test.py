"""Two configs that transformers reads as one are judged alike: what a config leaves out, or sets to null.

The oracle is the config class of each model. Of what it reads, only what no graph depends on is left aside.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mappings.serving import catalog as catalogs
from recast_proto import model_manifest_pb2
from tests.families.free_keys import may_change
from validators.compatibility import testing
from validators.compatibility.evaluation import evaluate

CATALOG = catalogs.embedded()
# Its class is code beside its checkpoints, which is not run.
_FOREIGN = ("kimi_k2",)
MODELS = [model.name for model in CATALOG.model if model.family not in _FOREIGN]
OVER_CONFIG = testing.only(CATALOG, "config_field")
# Recast's own mappings need these, whatever a class assumes.
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_NAMES = ("model_type", "architectures", "text_config", "vision_config")
# A class takes this null, and its model cannot be made.
_FAILING = "partial_rotary_factor"
_BY_LAYER = "per_layer_config"


@pytest.mark.parametrize("how", ["removed", "null"])
@pytest.mark.parametrize("name", MODELS)
def test_a_key_that_is_removed_or_null_is_accepted_if_transformers_reads_the_same(name: str, how: str) -> None:
    model = catalogs.find(CATALOG, name)
    assert model is not None
    config = catalogs.config_of(model)
    known, published = _known(config), _read(config)
    assert known is not None
    assert published is not None
    wrong, judged = [], set()
    for path in _leaves(config):
        changed = _changed(config, path, how)
        read = _read(changed) if how == "removed" or _at(known, path) is not None else None
        if read is None or changed == config:
            continue
        same = _static(model.family, read, known) == _static(model.family, published, known)
        judged.add(same)
        found = _violations(model, changed)
        if same != (not found) and not (same and path.rpartition(".")[2] in _NEEDED):
            wrong.append(
                f"{path} {how}: {'the same' if same else 'another'} to transformers, and {found or 'accepted'}"
            )
    assert wrong == []
    assert judged


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gemma2-2b", "layer_types", ["full_attention"] * 26),
        ("gemma2-2b", "layer_types", ["sliding_attention", "full_attention"] * 13),
        ("llama3-8b", "layer_types", ["full_attention"] * 32),
        ("gemma2-2b", "use_bidirectional_attention", None),
        ("gemma2-2b", "use_bidirectional_attention", True),
        ("gpt-oss-20b", "swiglu_alpha", 1.702),
        ("gpt-oss-20b", "swiglu_alpha", 1.0),
        ("gemma3-1b", "layer_types", ["full_attention"] * 26),
        ("gemma3-1b", "sliding_window_pattern", 2),
        ("gemma3-27b", "text_config.sliding_window_pattern", 2),
        ("gemma3-27b", "text_config.sliding_window_pattern", 6),
        ("gemma3-27b", "text_config.query_pre_attn_scalar", 256),
        ("gemma3-27b", "text_config.final_logit_softcapping", 30.0),
        ("qwen3-8b", "layer_types", ["full_attention"] * 36),
        ("qwen3-8b", "layer_types", ["sliding_attention"] * 36),
        ("qwen3-8b", "sliding_window", 4096),
        ("deepseek3-671b", "rope_interleave", False),
        ("deepseek3-671b", "rope_interleave", True),
        ("llama4-17b-16e", "text_config.attn_temperature_tuning", False),
        ("llama4-17b-16e", "text_config.attn_temperature_tuning", True),
        ("llama4-17b-16e", "text_config.no_rope_layers", []),
        ("llama4-17b-16e", "text_config.no_rope_layers", [1] * 48),
        ("llama4-17b-128e", "text_config.moe_layers", list(range(48))),
        ("llama4-17b-128e", "text_config.moe_layers", list(range(1, 48, 2))),
        ("qwen3-next-80b-a3b", "full_attention_interval", 4),
        ("qwen3-next-80b-a3b", "full_attention_interval", 2),
        ("mistral-7b-v0.3", "sliding_window", 4096),
    ],
)
def test_a_key_that_is_added_is_accepted_if_transformers_reads_the_same(name: str, key: str, value: Any) -> None:
    model = catalogs.find(CATALOG, name)
    assert model is not None
    config = catalogs.config_of(model)
    changed = _changed(config, key, "changed", value)
    known, published, read = _known(config), _read(config), _read(changed)
    assert known is not None
    assert published is not None
    assert read is not None
    same = _static(model.family, read, known) == _static(model.family, published, known)
    assert (_violations(model, changed) == []) is same


def _violations(model: model_manifest_pb2.ModelManifest, config: Mapping[str, Any]) -> list[str]:
    facts = dataclasses.replace(testing.published(model, tensors=False), config=config)
    findings = evaluate(OVER_CONFIG, model, facts)
    return [d.reason for finding in findings for d in finding.diagnostics if not d.warning]


def _read(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What transformers' class for a config makes of it; None if it refuses it."""
    import transformers

    fields = {key: copy.deepcopy(value) for key, value in config.items() if key != "model_type"}
    try:
        made = transformers.CONFIG_MAPPING[config["model_type"]](**fields)
    except Exception:  # whatever the class raises: there is nothing to compare
        return None
    read: dict[str, Any] = json.loads(made.to_json_string(use_diff=False))
    return read


def _known(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A config of the same class with everything that the class assumes."""
    return _read({"model_type": config["model_type"], **{part: {} for part in _NAMES[2:] if part in config}})


def _static(family: str, read: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What a graph may depend on of what a class reads: keys that it does not know are kept unread beside them."""
    found: dict[str, Any] = {}
    for key, value in read.items():
        path = f"{prefix}{key}"
        free = key in (*_NAMES[:2], "transformers_version", "_name_or_path") or may_change(family, path)
        rotary = "rope_parameters." in path
        if free or (rotary and value is None) or not (key in known or rotary or _BY_LAYER in path):
            continue
        inner = known.get(key)
        nested = isinstance(value, dict)
        found[key] = _static(family, value, inner if isinstance(inner, dict) else {}, f"{path}.") if nested else value
    return found


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if key not in _NAMES:
            yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")


def _changed(config: Mapping[str, Any], path: str, how: str, value: Any = None) -> dict[str, Any]:
    made = copy.deepcopy(dict(config))
    *parents, key = path.split(".")
    place: Any = made
    for parent in parents:
        place = place[parent]
    if how == "removed":
        del place[key]
    elif key != _FAILING:
        place[key] = value
    return made


def _at(config: Mapping[str, Any], path: str) -> Any:
    """The object or list of keys that a class has at a path; something if it has the key."""
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return True if "rope_" in path else None
        value = value[key]
    return True
