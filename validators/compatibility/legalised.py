"""Checkpoints that were prepared for the platform already, beside models that a catalogue describes as published."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from recast_proto import model_manifest_pb2
from validators.compatibility.facts import CheckpointFacts

_TIED = "tie_word_embeddings"
_HEAD = "lm_head.weight"


def before_legalising(facts: CheckpointFacts, model: model_manifest_pb2.ModelManifest) -> CheckpointFacts:
    """A checkpoint as it was before its output head was written out; any other as it is, the very same object.

    Where the platform's graph has a head of its own, it takes one that was trained apart from the embedding as well as
    one that was written out. A config that announces a head which is not there is left as it is.

    Args:
        facts: of a checkpoint, prepared or not; without headers nothing says that the head is missing.
        model: what it is said to be; whether its head is written out stands there.
    """
    written_out = model.legalising.tied_embeddings == model_manifest_pb2.UNTIE
    headless = facts.tensors and not any(f".{name}".endswith(f".{_HEAD}") for name in facts.tensors)
    config = _tied(facts.config)
    if not written_out or headless or config == facts.config:
        return facts
    return dataclasses.replace(facts, config=config)


def _tied(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _tied(value) if isinstance(value, Mapping) else value for key, value in config.items()} | (
        {_TIED: True} if config.get(_TIED) is False else {}
    )
