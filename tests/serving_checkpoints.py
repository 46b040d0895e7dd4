"""A catalogue of tiny models as a serving platform has them, and checkpoints of them to prepare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from converters.engine import binding
from converters.formats.base import TensorInfo
from converters.formats.safetensors_shards import plan_shards
from mappings.serving import catalog as catalogs
from mappings.serving import text
from recast_proto import model_manifest_pb2
from tests.checkpoints import Arrays, dtype_of, llama_shapes, write_safetensors

VOCABULARY = 24
TIED, PLAIN, CLOSED, KEPT = "llama3-1b", "llama3-8b", "llama3-70b", "llama3-3b"

CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 128,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.1",
    "use_cache": True,
    "vocab_size": VOCABULARY,
}
"""Of the model PLAIN. TIED and KEPT differ in tie_word_embeddings alone."""

TIED_CONFIG: Mapping[str, Any] = {**CONFIG, "tie_word_embeddings": True}


def catalogue(path: Path, sizes: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> Path:
    """Writes a catalogue with the embedded rules and tiny models.

    Args:
        path: of the file.
        sizes: fields of the models' configs in place of the tiny ones.
        changes: fields of all its models.
    """
    config, tied = {**CONFIG, **sizes}, {**TIED_CONFIG, **sizes}
    found = catalogs.embedded()
    made = type(found)()
    made.CopyFrom(found)
    del made.model[:]
    untie, keep = model_manifest_pb2.UNTIE, model_manifest_pb2.KEEP_TIED
    made.model.extend(
        (
            _model(TIED, tied, head=untie, **changes),
            _model(PLAIN, config, **changes),
            _model(KEPT, tied, head=keep, **changes),
            _model(CLOSED, config, import_checkpoint=False, **changes),
        )
    )
    made.provenance.source = "tiny"
    path.write_text(text.dump(text.sealed(made)), "utf-8")
    return path


def write(directory: Path, config: Mapping[str, Any] = CONFIG, dtype: str = "bfloat16", **fields: Any) -> Path:
    """A checkpoint with everything that a platform asks for; `fields` replace those of its config."""
    described = {**config, **fields}
    write_safetensors(directory, tensors(described, dtype), described)
    (directory / "config.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    write_tokenizer(directory)
    return directory


def write_published(directory: Path, name: str, **fields: Any) -> Path:
    """A checkpoint with the config and the headers of a model of the embedded catalogue, its data all holes."""
    model = catalogs.find(catalogs.embedded(), name)
    assert model is not None
    directory.mkdir(parents=True)
    config = {**catalogs.config_of(model), **fields}
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    write_tokenizer(directory)
    layout = binding.layout_for(binding.family_for(model.family, config), model.family, "hf", {})
    shapes = layout.header(optional=False, mirrors=False)
    infos = [TensorInfo(tensor, shape, "bfloat16") for tensor, shape in shapes.items()]
    for shard in plan_shards(infos, 1 << 62, {"format": "pt"}):
        with open(directory / shard.file, "wb") as file:
            file.write(shard.header)
            file.truncate(shard.size)
    return directory


def tensors(config: Mapping[str, Any], dtype: str = "bfloat16") -> Arrays:
    """Small random weights, with which logits are of a usual size."""
    generator = np.random.default_rng(11)
    return {
        name: (generator.standard_normal(shape) * 0.2).astype(dtype_of(dtype))
        for name, shape in llama_shapes(config).items()
    }


def write_tokenizer(directory: Path, tokens: int = VOCABULARY) -> None:
    """Tokenizer files of a vocabulary of so many words, and a generation_config.json."""
    vocabulary = {"<s>": 0, "</s>": 1, **{f"w{number}": number for number in range(2, tokens)}}
    special = [_added(number, content) for content, number in list(vocabulary.items())[:2]]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w2"},
    }
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    files: dict[str, Any] = {
        "tokenizer.json": content,
        "tokenizer_config.json": {**names, "tokenizer_class": "PreTrainedTokenizerFast"},
        "special_tokens_map.json": names,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1, "transformers_version": "4.45.1"},
    }
    for name, said in files.items():
        (directory / name).write_text(json.dumps(said, indent=2) + "\n", "utf-8")


def _added(number: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def _model(
    name: str,
    config: Mapping[str, Any],
    *,
    head: model_manifest_pb2.TiedEmbeddings = model_manifest_pb2.TIED_EMBEDDINGS_UNSPECIFIED,
    import_checkpoint: bool = True,
    **changes: Any,
) -> model_manifest_pb2.ModelManifest:
    attributes = catalogs.static_attributes(catalogs.embedded().rule, config, "llama")
    own = {key: value for key, value in config.items() if key != "transformers_version"}
    model = model_manifest_pb2.ModelManifest(
        name=name,
        family="llama",
        hub_id=f"tiny/{name}",
        config_json=json.dumps(own, sort_keys=True),
        config_origin="made for tests",
        architecture=config["architectures"],
        static_attribute=[
            model_manifest_pb2.StaticAttribute(name=key, value_json=json.dumps(value, sort_keys=True))
            for key, value in attributes.items()
        ],
        tokenizer=model_manifest_pb2.TokenizerFacts(vocabulary_size=config["vocab_size"]),
        transformers=model_manifest_pb2.TransformersVersions(supported="<=4.45.1", deployment="4.45.1"),
        deployment=[model_manifest_pb2.Deployment(sequence_length=512, batch_size=[1, 2])],
        import_checkpoint=import_checkpoint,
        legalising=model_manifest_pb2.Legalising(dtype="BF16", tied_embeddings=head),
    )
    model.MergeFrom(model_manifest_pb2.ModelManifest(**changes))
    return model
