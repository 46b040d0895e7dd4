"""Checkpoints that were prepared for the platform already, beside models that the catalogue describes as published."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from recast_proto import model_manifest_pb2
from validators.compatibility.facts import CheckpointFacts

_TIED = "tie_word_embeddings"


def before_legalising(facts: CheckpointFacts, model: model_manifest_pb2.ModelManifest) -> CheckpointFacts:
    """A checkpoint as it was before its output head was written out; any other as it is.

    Args:
        facts: of a checkpoint, prepared or not.
        model: what it is said to be; whether its head is written out stands there.
    """
    if model.legalising.tied_embeddings != model_manifest_pb2.UNTIE:
        return facts
    return dataclasses.replace(facts, config=_tied(facts.config))


def _tied(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _tied(value) if isinstance(value, Mapping) else value for key, value in config.items()} | (
        {_TIED: True} if config.get(_TIED) is False else {}
    )
