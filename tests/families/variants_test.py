"""Fields of config.json that choose a variant no mapping has: refused with the field, its value and what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mappings import catalog
from mappings.language import loader
from reporting.diagnostics import Diagnostic
from validators import hf_config

Change = Callable[[dict[str, Any]], None]
Config = Mapping[str, Any]

MANIFESTS = {family: [m for m in catalog.manifests() if m.family == family] for family in loader.families()}
CHOICES = ("hidden_act", "hidden_activation", "scoring_func", "topk_method")


def _changed(config: Config, change: Change) -> dict[str, Any]:
    """A copy of a config, changed where it speaks of the language model."""
    text = config.get("text_config")
    if text is None:
        copy = dict(config)
        change(copy)
        return copy
    return {**config, "text_config": _changed(text, change)}


def _set(field: str, value: object) -> Change:
    def change(config: dict[str, Any]) -> None:
        config[field] = value

    return change


def _rope(section: str, type: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        theta = config.get("rope_theta", 10000.0)
        for key in ("rope_theta", "rope_scaling", "rope_parameters"):
            config.pop(key, None)
        config[section] = {"rope_type": type, "factor": 2.0}
        if section == "rope_scaling":
            config["rope_theta"] = theta
        else:
            config[section]["rope_theta"] = theta

    return change


def _one(config: Config, change: Change) -> Diagnostic:
    assert hf_config.check_config(config) == []
    (found,) = hf_config.check_config(_changed(config, change))
    return found


def _view(config: Config) -> Config:
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, Mapping) else config


def _chosen() -> Iterator[tuple[str, str]]:
    for family, manifests in MANIFESTS.items():
        for field in CHOICES:
            if any(_view(manifest.config).get(field) for manifest in manifests):
                yield family, field


@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("family", MANIFESTS)
def test_a_rotary_embedding_that_no_published_model_of_the_family_has(family: str, section: str) -> None:
    found = _one(MANIFESTS[family][0].config, _rope(section, "spiral"))
    assert (found.id, found.subject) == ("UNKNOWN_ROPE_TYPE", f"{section}.rope_type")
    assert "'spiral'" in found.reason
    known = {hf_config.rope_view(_view(manifest.config)).type for manifest in MANIFESTS[family]}
    assert all(name in found.reason.split("known for this family")[1] for name in known)


@pytest.mark.parametrize(("family", "field"), list(_chosen()))
def test_a_computation_that_no_published_model_of_the_family_has(family: str, field: str) -> None:
    found = _one(MANIFESTS[family][0].config, _set(field, "relu6"))
    assert (found.id, found.subject) == ("CONFIG_FIELD_INVALID", field)
    assert f'{field} is "relu6"' in found.reason
    known = {_view(manifest.config)[field] for manifest in MANIFESTS[family] if _view(manifest.config).get(field)}
    listed = found.reason.partition("known for this family are: ")[2].rstrip(".").split(", ")
    assert set(listed) - {"gelu_pytorch_tanh"} == known - {"gelu_pytorch_tanh"}


@pytest.mark.parametrize("family", MANIFESTS)
def test_a_kind_of_layer_that_the_mapping_does_not_know(family: str) -> None:
    layers = _view(MANIFESTS[family][0].config)["num_hidden_layers"]
    found = _one(MANIFESTS[family][0].config, _set("layer_types", ["spiral_attention"] * layers))
    assert (found.id, found.subject) == ("CONFIG_FIELD_INVALID", "layer_types")
    assert 'layer_types has "spiral_attention"' in found.reason
    assert "full_attention" in found.reason


def test_layer_types_that_are_no_list_of_texts() -> None:
    config = MANIFESTS["llama"][0].config
    for value in ("full_attention", [1, 2], {"full_attention": 1}):
        found = _one(config, _set("layer_types", value))
        assert (found.id, found.subject) == ("CONFIG_FIELD_INVALID", "layer_types")


def test_kinds_of_layers_that_transformers_5_writes_are_known() -> None:
    for family, kinds in (
        ("llama", ["full_attention"]),
        ("qwen3", ["full_attention"]),
        ("mistral", ["sliding_attention"]),
        ("gpt_oss", ["sliding_attention", "full_attention"]),
        ("qwen3_next", ["linear_attention", "linear_attention", "linear_attention", "full_attention"]),
    ):
        config = MANIFESTS[family][0].config
        listed = (kinds * config["num_hidden_layers"])[: config["num_hidden_layers"]]
        assert hf_config.check_config(_changed(config, _set("layer_types", listed))) == []


@pytest.mark.parametrize("family", MANIFESTS)
def test_a_part_of_a_head_that_no_published_model_of_the_family_rotates(family: str) -> None:
    def change(config: dict[str, Any]) -> None:
        kinds = config.get("rope_parameters") or {}
        if isinstance(kinds.get("full_attention"), Mapping):
            config["rope_parameters"] = {
                **kinds,
                "full_attention": {**kinds["full_attention"], "partial_rotary_factor": 0.625},
            }
        else:
            config["partial_rotary_factor"] = 0.625

    found = _one(MANIFESTS[family][0].config, change)
    assert found.id == "CONFIG_FIELD_INVALID"
    assert "partial_rotary_factor" in found.subject
    assert "0.625" in found.reason
