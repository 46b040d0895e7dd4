"""The embedded catalogue: derived from the published models, with what a platform adds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mappings import catalog as published
from mappings.language import loader
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.serving import catalog as serving
from mappings.serving import text
from recast_proto import compatibility_pb2, model_manifest_pb2

CATALOG = serving.embedded()


def _model(name: str) -> model_manifest_pb2.ModelManifest:
    model = serving.find(CATALOG, name)
    assert model is not None
    return model


def _folder(path: Path, models: str, rules: str = "") -> Path:
    (path / "rules").mkdir()
    (path / "models.textproto").write_text(f"schema_version: 1 {models}", encoding="utf-8")
    (path / "rules" / "some.textproto").write_text(rules, encoding="utf-8")
    return path


def test_every_published_model_is_there_once() -> None:
    names = [model.published_name for model in CATALOG.model]
    assert sorted(names) == [manifest.name for manifest in published.manifests()]


def test_every_family_of_the_mappings_is_there() -> None:
    assert {model.family for model in CATALOG.model} == set(loader.families())


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("llama3-1b", "meta-llama/Llama-3.2-1B"),
        ("llama3-3b", "meta-llama/Llama-3.2-3B"),
        ("llama3-8b", "meta-llama/Llama-3.1-8B"),
        ("llama3-70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("llama3-405b", "meta-llama/Llama-3.1-405B"),
        ("llama3.0-8b", "meta-llama/Meta-Llama-3-8B"),
        ("llama3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("LLAMA3-1B", "meta-llama/Llama-3.2-1B"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B"),
        ("qwen3-4b-instruct-2507", "Qwen/Qwen3-4B-Thinking-2507"),
    ],
)
def test_names_of_the_platform_and_published_names_find_their_model(name: str, hub_id: str) -> None:
    assert _model(name).hub_id == hub_id


def test_no_name_of_the_first_release_stands_for_a_later_one_that_took_its_name() -> None:
    assert serving.find(CATALOG, "llama3-8b-instruct") is None


def test_a_name_that_there_is_not_has_near_ones() -> None:
    assert serving.find(CATALOG, "llama3-7b") is None
    assert "llama3-70b" in serving.nearest(CATALOG, "llama3-7b")


def test_configs_are_those_of_the_published_models() -> None:
    for model in CATALOG.model:
        manifest = published.find(model.published_name)
        assert manifest is not None
        assert serving.config_of(model) == manifest.config


def test_a_model_states_its_static_attributes() -> None:
    stated = {entry.name: json.loads(entry.value_json) for entry in _model("llama3-8b").static_attribute}
    assert stated["num_attention_heads"] == 32
    assert stated["head_dim"] == 128
    assert stated["rope_type"] == "llama3"
    assert stated["rope_scaling"]["factor"] == 8.0
    assert stated["attention_bias"] is False
    assert "q_lora_rank" not in stated


def test_ties_are_stated_as_the_mappings_have_them() -> None:
    for model in CATALOG.model:
        stated = {entry.name: json.loads(entry.value_json) for entry in model.static_attribute}
        bound = bind_family(loader.load_family(model.family), serving.config_of(model))
        assert stated["tie_word_embeddings"] is bound.symbols.holds("tied", "here"), model.name


@pytest.mark.parametrize(
    ("hub_id", "attribute", "value"),
    [
        ("Qwen/Qwen2.5-14B", "rms_norm_eps", 1e-05),
        ("Qwen/Qwen2.5-14B-Instruct", "rms_norm_eps", 1e-06),
        ("Qwen/Qwen2.5-32B-Instruct", "rms_norm_eps", 1e-06),
        ("Qwen/Qwen2.5-72B-Instruct", "rms_norm_eps", 1e-06),
        ("moonshotai/Kimi-K2-Instruct", "rope_scaling", {"factor": 32.0}),
        ("moonshotai/Kimi-K2-Instruct-0905", "rope_scaling", {"factor": 64.0}),
        ("meta-llama/Llama-4-Scout-17B-16E", "rope_scaling", {"factor": 8.0, "high_freq_factor": 4.0}),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "rope_scaling", {"factor": 16.0, "high_freq_factor": 1.0}),
    ],
)
def test_a_hub_id_finds_the_model_whose_graph_it_has(hub_id: str, attribute: str, value: object) -> None:
    found = json.loads(next(e.value_json for e in _model(hub_id).static_attribute if e.name == attribute))
    assert found == value if not isinstance(value, dict) else found.items() >= value.items()


def test_facts_of_the_tokenizer_come_from_the_config() -> None:
    facts = _model("llama3-1b").tokenizer
    assert facts.vocabulary_size == 128256
    assert dict(facts.special_id) == {"bos_token_id": 128000, "eos_token_id": 128001}


def test_what_holds_for_all_models_a_family_and_one_model_is_laid_over_each_other() -> None:
    llama, qwen, large = _model("llama3-1b"), _model("qwen3-8b"), _model("llama3-70b")
    assert (llama.transformers.deployment, qwen.transformers.deployment) == ("4.45.1", "4.51.0")
    assert [deployment.sequence_length for deployment in llama.deployment] == [4096, 8192]
    assert [deployment.sequence_length for deployment in large.deployment][-1] == 131072
    assert llama.legalising.tied_embeddings == model_manifest_pb2.UNTIE
    assert llama.legalising.dtype == "BF16"


def test_the_platform_says_of_which_models_it_takes_checkpoints() -> None:
    assert [model.name for model in CATALOG.model if not model.import_checkpoint] == ["llama3-405b"]


def test_lengths_are_ones_that_the_model_has() -> None:
    for model in CATALOG.model:
        stated = {entry.name: json.loads(entry.value_json) for entry in model.static_attribute}
        longest = max(deployment.sequence_length for deployment in model.deployment)
        assert longest <= stated.get("max_position_embeddings", 131072), model.name


def test_rules_have_ids_of_their_own_and_say_what_they_are_for() -> None:
    ids = [rule.id for rule in CATALOG.rule]
    assert sorted(set(ids)) == sorted(ids)
    assert [rule.id for rule in CATALOG.rule if not rule.doc or not rule.step] == []


def test_one_attribute_is_stated_by_one_rule() -> None:
    over_config = [rule for rule in CATALOG.rule if rule.WhichOneof("subject") == "config_field"]
    names = [rule.config_field.attribute for rule in over_config if serving.expects_of_model(rule)]
    assert sorted(set(names)) == sorted(names)


def test_a_rule_may_be_for_some_families_or_not_for_some() -> None:
    rule = compatibility_pb2.CompatibilityRule()
    assert serving.applies_to(rule, "llama")
    rule.applies.except_family.append("llama")
    assert not serving.applies_to(rule, "llama")
    rule.applies.family.append("qwen3")
    assert serving.applies_to(rule, "qwen3")
    assert not serving.applies_to(rule, "gemma")


def test_an_entry_for_a_model_that_there_is_not_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 'model { published_name: "llama9-8b" } model { family: "marsupial" }')
    with pytest.raises(MappingErrors) as caught:
        serving.load(folder)
    assert "no published model 'llama9-8b'" in str(caught.value)
    assert "of the family 'marsupial'" in str(caught.value)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 'model { published_name: "llama2-7b" name: "gemma-2b" }')
    with pytest.raises(MappingErrors, match="two models go by the name 'gemma-2b'"):
        serving.load(folder)


def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "", 'rule {\n  id: "a"\n  moon: 1\n}')
    with pytest.raises(MappingErrors, match=r"serving/some\.textproto:3"):
        serving.load(folder)


def test_a_catalogue_of_other_models_has_the_embedded_rules_and_what_its_entries_add() -> None:
    published_one = next(manifest for manifest in published.manifests() if manifest.name == "llama3.1-8b")
    other = dataclasses.replace(published_one, name="own-8b", aliases=())
    made = serving.of([other], [model_manifest_pb2.ModelManifest(import_checkpoint=True)])
    assert [(model.name, model.import_checkpoint) for model in made.model] == [("own-8b", True)]
    assert list(made.rule) == list(CATALOG.rule)
    assert made.digest != CATALOG.digest
    assert text.parse(text.dump(made)) == made
