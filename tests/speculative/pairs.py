"""Tiny targets and drafts: models and tokenizers saved by transformers, EAGLE and Medusa heads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WORDS = ("red", "green", "blue", "one", "two", "three", "four", "five", "six", "seven")
BOS, EOS, PAD = 0, 1, 2
VOCABULARY = 96
HIDDEN = 32
DRAFT_VOCABULARY = 24
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
_SPECIAL = ("<s>", "</s>", "<pad>")

Damage = Callable[[Path], object]


def save_pair(folder: Path) -> None:
    """Saves `target` and `draft`: two Llamas of one tokenizer, the draft a fraction of the size."""
    save_model(folder / "target", hidden_size=HIDDEN, num_hidden_layers=6)
    save_model(folder / "draft", hidden_size=8, num_hidden_layers=1, intermediate_size=16, num_attention_heads=2)


def save_model(folder: Path, **sizes: Any) -> None:
    """Saves a Llama with its tokenizer, generation_config.json and chat template."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 16384,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
            "tie_word_embeddings": False,
            "dtype": "bfloat16",
            **sizes,
        }
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """Saves a tokenizer of words with an added token, as transformers does."""
    import transformers

    tokens = [*_SPECIAL, *WORDS]
    definition = {
        "version": "1.0",
        "added_tokens": [_added(tokens.index(token), token) for token in _SPECIAL] + [_added(len(tokens), "<tool>")],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "unk_token": WORDS[0],
        },
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(definition), "utf-8")
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=_SPECIAL[0],
        eos_token=_SPECIAL[1],
        pad_token=_SPECIAL[2],
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def _added(number: int, token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, "special": True, **flags}


def save_eagle3(folder: Path) -> None:
    """Saves an EAGLE-3 head for `target`, as they are published: a small vocabulary with maps, no tokenizer."""
    config = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "vocab_size": VOCABULARY,
        "draft_vocab_size": DRAFT_VOCABULARY,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 1,
        "torch_dtype": "bfloat16",
    }
    half = np.float16
    _save_head(
        folder,
        config,
        {
            "d2t": np.zeros(DRAFT_VOCABULARY, np.int64),
            "t2d": np.zeros(VOCABULARY, np.bool_),
            "fc.weight": np.zeros((HIDDEN, 3 * HIDDEN), half),
            "midlayer.self_attn.q_proj.weight": np.zeros((HIDDEN, 2 * HIDDEN), half),
            "norm.weight": np.zeros(HIDDEN, half),
            "lm_head.weight": np.zeros((DRAFT_VOCABULARY, HIDDEN), half),
        },
    )


def save_eagle(folder: Path) -> None:
    """Saves an EAGLE head for `target`, as the first ones were published: their config names a plain Llama."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 1,
        "torch_dtype": "float16",
    }
    half = np.float16
    _save_head(
        folder,
        config,
        {
            "embed_tokens.weight": np.zeros((VOCABULARY, HIDDEN), half),
            "fc.weight": np.zeros((HIDDEN, 2 * HIDDEN), half),
            "fc.bias": np.zeros(HIDDEN, half),
            "layers.0.self_attn.q_proj.weight": np.zeros((HIDDEN, HIDDEN), half),
        },
    )


def save_medusa(folder: Path, heads: int = 3) -> None:
    """Saves Medusa heads for `target`."""
    config = {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": HIDDEN,
        "vocab_size": VOCABULARY,
        "num_heads": heads,
        "torch_dtype": "bfloat16",
    }
    tensors = {}
    for head in range(heads):
        tensors[f"blocks.{head}.layers.0.weight"] = np.zeros((HIDDEN, HIDDEN), np.float16)
        tensors[f"lm_heads.{head}.weight"] = np.zeros((VOCABULARY, HIDDEN), np.float16)
    _save_head(folder, config, tensors)


def _save_head(folder: Path, config: Mapping[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(tensors, folder / "model.safetensors")


def set_json(name: str, **fields: Any) -> Damage:
    """Sets fields of a JSON file; None removes one."""

    def damage(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text("utf-8")) | fields
        left = {key: value for key, value in content.items() if value is not None}
        path.write_text(json.dumps(left), "utf-8")

    return damage


def set_config(**fields: Any) -> Damage:
    """Sets fields of config.json; None removes one."""
    return set_json("config.json", **fields)


def set_generation(**fields: Any) -> Damage:
    """Sets fields of generation_config.json; None removes one."""
    return set_json("generation_config.json", **fields)


def set_token(token: str, number: int | None) -> Damage:
    """Gives a token of the vocabulary another id, or takes it out."""

    def damage(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text("utf-8"))
        vocabulary = content["model"]["vocab"]
        if number is None:
            del vocabulary[token]
        else:
            vocabulary[token] = number
        path.write_text(json.dumps(content), "utf-8")

    return damage


def set_shape(tensor: str, *shape: int) -> Damage:
    """Gives a tensor another shape; none takes it out."""

    def damage(folder: Path) -> None:
        tensors = _load(folder)
        old = tensors.pop(tensor)
        if shape:
            tensors[tensor] = np.zeros(shape, old.dtype)
        save_file(tensors, folder / "model.safetensors")

    return damage


def remove(*names: str) -> Damage:
    """Removes files."""

    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def write(name: str, content: bytes) -> Damage:
    """Writes a file."""
    return lambda folder: (folder / name).write_bytes(content)


def all_of(*damages: Damage) -> Damage:
    """Does one after the other."""

    def damage(folder: Path) -> None:
        for each in damages:
            each(folder)

    return damage


def copy_of(pair: Path, folder: Path) -> Path:
    """A pair to change."""
    shutil.copytree(pair, folder, symlinks=True)
    return folder


def _load(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    import ml_dtypes  # noqa: F401  names bfloat16 for NumPy

    return load_file(folder / "model.safetensors")
