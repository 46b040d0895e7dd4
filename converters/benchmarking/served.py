"""The synthetic model as a serving platform has it: with a tokenizer, and in a catalogue of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mappings.catalog import Manifest
from mappings.serving import catalog, text
from recast_proto import model_manifest_pb2

MODEL = "synthetic"
_FAMILY = "llama"
_NAMES: Mapping[str, str] = {"bos_token": "<s>", "eos_token": "</s>"}


def make(folder: Path, checkpoint: Path) -> None:
    """Makes a directory with the files of a checkpoint, as links, and those of a tokenizer for it."""
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    folder.mkdir()
    for file in checkpoint.iterdir():
        os.link(file, folder / file.name)
    for name, content in _tokenizer(config).items():
        (folder / name).write_text(json.dumps(content) + "\n", "utf-8")


def catalogue(config: Mapping[str, Any]) -> str:
    """The text of a catalogue with the model of a config, and the embedded rules."""
    model = Manifest(
        name=MODEL,
        aliases=(),
        family=_FAMILY,
        hub_id="",
        config=config,
        config_origin="made for benchmarks",
        options={},
        checked_fields=(),
        doc="",
        location="",
    )
    return text.dump(catalog.of([model], [model_manifest_pb2.ModelManifest(import_checkpoint=True)]))


def _tokenizer(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Files of a tokenizer whose words are numbers."""
    ids = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}
    words = {f"w{number}": number for number in range(config["vocab_size"]) if number not in ids.values()}
    special = {"<s>": ids["bos_token_id"], "</s>": ids["eos_token_id"]}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [{"id": number, "content": word, "special": True} for word, number in special.items()],
            "model": {"type": "WordLevel", "vocab": {**special, **words}, "unk_token": "w0"},
        },
        "tokenizer_config.json": {**_NAMES, "tokenizer_class": "PreTrainedTokenizerFast"},
        "special_tokens_map.json": _NAMES,
        "generation_config.json": ids,
    }
