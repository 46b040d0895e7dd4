"""Every name that MaxText knows a model by finds its model here, and says which checkpoint of the hub it stands for."""

from __future__ import annotations

import pytest

from converters import families
from mappings import catalog, peer_table

# MaxText's model names: those that its converters take, and those that it has a config for.
MAXTEXT_NAMES = (
    "deepseek2-16b deepseek2-236b deepseek3-671b deepseek3.2-671b deepseek4-284b "
    "gemma-2b gemma-7b gemma2-2b gemma2-9b gemma2-27b gemma3-4b gemma3-12b gemma3-27b "
    "gemma4-26b gemma4-31b gemma4-e2b gemma4-e4b "
    "gpt-oss-20b gpt-oss-120b gpt3-6b gpt3-22b gpt3-175b "
    "kimi-k2-1t "
    "llama2-7b llama2-13b llama2-70b llama3-8b llama3-70b llama3-405b "
    "llama3.1-8b llama3.1-8b-Instruct llama3.1-70b llama3.1-70b-Instruct llama3.1-405b llama3.1-405b-Instruct "
    "llama3.3-70b "
    "llama4-17b-16e llama4-17b-128e "
    "mistral-7b mixtral-8x7b mixtral-8x22b "
    "olmo3-7b olmo3-7b-pt olmo3-32b "
    "qwen2.5-1.5b qwen2.5-7b qwen2.5-14b "
    "qwen3-0.6b qwen3-1.7b qwen3-1.7b-base qwen3-4b qwen3-4b-base qwen3-4b-thinking-2507 qwen3-8b qwen3-8b-base "
    "qwen3-14b qwen3-14b-base qwen3-32b "
    "qwen3-30b-a3b qwen3-30b-a3b-base qwen3-235b-a22b qwen3-480b-a35b qwen3-coder-480b-a35b "
    "qwen3-next-80b-a3b qwen3-omni-30b-a3b qwen3-vl-2b qwen3-vl-4b qwen3-vl-30b-a3b "
    "qwen3.5-35b-a3b qwen3.5-35b-a3b-fp8 qwen3.5-397b-a17b qwen3.5-397b-a17b-fp8 "
)
"""As its own files spell them."""

LEFT_OUT = {
    "deepseek4-284b": "no mapping",
    "gemma4-e2b": "no mapping: a model with embeddings for each layer",
    "gemma4-e4b": "no mapping: a model with embeddings for each layer",
    "gpt3-6b": "its checkpoints are Pax's, not Hugging Face's",
    "gpt3-22b": "its checkpoints are Pax's, not Hugging Face's",
    "gpt3-175b": "its checkpoints are Pax's, not Hugging Face's",
    "llama3-405b": "no checkpoint was ever published under this name; llama3.1-405b has its sizes",
    "qwen3-omni-30b-a3b": "no mapping",
    "qwen3.5-35b-a3b-fp8": "MaxText keeps this one in float8, a layout of its own",
    "qwen3.5-397b-a17b-fp8": "MaxText keeps this one in float8, a layout of its own",
}
"""Names that find nothing, with the reason."""

# What MaxText's converters download for a name, where the name does not say it.
HUB_IDS = {
    "deepseek2-16b": "deepseek-ai/DeepSeek-V2-Lite",
    "deepseek3-671b": "deepseek-ai/DeepSeek-V3",
    "gemma2-9b": "google/gemma-2-9b",
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "llama3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "llama3.1-405b-instruct": "meta-llama/Llama-3.1-405B-Instruct",
    "llama2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "llama3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "gemma-3-4b-pt": "google/gemma-3-4b-pt",
    "mixtral-8x7b-instruct": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "deepseek-r1": "deepseek-ai/DeepSeek-R1",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "qwen3-1.7b-base": "Qwen/Qwen3-1.7B-Base",
    "qwen3-coder-480b-a35b": "Qwen/Qwen3-Coder-480B-A35B-Instruct",
    "qwen3-next-80b-a3b": "Qwen/Qwen3-Next-80B-A3B-Instruct",
}


@pytest.mark.parametrize("name", MAXTEXT_NAMES.split())
def test_a_name_of_maxtext_finds_its_model_in_any_case_or_is_left_out_for_a_reason(name: str) -> None:
    found = catalog.find(name)
    assert (found is None) == (name in LEFT_OUT), f"{name} finds {found.name if found else 'nothing'}"
    assert catalog.find(name.upper()) is found


def test_every_name_in_maxtexts_table_of_families_finds_its_model() -> None:
    for row in peer_table.ROWS:
        for name in row.sizes.values():
            found = catalog.find(name)
            assert found is not None, name
            assert found.name == name


@pytest.mark.parametrize(("name", "hub_id"), HUB_IDS.items())
def test_a_name_stands_for_the_checkpoint_that_is_published_under_it(name: str, hub_id: str) -> None:
    assert catalog.hub_ids_of(name) == (hub_id,)


def test_every_published_name_and_every_hub_id_stands_for_one_checkpoint() -> None:
    for manifest in catalog.manifests():
        assert catalog.hub_ids_of(manifest.name) == (manifest.hub_id,)
        for name in (name for name in manifest.names if "/" in name):
            assert catalog.hub_ids_of(name) == (name,)


def test_an_alias_of_another_checkpoint_never_stands_for_the_main_one() -> None:
    """A tuned model has the sizes of its base, so that a wrong checkpoint would convert without a word."""
    for manifest in catalog.manifests():
        for name in manifest.aliases:
            ends = name.lower().rsplit("-", 1)[-1]
            if ends in ("instruct", "it", "chat", "base", "pt", "thinking"):
                (*others,) = catalog.hub_ids_of(name)
                assert all(ends in hub_id.lower() for hub_id in others) or len(others) > 1, (name, others)


def test_an_unknown_name_stands_for_nothing() -> None:
    assert catalog.hub_ids_of("llama9-8b") == ()


def test_the_list_of_models_has_every_name_with_its_hub_ids() -> None:
    listed = {entry["name"]: entry for entry in families.models()}
    assert listed.keys() == {manifest.name for manifest in catalog.manifests()}
    assert listed["llama3.1-8b"]["hub_ids"]["llama3.1-8b-instruct"] == ["meta-llama/Llama-3.1-8B-Instruct"]
    assert listed["mistral-7b-v0.2"]["aliases"][0] == "mistral-7b"
