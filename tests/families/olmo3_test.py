"""OLMo 3: proven as every family is, with a rotary embedding for each kind of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mappings import catalog
from mappings.language.errors import MappingErrors
from tests.families.harness import Config, Family, FamilyTests, layout_of
from tests.oracles import olmo3 as oracle
from validators import hf_config

_SCALING = {
    "rope_type": "yarn",
    "factor": 8.0,
    "attention_factor": 1.2079441541679836,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 8192,
}
_BY_KIND = {
    "full_attention": {**_SCALING, "rope_theta": 500000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
}
# Windows are shorter than the sequence that logits are computed of.
_CONFIG: Config = {
    "model_type": "olmo3",
    "vocab_size": 96,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "sliding_window": 5,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "rope_parameters": _BY_KIND,
    "tie_word_embeddings": False,
}
_TIED: Config = {
    **{key: value for key, value in _CONFIG.items() if key not in ("num_key_value_heads", "head_dim")},
    "vocab_size": 54,
    "hidden_size": 42,
    "num_hidden_layers": 8,
    "num_attention_heads": 3,
    "tie_word_embeddings": True,
}


class TestOlmo3(FamilyTests):
    family = Family(
        folder="olmo3",
        configs={"grouped": _CONFIG, "tied": _TIED},
        oracle=oracle.to_maxtext,
        published={
            "olmo3-7b": 7_298_011_136,
            "olmo3-7b-pt": 7_298_011_136,
            "olmo3-32b": 32_233_522_176,
        },
    )


def _olmo3(**changes: Any) -> dict[str, Any]:
    manifest = catalog.find("olmo3-7b")
    assert manifest is not None
    return {**manifest.config, **changes}


def test_a_rotary_embedding_for_each_kind_of_layers_is_taken() -> None:
    config = _olmo3(rope_parameters=_BY_KIND)
    del config["rope_scaling"], config["rope_theta"]
    assert hf_config.check_config(config) == []
    assert hf_config.rope_view(config) == hf_config.rope_view(_olmo3())


def test_a_published_config_in_another_dtype_means_the_same_to_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    before = transformers.Olmo3Config(**_olmo3())
    carried = hf_config.carried_config(_olmo3(), dtype="float32")
    assert carried["dtype"] == "float32"
    assert transformers.Olmo3Config(**carried).rope_parameters == before.rope_parameters


def test_an_unknown_scaling_of_one_kind_of_layers_is_named() -> None:
    scaled = {**_BY_KIND, "full_attention": {"rope_type": "longrope", "rope_theta": 500000.0}}
    found = hf_config.check_config(_olmo3(rope_parameters=scaled, rope_scaling=None))
    assert [(fault.id, fault.subject) for fault in found] == [
        ("UNKNOWN_ROPE_TYPE", "rope_parameters.full_attention.rope_type")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10}, "multiple of 4"),
        ({"attention_bias": True}, "attention_bias"),
        ({"layer_types": ["sliding_attention"] * 12}, "every fourth layer"),
        ({"layer_types": (["full_attention"] + ["sliding_attention"] * 3) * 3}, "every fourth layer"),
        ({"layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2}, "an entry for each layer"),
        ({"rope_parameters": {**_BY_KIND, "sliding_attention": _BY_KIND["full_attention"]}}, "must be of type default"),
        ({"num_attention_heads": 7}, "multiple of num_key_value_heads"),
    ],
)
def test_a_config_that_maxtext_cannot_hold_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("olmo3", "maxtext", {**_CONFIG, **changes})
