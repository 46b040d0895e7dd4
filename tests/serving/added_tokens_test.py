"""Tokens that tokenizer_config.json adds to tokenizer.json are counted as transformers counts them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import serving_checkpoints
from validators import tokenizer

_FLAGS = {"special": True, **dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)}


def _added(content: str) -> dict[str, Any]:
    return {"content": content, **_FLAGS}


@pytest.mark.parametrize(
    ("settings", "special_map"),
    [
        ({}, {}),
        ({"added_tokens_decoder": {"24": _added("<extra>")}}, {}),
        ({"added_tokens_decoder": {"30": _added("<z>"), "26": _added("<a>")}}, {}),
        ({"added_tokens_decoder": {"0": _added("<s>"), "3": _added("<z>")}}, {}),
        ({"pad_token": "<pad>"}, {}),
        ({"pad_token": "</s>"}, {}),
        ({"mask_token": "<mask>", "pad_token": {**_added("<pad>"), "__type": "AddedToken"}}, {}),
        ({"additional_special_tokens": ["<x>", "<y>", "<x>"]}, {}),
        ({"extra_special_tokens": {"image_token": "<image>"}}, {}),
        ({}, {"pad_token": "<pad>"}),
        ({"added_tokens_decoder": {}}, {"pad_token": "<pad>"}),
    ],
)
def test_the_map_of_tokens_is_that_of_transformers(
    settings: Mapping[str, Any], special_map: Mapping[str, Any], tmp_path: Path
) -> None:
    import transformers

    serving_checkpoints.write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **settings}), "utf-8")
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special_map), "utf-8")
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    facts, found = tokenizer.read(tmp_path)
    assert not found
    assert facts is not None
    assert facts.tokens == oracle.get_vocab()
    assert (facts.vocabulary_size, facts.token_count) == (len(oracle), len(oracle))
