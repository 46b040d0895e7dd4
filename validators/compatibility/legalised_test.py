"""Checkpoints whose output head is written out already."""

from __future__ import annotations

from typing import Any

import pytest

from recast_proto import model_manifest_pb2
from validators.compatibility.facts import CheckpointFacts, TensorInfo
from validators.compatibility.legalised import before_legalising

_EMBEDDING = {"model.embed_tokens.weight": TensorInfo((24, 32), "BF16")}
_WITH_HEAD = {**_EMBEDDING, "lm_head.weight": TensorInfo((24, 32), "BF16")}
_UNTIED = {"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": False, "hidden_size": 32}}
_TIED = {"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": True, "hidden_size": 32}}


def _facts(config: dict[str, Any], tensors: dict[str, TensorInfo]) -> CheckpointFacts:
    return CheckpointFacts(config, tensors, {})


def _model(head: model_manifest_pb2.TiedEmbeddings) -> model_manifest_pb2.ModelManifest:
    return model_manifest_pb2.ModelManifest(legalising=model_manifest_pb2.Legalising(tied_embeddings=head))


UNTIE, KEEP = _model(model_manifest_pb2.UNTIE), _model(model_manifest_pb2.KEEP_TIED)


@pytest.mark.parametrize("tensors", [_WITH_HEAD, {"language_model.lm_head.weight": TensorInfo((24, 32), "BF16")}, {}])
def test_a_head_that_is_written_out_counts_as_tied_wherever_the_config_says_so(tensors: dict[str, TensorInfo]) -> None:
    before = _facts(_UNTIED, tensors)
    assert before_legalising(before, UNTIE).config == _TIED
    assert before.config == _UNTIED


def test_a_model_that_stays_tied_is_looked_at_as_it_is() -> None:
    facts = _facts(_UNTIED, _WITH_HEAD)
    assert before_legalising(facts, KEEP) is facts
    assert before_legalising(facts, model_manifest_pb2.ModelManifest()) is facts


@pytest.mark.parametrize("config", [_TIED, {}, {"tie_word_embeddings": "false"}])
def test_a_config_that_says_nothing_of_a_head_of_its_own_is_left_as_it_is(config: dict[str, Any]) -> None:
    facts = _facts(config, _WITH_HEAD)
    assert before_legalising(facts, UNTIE) is facts


def test_a_head_that_is_not_there_was_not_written_out() -> None:
    facts = _facts(_UNTIED, {**_EMBEDDING, "model.not_lm_head.weight": TensorInfo((24, 32), "BF16")})
    assert before_legalising(facts, UNTIE) is facts
