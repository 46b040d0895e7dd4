"""For tests: facts of checkpoints as the models of a catalogue are published, and with one thing changed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

from mappings.language import loader
from mappings.language.family import bind_family
from mappings.language.layout import bind_layout
from mappings.serving import attributes
from mappings.serving import catalog as serving
from recast_proto import compatibility_pb2, model_manifest_pb2, serving_catalog_pb2
from validators.compatibility.facts import CheckpointFacts, TensorInfo, TokenizerFacts

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

# Where the value of a reading is stated, and so can be changed.
_READ_AT = {
    "activation": ("hidden_activation", "hidden_act"),
    "sliding_window": ("sliding_window",),
    "dtype": ("dtype", "torch_dtype"),
    **{name: (name,) for name in ("attn_temperature_tuning", "layer_types", "moe_layers", "no_rope_layers")},
    "rope_parameters": ("rope_parameters.full_attention", "rope_parameters", "rope_scaling"),
}


def published(model: model_manifest_pb2.ModelManifest, *, tensors: bool = True) -> CheckpointFacts:
    """A checkpoint of a model as it is published: its headers are derived, and may be left out."""
    return CheckpointFacts(
        config=serving.config_of(model),
        tensors=header_of(model) if tensors else {},
        files=dict.fromkeys(FILES, 1),
        tokenizer=TokenizerFacts(vocabulary_size=model.tokenizer.vocabulary_size),
    )


def header_of(model: model_manifest_pb2.ModelManifest, dtype: str = "BF16") -> dict[str, TensorInfo]:
    """The headers that a checkpoint of a model has as it is published, without its weights."""
    bound = bind_family(loader.load_family(model.family), serving.config_of(model))
    shapes = bind_layout(bound, loader.load_layout(model.family, "hf"), {}).header(optional=False, mirrors=False)
    return {name: TensorInfo(shape, dtype) for name, shape in shapes.items()}


def with_config(facts: CheckpointFacts, path: str, value: Any) -> CheckpointFacts:
    """The facts with another value at a path of config.json; None removes the key."""
    config = copy.deepcopy(dict(facts.config))
    *parents, key = path.split(".")
    place: Any = config
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is None:
        place.pop(key, None)
    else:
        place[key] = value
    return dataclasses.replace(facts, config=config)


def only(catalog: serving_catalog_pb2.ServingCatalog, *subjects: str) -> serving_catalog_pb2.ServingCatalog:
    """A catalogue without models, with the rules over some kinds of subjects."""
    found = serving_catalog_pb2.ServingCatalog(schema_version=catalog.schema_version)
    found.rule.extend(rule for rule in catalog.rule if rule.WhichOneof("subject") in subjects)
    return found


def perturbed(
    rule: compatibility_pb2.CompatibilityRule, model: model_manifest_pb2.ModelManifest, facts: CheckpointFacts
) -> CheckpointFacts | None:
    """The facts with another value of the attribute that a rule over config.json looks at.

    Returns:
        None if the model does not have the attribute, or has it switched off.
    """
    value = attributes.value_of(rule.config_field, facts.config, model.family)
    if value in (None, attributes.NULL) or not serving.applies_to(rule, model.family):
        return None
    lookup = attributes.Lookup(facts.config, [""])
    places = list(_places(rule.config_field, model.family))
    there = next((place for place in places if lookup(place) is not None), None)
    if there is not None:
        return with_config(facts, there, changed(lookup(there)))
    root = next(root for root in attributes.config_roots(model.family) if lookup(_in(root, "hidden_size")) is not None)
    return with_config(facts, next(place for place in places if place.startswith(root)), changed(value))


def _places(field: compatibility_pb2.ConfigField, family: str) -> Iterator[str]:
    """Full paths at which a field may be stated, those that are looked at first before the others."""
    for source in (one for one in field.source if not one.family or family in one.family):
        paths = [source.path] if source.path else _READ_AT.get(source.reading, ())
        for path in paths:
            for root in attributes.config_roots(family):
                yield _in(root, path)


def _in(root: str, path: str) -> str:
    if path.startswith("."):
        return path[1:]
    return f"{root}.{path}" if root else path


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 2 * value + 1
    if isinstance(value, str):
        return f"another_{value}"
    if isinstance(value, list):
        return [changed(entry) for entry in value] or [1]
    key = next((key for key, entry in value.items() if isinstance(entry, (int, float)) and key != "rope_theta"), None)
    return {**value, key: changed(value[key])} if key else {**value, "factor": 3.0}
