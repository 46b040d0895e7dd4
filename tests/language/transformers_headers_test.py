"""The `hf` layouts have the names and shapes of transformers' own classes and of the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from safetensors import safe_open

from mappings.language.family import bind_family
from mappings.language.layout import bind_layout
from mappings.language.loader import load_family, load_layout
from recast_proto import model_manifest_pb2
from tests import checkpoints

Header = dict[str, tuple[int, ...]]

MANIFESTS = [
    path
    for pattern in ("llama[23]*.textproto", "mistral-*.textproto")
    for path in sorted((Path(__file__).parents[2] / "mappings" / "manifests").glob(pattern))
]
"""Of the first families; `tests/families` checks those of all others."""


@pytest.mark.parametrize("name", checkpoints.CONFIGS)
def test_tiny_models_have_the_names_and_shapes_of_transformers(name: str) -> None:
    config = checkpoints.CONFIGS[name]
    assert _derived_header(config["model_type"], config) == _transformers_header(config)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_published_models_have_the_names_and_shapes_of_transformers(path: Path) -> None:
    manifest = text_format.Parse(path.read_text(encoding="utf-8"), model_manifest_pb2.ModelManifest())
    config = json.loads(manifest.config_json)
    assert _derived_header(manifest.family, config) == _transformers_header(config)


def test_there_are_manifests_to_check() -> None:
    assert MANIFESTS


@pytest.mark.parametrize("name", checkpoints.CONFIGS)
def test_a_directory_written_by_transformers_has_the_derived_header(tmp_path: Path, name: str) -> None:
    pytest.importorskip("transformers")
    config = checkpoints.CONFIGS[name]
    checkpoints.save_with_transformers(
        tmp_path, config, checkpoints.element_coded_llama(config, "bfloat16", seed=1), max_shard_size="40KB"
    )
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert _derived_header(written["model_type"], written) == _header_of_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "keys"),
    [("grouped", ("head_dim", "num_key_value_heads")), ("biased", ("head_dim",)), ("llama3_rope", ("head_dim",))],
)
def test_keys_that_are_null_have_the_defaults_of_transformers(name: str, keys: tuple[str, ...]) -> None:
    config = {**checkpoints.CONFIGS[name], **dict.fromkeys(keys)}
    assert _derived_header(config["model_type"], config) == _transformers_header(config)


def test_keys_that_are_missing_have_the_defaults_of_transformers() -> None:
    optional = ("head_dim", "num_key_value_heads", "tie_word_embeddings", "attention_bias", "mlp_bias")
    config = {key: value for key, value in checkpoints.CONFIGS["biased"].items() if key not in optional}
    assert _derived_header("llama", config) == _transformers_header(config)


@pytest.mark.parametrize("name", checkpoints.CONFIGS)
def test_only_a_tied_head_may_be_there_or_not(name: str) -> None:
    config = checkpoints.CONFIGS[name]
    layout = bind_layout(
        bind_family(load_family(config["model_type"]), config), load_layout(config["model_type"], "hf")
    )
    tied = {"lm_head.weight": (config["vocab_size"], config["hidden_size"])} if config["tie_word_embeddings"] else {}
    assert {array.name: tuple(array.shape) for array in layout.arrays.values() if array.optional} == tied


def test_no_tensor_of_llama_keeps_a_dtype_of_its_own() -> None:
    config = checkpoints.CONFIGS["biased"]
    layout = bind_layout(bind_family(load_family("llama"), config), load_layout("llama", "hf"))
    assert not [array.name for array in layout.arrays.values() if array.keep_dtype or array.peer_dtype]


def _derived_header(family: str, config: Mapping[str, Any]) -> Header:
    layout = bind_layout(bind_family(load_family(family), config), load_layout(family, "hf"))
    return {
        name: tuple(array.shape) for name, array in layout.arrays.items() if not array.optional and not array.mirror
    }


def _transformers_header(config: Mapping[str, Any]) -> Header:
    """Names and shapes of the model's state without the names tied to others."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config_class = transformers.CONFIG_MAPPING[config["model_type"]]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config_class.from_dict(dict(config)))
    return {
        name: tuple(values.shape)
        for name, values in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }


def _header_of_files(directory: Path) -> Header:
    header: Header = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "numpy") as opened:
            header |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}
    return header
